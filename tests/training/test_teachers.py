"""Every kind of teacher, and how it sees its images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import pytest
from image_folder import write_images
from torch_twin import arrays_of

from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.files import sha256_of
from xcit_hub.models import create_model
from xcit_hub.training.engine import train
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.resume import STATE
from xcit_hub.training.teachers import find, is_address

timm = pytest.importorskip("timm")
torch = pytest.importorskip("torch")

SMALL = "timm:test_resnet"
FACTORY = '''
from mindspore import nn, ops

class Brightness(nn.Cell):
    """Tells three classes by the mean of an image in 0…1 that is normalised by {mean} and {std}."""

    mean, std = {mean}, {std}

    def construct(self, images):
        level = images.mean((1, 2, 3)).reshape(-1, 1)
        return ops.concat((-level, level * 0, level), 1)

def brightness():
    return Brightness()

def two_classes():
    return nn.SequentialCell([Brightness(), nn.Dense(3, 2)])

def nothing():
    return 5
'''


@pytest.fixture(scope="module")
def factories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("factories")
    (folder / "own_teachers.py").write_text(FACTORY.format(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)))
    sys.path.insert(0, str(folder))
    yield "own_teachers"
    sys.path.remove(str(folder))
    sys.modules.pop("own_teachers", None)


def recipe_of(model: str, teacher: str, **changes: Any) -> Recipe:
    settings = {
        "model": model, "num_classes": 3, "image_resize": 32, "dialect": "paper", "teacher": teacher,
        "distillation_type": "soft",
    }  # fmt: skip
    return load_recipe(None, {**settings, **changes})


def images(count: int = 2, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, size, size)).astype(np.float32)


@pytest.mark.usefixtures("pynative")
def test_a_cell_of_a_factory_sees_the_images_as_it_wants_them(mini_architecture: str, factories: str) -> None:
    found = find(recipe_of(mini_architecture, f"{factories}:brightness"), 3)
    assert found is not None and found.cell is not None and found.answer is None
    assert found.notes == ["the teacher's images are normalised by its own mean and deviation"]
    seen = images()
    mean, std = (np.array(levels)[:, None, None] for levels in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    own = (seen * std + mean - 0.5) / 0.25
    level = own.mean((1, 2, 3))
    np.testing.assert_allclose(found.cell(mindspore.Tensor(seen)).asnumpy()[:, 2], level, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("own_teachers:two_classes", r"answers \(1, 2\) to one image, the student \(1, 3\)"),
        ("own_teachers:nothing", "returns a int, not a cell"),
        ("own_teachers:missing", "cannot be made"),
        ("no_such_module:make", "cannot be made"),
    ],
)
def test_a_factory_that_makes_no_teacher_is_refused(
    mini_architecture: str, factories: str, function: str, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        find(recipe_of(mini_architecture, function), 3)


@pytest.fixture(scope="module")
def timms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3).eval()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("timm") / "teacher.safetensors"
    save_file(network.state_dict(), str(path))
    return network, path


def test_a_network_of_timms_answers_on_the_host_as_in_timm(mini_architecture: str, timms: tuple[Any, Path]) -> None:
    network, path = timms
    size = network.pretrained_cfg["input_size"][-1]
    found = find(recipe_of(mini_architecture, SMALL, teacher_ckpt=str(path), image_resize=size), 3)
    assert found is not None and found.cell is None and found.answer is not None
    assert found.notes[-1] == "the teacher is timm's test_resnet, computed by torch on the host"
    seen = images(size=size)
    told = timm.data.resolve_model_data_config(network)
    own_mean, own_std = (np.array(told[name])[:, None, None] for name in ("mean", "std"))
    mean, std = (np.array(levels)[:, None, None] for levels in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    shown = ((seen * std + mean - own_mean) / own_std).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(shown)).numpy()
    np.testing.assert_allclose(found.answer(seen), expected, rtol=1e-3, atol=1e-4)


def test_a_teacher_of_another_size_is_asked_for_and_other_weights_are_refused(
    mini_architecture: str, timms: tuple[Any, Path], tmp_path: Path
) -> None:
    _, path = timms
    given = {"teacher_ckpt": str(path), "image_resize": 32}
    with pytest.raises(InputError, match="wants images of 160×160, the student sees 32×32"):
        find(recipe_of(mini_architecture, SMALL, **given), 3)
    found = find(recipe_of(mini_architecture, SMALL, **given, teacher_image_size="student"), 3)
    assert found is not None and "shown images of 32×32" in found.notes[0]
    with pytest.raises(WeightsError, match="not the weights of timm's test_vit"):
        find(recipe_of(mini_architecture, "timm:test_vit", **given), 3)
    with pytest.raises(InputError, match="timm cannot build this teacher"):
        find(recipe_of(mini_architecture, "timm:no_such_network", **given), 3)


def test_what_load_takes_is_loaded_by_who_calls(mini_architecture: str) -> None:
    for told, ckpt, expected in (
        ("timm/xcit_nano_12_p16_224.fb_in1k", "", True),
        ("./folder", "", True),
        ("hf-hub:org/name", "", True),
        (mini_architecture, "file.ckpt", False),
        ("timm:regnety_160", "", False),
        ("module.part:make", "", False),
    ):
        assert is_address(recipe_of(mini_architecture, told, teacher_ckpt=ckpt)) == expected, told
    with pytest.raises(InputError, match="was not loaded"):
        find(recipe_of(mini_architecture, "org/name"), 3)
    network = create_model(mini_architecture, num_classes=4, dialect="paper", init=False)
    with pytest.raises(InputError, match="knows 4 classes, the student 3"):
        find(recipe_of(mini_architecture, "org/name"), 3, network)


@pytest.mark.usefixtures("pynative")
def test_every_way_to_answer_gives_the_same_step(
    least_architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights as a teacher in the graph, as one that was loaded, and as timm's network on the host."""

    data = write_images(tmp_path / "data")
    teacher = create_model(least_architecture, num_classes=3, dialect="paper", seed=5)
    path = tmp_path / "teacher.ckpt"
    written = {
        "xcit_hub.architecture": least_architecture,
        "xcit_hub.dialect": "paper",
        "xcit_hub.family": "mindcv",
    }
    checkpoint.write(path, arrays_of(teacher), written)
    common = {
        "dataset": "imagefolder", "data_dir": str(data), "mode": 1, "batch_size": 8, "epoch_size": 1, "lr": 0.01,
        "warmup_epochs": 0, "num_parallel_workers": 1, "distillation_alpha": 0.9,
    }  # fmt: skip

    def ended(folder: str, told: str, loaded: Any = None, **changes: Any) -> float:
        recipe = recipe_of(least_architecture, told, ckpt_save_dir=str(tmp_path / folder), **common, **changes)
        record = train(recipe, teacher=loaded)
        assert record.final_loss is not None
        assert record.configuration is not None and record.configuration["teacher"] == told
        return record.final_loss

    from xcit_hub.parity import torch_network
    from xcit_hub.variants import ARCHITECTURES

    twin = torch_network(arrays_of(teacher), ARCHITECTURES[least_architecture], "paper", num_classes=3)
    stored = ended("stored", least_architecture, teacher_ckpt=str(path))
    with checkpoint.read(tmp_path / "stored" / STATE) as state:
        assert json.loads(state.metadata["progress"])["teacher"] == sha256_of(path)
    assert ended("loaded", "org/name", teacher) == stored
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: twin)
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda _: {
        "input_size": (3, 32, 32), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
    })  # fmt: skip
    assert ended("host", "timm:twin") == pytest.approx(stored, rel=1e-4)
    other = ended("hard", least_architecture, teacher_ckpt=str(path), distillation_type="hard")
    assert abs(other - stored) > 1e-3


