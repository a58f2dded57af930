"""The learning rate of every step, as a table computed once in double precision."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from xcit_hub.training.recipe import Recipe


def learning_rates(recipe: Recipe, steps_per_epoch: int) -> npt.NDArray[np.float64]:
    """Return the learning rate of every step of a run, float64, shape (epoch_size · steps_per_epoch,).

    Linear warm-up from ``warmup_factor · lr`` over ``warmup_epochs``, then a cosine from ``lr`` to ``min_lr`` over
    ``decay_epochs``, then ``min_lr``: timm's ``CosineLRScheduler`` (timm/scheduler/cosine_lr.py). With
    ``warmup_prefix`` the cosine begins after the warm-up, else the warm-up replaces its beginning. Time runs in
    steps, or in whole epochs with ``lr_epoch_stair``.
    """
    step = np.arange(recipe.epoch_size * steps_per_epoch)
    unit = 1 if recipe.lr_epoch_stair else steps_per_epoch
    time = step // steps_per_epoch if recipe.lr_epoch_stair else step
    warmup = recipe.warmup_epochs * unit
    peak, start = recipe.lr, recipe.lr * recipe.warmup_factor
    rising = start + time * ((peak - start) / max(warmup, 1))
    if recipe.scheduler == "constant":
        after = np.full(step.shape, peak)
    else:
        decay = recipe.decay_epochs * unit
        elapsed = time - warmup if recipe.warmup_prefix else time
        cosine = recipe.min_lr + 0.5 * (peak - recipe.min_lr) * (1 + np.cos(math.pi * elapsed / decay))
        after = np.where(elapsed < decay, cosine, recipe.min_lr)
    return np.where(time < warmup, rising, after)
