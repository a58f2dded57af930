"""A training run that keeps each worker's BatchNorm statistics before and after they are shared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mindspore import Parameter

from xcit_hub.accelerated.stacked import by_layer
from xcit_hub.data.batches import Worker
from xcit_hub.training import device
from xcit_hub.training.engine import train
from xcit_hub.training.recipe import Recipe


def train_spied(recipe: Recipe) -> None:
    average, folder = device.average, Path(recipe.ckpt_save_dir)

    def spied(parameters: Sequence[Parameter], worker: Worker) -> None:
        before = {f"before/{name}": array.copy() for name, array in by_layer(parameters).items()}
        average(parameters, worker)
        after = {f"after/{name}": array for name, array in by_layer(parameters).items()}
        np.savez(folder / f"worker{worker.rank}.npz", **before, **after)

    device.average = spied
    try:
        train(recipe)
    finally:
        device.average = average
