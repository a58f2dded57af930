"""Seconds that count: the wall clock and the processor's, less what was paused."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple


class Seconds(NamedTuple):
    """A span of time: on the wall, and of all the process's threads together."""

    wall: float
    cpu: float

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


_paused = Seconds(0.0, 0.0)


def now() -> Seconds:
    """Return the time since some fixed moment, pauses left out."""
    return _clocks() - _paused


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Leave the block's time out."""
    global _paused
    began = _clocks()
    yield
    ended = _clocks()
    _paused = Seconds(_paused.wall + ended.wall - began.wall, _paused.cpu + ended.cpu - began.cpu)


def _clocks() -> Seconds:
    return Seconds(time.perf_counter(), time.process_time())
