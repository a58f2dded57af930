"""The learning rate of every step, as a table computed once in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from xcit_hub.errors import InputError
from xcit_hub.training.recipe import Recipe

_Times = npt.NDArray[np.float64]


def learning_rates(recipe: Recipe, steps_per_epoch: int) -> npt.NDArray[np.float64]:
    """Return the learning rate of every step of a run, float64, shape (epoch_size · steps_per_epoch,).

    Linear warm-up from ``warmup_factor · lr`` over ``warmup_epochs``, then what ``scheduler`` names; with
    ``warmup_prefix`` off, the warm-up replaces its beginning. Time runs in steps, or in whole epochs with
    ``lr_epoch_stair``; then it may lag by ``lr_epoch_lag`` epochs.

    Sources: MindCV 0.5 (mindcv/scheduler) and timm 1.0.31 (timm/scheduler), by ``library``: cosine, step and constant
    are the same in both, timm's polynomial ends at ``min_lr`` after ``decay_epochs``, and its milestones come one unit
    of time early; facebookresearch/xcit main.py calls timm's ``scheduler.step(epoch)`` after the epoch, a lag of one.

    Raises:
        InputError: a rate is more than a float32 holds.
    """
    step = np.arange(recipe.epoch_size * steps_per_epoch)
    epoch = step // steps_per_epoch
    time = epoch.astype(np.float64) if recipe.lr_epoch_stair else step / steps_per_epoch
    time = np.maximum(time - recipe.lr_epoch_lag, 0.0)
    warmup = recipe.warmup_epochs
    start = recipe.lr * recipe.warmup_factor if recipe.warmup_lr is None else recipe.warmup_lr
    elapsed = time - warmup if recipe.warmup_prefix else time
    unit = 1.0 if recipe.lr_epoch_stair else 1 / steps_per_epoch
    with np.errstate(over="ignore", invalid="ignore"):  # judged below
        after = _SCHEDULES[recipe.scheduler](recipe, np.maximum(elapsed, 0.0), unit)
    top = recipe.lr
    if recipe.scheduler == "tanh_decay" and not recipe.warmup_prefix:
        top = float(_tanh(recipe, np.array([float(warmup)]), unit)[0])  # timm's rises to where it goes on
    rising = start + time * ((top - start) / max(warmup, 1))
    rates = np.where(time < warmup, rising, after)
    if recipe.lr_noise is not None:
        units = round(1 / unit)  # of an epoch
        rates += rates * _noise(recipe, np.rint(time * units).astype(np.int64), recipe.schedule_epochs * units)
    if not np.abs(rates).max() <= np.finfo(np.float32).max:
        raise InputError(
            "The learning rate grows beyond all bounds.",
            where="scheduler",
            fix="Lower what it grows by: decay_rate, cycle_decay, lr.",
        )
    return rates


def _noise(recipe: Recipe, times: npt.NDArray[np.int64], whole: float) -> _Times:
    """Return timm's noise of every step, a share of its rate; none of the first, before which timm's trainer sets none.

    Args:
        times: since the beginning, in the unit that rates change in.
        whole: how many of these the schedule has.
    """
    begin, *end = (share * whole for share in recipe.lr_noise or ())
    noisy = {time for time in times.tolist() if begin <= time and all(time < last for last in end)} - {0}
    drawn = {time: _drawn(recipe.seed + time, recipe.lr_noise_std, recipe.lr_noise_pct) for time in noisy}
    return np.array([drawn.get(time, 0.0) for time in times.tolist()])


def _drawn(seed: int, deviation: float, limit: float) -> float:
    """Return ``torch.randn(1) · deviation`` of a torch.Generator of this seed, the first that is below ``limit``."""
    words = np.random.RandomState(seed)  # torch's engine, seeded as torch seeds it
    while True:
        four = words.randint(0, 1 << 32, 4, np.uint32).tolist()
        turn, depth = (((four[at] << 32 | four[at + 1]) & (1 << 53) - 1) / (1 << 53) for at in (0, 2))
        radius = math.sqrt(-2 * math.log1p(-depth))  # Box and Muller's two, in turn
        for value in (radius * math.cos(2 * math.pi * turn), radius * math.sin(2 * math.pi * turn)):
            if abs(noise := float(np.float32(value)) * deviation) < limit:
                return noise


# Each maps epochs since the warm-up to rates; the unit in which they run is an epoch (lr_epoch_stair) or a step.


def _cycles(recipe: Recipe, elapsed: _Times) -> tuple[_Times, _Times]:
    """Number the cycles, and say which share of its own has passed; each is ``cycle_mul`` times as long as the last."""
    factor = recipe.cycle_mul
    if factor == 1:
        cycle = elapsed // recipe.decay_epochs
        return cycle, elapsed / recipe.decay_epochs - cycle
    grown = 1 - elapsed / recipe.decay_epochs * (1 - factor)
    # math.log is the same on every processor, numpy's is not.
    cycle = np.array([math.floor(math.log(value, factor)) for value in grown.tolist()], np.float64)
    begun = (1 - factor**cycle) / (1 - factor) * recipe.decay_epochs
    return cycle, (elapsed - begun) / (factor**cycle * recipe.decay_epochs)


def _in_cycles(recipe: Recipe, elapsed: _Times, shape: Callable[[_Times], _Times]) -> _Times:
    cycle, share = _cycles(recipe, elapsed)
    height = recipe.lr * recipe.cycle_decay**cycle - recipe.min_lr
    return np.where(cycle < recipe.num_cycles, recipe.min_lr + height * shape(share), recipe.min_lr)


def _cosine(recipe: Recipe, elapsed: _Times, _: float) -> _Times:
    return _in_cycles(recipe, elapsed, lambda share: 0.5 * (1 + np.cos(math.pi * share**recipe.k_decay)))


def _tanh(recipe: Recipe, elapsed: _Times, _: float) -> _Times:
    """Fall as the hyperbolic tangent does from −7 to 3 (Hsueh et al., 1806.01593)."""
    return _in_cycles(recipe, elapsed, lambda share: 0.5 * (1 - np.tanh(-7 * (1 - share) + 3 * share)))


def _constant(recipe: Recipe, elapsed: _Times, _: float) -> _Times:
    return np.full(elapsed.shape, recipe.lr)


def _exponential(recipe: Recipe, elapsed: _Times, _: float) -> _Times:
    return recipe.lr * recipe.decay_rate**elapsed


def _polynomial(recipe: Recipe, elapsed: _Times, _: float) -> _Times:
    if recipe.library == "timm":
        return _in_cycles(recipe, elapsed, lambda share: (1 - share**recipe.k_decay) ** recipe.decay_rate)
    total = max(recipe.epoch_size - recipe.warmup_epochs, 1)
    return recipe.lr * (1 - np.minimum(elapsed, total) / total) ** recipe.decay_rate


def _stepwise(recipe: Recipe, elapsed: _Times, unit: float) -> _Times:
    if recipe.library == "timm":  # counts units of time, of which a step may be a fraction of an epoch
        units = round(1 / unit)
        return recipe.lr * recipe.decay_rate ** (np.rint(elapsed * units) // (recipe.decay_epochs * units))
    return recipe.lr * recipe.decay_rate ** (np.floor(elapsed) // recipe.decay_epochs)


def _multi_step(recipe: Recipe, elapsed: _Times, unit: float) -> _Times:
    milestones = np.sort(np.array(recipe.multi_step_decay_milestones, np.float64))
    if recipe.library == "timm":
        passed = np.searchsorted(np.rint(milestones / unit), np.rint(elapsed / unit) + 1, side="right")
    else:
        passed = np.searchsorted(milestones, np.floor(elapsed), side="right")
    return recipe.lr * recipe.decay_rate**passed


def _one_cycle(recipe: Recipe, elapsed: _Times, _: float) -> _Times:
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


def _cyclic(recipe: Recipe, elapsed: _Times, _: float) -> _Times:
    """Rise from min_lr to lr and fall again ``num_cycles`` times, in straight lines (Smith, 1506.01186)."""
    index = np.arange(len(elapsed))
    half = max(int(len(elapsed) / recipe.num_cycles / 2), 1)
    place = index / (2 * half) % 1.0
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * np.where(place <= 0.5, 2 * place, 2 - 2 * place)


_SCHEDULES: dict[str, Callable[[Recipe, _Times, float], _Times]] = {
    "cosine_decay": _cosine,
    "warmup_cosine_decay": _cosine,
    "tanh_decay": _tanh,
    "constant": _constant,
    "exponential_decay": _exponential,
    "polynomial_decay": _polynomial,
    "step_decay": _stepwise,
    "multi_step_decay": _multi_step,
    "one_cycle": _one_cycle,
    "cyclic": _cyclic,
}
