"""The demo runs from end to end where no hub can be reached, and says that its weights are random."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from xcit_hub.errors import HubError

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


def test_a_stage_that_fails_ends_the_demo_with_exit_code_1(monkeypatch, capsys):
    def fail(*_, **__):
        raise HubError("broken on purpose")

    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HUB_VERBOSITY", "error")  # the demo sets what is not set, and this process goes on
    monkeypatch.setattr("xcit_hub.checkpoints.rewrite.rewrite", fail)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as caught:  # any other error would be a traceback
        runpy.run_path(str(DEMO), run_name="__main__")
    assert caught.value.code == 1
    shown = capsys.readouterr()
    assert "broken on purpose" in shown.out
    assert "Traceback" not in shown.err
