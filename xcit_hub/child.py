"""A module of this package in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# `python -m` and `python -c` look into the folder that they are started in first; what lies there is nobody's module.
_START = (
    f"import sys; sys.path[:] = sys.argv.pop(1).split({os.pathsep!r}); from runpy import run_module; "
    "run_module(sys.argv.pop(1), run_name='__main__')"
)


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs ``module`` as ``__main__``, importing from where this process does."""
    own = str(Path(__file__).resolve().parents[1])  # where this package is, however it was found
    paths = [path for path in sys.path if path] + [own]
    return [sys.executable, "-c", _START, os.pathsep.join(paths), module, *arguments]
