"""Where a measurement goes: the terminal, and a JSON file whose place is looked at before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from xcit_hub.errors import InputError
from xcit_hub.files import write_text

_WIDTH_OF_FILES = 180  # columns of a table that goes to no terminal


def check_folder(target: Path | None) -> None:
    """Refuse a file that could not be written because its folder is missing.

    Raises:
        InputError: there is no such folder.
    """
    if target is not None and not target.parent.is_dir():
        raise InputError("The folder to write to does not exist.", where=target, fix="Make it, or choose another.")


def show(table: RenderableType) -> None:
    """Print a table, wide where the output is a file."""
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    console.print(table)


def write_json(target: Path | None, content: dict[str, Any]) -> None:
    """Write what was measured, whole or not at all, if it was asked for."""
    if target is not None:
        write_text(target, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
