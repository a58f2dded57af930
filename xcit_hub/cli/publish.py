"""``xcit-hub publish|whoami``: from a checkpoint to a hub, and as whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xcit_hub.cli.shared import AsJson, Dialect, TokenEnv, console, print_notes, short, token_in, working

if TYPE_CHECKING:
    from xcit_hub.hub.publish import PartlyPublishedError, Publication


def publish(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of any family and format.")],
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Both: the organisation or user, and the model.")],
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="hugging-face, modelers, modelscope, gitcode, FOLDER or mindspore-hub:FOLDER; by default this "
            "machine's folder hub. Given again: several hubs at once, from one proof."
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="run.json: what training and evaluation measured.")] = None,
    meta: Annotated[Path | None, typer.Option(help="card.yaml: what nobody can measure.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch of its own; created if need be.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files, hashes and card; send nothing.")] = False,
    model: Annotated[str | None, typer.Option(help="The architecture, where the tensors fit two.")] = None,
    dialect: Dialect = None,
    labels: Annotated[
        str | None, typer.Option(help="A file with the classes' names, one on each line; or imagenet-1k.")
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take a training checkpoint's averaged weights.")] = False,
    parity: Annotated[
        bool, typer.Option("--parity/--no-parity", help="Prove the weights against PyTorch (needs the timm extra).")
    ] = True,
    also: Annotated[str | None, typer.Option(help="Exports to publish beside the weights: onnx,mindir.")] = None,
    token_env: TokenEnv = None,
    as_json: AsJson = False,
) -> None:
    """Prove a checkpoint, describe it, and publish everything in one commit. Unchanged content makes none.

    Examples:

        xcit-hub publish tiny.ckpt me/xcit-tiny --to ./my-hub

        xcit-hub publish tiny.ckpt me/xcit-tiny --to hugging-face --run run.json --meta card.yaml --dry-run

        xcit-hub publish tiny.ckpt me/xcit-tiny --to modelers --to modelscope --to hugging-face

        xcit-hub publish tiny.ckpt me/xcit-tiny --to ./my-hub --also onnx,mindir

        xcit-hub publish tiny.ckpt me/xcit_tiny --to mindspore-hub:../hub --meta card.yaml
    """
    from xcit_hub.hub.publish import PartlyPublishedError, publish_to

    failed: PartlyPublishedError | None = None
    with working("publishing") as show:
        try:
            published = publish_to(
                checkpoint, name, to or [None],
                run=run, meta=meta, private=private, revision=revision, create_pr=create_pr, dry_run=dry_run,
                model=model, dialect=dialect, labels=labels, ema=ema,
                parity=parity, also=[kind.strip() for kind in also.split(",")] if also is not None else (),
                token=token_in(token_env), on_stage=show,
            )  # fmt: skip
        except PartlyPublishedError as error:
            published, failed = list(error.done), error
    if as_json:
        records = [each.as_dict() for each in published]
        if failed is not None:
            records += [{"address": place, "error": error.what} for place, error in failed.failed.items()]
        typer.echo(json.dumps(records[0] if len(to or ()) < 2 else records, ensure_ascii=False, indent=2))
    else:
        for done in published:
            _print(done)
        if len(to or ()) > 1:
            _print_table(published, failed)
    if failed is not None:
        raise failed


def _print(done: Publication) -> None:
    from rich.table import Table

    out = console()
    table = Table("file", "bytes", "sha256", box=None)
    for file in done.files:
        table.add_row(file.path, f"{file.size:,}", short(file.sha256))
    if done.dry_run:
        out.print(done.card, markup=False)
        out.print()
    out.print(table)
    print_notes(done.notes)
    for path in done.repaired:
        out.print(f"repaired: {path} was damaged where it is kept, and is whole again", style="yellow", markup=False)
    for path in done.removed:
        words = "would go: it is" if done.dry_run else "is gone: it was"
        out.print(f"removed: {path} {words} an earlier publication's", style="yellow", markup=False)
    out.print(f"{_verdict(done)}  {done.url}" + (f"  revision {done.revision}" if done.revision else ""))
    if done.parity is None:
        out.print("not proven against PyTorch; the card says so", style="yellow")
    for number, step in enumerate(done.todo, 1):
        out.print(f"{number}. {step}", markup=False)


def _print_table(published: list[Publication], failed: PartlyPublishedError | None) -> None:
    from rich.table import Table

    table = Table("hub", "what happened", "revision", "files", "bytes", "page", box=None)
    for done in published:
        size = sum(file.size for file in done.files)
        table.add_row(done.address, _verdict(done), short(done.revision), str(len(done.files)), f"{size:,}", done.url)
    for place in failed.failed if failed is not None else ():
        table.add_row(place, "failed", "", "", "", "")
    console().print(table)


def _verdict(done: Publication) -> str:
    if done.dry_run:
        return "not published: --dry-run"
    return "published" if done.changed else "unchanged: no commit made"


def whoami(
    endpoint: Annotated[str | None, typer.Option(help="HF_ENDPOINT, or https://huggingface.co.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say whose token huggingface_hub's login or HF_TOKEN holds.

    Examples:

        xcit-hub whoami
    """
    from xcit_hub.hub.stores.hugging_face import whoami as ask

    found = ask(endpoint)
    if as_json:
        typer.echo(json.dumps(found))
        return
    groups = f", member of {', '.join(found['orgs'])}" if found["orgs"] else ""
    typer.echo(f"{found['name']}{groups} ({found['endpoint']}, token may {found['role'] or 'read'})")
