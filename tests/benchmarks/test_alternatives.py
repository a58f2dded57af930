"""Every way to compute an operation compiles and says how long it took."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.campaign
def test_every_way_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.alternatives", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ") and "×" in line]
    assert len(rows) > 20
    assert all(float(row[-1].rstrip(" |")) > 0 for row in rows)
