"""Weights & Biases and SwanLab, told of a training: ``xcit-hub train … --loggers wandb``.

The project is ``xcit``; whose account, which server and whether anything is sent at all is for their own variables
(``WANDB_MODE=offline``, ``SWANLAB_MODE=offline``, …) to say. A run that is gone on with is gone on with there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from xcit_hub.training.loggers import LoggedRun

PROJECT = "xcit"


class Tracker:
    """Tells one of the two, whose runs have the same methods: ``log(figures, step=…)`` and ``finish()``."""

    def __init__(self, tracked: Any, run: LoggedRun) -> None:
        self._tracked = tracked
        self._step = run.first_step

    def step(self, record: Mapping[str, Any]) -> None:
        """Log the figures of a step."""
        figures = dict(record)
        self._step = figures.pop("step")
        self._tracked.log({f"step/{name}": value for name, value in figures.items()}, step=self._step)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Log those of an epoch, at its last step."""
        self._tracked.log({f"epoch/{name}": value for name, value in record.items()}, step=self._step)

    def end(self, record: Mapping[str, Any]) -> None:
        """End the run there, as here."""
        del record
        self._tracked.finish()


def _name(run: LoggedRun) -> str:
    """Return what the run is called there, the same whenever it is gone on with."""
    return hashlib.sha256(str(run.folder.resolve()).encode()).hexdigest()[:21]


def weights_and_biases(run: LoggedRun) -> Tracker:
    """Begin a run of Weights & Biases, or go on with it."""
    import wandb

    settings = {"project": PROJECT, "config": dict(run.configuration), "dir": str(run.folder)}
    return Tracker(wandb.init(**settings, id=_name(run), resume="allow"), run)


def swanlab(run: LoggedRun) -> Tracker:
    """Begin an experiment of SwanLab's, or go on with it."""
    import swanlab as theirs

    settings = {"project": PROJECT, "config": dict(run.configuration), "logdir": str(run.folder / "swanlog")}
    return Tracker(theirs.init(**settings, id=_name(run), resume="allow"), run)
