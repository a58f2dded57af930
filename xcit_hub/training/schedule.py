"""The learning rate of every step, as a table computed once in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from xcit_hub.training.recipe import Recipe

_Times = npt.NDArray[np.float64]


def learning_rates(recipe: Recipe, steps_per_epoch: int) -> npt.NDArray[np.float64]:
    """Return the learning rate of every step of a run, float64, shape (epoch_size · steps_per_epoch,).

    Linear warm-up from ``warmup_factor · lr`` over ``warmup_epochs``, then what ``scheduler`` names; of the cosine with
    ``warmup_prefix`` off, the warm-up replaces the beginning. Time runs in steps, or in whole epochs with
    ``lr_epoch_stair``; then it may lag by ``lr_epoch_lag`` epochs.

    Sources: MindCV 0.5 (mindcv/scheduler), whose cosine of one cycle is timm's (timm/scheduler/cosine_lr.py);
    facebookresearch/xcit main.py calls timm's ``scheduler.step(epoch)`` after the epoch, a lag of one.
    """
    step = np.arange(recipe.epoch_size * steps_per_epoch)
    epoch = step // steps_per_epoch
    time = epoch.astype(np.float64) if recipe.lr_epoch_stair else step / steps_per_epoch
    time = np.maximum(time - recipe.lr_epoch_lag, 0.0)
    warmup = recipe.warmup_epochs
    start = recipe.lr * recipe.warmup_factor
    rising = start + time * ((recipe.lr - start) / max(warmup, 1))
    elapsed = time - warmup if recipe.warmup_prefix else time
    after = _SCHEDULES[recipe.scheduler](recipe, np.maximum(elapsed, 0.0))
    return np.where(time < warmup, rising, after)


# Each maps epochs since the warm-up, whole ones with lr_epoch_stair, to rates.


def _cosine(recipe: Recipe, elapsed: _Times) -> _Times:
    cycle = elapsed // recipe.decay_epochs
    height = recipe.lr * recipe.cycle_decay**cycle - recipe.min_lr
    share = elapsed / recipe.decay_epochs - cycle
    cosine = recipe.min_lr + 0.5 * height * (1 + np.cos(math.pi * share))
    return np.where(cycle < recipe.num_cycles, cosine, recipe.min_lr)


def _constant(recipe: Recipe, elapsed: _Times) -> _Times:
    return np.full(elapsed.shape, recipe.lr)


def _exponential(recipe: Recipe, elapsed: _Times) -> _Times:
    return recipe.lr * recipe.decay_rate**elapsed


def _polynomial(recipe: Recipe, elapsed: _Times) -> _Times:
    total = max(recipe.epoch_size - recipe.warmup_epochs, 1)
    return recipe.lr * (1 - np.minimum(elapsed, total) / total) ** recipe.decay_rate


def _stepwise(recipe: Recipe, elapsed: _Times) -> _Times:
    return recipe.lr * recipe.decay_rate ** (np.floor(elapsed) // recipe.decay_epochs)


def _multi_step(recipe: Recipe, elapsed: _Times) -> _Times:
    milestones = np.sort(np.array(recipe.multi_step_decay_milestones, np.float64))
    return recipe.lr * recipe.decay_rate ** np.searchsorted(milestones, np.floor(elapsed), side="right")


def _one_cycle(recipe: Recipe, elapsed: _Times) -> _Times:
    """Rise from lr/25 over three tenths of the steps, then fall to min_lr, both as half cosines (Smith, 1708.07120)."""
    index, steps = np.arange(len(elapsed)), len(elapsed)
    peak = 0.3 * steps - 1
    first, last = recipe.lr / 25, float(steps) - 1

    def between(begin: float, end: float, share: _Times) -> _Times:
        return end + (begin - end) / 2 * (np.cos(math.pi * share) + 1)

    with np.errstate(divide="ignore", invalid="ignore"):
        rise = between(first, recipe.lr, index / peak)
        fall = between(recipe.lr, recipe.min_lr, (index - peak) / (last - peak))
    return np.where(index <= peak, np.nan_to_num(rise, nan=first), fall)


def _cyclic(recipe: Recipe, elapsed: _Times) -> _Times:
    """Rise from min_lr to lr and fall again ``num_cycles`` times, in straight lines (Smith, 1506.01186)."""
    index = np.arange(len(elapsed))
    half = max(int(len(elapsed) / recipe.num_cycles / 2), 1)
    place = index / (2 * half) % 1.0
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * np.where(place <= 0.5, 2 * place, 2 - 2 * place)


_SCHEDULES: dict[str, Callable[[Recipe, _Times], _Times]] = {
    "cosine_decay": _cosine,
    "warmup_cosine_decay": _cosine,
    "constant": _constant,
    "exponential_decay": _exponential,
    "polynomial_decay": _polynomial,
    "step_decay": _stepwise,
    "multi_step_decay": _multi_step,
    "one_cycle": _one_cycle,
    "cyclic": _cyclic,
}
