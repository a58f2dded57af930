"""``xcit-hub``: the command line. One file a group of commands; each parses, calls, prints, and holds no logic."""

from __future__ import annotations

from typing import NoReturn

from xcit_hub.process import run

__all__ = ["main", "run"]


def main() -> NoReturn:
    """Entry point of the ``xcit-hub`` script."""
    from xcit_hub.cli.app import app

    run(app)
