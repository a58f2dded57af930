"""What every test starts from: quiet frameworks, and the command line as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

os.environ.setdefault("GLOG_v", "3")  # before MindSpore is imported, or it logs every import

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_cli() -> RunCli:
    """Run ``xcit-hub`` in a process of its own and return what it printed and its exit code."""

    def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from xcit_hub.cli import main; main()", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, **options)

    return run


@pytest.fixture(params=["compiled", "MindSpore's own"])
def operations(request, monkeypatch) -> None:
    """Every way in which this machine can compute, where a compiler is found; see ``xcit_hub.accelerated``."""
    from xcit_hub.accelerated import available, build, twins

    if request.param == "MindSpore's own":
        monkeypatch.setattr(twins, "library", lambda: None)
    elif not available():
        pytest.skip(build.absence())


@pytest.fixture(params=["pynative", "graph"])
def mode(request) -> None:
    """Both modes, one after the other; the next test begins in PyNative again."""
    import mindspore

    modes = {"pynative": mindspore.PYNATIVE_MODE, "graph": mindspore.GRAPH_MODE}
    mindspore.set_context(mode=modes[request.param])


@pytest.fixture(autouse=True)
def _mode_of_one_test() -> Iterator[None]:
    """MindSpore's mode is one for the process: what a test or a recipe sets must not slow down every test after it."""
    yield
    if mindspore := sys.modules.get("mindspore"):
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
