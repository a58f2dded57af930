"""``xcit-hub list|info|load``: what is on the hubs, and what it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xcit_hub.cli.shared import (
    AsJson,
    CacheDir,
    Dialect,
    Hub,
    IgnoreField,
    Offline,
    Revision,
    TokenEnv,
    console,
    print_notes,
    refuse_without,
    short,
    token_in,
    working,
)

if TYPE_CHECKING:
    from rich.table import Table

    from xcit_hub.hub.config import ModelConfig

_VERIFIED = {
    "full": "in full",
    "prefix": "by its published prefix",
    "none": "against nothing: nothing says what bytes this file should have",
}
_UNVERIFIED = "nothing says what bytes this file should have, so its SHA-256 was verified against nothing"


def list_models(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as 'xcit_tiny*'.")] = "*",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Published checkpoints, not architectures.")] = False,
    hub: Hub = None,
    as_json: AsJson = False,
) -> None:
    """List architectures, published checkpoints, or what a hub holds.

    Examples:

        xcit-hub list 'xcit_tiny*' --pretrained

        xcit-hub list --hub ./my-hub

        xcit-hub list --hub modelscope://my-org
    """
    from fnmatch import fnmatchcase

    from xcit_hub import variants
    from xcit_hub.errors import InputError
    from xcit_hub.hub.locate import list_hub

    if hub is not None and pretrained:
        raise InputError("--pretrained is of the table, and --hub of a hub.", where="xcit-hub list", fix="Give one.")
    if hub is not None:
        names = [name for name in list_hub(hub) if fnmatchcase(name, pattern)]
    else:
        names = variants.list_models(pattern, pretrained=pretrained)
    if as_json:
        typer.echo(json.dumps(names))
    elif not names:
        print_notes((_none(pattern, hub, pretrained),), stderr=True)
    elif hub is None and pretrained:
        console().print(_checkpoints(names))
    else:
        typer.echo("\n".join(names))


def info(
    model_id: Annotated[str, typer.Argument(metavar="ID", help="org/name, a table's name, a path or an address.")],
    revision: Revision = None,
    hub: Hub = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    token_env: TokenEnv = None,
    ignore_field: IgnoreField = None,
    as_json: AsJson = False,
) -> None:
    """Say what an id means and what is there. Fetches no weights.

    Examples:

        xcit-hub info xcit_tiny_12_p16_224.fb_in1k

        xcit-hub info mindspore/xcit_tiny_12_p16_224 --json
    """
    from xcit_hub.hub.locate import info as describe

    found = describe(
        model_id,
        revision,
        hub=hub,
        cache_dir=cache_dir,
        offline=offline,
        token=token_in(token_env),
        ignore_fields=ignore_field or (),
    )
    if as_json:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False, indent=2))
        return
    from rich.table import Table

    out = console()
    table = Table(show_header=False, box=None)
    table.add_row("address", found.address)
    table.add_row("origin", found.origin)
    table.add_row("revision", found.revision or "none: no history is kept there")
    for name, value in _facts(found.config):
        table.add_row(name, value)
    out.print(table)
    files = Table("file", "bytes", "digest", box=None)
    for path, (size, digest) in found.files.items():
        mark = " ← weights" if path == found.weights else ""
        files.add_row(path + mark, "?" if size is None else f"{size:,}", short(digest))
    out.print(files)
    for path in found.damaged:
        out.print(f"damaged: {path}: not the bytes that were published; publish it again", style="red", markup=False)
    for name, reason in found.unused.items():
        out.print(f"unused: {name}: {reason}", markup=False)
    print_notes(found.notes)


def load(
    context: typer.Context,
    model_id: Annotated[str, typer.Argument(metavar="ID", help="org/name, a table's name, a path or an address.")],
    revision: Revision = None,
    hub: Hub = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    token_env: TokenEnv = None,
    image: Annotated[Path | None, typer.Option(help="Classify this image and print the five best classes.")] = None,
    exif: Annotated[bool, typer.Option("--exif", help="Turn the image as its EXIF orientation says.")] = False,
    dialect: Dialect = None,
    model: Annotated[
        str | None, typer.Option(help="The architecture of a bare file, where several have its tensors.")
    ] = None,
    select: Annotated[str | None, typer.Option(help="Which of several networks in the file: teacher.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Under which prefix exactly the network is.")] = None,
    ignore_field: IgnoreField = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a model, check its hash, load it strictly, and say what it is; with --image, use it.

    Examples:

        xcit-hub load xcit_tiny_12_p16_224.fb_in1k --image cat.jpg

        xcit-hub load org/name --hub ./my-hub --json
    """
    from xcit_hub.hub.load import load as load_model
    from xcit_hub.prediction import predict

    refuse_without("--image", image, context, "exif")
    with working("loading"):
        network = load_model(
            model_id,
            revision,
            hub=hub,
            cache_dir=cache_dir,
            offline=offline,
            token=token_in(token_env),
            dialect=dialect,
            model=model,
            select=select,
            prefix=prefix,
            ignore_fields=ignore_field or (),
        )
        best = predict(network, image, exif=exif) if image is not None else []
    source = network.config.provenance
    if as_json:
        if source.verified == "none":
            print_notes((_UNVERIFIED,), stderr=True)
        record = {
            "id": model_id,
            "architecture": network.config.architecture,
            "dialect": network.config.dialect,
            "num_classes": network.config.num_classes,
            "source": source.source,
            "revision": source.revision,
            "sha256": source.sha256,
            "verified": source.verified,
            "notes": list(source.notes),
            "classes": [{"class": each.label, "share": each.probability} for each in best],
        }
        typer.echo(json.dumps(record, ensure_ascii=False, indent=2))
        return
    out = console()
    verified = _VERIFIED[source.verified]
    out.print(f"{network.config.architecture}, {network.config.dialect} dialect, from {source.source}")
    out.print(f"sha256 {source.sha256}, verified {verified}")
    print_notes(source.notes)
    for each in best:
        out.print(f"{each.probability:7.1%}  {each.label}")


