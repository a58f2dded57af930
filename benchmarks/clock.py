"""Seconds of the processors, whoever they worked for, and how many of others' are too many."""

from __future__ import annotations

import os
from pathlib import Path

# Cores that others, the host of a virtual machine among them, may take while one is measured: more, and it is measured
# again, so many times in all.
QUIET = 0.1
TRIES = 3

_TICKS = os.sysconf("SC_CLK_TCK")


def worked(process: str = "self") -> float:
    """Return the processor seconds of a process, of its children, and of theirs; to a hundredth."""
    root = Path("/proc") / process
    try:
        # After the name in brackets: user and system time, then both of the children that have ended.
        fields = (root / "stat").read_text().rpartition(")")[2].split()[11:15]
        children = [child for task in root.glob("task/*/children") for child in task.read_text().split()]
    except FileNotFoundError:  # it ended just now
        return 0.0
    return sum(map(int, fields)) / _TICKS + sum(map(worked, children))


def worked_by_all() -> float:
    """Return the processor seconds of the whole machine, those that its host took among them."""
    user, nice, system, _idle, _waiting, *interrupts = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    return sum(map(int, (user, nice, system, *interrupts))) / _TICKS


def stolen() -> float:
    """Return the processor seconds that the host of this virtual machine gave to others."""
    return int(Path("/proc/stat").read_text().splitlines()[0].split()[8]) / _TICKS
