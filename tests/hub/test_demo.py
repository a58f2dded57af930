"""The demo runs from end to end where no hub can be reached, and says that its weights are random."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.mark.slow
def test_the_demo_goes_from_timm_to_a_classified_photograph(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, str(DEMO)], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "SEEDED RANDOM WEIGHTS" in done.stdout
    assert "verified: full" in done.stdout
    assert "share" in done.stdout


def test_a_stage_that_fails_ends_the_demo_with_exit_code_1(tmp_path):
    code = (
        "import runpy\n"
        "from xcit_hub.errors import HubError\n"
        "import xcit_hub.checkpoints.rewrite as c\n"
        "def fail(*_, **__): raise HubError('broken on purpose')\n"
        "c.rewrite = fail\n"
        f"runpy.run_path({str(DEMO)!r}, run_name='__main__')"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "broken on purpose" in done.stdout
    assert "Traceback" not in done.stderr
