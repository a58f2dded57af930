"""The state of a run is taken whole or not at all; progress that lies is data (tests/attacks/training/progress)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import CheckpointError, InputError, XcitHubError
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.resume import (
    STATE,
    Kept,
    Progress,
    as_begun,
    load_state,
    save_state,
    stored_progress,
    timed_otherwise,
    told_of,
)

ATTACKS = Path(__file__).parents[1] / "attacks" / "training" / "progress"
CLASSES = ["class0", "class1", "class2"]


@pytest.fixture
def recipe(mini_architecture: str) -> Recipe:
    return load_recipe(None, {"model": mini_architecture, "dialect": "paper", "epoch_size": 2})


def arrays(**changes: Any) -> dict[str, np.ndarray]:
    fine = {
        "head.weight": np.ones((3, 4), np.float32),
        "adam_v.head.weight": np.ones((3, 4), np.float32),
        "proj.0.1.moving_variance": np.ones(4, np.float32),
        "updates": np.array(3.0, np.float32),
        "loss_scale": np.array(1.0, np.float32),
        "quiet_steps": np.array(0, np.int32),
    }
    return {name: value for name, value in {**fine, **changes}.items() if value is not None}


def progress(**changes: Any) -> Progress:
    done = {"epochs_done": 1, "history": [{"epoch": 1, "loss": 1.0}]}
    return Progress(workers=1, steps=3, dialect="paper", classes=CLASSES, **{**done, **changes})


BEGINNING = {"epochs_done": 0, "history": []}


def test_what_was_written_is_what_is_read(recipe: Recipe, tmp_path: Path) -> None:
    written = progress(kept=[Kept(name=f"{recipe.model}-1_3.ckpt", top1=50.0)], timed_steps=1, timed_seconds=0.5)
    save_state(tmp_path, arrays(), recipe, written)
    state, read = load_state(tmp_path, arrays(), recipe, progress(**BEGINNING))
    assert read == written
    for name, array in arrays().items():
        np.testing.assert_array_equal(state[name], array)


@pytest.mark.parametrize("path", sorted(ATTACKS.iterdir()), ids=lambda path: path.stem)
def test_progress_that_lies_is_refused_in_one_sentence(path: Path, recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    victim = tmp_path / "victim.txt"
    victim.write_text("not yours")
    metadata = {"xcit_hub.state": "2", "recipe": recipe.model_dump_json(), "progress": path.read_text()}
    checkpoint.write(folder / STATE, arrays(), metadata)
    with pytest.raises(XcitHubError) as caught:
        load_state(folder, arrays(), recipe, progress(**BEGINNING))
    assert len(caught.value.what.splitlines()) == 1
    assert len(str(caught.value)) < 800
    assert victim.read_text() == "not yours"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"head.weight": np.full((3, 4), np.nan, np.float32)}, "head.weight is not finite"),
        ({"head.weight": np.full((3, 4), np.inf, np.float32)}, "head.weight is not finite"),
        ({"head.weight": np.ones((4, 3), np.float32)}, "head.weight is float32"),
        ({"head.weight": np.ones((3, 4), np.float64)}, "head.weight is float64"),
        ({"head.weight": None}, "another network"),
        ({"tail.weight": np.ones(1, np.float32)}, "another network"),
        ({"adam_v.head.weight": -np.ones((3, 4), np.float32)}, "adam_v.head.weight is negative"),
        ({"proj.0.1.moving_variance": -np.ones(4, np.float32)}, "moving_variance is negative"),
        ({"updates": np.array(4.0, np.float32)}, "updates is 4 after 3 steps"),
        ({"updates": np.array(-1.0, np.float32)}, "updates is negative"),
        ({"loss_scale": np.array(-1.0, np.float32)}, "loss_scale is negative"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value.replace(" ", "-"),
)
def test_tensors_that_cannot_be_are_refused(
    changes: dict[str, np.ndarray], says: str, recipe: Recipe, tmp_path: Path
) -> None:
    save_state(tmp_path, arrays(**changes), recipe, progress())
    with pytest.raises(XcitHubError, match=says):
        load_state(tmp_path, arrays(), recipe, progress(**BEGINNING))


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ({"workers": 2}, "workers were 1 and are 2"),
        ({"steps": 4}, "steps of an epoch were 3 and are 4"),
        ({"dialect": "mindcv"}, "dialect.* were paper and are mindcv"),
        ({"classes": ["cat", "dog", "cow"]}, "classes were"),
        ({"images": told_of(np.array([0, 0, 1, 2]))}, r"images were 4 \(classes \w+\) and are 4 \(classes"),
        ({"validation": told_of(np.array([0, 1]))}, r"images to evaluate were 1 \(classes \w+\) and are 2 \(classes"),
        ({"teacher": "b" * 64}, "teacher's weights were a{64} and are b{64}"),
    ],
    ids=str,
)
def test_a_run_is_not_continued_on_other_workers_or_data(
    expected: dict[str, Any], says: str, recipe: Recipe, tmp_path: Path
) -> None:
    begun = {"images": told_of(np.array([0, 1, 1, 2])), "validation": told_of(np.array([0])), "teacher": "a" * 64}
    save_state(tmp_path, arrays(), recipe, progress(**begun))
    here = progress(**BEGINNING, **begun).model_copy(update=expected)
    with pytest.raises(InputError, match=says):
        load_state(tmp_path, arrays(), recipe, here)


def test_a_run_goes_on_where_nothing_is_evaluated_any_more_and_from_a_state_that_does_not_say_its_teacher(
    recipe: Recipe, tmp_path: Path
) -> None:
    save_state(tmp_path, arrays(), recipe, progress(validation=told_of(np.array([0]))))
    load_state(tmp_path, arrays(), recipe, progress(**BEGINNING, teacher="a" * 64))


def test_images_that_are_first_evaluated_later_stay_the_same_from_then_on(recipe: Recipe, tmp_path: Path) -> None:
    first, other = (told_of(np.array([0] * count)) for count in (3, 4))
    save_state(tmp_path, arrays(), recipe, progress())
    _, goes_on = load_state(tmp_path, arrays(), recipe, progress(**BEGINNING, validation=first, images=other))
    assert (goes_on.validation, goes_on.images) == (first, other)
    save_state(tmp_path, arrays(), recipe, goes_on)
    with pytest.raises(InputError, match=r"the images to evaluate were 3 .* and are 4 "):
        load_state(tmp_path, arrays(), recipe, progress(**BEGINNING, validation=other))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ("/old/data", "/new", ["/new/train/a/1.png", "/new/train.tar!a/2.png (not a plain file)", "/other/1.png"]),
        ("/old/data/", "here", ["here/train/a/1.png", "here/train.tar!a/2.png (not a plain file)", "/other/1.png"]),
        ("/old/data", ".", ["train/a/1.png", "train.tar!a/2.png (not a plain file)", "/other/1.png"]),
    ],
)
def test_an_unreadable_image_of_data_that_was_moved_is_still_the_same_one(
    before: str, now: str, expected: list[str], recipe: Recipe, tmp_path: Path
) -> None:
    names = ["/old/data/train/a/1.png", "/old/data/train.tar!a/2.png (not a plain file)", "/other/1.png"]
    save_state(tmp_path, arrays(), recipe.model_copy(update={"data_dir": before}), progress(unreadable=names))
    _, read = load_state(tmp_path, arrays(), recipe.model_copy(update={"data_dir": now}), progress(**BEGINNING))
    assert read.unreadable == expected


def test_times_of_another_device_or_version_are_not_mixed_with_those_of_now(recipe: Recipe, tmp_path: Path) -> None:
    times = {"first_step": 9.0, "timed_steps": 2, "timed_seconds": 4.0}
    here = {"device": "CPU", "mindspore": "2.8.0"}
    written = progress(**times, timed_on=here)
    save_state(tmp_path, arrays(), recipe, written)
    for now, kept in ((here, True), ({**here, "device": "Ascend"}, False)):
        _, goes_on = load_state(tmp_path, arrays(), recipe, progress(**BEGINNING, timed_on=now))
        assert (goes_on.timed_on, goes_on.timed_steps, goes_on.first_step) == (now, 2 * kept, 9.0 if kept else None)
    done = progress(**times, timed_on=here, epochs_done=2, history=[{"epoch": n, "loss": 1.0} for n in (1, 2)])
    save_state(tmp_path, arrays(updates=np.array(6.0, np.float32)), recipe, done)
    _, ended = load_state(tmp_path, arrays(), recipe, progress(**BEGINNING, timed_on={**here, "device": "Ascend"}))
    assert ended == done, "no step is taken any more"
    assert timed_otherwise(written, here) == []
    assert timed_otherwise(written, {**here, "device": "Ascend"}) == [
        "the times of run.json will be those of this process alone: device was 'CPU' and is 'Ascend'"
    ]
    (said,) = timed_otherwise(progress(**times), here)
    assert said.endswith("the state does not say what they were taken on")


@pytest.mark.parametrize("figures", [{"top1": 150}, {"average_top1": -1}, {"eval_loss": -0.5}, {"epoch": 2}], ids=str)
def test_a_record_that_no_epoch_has_is_refused_before_anything_is_trained(
    figures: dict[str, float], recipe: Recipe, tmp_path: Path
) -> None:
    save_state(tmp_path, arrays(), recipe, progress(history=[{"epoch": 1, "loss": 1.0, **figures}]))
    with pytest.raises(CheckpointError, match="is damaged: record 1 of its history"):
        load_state(tmp_path, arrays(), recipe, progress(**BEGINNING))


def test_a_recipe_that_now_ends_before_what_is_done_is_another_recipe_and_no_damage(
    recipe: Recipe, tmp_path: Path
) -> None:
    records = [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5}]
    save_state(tmp_path, arrays(), recipe, progress(epochs_done=2, history=records))
    for changes, says in (({"epoch_size": 1}, "epoch_size was 2 and is 1"), ({"seed": 7}, "seed was 42 and is 7")):
        with pytest.raises(InputError, match=f"started under another recipe: {says}"):
            stored_progress(tmp_path, recipe.model_copy(update=changes))


def test_the_state_of_0_1_0_is_refused_naming_the_version(recipe: Recipe, tmp_path: Path) -> None:
    metadata = {"xcit_hub.state": "1", "xcit_hub.version": "0.1.0", "recipe": "{}", "progress": "{}"}
    checkpoint.write(tmp_path / STATE, arrays(), metadata)
    with pytest.raises(CheckpointError, match=r"written by xcit-hub 0\.1\.0"):
        load_state(tmp_path, arrays(), recipe, progress(**BEGINNING))


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"xcit_hub.state": "2"},
        {"xcit_hub.state": "2", "recipe": "{"},
        {"xcit_hub.state": "2", "recipe": "[]"},
        {"xcit_hub.state": "2", "recipe": "[" * 100_000},
        {"xcit_hub.state": "2", "recipe": "{}"},
    ],
    ids=lambda metadata: str(metadata)[:50],
)
def test_a_state_that_does_not_describe_itself_is_refused(
    metadata: dict[str, str], recipe: Recipe, tmp_path: Path
) -> None:
    checkpoint.write(tmp_path / STATE, arrays(), metadata)
    with pytest.raises(CheckpointError):
        load_state(tmp_path, arrays(), recipe, progress(**BEGINNING))


def test_a_state_that_does_not_tell_its_images_goes_on(recipe: Recipe, tmp_path: Path) -> None:
    save_state(tmp_path, arrays(), recipe, progress())
    load_state(tmp_path, arrays(), recipe, progress(**BEGINNING, images=told_of(np.array([0, 1, 2]))))


def test_what_a_continued_run_changes_is_said_and_its_first_weights_stay_those_it_had(
    recipe: Recipe, tmp_path: Path
) -> None:
    begun = recipe.model_copy(update={"ckpt_path": "first.ckpt"})
    save_state(tmp_path, arrays(), begun, progress())
    assert as_begun(tmp_path, begun.model_copy(update={"resume_opt": True}))[1] == []
    assert as_begun(tmp_path, recipe) == (begun, []), "nobody has to say them again"
    other = {"ckpt_path": "other.ckpt", "pretrained": True, "log_interval": 7, "teacher_ckpt": "other.pth"}
    assert as_begun(tmp_path, recipe.model_copy(update=other)) == (
        recipe.model_copy(update={**other, "ckpt_path": "first.ckpt", "pretrained": False}),
        [
            "ckpt_path has no effect: the run goes on with its own weights",
            "pretrained has no effect: the run goes on with its own weights",
            "changed since the run began: log_interval was 100 and is 7; teacher_ckpt was '' and is 'other.pth'",
        ],
    )
