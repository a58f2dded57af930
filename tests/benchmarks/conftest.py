"""The benchmarks as a user of the checkout runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_CHECKOUT = Path(__file__).parents[2]
# Beside other tests every round is a disturbed one, and is measured again to no use; see test_rounds.py. And what is
# measured is told alike of two blocks, which compile in a quarter of the time that twelve take.
_ONCE = """
import runpy
from functools import partial
from benchmarks import clock, suites
clock.TRIES = 1
suites.Case = partial(suites.Case, depth=2)
runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def run_benchmarks() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m benchmarks`` in a process of its own and return what it printed and its exit code."""

    def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _ONCE, *arguments]
        path = os.pathsep.join(filter(None, [str(_CHECKOUT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=600, env=environment, **options
        )

    return run
