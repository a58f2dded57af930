"""A state within an epoch: a run that goes on from there is the undisturbed one, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import pytest
from image_folder import write_images

from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import CheckpointError, InputError
from xcit_hub.run_record import RunRecord
from xcit_hub.training import engine
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.resume import STATE, Part, Progress, load_state, save_state

SETTINGS = {
    "dataset": "imagefolder",
    "image_resize": 32,
    "batch_size": 4,
    "epoch_size": 2,
    "warmup_epochs": 0,
    "decay_epochs": 2,
    "weight_decay_filter": "paper",
    "dialect": "paper",
    "num_parallel_workers": 1,
    "log_interval": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


def tensors(path: Path) -> dict[str, np.ndarray]:
    with checkpoint.read(path) as stored:
        return {name: np.array(tensor.numpy()) for name, tensor in stored.tensors.items()}


@pytest.mark.parametrize("mode", [mindspore.PYNATIVE_MODE, mindspore.GRAPH_MODE], ids=["pynative", "graph"])
def test_a_run_goes_on_in_the_middle_of_an_epoch_bit_for_bit(
    brief_architecture: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    mode: int,
) -> None:
    request.getfixturevalue("pynative" if mode == mindspore.PYNATIVE_MODE else "graph")

    def recipe(folder: str, **changes: Any) -> Recipe:
        everything: dict[str, Any] = {
            "mode": mode, "drop_path_rate": 0.1, "drop_rate": 0.1, "ema": True, "ema_decay": 0.9, "mixup": 0.8,
            "cutmix": 1.0, "mixup_mode": "elem", "mixup_off_epoch": 1, "loss_scale_type": "dynamic", "loss_scale": 64.0,
            "gradient_accumulation_steps": 4, "recovery_interval": 3,
        }  # fmt: skip
        if (
            mode == mindspore.GRAPH_MODE
        ):  # where each parameter that is trained takes time to compile; some of each kind
            everything["freeze"] = ["patch_embed", "pos_embeder", "cls_attn_blocks"]
        where = {"model": brief_architecture, "data_dir": str(data), "ckpt_save_dir": str(tmp_path / folder)}
        return load_recipe(None, {**SETTINGS, **everything, **where, **changes})

    save, seen = engine.save_state, []

    def spied(folder: Path, arrays: Any, recipe: Recipe, progress: Progress) -> None:
        save(folder, arrays, recipe, progress)
        seen.append((progress.epochs_done, progress.part.steps))
        if seen[-1] == (1, 3):  # what a run leaves that is killed here
            shutil.copytree(folder, tmp_path / "parts")

    monkeypatch.setattr(engine, "save_state", spied)
    whole = engine.train(recipe("whole"))
    # Six steps an epoch; 9 steps are two updates of four batches, and one batch that waits.
    assert seen == [(0, 3), (1, 0), (1, 3), (2, 0)]
    shutil.rmtree(tmp_path / "parts" / "tensorboard", ignore_errors=True)
    parts = engine.train(recipe("parts"), resume=True)
    assert seen[4:] == [(2, 0)]
    left, right = (tensors(tmp_path / folder / STATE) for folder in ("whole", "parts"))
    assert left.keys() == right.keys()
    assert float(left["accumulated"]) == 0 and float(left["updates"]) == 3
    for name, array in left.items():
        np.testing.assert_array_equal(right[name], array, err_msg=name)
    assert (parts.final_loss, parts.checkpoint_sha256) == (whole.final_loss, whole.checkpoint_sha256)
    steps = [(tmp_path / folder / "steps.csv").read_text().splitlines() for folder in ("whole", "parts")]
    assert [row.split(",")[:5] for row in steps[0]] == [row.split(",")[:5] for row in steps[1]]
    assert len(steps[0]) == 13


ARRAYS = {"head.weight": np.ones((3, 4), np.float32), "updates": np.array(5.0, np.float32)}


def progress(**changes: Any) -> Progress:
    begun = {"epochs_done": 1, "history": [{"epoch": 1, "loss": 1.0}], "part": Part(steps=2, loss=3.5, seconds=1.0)}
    return Progress(workers=1, steps=3, dialect="paper", classes=["a"], **{**begun, **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"part": Part(steps=3)}, "3 steps of epoch 2 are done"),
        ({"part": Part(steps=2), "epochs_done": 2, "history": [{"epoch": n, "loss": 1.0} for n in (1, 2)]}, "epoch 3"),
        ({"part": Part(steps=1)}, "updates is 5 after 4 steps"),
    ],
    ids=["as many as an epoch has", "after the last epoch", "other steps than the counters"],
)
def test_a_part_of_an_epoch_that_cannot_be_is_refused(
    mini_architecture: str, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    recipe = load_recipe(None, {"model": mini_architecture, "dialect": "paper", "epoch_size": 2})
    save_state(tmp_path, ARRAYS, recipe, progress(**changes))
    with pytest.raises(CheckpointError, match=says):
        load_state(tmp_path, ARRAYS, recipe, progress())
    save_state(tmp_path, ARRAYS, recipe, progress())
    assert load_state(tmp_path, ARRAYS, recipe, progress())[1].steps_done == 5


def test_a_state_that_is_older_than_a_key_of_the_recipe_is_continued(mini_architecture: str, tmp_path: Path) -> None:
    given = {"model": mini_architecture, "dialect": "paper", "epoch_size": 2}

    class Older(Recipe):
        def model_dump_json(self, **options: Any) -> str:  # type: ignore[override]
            return super().model_dump_json(exclude={"freeze", "lr_base", "mixup_mode", "cutmix_minmax"}, **options)

    save_state(tmp_path, ARRAYS, Older(**given), progress())
    load_state(tmp_path, ARRAYS, Recipe(**given), progress())
    with pytest.raises(InputError, match="mixup_mode was 'batch' and is 'elem'"):
        load_state(tmp_path, ARRAYS, Recipe(**given, mixup_mode="elem"), progress())


@pytest.mark.usefixtures("pynative")
def test_a_rate_of_the_batch_is_said_and_recorded(
    mini_architecture: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(
        None,
        {
            **SETTINGS,
            "mode": 1,
            "model": mini_architecture,
            "data_dir": str(data),
            "ckpt_save_dir": str(tmp_path / "run"),
            "epoch_size": 1,
            "lr_base": 0.0005,
            "lr_base_size": 512,
            "lr_base_scale": "linear",
            "gradient_accumulation_steps": 2,
        },
    )
    record = engine.train(recipe)
    said = capsys.readouterr().err
    assert "lr is 7.8125e-06: lr_base 0.0005 of 512 images, scaled to 8 by the linear rule" in said
    assert record.configuration is not None
    assert record.configuration["lr"] == 0.0005 * 8 / 512
    assert RunRecord.read(tmp_path / "run" / "run.json").configuration == record.configuration
    first = (tmp_path / "run" / "steps.csv").read_text().splitlines()[1].split(",")
    assert float(first[3]) == pytest.approx(0.0005 * 8 / 512)


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({"lr": 0.002}, 0.002),
        ({"lr_base": 0.1, "lr_base_size": 256, "lr_base_scale": "linear"}, 0.4),
        ({"lr_base": 0.1, "lr_base_size": 256}, 0.2),  # timm: AdamW by the square root
        ({"lr_base": 5e-4, "lr_base_size": 512, "lr_base_scale": "linear"}, 1e-3),  # facebook's main.py
    ],
)
def test_the_rate_follows_the_batch_as_timms_and_facebooks_do(
    mini_architecture: str, settings: dict[str, Any], rate: float
) -> None:
    assert Recipe(model=mini_architecture, **settings).highest_rate(1024) == pytest.approx(rate, rel=1e-12)
