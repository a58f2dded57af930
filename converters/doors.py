"""What ``python -m converters.timm2ms`` and its siblings share. Nothing else imports the doors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

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
)
from xcit_hub.process import run
from xcit_hub.variants import Family

Source = Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint: .safetensors, .ckpt, .pth, .pt or .bin.")]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .safetensors, .ckpt or .pth.")]


def open_door(family: Family, to: Family, example: str) -> NoReturn:
    """Run the command that converts one family's checkpoints to one other's, and end the process.

    Args:
        family: whose files it takes; another's are refused.
        to: whose it writes.
        example: a command line for ``--help``.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

    @app.command(help=f"Convert a checkpoint from {family} to {to}.\n\nExample:\n\n    {example}")
    def convert(
        source: Source,
        target: Target,
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
    ) -> None:
        from converters.convert import Options

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
            family=family,
        )
        convert_file(source, target, options, verify, report)

    run(app)
