"""A training run of the small architecture that keeps each worker's BatchNorm statistics before and after sharing."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mindspore import Parameter
from mini_train import register

from xcit_hub.accelerated.stacked import by_layer
from xcit_hub.data.batches import Worker
from xcit_hub.training import device
from xcit_hub.training.engine import train
from xcit_hub.training.recipe_file import load_recipe, parse_flags


def spied(parameters: Sequence[Parameter], worker: Worker) -> None:
    before = {f"before/{name}": array.copy() for name, array in by_layer(parameters).items()}
    average(parameters, worker)
    after = {f"after/{name}": array for name, array in by_layer(parameters).items()}
    np.savez(folder / f"worker{worker.rank}.npz", **before, **after)


if __name__ == "__main__":
    register()
    average, device.average = device.average, spied
    recipe = load_recipe(None, parse_flags(sys.argv[1:]))
    folder = Path(recipe.ckpt_save_dir)
    train(recipe)
    device.leave()
    os._exit(0)