def test_a_recipe_file_may_not_name_code_to_run(mini_architecture: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {mini_architecture}\ndistillation_type: soft\nteacher: http.server:test\n")
    with pytest.raises(InputError, match=r"may not name code to run: its teacher is 'http\.server:test'"):
        load_recipe(path)
    assert load_recipe(path, {"teacher": "own.module:make"}).teacher_is_function
    path.write_text(f"model: {mini_architecture}\ndistillation_type: soft\nteacher: timm:regnety_160\n")
    assert not load_recipe(path).teacher_is_function


@pytest.mark.usefixtures("pynative")
def test_a_regnety_in_facebooks_wrapping_teaches_as_it_taught_the_published_weights(
    least_architecture: str, tmp_path: Path
) -> None:
    """The smallest of its kind, with random weights: facebook's own is regnety_160, {"model": …} in a pickle."""
    torch.manual_seed(1)
    network = timm.create_model("regnety_002", num_classes=3).eval()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    path = tmp_path / "regnety_002.pth"
    torch.save({"model": network.state_dict()}, path)
    told = {"teacher_ckpt": str(path), "teacher_image_size": "student"}
    found = find(recipe_of(least_architecture, "timm:regnety_002", **told), 3)
    assert found is not None and found.answer is not None
    assert any(note.startswith("the teacher's weights are those under 'model'") for note in found.notes)
    seen = images(size=32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(seen)).numpy()
    np.testing.assert_allclose(found.answer(seen), expected, rtol=1e-4, atol=1e-5)
    data = write_images(tmp_path / "data")

    def final_loss(**changes: Any) -> float:
        recipe = recipe_of(
            least_architecture, "timm:regnety_002", **told, dataset="imagefolder", data_dir=str(data), mode=1,
            batch_size=8, epoch_size=1, warmup_epochs=0, num_parallel_workers=1, ckpt_save_dir=str(tmp_path / "run"),
            **changes,
        )  # fmt: skip
        loss = train(recipe).final_loss
        (tmp_path / "run").rename(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        assert loss is not None and np.isfinite(loss)
        return loss

    assert abs(final_loss(distillation_alpha=0.9) - final_loss(distillation_alpha=0.0)) > 1e-2
