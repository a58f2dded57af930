"""The report of a conversion as a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from xcit_hub.checkpoints.report import Report
from xcit_hub.checkpoints.sidecar import config_path
from xcit_hub.errors import InputError
from xcit_hub.files import check_outputs, write_text


def check_report(path: str | os.PathLike[str], source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Make sure, before any work, that a report can be written where it is wanted and overwrites nothing else.

    Raises:
        InputError: it is the source, the target or the configuration beside one of them, or cannot be written.
    """
    wanted = Path(path)
    others = {"source": Path(source), "target": Path(target)}
    others |= {f"{name}'s configuration": config_path(other) for name, other in others.items()}
    for name, other in others.items():
        if wanted.resolve() == other.resolve() or (wanted.exists() and other.exists() and wanted.samefile(other)):
            raise InputError(f"The report would overwrite the {name}.", where=wanted, fix="Give it another name.")
    check_outputs({"The report": wanted})


def check_report_of_parts(path: str | os.PathLike[str], parts: Iterable[Path]) -> None:
    """Make sure that a report overwrites none of the files that a source is in, which are known once it is open.

    Raises:
        InputError: it is one of them.
    """
    if any(Path(path).resolve() == part.resolve() for part in parts):
        raise InputError("The report would overwrite a part of the source.", where=path, fix="Give it another name.")


def write_report(path: str | os.PathLike[str], report: Report, options: Mapping[str, object]) -> None:
    """Write what a conversion read, was asked for, did and wrote, as JSON."""
    write_text(path, json.dumps({**report.as_dict(), "options": dict(options)}, indent=2) + "\n")
