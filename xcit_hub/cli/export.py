"""``xcit-hub export``: a model as a file that runs where MindSpore and torch are not installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from xcit_hub.cli.shared import (
    AsJson,
    CacheDir,
    Dialect,
    Hub,
    IgnoreField,
    Offline,
    Revision,
    console,
    print_notes,
    working,
)

_LONGEST_SIDE = 5  # digits


def _indices(text: str | None) -> tuple[int, ...]:
    from xcit_hub.errors import InputError

    try:
        return () if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--features {text!r:.60} is not a list of blocks.", where="--features", fix="Write --features 3,5,7,11."
        ) from None


def _size(text: str | None) -> tuple[int, int] | None:
    from xcit_hub.errors import InputError

    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and len(side) <= _LONGEST_SIDE for side in sides):
        raise InputError(
            f"--image-size {text!r:.40} is not a size.",
            where="--image-size",
            fix="Write --image-size 224 or 384x512 (height, width).",
        )
    return int(sides[0]), int(sides[-1])


@contextmanager
def _reporting(report: Path | None) -> Iterator[None]:
    """Write into the report, too, why there is no file: an earlier one would be taken for today's."""
    from xcit_hub.errors import XcitHubError
    from xcit_hub.files import write_text

    try:
        yield
    except XcitHubError as error:
        if report is not None:
            with suppress(XcitHubError):  # what went wrong first is what is said
                write_text(report, json.dumps(error.as_dict(), indent=2) + "\n")
        raise


def export(
    source: Annotated[str, typer.Argument(metavar="ID|CHECKPOINT", help="What `xcit-hub load` takes.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .onnx or .mindir.")],
    revision: Revision = None,
    hub: Hub = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    dialect: Dialect = None,
    ignore_field: IgnoreField = None,
    features: Annotated[str | None, typer.Option(help="Maps of these blocks instead of logits: 3,5,7,11.")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Pooled features instead of logits.")] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Class attention and XCA's channel maps beside the logits.")
    ] = False,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Of the weights in the file.")] = "float32",
    int8: Annotated[Path | None, typer.Option(help="Compute in int8, calibrated on this folder of images.")] = None,
    with_preprocessing: Annotated[
        bool, typer.Option("--with-preprocessing", help="Take uint8 (B, H, W, C); scale and normalise in the graph.")
    ] = False,
    image_size: Annotated[str | None, typer.Option(help="Fix the sides in pixels: 224 or 384x512.")] = None,
    batch: Annotated[int | None, typer.Option(help="Fix the batch.")] = None,
    opset: Annotated[int, typer.Option(help="ONNX's operators, 17 or later.")] = 18,
    fuse: Annotated[
        bool | None,
        typer.Option("--fuse/--plain", help="Fold what is constant into the weights; .onnx has it by default."),
    ] = None,
    proof: Annotated[
        bool, typer.Option("--proof/--no-proof", help="Run the file and judge it before it is kept.")
    ] = True,
    report: Annotated[Path | None, typer.Option(help="Write what was done and proven, as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model as ONNX or MINDIR, run the file, and keep it if it computes what the model does.

    Exits 1 where it does not, and leaves no file.

    Examples:

        xcit-hub export timm/xcit_tiny_12_p16_224.fb_in1k xcit.onnx

        xcit-hub export best.ckpt xcit.mindir --image-size 224

        xcit-hub export best.ckpt small.onnx --int8 ./calibration --report small.json
    """
    from xcit_hub.deploy import export as write
    from xcit_hub.errors import DifferenceError
    from xcit_hub.files import check_outputs, write_text
    from xcit_hub.process import say

    check_outputs({"OUT": target, "--report": report}, [source])
    try:
        with _reporting(report), working("exporting") as show:
            blocks, size = _indices(features), _size(image_size)
            done = write(
                source,
                target,
                revision=revision,
                hub=hub,
                cache_dir=cache_dir,
                offline=offline,
                dialect=dialect,
                ignore_fields=ignore_field or (),
                features=blocks,
                headless=headless,
                attention=attention,
                dtype=dtype,
                int8=int8,
                with_preprocessing=with_preprocessing,
                image_size=size,
                batch=batch,
                opset=opset,
                fuse=fuse,
                proof=proof,
                stage=show,
            )
    except DifferenceError as error:
        say(error)
        raise typer.Exit(1) from None
    record = json.dumps(done.as_dict(), indent=2, default=str)  # ASCII: a path may hold bytes that are no text
    if report is not None:
        write_text(report, record + "\n")
    if as_json:
        typer.echo(record)
        return
    out = console()
    for file in done.files:
        out.print(f"{file}  {file.stat().st_size:,} bytes", markup=False)
    out.print(f"sha256 {done.sha256}")
    for found in done.proofs:
        shapes = ", ".join("×".join(map(str, shape)) for shape in found["shapes"])
        out.print(f"proven with {found['runtime']} at {shapes}", markup=False)
    print_notes(done.notes)
    print_notes(tuple(f"not proven with {runtime}: {reason}" for runtime, reason in done.not_proven.items()))
