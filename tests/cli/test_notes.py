"""Of all warnings, the command line shows those that say how it computes, and those once."""

from __future__ import annotations

import os
import subprocess
import sys

COMMAND = """
import warnings
from xcit_hub import process
from xcit_hub.accelerated.build import library

def command():
    warnings.warn("a framework's own")
    assert library() is None and library() is None

process.run(command)
"""


def test_that_threads_have_no_effect_is_one_line_and_a_frameworks_warning_is_none() -> None:
    environment = {**os.environ, "XCIT_HUB_NATIVE": "0", "XCIT_HUB_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], capture_output=True, text=True, check=False, env=environment, timeout=600
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "note: XCIT_HUB_THREADS has no effect without compiled operations (XCIT_HUB_NATIVE=0): "
        "MindSpore's own follow MindSpore's settings.\n"
    )
