"""Steps that are a process of their own: a command, or a library from its import on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.case import Step

_ROOT = Path(__file__).parent.parent


def python(*arguments: str, folder: str) -> Step:
    """Run Python with arguments in a folder, this checkout's packages at hand."""
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

    def step() -> int:
        # The interpreter is our own and the arguments are from the suites' tables.
        subprocess.run(
            [sys.executable, *arguments],
            check=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
        )
        return 1

    return step
