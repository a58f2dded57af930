"""Others who are told of a run while it runs: Weights & Biases, SwanLab, whatever registers itself.

A package registers a logger as an entry point of the group ``xcit_hub.loggers``; a recipe asks for it by that name in
``loggers``. The entry point is called with a :class:`LoggedRun` and returns an object with the methods of
:class:`Logger`, of which any may be missing. For Weights & Biases and SwanLab that is a class of a few lines around
their ``init(config=run.configuration)``, ``log`` and ``finish``.

It gets the recipe and what is measured, and nothing else: neither the environment nor a login. What it raises is said
once, and it is not asked again; the training goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from xcit_hub.errors import InputError, closest

GROUP = "xcit_hub.loggers"

_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_SHORTEST_SECRET = 6
_SHOWN = 200  # characters of a logger's own words


@dataclass(frozen=True)
class LoggedRun:
    """What a logger is told at the beginning.

    Args:
        configuration: every key of the recipe with the value that is used.
        folder: where the run keeps its files.
        first_step: 0, or where a continued run goes on.
    """

    configuration: Mapping[str, Any]
    folder: Path
    first_step: int


class Logger(Protocol):
    """What is called while a run runs."""

    def step(self, record: Mapping[str, Any], /) -> object:
        """Take the figures of a step: step, epoch, loss, lr, norm, images_per_second."""

    def epoch(self, record: Mapping[str, Any], /) -> object:
        """Take those of an epoch: epoch, loss, lr, and what was evaluated."""

    def end(self, record: Mapping[str, Any], /) -> object:
        """Take the run's record, as ``run.json`` holds it; not called for a run that fails."""


class Loggers:
    """The loggers of one run; one that fails is said once by ``say``, and left out from then on."""

    def __init__(self, names: Sequence[str], run: LoggedRun, say: Callable[[str], None]) -> None:
        self._say = say
        self._loggers: dict[str, Any] = {}
        for name, load in find(names).items():
            self._asked(name, partial(self._begin, name, load, run))

    def _begin(self, name: str, load: Callable[[], Any], run: LoggedRun) -> None:
        self._loggers[name] = load()(run)

    def tell(self, event: str, record: Mapping[str, Any]) -> None:
        """Call a method of :class:`Logger` of all of them."""
        for name, logger in list(self._loggers.items()):
            method = getattr(logger, event, None)
            if method is not None:
                self._asked(name, partial(method, dict(record)))

    def _asked(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except (Exception, SystemExit) as error:  # a stranger's code; the training is worth more than its log
            self._loggers.pop(name, None)
            self._say(f"the logger {name} failed and is told no more: {_words(error)}")


def find(names: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Return what loads each of these loggers.

    Raises:
        InputError: nobody registered one of that name.
    """
    if not names:
        return {}
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    for name in names:
        if name not in found:
            raise InputError(
                f"There is no logger {name!r}.",
                where="loggers",
                fix=closest(name, found)
                or f"Installed: {', '.join(sorted(found)) or 'none'}. A package registers one under {GROUP!r}.",
            )
    return {name: found[name].load for name in names}


def _words(error: BaseException) -> str:
    """Return the kind and the first line of an error, without what the environment keeps secret."""
    said = str(error)
    secret = (value for name, value in os.environ.items() if any(word in name.upper() for word in _SECRET))
    for value in sorted(secret, key=len, reverse=True):  # one may be part of another
        if len(value) >= _SHORTEST_SECRET:
            said = said.replace(value, "…")
    said = (said.splitlines() or [""])[0][:_SHOWN]  # last: of a secret that is cut the rest would not be found
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
