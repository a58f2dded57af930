"""A contender's own process: started by :mod:`benchmarks.rounds`, commanded by lines of JSON, idle in between.

It reads what to build, then turns to take; it answers each line with one. Whatever libraries print goes to
the error stream.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from benchmarks import clock
from benchmarks.case import Case, Contender, NotHereError, Step
from benchmarks.suites import SUITES

_REPORTED = ("mindspore", "torch", "timm", "mindcv", "onnxruntime", "openvino", "numpy", "pillow")
_MODULE = {"pillow": "PIL"}  # where a distribution is called otherwise than its module


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the user's Ctrl-C is for the parent, which ends us
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        _serve(sys.stdin, answers)
    except NotHereError as reason:
        _answer(answers, {"absent": str(reason)})
    except Exception as error:
        traceback.print_exc()
        said = str(error).strip().splitlines() or ["no message"]
        # Some frameworks put the fault first, others repeat a whole traceback before it.
        _answer(answers, {"failed": f"{type(error).__name__}: {' … '.join(dict.fromkeys((said[0], said[-1])))[:500]}"})
    sys.stderr.flush()
    os._exit(0)  # MindSpore's cells complain when the interpreter takes them down


def _serve(questions: TextIO, answers: TextIO) -> None:
    order = json.loads(questions.readline())
    suite, case = SUITES[order["suite"]], Case(**order["case"])
    if case.cores:  # before any framework counts them
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case.cores])
    if order["contender"] is None:
        if suite.prepare is not None:
            suite.prepare(case)
        _answer(answers, {})
        return
    contender = suite.contenders[order["contender"]]
    step = contender.build(case)
    most = 0.0 if contender.programs_of is not None else memory_mb("VmHWM")
    _hand_back()
    _answer(answers, {"start_mb": memory_mb("VmRSS"), "peak_mb": most, "flops": _flops(contender, case)})
    for line in questions:
        _answer(answers, _turn(step, **json.loads(line), programs_of=contender.programs_of))


def _turn(step: Step, *, steps: int, waking: bool, programs_of: tuple[str, ...] | None) -> dict[str, Any]:
    gc.collect()
    woken = None
    if waking:  # others' work stands in the caches
        last = time.perf_counter()
        step()
        woken = time.perf_counter() - last
    began, own, everybody, stolen = time.perf_counter(), clock.worked(), clock.worked_by_all(), clock.stolen()
    seconds, images = [], 0
    for _ in range(steps):
        last = time.perf_counter()
        images = step()
        seconds.append(time.perf_counter() - last)
    wall, own, everybody = time.perf_counter() - began, clock.worked() - own, clock.worked_by_all() - everybody
    stolen = clock.stolen() - stolen
    return {
        "seconds": seconds,
        "woken": woken,
        "images": images,
        "cores": own / wall,
        "others": max(everybody - stolen - own, 0.0) / wall,
        "stolen": stolen / wall,
        "running_mb": memory_mb("VmHWM") if programs_of is None else _programs_mb(),
        "threads": _threads(),
        "versions": {name: version(name) for name in _used(programs_of)},
    }


def _used(programs_of: tuple[str, ...] | None) -> Iterable[str]:
    if programs_of is not None:
        return programs_of
    return (name for name in _REPORTED if _MODULE.get(name, name) in sys.modules)


def _programs_mb() -> float:
    """Return the most that a program of a step held, no less than this small process: the system counts from there."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def _flops(contender: Contender, case: Case) -> int | None:
    return None if contender.flops is None else contender.flops(case)


def _threads() -> int:
    """Return how many threads the framework may compute with."""
    if "torch" in sys.modules:
        return int(sys.modules["torch"].get_num_threads())
    if "mindspore" in sys.modules:
        return int(sys.modules["mindspore"].get_context("runtime_num_threads"))
    if {"onnxruntime", "openvino"} & set(sys.modules):
        return len(os.sched_getaffinity(0))  # what :mod:`benchmarks.deploying` gives them
    return 1


def memory_mb(field: str) -> float:
    """Read this process's resident memory. ``getrusage`` would begin with the peak of whoever started us."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


def _hand_back() -> None:
    """Give what building left over back to the system and forget the peak: it would hide what small images take."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
