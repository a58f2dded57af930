"""Who ended first is named, also where the launcher was quicker to take note of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xcit_hub.training import watch

# The scheduler and the workers run the same command, as under msrun.
_COMMAND = f"""
import os, subprocess, sys, time
if os.environ["MS_ROLE"] == "MS_SCHED":
    watcher = subprocess.Popen([sys.executable, "-I", "-S", {watch.__file__!r}, str(os.getppid()), str(os.getpid())])
    print(watcher.pid, flush=True)
time.sleep(3600)
"""


def _started(role: str, **options: object) -> subprocess.Popen[str]:
    rank = str(options.pop("rank", ""))
    environment = {**os.environ, "MS_ROLE": role, "RANK_ID": rank}
    return subprocess.Popen([sys.executable, "-c", _COMMAND], env=environment, text=True, **options)  # type: ignore[call-overload]


def _handles(process: int) -> int:
    """How many processes a process watches."""
    links = [path.readlink() for path in Path(f"/proc/{process}/fd").iterdir()]
    return sum("pidfd" in str(link) for link in links)


@pytest.mark.parametrize("quicker", [False, True], ids=["the watcher", "the launcher"])
def test_a_workers_end_is_told_whoever_takes_note_of_it_first(quicker: bool) -> None:
    workers = [_started("MS_WORKER", rank=rank) for rank in range(2)]
    scheduler = _started("MS_SCHED", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        watcher = int(scheduler.stdout.readline())
        while _handles(watcher) < 2:
            time.sleep(0.02)
        os.kill(watcher, signal.SIGSTOP)
        workers[1].kill()
        if quicker:  # as msrun does: it takes note, then kills the others, of whom it does not
            workers[1].wait()
            workers[0].kill()
        os.kill(watcher, signal.SIGCONT)
        said = scheduler.communicate(timeout=600)[1]
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
    assert scheduler.returncode == -signal.SIGKILL
    told = r"Error: worker 1 \(process \d+\) "
    if quicker:
        assert re.match(told + r"ended, as msrun says, and worker 0 \(process \d+\) was killed by SIGKILL; all", said)
    else:
        assert re.match(told + r"was killed by SIGKILL; all workers end\.\n", said)
    assert "See the log of worker 1" in said
