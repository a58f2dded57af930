"""How the scheduler watches the workers of its host: msrun names a process that died, not the worker, and waits half a
minute before it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

_PROCESSES = Path("/proc")
_MILLISECONDS_BETWEEN_LOOKS = 200  # for workers that start
_EXIT_CODE = -1  # of the fields in /proc/<process>/stat, the last


def watch_workers() -> None:
    """Have this process, MindSpore's scheduler, ended with a message as soon as a worker beside it has died.

    It waits for its workers inside MindSpore, where no other Python thread of it runs: a process watches.
    """
    launcher, scheduler = os.getppid(), os.getpid()
    subprocess.Popen([sys.executable, "-I", "-S", __file__, str(launcher), str(scheduler)])  # noqa: S603


def _watch(launcher: int, scheduler: int) -> None:
    poller = select.poll()
    workers: dict[int, tuple[int, str]] = {}
    known: set[int] = set()
    command = (_PROCESSES / str(scheduler) / "cmdline").read_bytes()
    while os.getppid() == scheduler:
        for process in _children(launcher) - known:
            rank = _rank(process, command)
            if rank is not None:
                known.add(process)
                # Told at once: a second later the launcher has taken note, and how the worker ended is gone.
                handle = os.pidfd_open(process)
                workers[handle] = process, rank
                poller.register(handle, select.POLLIN)
        for handle, _ in poller.poll(_MILLISECONDS_BETWEEN_LOOKS):
            poller.unregister(handle)
            process, rank = workers[handle]
            end = _bad_end(process)
            if end is not None:
                # The launcher looks each second: of one that ended just then it may know how, and end the others.
                ends = [(at, it, "ended, as msrun says,") for it, at in workers.values() if not _is_there(it)]
                ends.append((rank, process, end))
                said = " and ".join(f"worker {at} (process {it}) {how}" for at, it, how in ends)
                # With a capital: msrun shows the lines of the scheduler's log in which it finds this word.
                sys.stderr.write(
                    f"Error: {said}; all workers end.\n"
                    f"  do:    See the log of worker {ends[0][0]}, then continue with --resume from the last epoch.\n"
                )
                os.kill(scheduler, signal.SIGKILL)
                return


def _children(process: int) -> set[int]:
    try:
        return {int(word) for word in (_PROCESSES / f"{process}/task/{process}/children").read_text().split()}
    except OSError:
        return set()  # without this file the launcher's own, slower way remains


def _rank(process: int, command: bytes) -> str | None:
    """Return a worker's rank; None for any other process, such as the launcher's readers of logs."""
    try:
        started = (_PROCESSES / str(process) / "cmdline").read_bytes()
        environment = (_PROCESSES / str(process) / "environ").read_bytes()
    except OSError:
        return None
    settings = dict(entry.split("=", 1) for entry in environment.decode(errors="replace").split("\0") if "=" in entry)
    is_worker = started.endswith(command) and settings.get("MS_ROLE") == "MS_WORKER"
    return settings.get("RANK_ID") if is_worker else None


def _is_there(process: int) -> bool:
    return (_PROCESSES / str(process)).exists()


def _bad_end(process: int) -> str | None:
    """Say how a process ended that its launcher has not taken note of yet; None if it lives or ended well."""
    try:
        state, *fields = (_PROCESSES / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    status = int(fields[_EXIT_CODE])
    if state != "Z" or status == 0:
        return None
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with exit code {os.WEXITSTATUS(status)}"


if __name__ == "__main__":
    _watch(*map(int, sys.argv[1:]))
