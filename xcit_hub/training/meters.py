"""What is watched while a run trains: its time, its overflows, and the images that cannot be read."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xcit_hub.data.batches import Worker
from xcit_hub.data.sources import ImageSource
from xcit_hub.errors import InputError, XcitHubError, some
from xcit_hub.training import device
from xcit_hub.training.resume import Progress

_WARM_UP_STEPS = 2  # of a process: the first compiles, the second still allocates
_RECENT = 50  # steps whose time is averaged for display
_MOST_SKIPS = 100  # updates in a row that may overflow before a run is called broken


class Clock:
    """Times steps; what it measured in steady state is added to ``progress``."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._taken = 0
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._open: list[float] = []

    def step(self, seconds: float, *, complete: bool = True) -> None:
        """Take note of one step.

        Args:
            complete: whether it is the last of those that were computed together, whose seconds are shared out then.
        """
        self._open.append(seconds)
        if not complete:
            return
        each, count = sum(self._open) / len(self._open), len(self._open)
        self._open.clear()
        for _ in range(count):
            self._taken += 1
            self._recent.append(each)
            if self._progress.first_step is None:
                self._progress.first_step = round(each, 3)
            if self._taken > _WARM_UP_STEPS:
                self._progress.timed_steps += 1
                self._progress.timed_seconds += each

    def rate(self, images: int) -> float:
        """Return images a second over the last steps, of ``images`` each."""
        return images * len(self._recent) / sum(self._recent)


class Overflows:
    """Counts the updates that were skipped, and says when they do not end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def update(self, applied: bool) -> str | None:
        """Take note of one update; returns what is wrong, once too many in a row were skipped."""
        if applied:
            self._progress.skipped_in_a_row = 0
            return None
        self._progress.skipped_updates += 1
        self._progress.skipped_in_a_row += 1
        return f"{_MOST_SKIPS} updates in a row overflowed" if self._progress.skipped_in_a_row > _MOST_SKIPS else None


class Unreadable:
    """The images that no worker could read, by name, in ``progress``.

    Args:
        limit: how many there may be on all workers together.
    """

    def __init__(self, source: ImageSource, progress: Progress, limit: int, worker: Worker) -> None:
        self._source = source
        self._progress = progress
        self._limit = limit
        self._worker = worker
        self._new: set[int] = set()
        self._known = set(progress.unreadable)
        for name in source.unreadable:
            self._add(name)
        self._check([])

    def add(self, indices: NDArray[np.int64]) -> None:
        """Take note of a batch's; -1 is none.

        Raises:
            InputError: there are more than the limit.
        """
        new = {index for index in indices[indices >= 0].tolist() if self._source.name(index) not in self._known}
        if new - self._new:
            self._new |= new
            self._check([self._source.name(index) for index in sorted(self._new)])

    def share(self) -> list[str]:
        """Add what any worker found in this epoch to the record, and return it.

        Raises:
            InputError: there are more than the limit.
        """
        found = device.gather(sorted(self._new), self._limit, self._worker)
        names = [name for name in (self._source.name(index) for index in found) if self._add(name)]
        self._new.clear()
        self._check([])
        return names

    def _add(self, name: str) -> bool:
        if name in self._known:
            return False
        self._known.add(name)
        self._progress.unreadable.append(name)
        return True

    def _check(self, more: Sequence[str]) -> None:
        names = [*self._progress.unreadable, *more]
        if len(names) > self._limit:
            raise unreadable(names)


def unreadable(names: Sequence[str]) -> XcitHubError:
    """Return the error that names the first of too many images."""
    return InputError(
        f"{len(names)} images cannot be read: {some(names)}.",
        where="max_corrupt",
        fix="Repair or remove them, or raise max_corrupt.",
    )
