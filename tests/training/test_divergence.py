"""A training that diverges where no loss of a step shows it: at the last step of an epoch."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from image_folder import write_images

from xcit_hub.data.batches import EvalBatches, Worker
from xcit_hub.errors import XcitHubError
from xcit_hub.training.engine import train
from xcit_hub.training.evaluation import evaluate
from xcit_hub.training.inputs import eval_data
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe

pytestmark = pytest.mark.usefixtures("pynative")


def recipe_of(model: str, root: Path, **changes: object) -> Recipe:
    settings = {
        "model": model, "num_classes": 3, "dialect": "paper", "mode": 1, "dataset": "imagefolder", "image_resize": 32,
        "data_dir": str(write_images(root / "data")), "ckpt_save_dir": str(root / "run"), "epoch_size": 1,
        "warmup_epochs": 0, "num_parallel_workers": 1,
    }  # fmt: skip
    return load_recipe(None, {**settings, **changes})


@pytest.mark.parametrize("evaluated", [True, False])
def test_weights_that_are_not_finite_end_the_run_and_are_not_written(
    mini_architecture: str, tmp_path: Path, evaluated: bool
) -> None:
    recipe = recipe_of(mini_architecture, tmp_path, batch_size=24, weight_decay=3e38, lr=1e3, val_while_train=evaluated)
    with pytest.raises(XcitHubError, match=r"^After epoch 1 weights are not finite: .* \(trained\)") as caught:
        train(recipe)
    assert "no epoch was finished" in str(caught.value)
    assert not [*(tmp_path / "run").glob("*.ckpt"), *(tmp_path / "run").glob("*.safetensors")]


def test_a_state_that_is_not_finite_does_not_replace_the_one_that_is(mini_architecture: str, tmp_path: Path) -> None:
    changes = {"batch_size": 8, "weight_decay": 3e38, "lr": 1e3, "recovery_interval": 1}
    with pytest.raises(XcitHubError, match=r"^After 1 steps of epoch 1 the state of the run is not finite: ") as caught:
        train(recipe_of(mini_architecture, tmp_path, **changes))
    assert "no epoch was finished" in str(caught.value)
    assert not [*(tmp_path / "run").glob("*.safetensors")]


def test_answers_that_are_not_finite_are_no_score(mini_architecture: str, tmp_path: Path) -> None:
    batches = eval_data(recipe_of(mini_architecture, tmp_path, batch_size=4), Worker())
    with pytest.raises(XcitHubError, match="the loss of the evaluation is nan"):
        evaluate(lambda images: np.full((len(images), 3), np.nan, np.float32), batches, outputs=3)


def test_a_batch_larger_than_the_split_is_as_large_as_it(mini_architecture: str, tmp_path: Path) -> None:
    recipe = recipe_of(mini_architecture, tmp_path, batch_size=1 << 20, drop_remainder=False, val_while_train=True)
    batches = eval_data(recipe, Worker())
    assert isinstance(batches, EvalBatches)
    assert [images.shape[0] for images, _, _ in batches] == [9]
    assert [eval_data(recipe, Worker(rank, 2)).batch_size for rank in range(2)] == [5, 5]
    record = train(recipe)
    assert record.eval_samples == 9
    with (tmp_path / "run" / "epochs.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["images_per_second"]) * float(row["seconds"]) == pytest.approx(24, rel=0.01), "not 2**20"
