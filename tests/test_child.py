"""A process of our own imports what this one does, and nothing of the folder that it is started in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xcit_hub import child
from xcit_hub._version import __version__


def test_the_folder_it_is_started_in_is_on_nobodys_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the folder was imported from')\n")
    (tmp_path / "xcit_hub").mkdir()
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    command = child.command("json.tool", "--compact")
    done = subprocess.run(command, input='{"a": 1}', cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ('{"a":1}', 0), done.stderr


def test_it_finds_this_package_wherever_this_process_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(child.__file__).resolve().parents[1]
    monkeypatch.setattr(sys, "path", [path for path in sys.path if Path(path).resolve() != package])
    command = child.command("xcit_hub", "--version")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == __version__, done.stderr
