"""The benchmarks as a user of the checkout runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def run_benchmarks() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m benchmarks`` in a process of its own and return what it printed and its exit code."""

    def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks", *arguments]
        path = os.pathsep.join(filter(None, [str(_CHECKOUT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=600, env=environment, **options
        )

    return run
