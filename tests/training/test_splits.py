"""Several views of an image in a batch, and the loss that compares them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_folder import write_images
from mindspore import Tensor

from xcit_hub.data.batches import Worker
from xcit_hub.models import create_model
from xcit_hub.training.inputs import train_data
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.step import TrainStep


@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize("library", ["mindcv", "timm"])
def test_augmix_trains_on_three_views_of_every_image(mini_architecture: str, tmp_path: Path, library: str) -> None:
    settings = {
        "model": mini_architecture, "library": library, "data_dir": str(write_images(tmp_path, train=16)),
        "auto_augment": "augmix-m5-w2", "loss": "jsd", "batch_size": 4, "image_resize": 32, "label_smoothing": 0.1,
    }  # fmt: skip
    recipe = load_recipe(None, settings | {"aug_splits": 3})
    source, batches = train_data(recipe, Worker())
    batch = next(iter(batches.epoch(0)))
    _, plain = train_data(
        load_recipe(None, settings | {"auto_augment": None, "color_jitter": None, "loss": "ce"}), Worker()
    )
    untouched = next(iter(plain.epoch(0)))
    assert batch.images.shape == (12, 3, 32, 32)
    assert np.array_equal(batch.images[:4], untouched.images)
    assert np.array_equal(batch.targets, np.tile(untouched.targets, (3, 1)))
    assert np.array_equal(batch.indices, untouched.indices)
    assert not np.array_equal(batch.images[4:8], batch.images[8:])
    whole = {"re_prob": 1.0, "re_value": "const", "resplit": library == "timm"}
    _, erased = train_data(load_recipe(None, settings | whole | {"aug_splits": 3}), Worker())
    views = next(iter(erased.epoch(0))).images.reshape(3, 4, -1)
    changed = (views != batch.images.reshape(3, 4, -1)).any(-1)
    assert changed[1:].all()
    assert changed[0].all() == (library == "mindcv"), "resplit leaves the first view whole"
    assert not changed[0].any() or library == "mindcv"
    network = create_model(mini_architecture, num_classes=len(source.classes), seed=3)
    step = TrainStep(network, recipe)
    losses = [float(step(Tensor(batch.images), Tensor(batch.targets), 1e-3).loss) for _ in range(3)]
    assert np.isfinite(losses).all()
    assert losses[2] < losses[0]
