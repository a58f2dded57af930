"""Worse conditions to measure under than a quiet machine: a disturbed core, fewer cores, a part of a core's time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from xcit_hub.accelerated.build import THREADS
from xcit_hub.errors import InputError

_CGROUPS = Path("/sys/fs/cgroup")
_PERIOD = 100_000  # microseconds, as container runtimes have it


@contextmanager
def conditions(*, cores: int | None, disturber: bool, quota: float | None) -> Iterator[str]:
    """Bring about what is asked for, in this process and those it starts; the value says it in words.

    A limit that one contender alone would keep to is refused.

    Args:
        cores: keep to the first so many of the cores that this process may use.
        disturber: another process computes on the last of them all the while.
        quota: cores' worth of time that all together may take, as of a container.

    Raises:
        InputError: there are not as many cores, the quota is no less than all of them, or the system does not let us
            set one; ``XCIT_HUB_THREADS`` is set.
    """
    if os.environ.get(THREADS):
        raise InputError(
            f"{THREADS}={os.environ[THREADS]} is a limit that xcit-hub alone keeps to.",
            where=THREADS,
            fix="Unset it; --cores limits every contender.",
        )
    said = []
    before = os.sched_getaffinity(0)
    with ExitStack() as stack:
        if cores is not None:
            if cores > len(before):
                raise InputError(f"There are {len(before)} cores.", where="--cores")
            os.sched_setaffinity(0, set(sorted(before)[:cores]))
            stack.callback(os.sched_setaffinity, 0, before)
            said.append(f"kept to {cores} of {len(before)} cores")
        if disturber:
            stack.enter_context(_disturber(max(os.sched_getaffinity(0))))
            said.append("another process computing on one core")
        if quota is not None:
            if quota >= len(os.sched_getaffinity(0)):
                raise InputError(
                    f"A quota of {quota:g} cores is none.", where="--quota", fix="Give less than there are."
                )
            stack.enter_context(_quota(quota))
            said.append(f"a quota of {quota:g} cores")
        yield ", ".join(said)


@contextmanager
def _disturber(core: int) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            os.sched_setaffinity(process.pid, {core})
            yield
        finally:
            process.kill()


@contextmanager
def _quota(cores: float) -> Iterator[None]:
    second = (_CGROUPS / "cgroup.controllers").exists()
    root, files = (_CGROUPS, ("cpu.max",)) if second else (_CGROUPS / "cpu", ("cpu.cfs_period_us", "cpu.cfs_quota_us"))
    share = round(cores * _PERIOD)
    values = (f"{share} {_PERIOD}",) if second else (f"{_PERIOD}", f"{share}")
    group, home = root / f"xcit-hub-benchmarks-{os.getpid()}", root / _own_group("" if second else "cpu")
    try:
        group.mkdir()
        for name, value in zip(files, values, strict=True):
            (group / name).write_text(value)
        (group / "cgroup.procs").write_text(f"{os.getpid()}")
    except OSError as error:
        if group.exists():
            group.rmdir()
        raise InputError(
            f"A quota cannot be set here: {error.strerror}.",
            where="--quota",
            fix="Run as root where control groups are mounted, or in a container: docker run --cpus 0.5.",
        ) from error
    try:
        yield
    finally:
        (home / "cgroup.procs").write_text(f"{os.getpid()}")
        group.rmdir()


def _own_group(controller: str) -> str:
    """Return this process's group, below the root: of version 2 without a controller, else of version 1."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.lstrip("/")
    return ""
