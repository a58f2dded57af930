from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folder import write_images

from xcit_hub import variants
from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.files import sha256_of
from xcit_hub.run_record import RunRecord
from xcit_hub.training.engine import train
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.resume import Progress
from xcit_hub.training.scoring import score, settings_of, stored_network

pytest.importorskip("xcit_hub.timm")  # reads the variant table, before a test adds to it

pytestmark = pytest.mark.usefixtures("pynative")


@pytest.fixture
def recipe_of(mini_architecture: str, tmp_path: Path) -> Any:
    data = write_images(tmp_path / "data")

    def build(folder: str = "run", **changes: Any) -> Recipe:
        settings = {
            "model": mini_architecture,
            "mode": 1,
            "dataset": "imagefolder",
            "data_dir": str(data),
            "ckpt_save_dir": str(tmp_path / folder),
            "image_resize": 32,
            "batch_size": 8,
            "epoch_size": 2,
            "warmup_epochs": 0,
            "decay_epochs": 2,
            "weight_decay_filter": "paper",
            "dialect": "paper",
            "num_parallel_workers": 1,
        }
        return load_recipe(None, {**settings, **changes})

    return build


def tensors(path: Path) -> dict[str, np.ndarray]:
    with checkpoint.read(path) as stored:
        return {name: np.array(tensor.numpy()) for name, tensor in stored.tensors.items()}


def test_a_run_leaves_checkpoints_curves_and_a_record_that_agree(
    recipe_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(val_while_train=True, ema=True, ema_decay=0.5, keep_checkpoint_max=1)
    record = train(recipe, recipe_name="a recipe")
    folder = tmp_path / "run"
    written = RunRecord.read(folder / "run.json")
    assert written == record
    assert (record.cards, record.batch_size, record.epochs, record.eval_samples) == (1, 8, 2, 9)
    assert record.ms_per_step is not None
    assert record.images_per_second == pytest.approx(8000 / record.ms_per_step, rel=1e-3)
    best = folder / f"{recipe.model}_best.ckpt"
    assert record.checkpoint_sha256 == sha256_of(best)
    # The policy kept one; the best one is kept beside it.
    kept = [f"{recipe.model}-2_3.ckpt", f"{recipe.model}-2_3_ema.ckpt", best.name]
    assert sorted(path.name for path in folder.glob("*.ckpt")) == kept
    for name in ("steps.csv", "epochs.csv", "curves.png", "resume.safetensors"):
        assert (folder / name).stat().st_size
    assert list((folder / "tensorboard").iterdir())

    # What the run said of its best weights is what an evaluation of the file finds.
    evaluated = load_recipe(None, {**recipe.model_dump(), "ckpt_path": str(best)})
    stored = stored_network(evaluated)
    network, digest = stored.network, stored.digest
    monkeypatch.delitem(variants.ARCHITECTURES, recipe.model)  # timm's own table does not have it either
    report = score(evaluated, network, digest=digest, output=tmp_path / "eval", against_timm=True)
    assert report is not None
    assert (report.ours.top1, digest) == (record.top1, record.checkpoint_sha256)
    assert report.theirs is not None
    assert (report.theirs.top1, report.differences) == (report.ours.top1, ())
    assert (tmp_path / "eval" / "confusion.png").stat().st_size
    lines = (tmp_path / "eval" / "per_class.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [[f"class{label}", "3"] for label in range(3)]
    assert json.loads((tmp_path / "eval" / "run.json").read_text())["top1"] == record.top1


DROPS = {"drop_path_rate": 0.1, "drop_rate": 0.1}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (DROPS, 0.0),
        ({"ema": True, "loss_scale_type": "dynamic", "loss_scale": 64.0}, 0.0),
        ({"drop_path_rate": 0.1, "mode": 0}, 1e-6),
    ],
    ids=["drops", "ema", "graph"],
)
def test_a_continued_run_equals_an_uninterrupted_one(
    recipe_of: Any, tmp_path: Path, changes: Any, error: float
) -> None:
    augmented = {"mixup": 0.8, "cutmix": 1.0, "re_prob": 0.25, "auto_augment": "randaug-m9-mstd0.5-inc1", **changes}

    def interrupt(progress: Progress) -> None:
        # What a run leaves that ends here is what lies here.
        if progress.epochs_done == 1:
            shutil.copytree(tmp_path / "whole", tmp_path / "parts")

    train(recipe_of("whole", **augmented), on_epoch=interrupt)
    record = train(recipe_of("parts", **augmented), resume=True)
    assert record.epochs == 2
    whole, parts = (tensors(tmp_path / folder / "resume.safetensors") for folder in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=0, atol=error, err_msg=name)
    losses = [(tmp_path / folder / "steps.csv").read_text().splitlines()[1:] for folder in ("whole", "parts")]
    for one, other in zip(*losses, strict=True):
        np.testing.assert_allclose(*([float(x) for x in row.split(",")[:4]] for row in (one, other)), rtol=error)


