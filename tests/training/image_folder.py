"""A folder of small images whose brightness tells their class, and a short recipe on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe


def write_images(root: Path, train: int = 8, val: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label in range(3):
            for number in range(count):
                path = root / split / f"class{label}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.normal(60 + 60 * label, 40, (40, 48, 3)).clip(0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


def recipe_of(model: str, data: Path, **changes: Any) -> Recipe:
    """A recipe of one epoch on the CPU, on small images of three classes."""
    settings = {
        "model": model, "mode": 1, "dataset": "imagefolder", "data_dir": str(data), "image_resize": 32, "batch_size": 8,
        "epoch_size": 1, "warmup_epochs": 0, "dialect": "paper", "num_parallel_workers": 1, "num_classes": 3,
    }  # fmt: skip
    return load_recipe(None, {**settings, **changes})
