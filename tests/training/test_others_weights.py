"""Weights of another pooling, or of classes with other names: to begin with, to evaluate, to learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import pytest
from image_folder import recipe_of, write_images
from torch_twin import arrays_of

from xcit_hub import variants
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.identify import HEAD_UNTRAINED, UNTRAINED_NOTE
from xcit_hub.checkpoints.strings import CLASSES, GLOBAL_POOL, PREPROCESSING
from xcit_hub.errors import InputError
from xcit_hub.models import create_model
from xcit_hub.recipe_runs import train
from xcit_hub.training.scoring import score, stored_network
from xcit_hub.training.start import start
from xcit_hub.training.teachers import find

pytest.importorskip("xcit_hub.timm")  # reads the variant table, before a test adds to it

pytestmark = pytest.mark.usefixtures("pynative")

NANO = "xcit_nano_12_p16_224"
NAMES = ["class0", "class1", "class2"]
PERMUTED = ["class1", "class0", "class2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


def stored(path: Path, network: Any, **strings: str) -> Path:
    told = {"xcit_hub.architecture": network.architecture.name, "xcit_hub.dialect": "paper"}
    checkpoint.write(path, arrays_of(network), told | strings)
    return path


@pytest.fixture
def averaging(mini_architecture: str, tmp_path: Path) -> tuple[Any, Path]:
    """A network whose classifier reads the mean patch token, and its file."""
    network = create_model(mini_architecture, num_classes=3, dialect="paper", seed=5, global_pool="avg")
    head = network.head.weight
    head.set_data(mindspore.Tensor(50 * head.asnumpy()))  # so that no answer is a toss-up
    return network, stored(tmp_path / "avg.ckpt", network, **{GLOBAL_POOL: "avg"})


def test_a_stored_network_of_another_pooling_is_evaluated_as_it_is_and_so_is_its_twin(
    averaging: tuple[Any, Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, path = averaging
    recipe = recipe_of(network.architecture.name, data, ckpt_path=str(path))
    found = stored_network(recipe).network
    images = mindspore.Tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    np.testing.assert_allclose(found(images).asnumpy(), network.set_train(False)(images).asnumpy(), atol=1e-5)
    monkeypatch.delitem(variants.ARCHITECTURES, recipe.model)  # timm's own table does not have it either
    report = score(recipe, found, classes=NAMES, against_timm=True)
    assert report is not None and report.theirs is not None
    assert report.theirs.loss == pytest.approx(report.ours.loss, rel=1e-5)
    assert report.differences == ()


def test_no_run_begins_with_weights_of_another_pooling(averaging: tuple[Any, Path], data: Path) -> None:
    network, path = averaging
    with pytest.raises(InputError, match=r"reads the mean patch token \(global_pool 'avg'\)") as caught:
        start(recipe_of(network.architecture.name, data, ckpt_path=str(path)), NAMES)
    assert caught.value.where == "ckpt_path" and "global_pool='token'" in (caught.value.fix or "")


def test_a_teacher_of_another_pooling_answers_as_it_was_trained(
    averaging: tuple[Any, Path], data: Path, tmp_path: Path
) -> None:
    network, path = averaging
    taught = {"teacher": network.architecture.name, "distillation_type": "soft"}
    found = find(recipe_of(network.architecture.name, data, teacher_ckpt=str(path), **taught), 3)
    assert found is not None and found.cell is not None
    images = mindspore.Tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    expected = network.set_train(False)(images).asnumpy()
    np.testing.assert_allclose(found.cell.set_train(False)(images).asnumpy(), expected, atol=1e-5)
    path = stored(tmp_path / "each.ckpt", network, **{GLOBAL_POOL: ""})
    with pytest.raises(InputError, match="answers every token of an image"):
        find(recipe_of(network.architecture.name, data, teacher_ckpt=str(path), **taught), 3)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (PERMUTED, "in another order than the data's: output 0 is 'class1' to it, and 'class0'"),
        (["class0", "class1", "zebra"], "other classes than the data's: output 2 is 'zebra' to it, and 'class2'"),
    ],
)
def test_a_teacher_of_other_or_permuted_classes_is_refused(
    mini_architecture: str, data: Path, tmp_path: Path, names: list[str], says: str
) -> None:
    import xcit_hub

    network = create_model(mini_architecture, num_classes=3, dialect="paper", seed=5)
    path = stored(tmp_path / "teacher.ckpt", network, **{CLASSES: json.dumps(names)})
    recipe = recipe_of(mini_architecture, data, teacher=mini_architecture, distillation_type="soft")
    of_file = recipe.model_copy(update={"teacher_ckpt": str(path)})
    with pytest.raises(InputError, match=says):
        find(of_file, 3, names=NAMES)
    loaded = xcit_hub.load(str(path))
    with pytest.raises(InputError, match=says):
        find(recipe, 3, loaded, names=NAMES)
    assert find(of_file, 3, names=names) is not None
    assert find(of_file, 3) is not None  # where the data's names are not known


@pytest.mark.slow
def test_a_run_takes_the_classifier_of_a_published_network_only_for_its_own_classes(data: Path, tmp_path: Path) -> None:
    import xcit_hub

    network = xcit_hub.create_model(NANO, num_classes=3, dialect="paper", seed=4)
    head = network.head.weight.asnumpy()
    flags = {
        "model": NANO, "mode": 1, "dataset": "imagefolder", "data_dir": str(data), "image_resize": 32, "lr": 1e-12,
        "batch_size": 2, "num_samples": 2, "epoch_size": 1, "warmup_epochs": 0, "num_parallel_workers": 1,
        "weight_decay": 0.0, "min_lr": 0.0,
    }  # fmt: skip
    for folder, names in (("own", NAMES), ("permuted", PERMUTED), ("nameless", [])):
        stored(tmp_path / f"{folder}.ckpt", network, **({CLASSES: json.dumps(names)} if names else {}))
        xcit_hub.load(str(tmp_path / f"{folder}.ckpt")).save_pretrained(tmp_path / folder)
        run = tmp_path / f"{folder}_run"
        train(None, {**flags, "pretrained": str(tmp_path / folder), "ckpt_save_dir": str(run)})
        with checkpoint.read(next(run.glob("*.ckpt"))) as written:
            after = np.array(written.tensors["head.weight"].numpy())
        assert np.allclose(after, head, atol=1e-6) == (folder != "permuted"), folder


@pytest.mark.slow
def test_a_published_network_of_another_pooling_is_not_trained_as_this_one(data: Path, tmp_path: Path) -> None:
    import xcit_hub

    network = xcit_hub.create_model(NANO, num_classes=3, dialect="paper", seed=4, global_pool="avg")
    network.save_pretrained(tmp_path / "avg")
    flags = {"model": NANO, "mode": 1, "dataset": "imagefolder", "data_dir": str(data), "image_resize": 32}
    flags |= {"ckpt_save_dir": str(tmp_path / "run"), "batch_size": 2, "epoch_size": 1, "warmup_epochs": 0}
    with pytest.raises(InputError, match="reads the mean patch token"):
        train(None, {**flags, "pretrained": str(tmp_path / "avg")})
    assert not (tmp_path / "run").exists()


def test_what_the_reader_says_of_weights_is_told_of_whatever_they_are_for(
    mini_architecture: str, data: Path, tmp_path: Path
) -> None:
    """A file with plain and averaged weights, whose classifier nothing trained."""
    network = create_model(mini_architecture, num_classes=3, dialect="paper", seed=5)
    arrays, path = arrays_of(network), tmp_path / "both.ckpt"
    both = {f"{prefix}.{name}": array for prefix in ("model", "model_ema") for name, array in arrays.items()}
    strings = {"xcit_hub.architecture": mini_architecture, "xcit_hub.dialect": "paper"}
    checkpoint.write(path, both, strings)
    of_both = f"{path}: Plain and averaged weights were both there; took the plain ones, left the averaged (EMA) ones."
    begun = recipe_of(mini_architecture, data, ckpt_path=str(path))
    assert of_both in start(begun, NAMES).notes
    assert f"{path}: {stored_network(begun).notes[0]}" == of_both
    assert of_both in start(recipe_of(mini_architecture, data, surgery=str(path)), NAMES).notes
    taught = recipe_of(
        mini_architecture, data, teacher=mini_architecture, teacher_ckpt=str(path), distillation_type="soft"
    )
    found = find(taught, 3)
    assert found is not None and of_both in found.notes
    checkpoint.write(path, arrays, strings | {HEAD_UNTRAINED: "true"})
    assert f"{path}: {UNTRAINED_NOTE}" in start(begun, NAMES).notes
    assert stored_network(begun).notes == (UNTRAINED_NOTE,)
    projected = start(recipe_of(mini_architecture, data, surgery=str(path)), NAMES)
    assert not any(UNTRAINED_NOTE in note for note in projected.notes)  # of whose classifier nothing is taken


def test_nobody_learns_from_a_classifier_that_nothing_trained(
    mini_architecture: str, data: Path, tmp_path: Path
) -> None:
    import xcit_hub

    network = create_model(mini_architecture, num_classes=3, dialect="paper", seed=5)
    path = stored(tmp_path / "fresh.ckpt", network, **{HEAD_UNTRAINED: "true"})
    taught = {"teacher": mini_architecture, "distillation_type": "soft", "teacher_image_size": "student"}
    recipe = recipe_of(mini_architecture, data, **taught)
    with pytest.raises(InputError, match="teacher's classifier was never trained") as caught:
        find(recipe.model_copy(update={"teacher_ckpt": str(path)}), 3)
    assert caught.value.where == str(path)
    with pytest.warns(UserWarning, match="never trained"):
        loaded = xcit_hub.load(str(path))
    with pytest.raises(InputError, match="teacher's classifier was never trained"):
        find(recipe, 3, loaded)
    loaded.head.weight.set_data(loaded.head.weight + 1)  # which something trained since
    assert find(recipe, 3, loaded) is not None


def test_of_an_architecture_that_the_recipe_names_nothing_is_said_to_be_assumed(data: Path, tmp_path: Path) -> None:
    network = create_model(NANO, num_classes=3, dialect="paper", seed=5)
    checkpoint.write(tmp_path / "bare.ckpt", arrays_of(network), {"xcit_hub.dialect": "paper"})
    assert stored_network(recipe_of(NANO, data, ckpt_path=str(tmp_path / "bare.ckpt"))).notes == ()


def test_weights_that_say_other_images_than_the_recipes_are_told_of(
    mini_architecture: str, data: Path, tmp_path: Path
) -> None:
    """Of an evaluation all that decides its figures; of a training mean and deviation, for sizes may differ."""
    network = create_model(mini_architecture, num_classes=3, dialect="paper", seed=5)
    plain = recipe_of(mini_architecture, data, ckpt_path=str(tmp_path / "own.ckpt"))
    seen = plain.seen_images.model_dump(mode="json")
    other = {"crop_pct": 0.5, "interpolation": "lanczos", "mean": [0.5, 0.25, 1 / 3], "input_size": [3, 32, 64]}
    for told, evaluated, trained in (
        (seen, (), []),
        ({"input_size": seen["input_size"]}, (), []),
        (
            {**seen, **other},
            (
                "evaluated as the recipe says; the checkpoint says of its images: input_size [3, 32, 64] (here "
                "[3, 32, 32]), mean [0.5, 0.25, 0.333333] (here [0.485, 0.456, 0.406]), interpolation lanczos (here "
                "bilinear), crop_pct 0.5 (here 0.875)",
            ),
            ["mean [0.5, 0.25, 0.333333] (here [0.485, 0.456, 0.406])"],
        ),
    ):
        stored(tmp_path / "own.ckpt", network, **{CLASSES: json.dumps(NAMES), PREPROCESSING: json.dumps(told)})
        assert stored_network(plain).notes == evaluated
        notes = [note.partition("were shown other images: ")[2] for note in start(plain, NAMES).notes]
        assert [note for note in notes if note] == trained