def _none(pattern: str, hub: str | None, pretrained: bool) -> str:
    from xcit_hub import variants
    from xcit_hub.errors import closest

    kind = "XCiT model" if hub is not None else "published checkpoint" if pretrained else "architecture"
    place = f" in {hub}" if hub is not None else ""
    if pattern == "*":
        return f"there is no {kind}{place}"
    known = variants.list_models(pretrained=pretrained) if hub is None else []
    meant = closest(pattern.strip("*"), known)
    return f"no {kind}{place} matches {pattern!r}" + (f"; {meant}" if meant else "")


def _checkpoints(names: list[str]) -> Table:
    from rich.table import Table

    from xcit_hub.variants import CHECKPOINTS

    table = Table("checkpoint", "dialect", "input", "figure", "source", box=None)
    for name in names:
        entry = CHECKPOINTS[name]
        accuracy = [f"top-1 {figure.top1:.2f}" for figure in entry.accuracies[:1]]
        figure = (accuracy or [f"{measure.name} {measure.value:g}" for measure in entry.measures])[0]
        table.add_row(name, entry.dialect, str(entry.preprocessing.image_size), figure, entry.repository or entry.url)
    return table


def _facts(config: ModelConfig | None) -> list[tuple[str, str]]:
    if config is None:
        return [("description", "none: the tensors will say")]
    shape = config.preprocessing
    return [
        ("architecture", config.architecture),
        ("dialect", config.dialect),
        ("classes", f"{config.num_classes}" + (f", first {config.labels[0]!r}" if config.labels else "")),
        ("input", f"{config.in_chans}×{shape.size[0]}×{shape.size[1]}, crop {shape.crop_pct:g} {shape.crop_mode}"),
    ]
