"""What counts as a contender's time."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import clock

_BUSY = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"


def test_work_of_children_counts_while_they_live_and_after_they_ended() -> None:
    before, everybody = clock.worked(), clock.worked_by_all()
    command = [sys.executable, "-c", _BUSY + "print('done', flush=True)\ninput()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    living = clock.worked() - before
    child.communicate("\n")
    assert living >= 0.25
    assert clock.worked() - before >= 0.25
    assert clock.worked_by_all() - everybody >= 0.25


def test_a_process_that_is_gone_has_not_worked() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert clock.worked(str(child.pid)) == 0.0
