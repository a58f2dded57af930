"""``train.py`` with one more architecture, small enough for tests of whole processes."""

from __future__ import annotations

import dataclasses

import typer

from xcit_hub import variants
from xcit_hub.cli import run
from xcit_hub.cli.train import SETTINGS, train

MINI = "xcit_mini_2_p16_64"


def register() -> None:
    nano = variants.ARCHITECTURES["xcit_nano_12_p16_224"]
    variants.ARCHITECTURES[MINI] = dataclasses.replace(nano, name=MINI, depth=2, image_size=64)


if __name__ == "__main__":
    register()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings=SETTINGS)(train)
    run(app)
