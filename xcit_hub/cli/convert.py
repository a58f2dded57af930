"""``xcit-hub convert`` and ``xcit-hub inspect``: checkpoints from any family and format into any other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from converters.command import (
    Dialect,
    Dtype,
    Ema,
    InChans,
    Model,
    NumClasses,
    Prefix,
    ReportFile,
    Select,
    Verify,
    convert_file,
    convert_folder,
    inspect,
)
from xcit_hub.cli.shared import refuse_without
from xcit_hub.variants import Family

__all__ = ["convert", "inspect"]


def convert(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SRC", help="A file, a timm name, or with --all a folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help=".safetensors, .ckpt or .pth; with --all a folder.")],
    to: Annotated[Family, typer.Option(help="Whose names and layout to write.")] = "xcit-hub",
    model: Model = None,
    dialect: Dialect = None,
    ema: Ema = False,
    select: Select = None,
    prefix: Prefix = None,
    num_classes: NumClasses = None,
    in_chans: InChans = None,
    dtype: Dtype = None,
    verify: Verify = None,
    report: ReportFile = None,
    every: Annotated[bool, typer.Option("--all", help="Convert every checkpoint of a folder.")] = False,
    suffix: Annotated[
        Literal[".safetensors", ".ckpt", ".pth"], typer.Option(help="With --all: the format to write.")
    ] = ".safetensors",
) -> None:
    """Convert a checkpoint from whatever family and format it has. Exits 1 if verifying fails, 2 if it cannot be done.

    Examples:

        xcit-hub convert xcit_tiny_12_p16_224-bd90776e-910v2.ckpt tiny.safetensors

        xcit-hub convert xcit_small_12_p8_224.pth small.ckpt --dtype float16

        xcit-hub convert mine.ckpt mine.safetensors --to timm --report mine.json

        xcit-hub convert --all downloads/ converted/ --suffix .ckpt
    """
    from converters.convert import Options

    refuse_without("--all", every, context, "suffix")
    options = Options(
        to=to,
        model=model,
        dialect=dialect,
        ema=ema,
        select=select,
        prefix=prefix,
        num_classes=num_classes,
        in_chans=in_chans,
        dtype=dtype,
    )
    if every:
        convert_folder(Path(source), target, options, suffix, verify, report)
    else:
        convert_file(source, target, options, verify, report)
