"""``xcit-hub serve``: a small HTTP server that takes images and answers classes."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from xcit_hub.cli.shared import CacheDir, Dialect, Hub, IgnoreField, Offline, Revision, print_notes, working
from xcit_hub.errors import XcitHubError

_MOST_CONNECTIONS = 1024  # one more is answered with 503


def serve(
    model_id: Annotated[str, typer.Argument(metavar="ID", help="What `xcit-hub load` takes.")],
    revision: Revision = None,
    hub: Hub = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    dialect: Dialect = None,
    ignore_field: IgnoreField = None,
    host: Annotated[str, typer.Option(help="The address to listen on; this machine alone by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Images computed together, at most.")] = 16,
    top: Annotated[
        int | None, typer.Option(min=1, help="Classes in an answer; 5, or all where there are fewer.")
    ] = None,
) -> None:
    """Answer images sent by POST to /classify; / is a page to drop one on, /health and /metrics tell how it is.

    Examples:

        xcit-hub serve timm/xcit_tiny_12_p16_224.fb_in1k

        curl --data-binary @cat.jpg http://127.0.0.1:8000/classify
    """
    from xcit_hub.serve.listening import check

    check(host, port)
    import uvicorn

    from xcit_hub.hub.load import load
    from xcit_hub.serve.app import application, served

    with working("loading"):
        network = load(
            model_id,
            revision,
            hub=hub,
            cache_dir=cache_dir,
            offline=offline,
            dialect=dialect,
            ignore_fields=ignore_field or (),
        )
        app = application(served(model_id, network, top=top), largest_batch=batch)
    print_notes((*network.config.provenance.notes, *_unused_variables()), stderr=True)
    try:
        uvicorn.run(app, host=host, port=port, log_level="info", limit_concurrency=_MOST_CONNECTIONS, workers=1)
    except SystemExit as error:  # it has logged why
        if error.code:
            raise XcitHubError(
                "The server did not start.", where=f"{host}:{port}", fix="See what uvicorn says above."
            ) from None


def _unused_variables() -> tuple[str, ...]:
    # uvicorn would start as many processes, which cannot share one network.
    return ("WEB_CONCURRENCY has no effect: one process answers.",) if os.environ.get("WEB_CONCURRENCY") else ()
