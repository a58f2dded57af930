"""What came of an attack: every case is tried in a folder of its own, within a time, and counted."""

from __future__ import annotations

import ctypes
import gc
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LONGEST = 120.0  # seconds of one case, before it counts as one that does not come back


class WrongAcceptError(AssertionError):
    """Something was accepted, told or changed that must not have been."""


class LeftoverError(AssertionError):
    """Something was left behind that nothing removes."""


@dataclass(frozen=True)
class Case:
    """One thing that is tried.

    Args:
        run: given an empty folder; returns how many things it tried, None for one. Raises one of the two above.
    """

    name: str
    run: Callable[[Path], int | None]


@dataclass(frozen=True)
class Attack:
    """One kind of hostility.

    Args:
        cases: given a seed, everything that is tried.
        sample: how many of them the ordinary tests try.
        small: what the ordinary tests try instead, where no sample is small enough.
        within: seconds after which a case counts as one that does not come back.
    """

    name: str
    cases: Callable[[int], list[Case]]
    sample: int
    within: float = LONGEST
    small: Callable[[], list[Case]] | None = None


@dataclass
class Row:
    """What came of an attack. ``peak_mb`` is what it held beyond what the process held before it."""

    attack: str
    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    peak_mb: int = 0
    longest: float = 0.0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        return bool(self.tried) and not (self.wrong or self.tracebacks or self.leftovers)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "held": self.held}


def attempt(attack: Attack, cases: Iterable[Case], on_case: Callable[[Case], None] = lambda _: None) -> Row:
    """Try every case; nothing of them is left, and none ends the others."""
    row = Row(attack.name)
    before = _forget_peak()
    began = time.monotonic()
    for case in cases:
        on_case(case)
        folder = Path(tempfile.mkdtemp(prefix="attack-"))
        started = time.monotonic()
        try:
            with _within(attack.within):
                tried = case.run(folder)
            row.tried += 1 if tried is None else tried
        except WrongAcceptError as error:
            row.wrong.append(f"{case.name}: {error}")
            row.tried += 1
        except LeftoverError as error:
            row.leftovers.append(f"{case.name}: {error}")
            row.tried += 1
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            row.tracebacks.append(f"{case.name}: {type(error).__name__}: {error} ({last.filename}:{last.lineno})")
            row.tried += 1
        finally:
            row.longest = max(row.longest, time.monotonic() - started)
            shutil.rmtree(folder, ignore_errors=True)
    row.seconds = time.monotonic() - began
    row.peak_mb = max(0, _peak() - before)
    return row


def expect(condition: object, what: str) -> None:
    if not condition:
        raise WrongAcceptError(what)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeoutError(f"did not come back within {seconds:g} seconds")

    handler = signal.signal(signal.SIGALRM, ring)
    waiting, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    started = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if waiting:  # somebody else's alarm, pytest-timeout's
            signal.setitimer(signal.ITIMER_REAL, max(0.1, waiting - (time.monotonic() - started)))


def _forget_peak() -> int:
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