def test_what_is_dropped_changes_from_step_to_step(recipe_of: Any, tmp_path: Path) -> None:
    # Without augmentation, with one batch an epoch and no learning rate to speak of, only the masks can differ.
    still = {"batch_size": 24, "scale": [1.0, 1.0], "ratio": [1.0, 1.0], "hflip": 0.0, "color_jitter": 0.0, "lr": 1e-12}
    losses = {}
    for name, changes in {"none": {}, "drops": {"drop_path_rate": 0.5}}.items():
        train(recipe_of(name, **still, **changes))
        rows = (tmp_path / name / "steps.csv").read_text().splitlines()[1:]
        losses[name] = [float(row.split(",")[2]) for row in rows]
    assert losses["none"][0] == pytest.approx(losses["none"][1], rel=1e-5)
    assert abs(losses["drops"][0] - losses["drops"][1]) > 1e-4


def test_a_run_is_neither_overwritten_nor_continued_under_another_recipe(recipe_of: Any) -> None:
    train(recipe_of(epoch_size=1))
    with pytest.raises(InputError, match="Another run"):
        train(recipe_of(epoch_size=1))
    with pytest.raises(InputError, match=r"lr was 0\.001 and is 0\.5"):
        train(recipe_of(epoch_size=1, lr=0.5), resume=True)
    with pytest.raises(XcitHubError, match="no run to continue"):
        train(recipe_of("elsewhere"), resume=True)


def test_a_full_disk_is_reported_and_the_old_state_still_stands(
    recipe_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(progress: Progress) -> None:
        def no_space(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("os.fsync", no_space)

    with pytest.raises(XcitHubError, match="No space left"):
        train(recipe_of(), on_epoch=fill)
    monkeypatch.undo()
    folder = tmp_path / "run"
    assert not list(folder.glob("*.tmp"))
    with checkpoint.read(folder / "resume.safetensors") as stored:
        assert json.loads(stored.metadata["progress"])["epochs_done"] == 1
    assert (folder / "xcit_mini_2_p16_64-1_3.ckpt").exists()


def test_unreadable_images_are_named_counted_and_limited(
    recipe_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [tmp_path / "data" / "train" / "class1" / f"{number}.png" for number in (2, 5)]
    for path in broken:
        path.write_bytes(path.read_bytes()[:100])
    record = train(recipe_of(epoch_size=1))
    assert sorted(record.model_dump()["unreadable"]) == [str(path) for path in broken]
    assert str(broken[0]) in capsys.readouterr().err
    with pytest.raises(InputError, match="2 images cannot be read"):
        train(recipe_of("strict", max_corrupt=1))


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(recipe_of: Any, tmp_path: Path) -> None:
    with pytest.raises(XcitHubError, match=r"The loss is (nan|inf) at step") as caught:
        train(recipe_of(lr=1e30, drop_overflow_update=False))
    assert str(tmp_path / "data" / "train" / "class") in str(caught.value)
    assert "no epoch was finished" in str(caught.value)


def test_fine_tuning_keeps_everything_but_a_head_for_other_classes(recipe_of: Any, tmp_path: Path) -> None:
    train(recipe_of("first", epoch_size=1, num_classes=5))
    stored = next((tmp_path / "first").glob("*.ckpt"))
    recipe = recipe_of("second", epoch_size=1, ckpt_path=str(stored), lr=1e-12, freeze_bn=True, weight_decay=0.0)
    train(recipe)
    before, after = tensors(stored), tensors(next((tmp_path / "second").glob("*.ckpt")))
    assert after["head.weight"].shape[0] == 3
    for name in before.keys() - {"head.weight", "head.bias"}:
        np.testing.assert_allclose(after[name], before[name], atol=1e-6, err_msg=name)


def test_a_student_is_distilled_from_a_stored_teacher(recipe_of: Any, tmp_path: Path, mini_architecture: str) -> None:
    train(recipe_of("teacher", epoch_size=1))
    stored = next((tmp_path / "teacher").glob("*.ckpt"))
    losses = {}
    for kind in ("soft", "hard"):
        settings = {"teacher": mini_architecture, "teacher_ckpt": str(stored), "distillation_type": kind}
        record = train(recipe_of(kind, epoch_size=1, **settings))
        losses[kind] = record.model_dump()["final_loss"]
    assert losses["soft"] != losses["hard"]
    assert all(np.isfinite(loss) for loss in losses.values())


def test_a_checkpoint_says_what_it_is(recipe_of: Any, tmp_path: Path) -> None:
    train(recipe_of(epoch_size=1, dialect="mindcv"))
    with checkpoint.read(next((tmp_path / "run").glob("*.ckpt"))) as stored:
        assert stored.metadata["xcit_hub.dialect"] == "mindcv"
        assert json.loads(stored.metadata["xcit_hub.classes"]) == ["class0", "class1", "class2"]
    with pytest.raises(XcitHubError, match="dialect"):
        stored_network(recipe_of(ckpt_path=str(next((tmp_path / "run").glob("*.ckpt"))), dialect="paper"))


def test_what_a_loaded_network_brings_along_is_a_recipe(mini_architecture: str) -> None:
    from xcit_hub.models import create_model
    from xcit_hub.variants import Preprocessing

    wanted = Preprocessing(image_size=96, crop_pct=0.9, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    recipe = load_recipe(None, settings_of(create_model(mini_architecture, num_classes=4, init=False), wanted))
    assert recipe.preprocessing.image_size == 96
    np.testing.assert_allclose(recipe.preprocessing.mean, wanted.mean)
    assert recipe.num_classes == 4
