"""``train.py`` with one more architecture, small enough for tests of whole processes."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

import mindspore
import typer

from xcit_hub import variants
from xcit_hub.cli import run
from xcit_hub.cli.train import SETTINGS, train

MINI = "xcit_mini_2_p16_64"
LEAST = "xcit_least_1_p16_64"


def mini() -> variants.Architecture:
    """Two blocks of nano's width: everything that nano has, six times quicker to compile."""
    return dataclasses.replace(variants.ARCHITECTURES["xcit_nano_12_p16_224"], name=MINI, depth=2, image_size=64)


def least() -> variants.Architecture:
    """A block of each kind, for graphs of operations that take seconds a block to compile."""
    return dataclasses.replace(mini(), name=LEAST, depth=1, cls_attn_layers=1)


def brief() -> variants.Architecture:
    """The same with one block of class attention, of which a graph takes seconds more for each."""
    return dataclasses.replace(mini(), name="xcit_brief_2_p16_64", cls_attn_layers=1)


def register() -> None:
    """Put the least of them into the table; and compute operator by operator, see conftest.py."""
    mindspore.set_context(pynative_synchronize=True)
    variants.ARCHITECTURES[LEAST] = least()


def as_command() -> NoReturn:
    """Do what ``train.py`` does, and end the process as it does."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings=SETTINGS)(train)
    run(app)


if __name__ == "__main__":
    register()
    as_command()
