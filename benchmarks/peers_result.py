"""What the trainers of :mod:`benchmarks.peers` made of the images: scores, their intervals, and what follows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OURS = "xcit-hub"
OTHER_DIALECT = f"{OURS}, MindCV's dialect"
MINDCV = "MindCV's train.py"
# Student's t, two-sided 95 %, by degrees of freedom.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        losses: of the training, an epoch; MindCV's is that of the epoch's last batch, the others' a mean.
        top1: per cent of the images that were not trained on, after each epoch.
    """

    losses: list[float]
    top1: list[float]


@dataclass
class Trained:
    """What a trainer made of a set of images.

    Args:
        runs: by seed.
        absent: why there are no more.
    """

    trainer: str
    data: str
    runs: dict[int, Run] = field(default_factory=dict)
    absent: str = ""

    @property
    def scores(self) -> list[float]:
        """Top-1 after the last epoch, a seed."""
        return [self.runs[seed].top1[-1] for seed in sorted(self.runs)]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean, and the ends of its 95 % interval by Student's t; of one value there is no interval.

    It tells how far the mean of so many seeds may be from that of all seeds, on these images.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = _T[min(len(values) - 1, max(_T))] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def _shown(values: Sequence[float]) -> str:
    mean, low, high = interval(values)
    return f"{mean:.2f}" if math.isnan(low) else f"{mean:.2f} ({low:.2f} to {high:.2f})"


def table(found: Sequence[Trained]) -> str:
    """Return the scores as a Markdown table, and each trainer's mean loss by epochs."""
    lines = ["| images | trainer | top-1 of each seed | mean (95 % interval) |", "|---|---|---|---:|"]
    curves = ["| images | trainer | training loss after each epoch, mean of the seeds |", "|---|---|---|"]
    for each in found:
        if not each.runs:
            lines.append(f"| {each.data} | {each.trainer} | not run: {each.absent} | |")
            continue
        scores = ", ".join(f"{score:.2f}" for score in each.scores)
        more = f"; no more: {each.absent}" if each.absent else ""
        lines.append(f"| {each.data} | {each.trainer} | {scores}{more} | {_shown(each.scores)} |")
        losses = np.mean([run.losses for run in each.runs.values()], axis=0)
        batch = ", of the last batch alone" if each.trainer == MINDCV else ""
        curves.append(f"| {each.data} | {each.trainer}{batch} | {' '.join(f'{loss:.2f}' for loss in losses)} |")
    return "\n".join([*lines, "", *curves])


def verdicts(found: Sequence[Trained]) -> list[str]:
    """Say of each set of images whether our means lie within the interval of the best trainer's."""
    said = []
    for data in dict.fromkeys(each.data for each in found):
        there = {each.trainer: each.scores for each in found if each.data == data and len(each.runs) > 1}
        if OURS not in there or len(there) == 1:
            continue
        best = max(there, key=lambda name: statistics.fmean(there[name]))
        mean, low, _ = interval(there[best])
        where = [
            f"; {name}: {ours:.2f}, {'within' if ours >= low else 'below'} its interval"
            for name in (OURS, OTHER_DIALECT)
            if name in there and name != best
            for ours in [statistics.fmean(there[name])]
        ]
        said.append(f"Of {data} {best} has the best mean, {mean:.2f}{''.join(where)}.")
    return said


def merged(found: Iterable[Trained], done: Iterable[Trained]) -> list[Trained]:
    """Return all that was trained, by images and trainers: ``found``, and of ``done`` what is not of these."""
    there = {(each.data, each.trainer): each for each in done}
    return list((there | {(each.data, each.trainer): each for each in found}).values())


def read(content: Mapping[str, Any]) -> list[Trained]:
    """Return what was trained, from what was written."""
    return [
        Trained(
            trainer=each["trainer"],
            data=each["data"],
            runs={int(seed): Run(**kept) for seed, kept in each["runs"].items()},
            absent=each["absent"],
        )
        for each in content["trained"]
    ]
