"""Images of other channels and of unequal sides, from the file to the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folder import recipe_of, write_images
from PIL import Image
from torch_twin import arrays_of

from xcit_hub.checkpoints import checkpoint
from xcit_hub.data.batches import Worker
from xcit_hub.data.transforms import EvalTransform
from xcit_hub.errors import InputError
from xcit_hub.models import create_model
from xcit_hub.training.engine import train
from xcit_hub.training.inputs import eval_data, train_data
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.scoring import score, settings_of, stored_network
from xcit_hub.training.start import start
from xcit_hub.variants import Preprocessing

FOUR = {"in_channels": 4, "mean": [120.0, 110.0, 100.0, 0.0], "std": [60.0, 61.0, 62.0, 255.0]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize(
    "changes", [{"in_channels": 1}, {**FOUR, "image_resize": [48, 32]}], ids=["grey", "RGBA, not square"]
)
def test_a_run_says_and_keeps_its_channels_and_sides(
    mini_architecture: str, data: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    recipe = recipe_of(mini_architecture, data, ckpt_save_dir=str(tmp_path), val_while_train=True, ema=True, **changes)
    record = train(recipe)
    channels, size = recipe.in_channels, recipe.input_size
    assert record.image_size == size
    assert record.preprocessing is not None and record.preprocessing.input_size == (channels, *size)
    best = tmp_path / (record.checkpoint or "")
    with checkpoint.read(best) as stored:
        assert json.loads(stored.metadata["xcit_hub.preprocessing"])["input_size"] == [channels, *size]
        assert stored.tensors["patch_embed.proj.0.0.weight"].shape[1] == channels
    evaluated = recipe_of(mini_architecture, data, ckpt_path=str(best), **changes)
    found = stored_network(evaluated)
    report = score(evaluated, found.network, classes=found.classes, against_timm=False)
    assert report is not None
    assert report.ours.top1 == record.top1
    assert report.record.params == record.params
    with pytest.raises(InputError, match=f"sees {channels} channels, the recipe says 3"):
        stored_network(recipe_of(mini_architecture, data, ckpt_path=str(best)))


def test_grey_and_rgba_images_are_read_as_pillow_converts_them(mini_architecture: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        folder = tmp_path / split / "one"
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 4), np.uint8), "RGBA").save(folder / "a.png")
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / "b.png")
    for changes, mode in (({"in_channels": 1}, "L"), (FOUR, "RGBA"), ({}, "RGB")):
        still = {"scale": [1.0, 1.0], "ratio": [1.0, 1.0], "hflip": 0.0, "color_jitter": 0.0, "batch_size": 2}
        recipe = recipe_of(mini_architecture, tmp_path, num_classes=1, **still, **changes)
        images = next(iter(eval_data(recipe, Worker())))[0]
        assert images.shape == (2, recipe.in_channels, 32, 32)
        transform = EvalTransform(recipe.preprocessing, in_chans=recipe.in_channels, alpha=True)
        for pixels, name in zip(images, "ab", strict=True):
            opened = Image.open(tmp_path / "val" / "one" / f"{name}.png").convert(mode)
            np.testing.assert_array_equal(pixels, transform(opened))
        _, batches = train_data(recipe, Worker())
        assert next(batches.epoch(0)).images.shape == (2, recipe.in_channels, 32, 32)
    with pytest.raises(InputError, match="takes 4 channels"):
        EvalTransform(Preprocessing(mean=(0.5,), std=(0.5,)), in_chans=4)


@pytest.mark.parametrize(("channels", "changes"), [(1, {"in_channels": 1}), (4, FOUR)])
def test_a_first_convolution_of_other_channels_is_timms(
    mini_architecture: str, data: Path, tmp_path: Path, channels: int, changes: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")
    adapt = pytest.importorskip("timm.models").adapt_input_conv
    network = create_model(mini_architecture, num_classes=3, dialect="paper", seed=1)
    path = tmp_path / "three.ckpt"
    written = {
        "xcit_hub.architecture": mini_architecture,
        "xcit_hub.dialect": "paper",
        "xcit_hub.family": "mindcv",
    }
    checkpoint.write(path, arrays_of(network), written)
    begun = start(recipe_of(mini_architecture, data, ckpt_path=str(path), **changes), ["a", "b", "c"])
    name = "patch_embed.proj.0.0.weight"
    expected = adapt(channels, torch.from_numpy(arrays_of(network)[name])).numpy()
    own = arrays_of(begun.network)
    np.testing.assert_allclose(own.pop(name), expected, rtol=1e-6)
    for other, array in own.items():
        np.testing.assert_array_equal(array, arrays_of(network)[other])
    assert "input channels of the first convolution" in begun.notes[0]
    assert str(path) in begun.notes[0]


def test_a_network_of_grey_or_oblong_images_is_a_recipe(mini_architecture: str) -> None:
    wanted = Preprocessing(image_size=96, image_width=64, mean=(0.5,), std=(0.2,))
    network = create_model(mini_architecture, num_classes=4, in_chans=1, init=False)
    recipe = load_recipe(None, settings_of(network, wanted))
    assert (recipe.in_channels, recipe.input_size) == (1, (96, 64))
    np.testing.assert_allclose(recipe.preprocessing.mean, (0.5,))
    three = load_recipe(None, settings_of(create_model(mini_architecture, num_classes=4, init=False), wanted))
    np.testing.assert_allclose(three.preprocessing.mean, (0.5, 0.5, 0.5))
    odd = create_model(mini_architecture, num_classes=4, in_chans=2, init=False)
    with pytest.raises(InputError, match=r"takes 2×96×64 images"):
        settings_of(odd, wanted)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"in_channels": 4}, "mean needs 4 numbers"),
        ({"in_channels": 2}, "in_channels"),
        ({"in_channels": 1, "auto_augment": "randaug-m9"}, "auto_augment is of images of 3 channels"),
        ({"image_resize": [224, 4]}, "image_resize"),
        ({"image_resize": [224, 224, 224]}, "image_resize"),
        ({"amp_dtype": "float32"}, "amp_dtype"),
        ({"cutmix_minmax": [0.8, 0.2]}, "cutmix_minmax"),
        ({"cutmix_minmax": [0.0, 0.001]}, "leaves no side"),
        ({"lr": 1.0, "lr_base": 0.1}, "give one of them"),
        ({"lr_base": 0.0}, "lr_base"),
        ({"lr_base_scale": "cubic"}, "lr_base_scale"),
        ({"mixup_mode": "half"}, "mixup_mode"),
        ({"teacher_ckpt": "a.ckpt"}, "distillation needs both"),
        ({"teacher_ckpt": "a.ckpt", "teacher": "mymod:make", "distillation_type": "soft"}, "loads its own weights"),
        ({"recovery_interval": -1}, "recovery_interval"),
        ({"tta": 3}, "tta"),
        ({"pretrained": 1}, "pretrained"),
        ({"freeze": [1]}, "freeze"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_by_name(mini_architecture: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_recipe(None, {"model": mini_architecture, **settings})


@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize("key", ["amp_level", "val_amp_level"])
def test_bfloat16_on_a_cpu_is_refused_in_words(mini_architecture: str, data: Path, tmp_path: Path, key: str) -> None:
    changes = {key: "O2", "amp_dtype": "bfloat16", "val_while_train": True, "ckpt_save_dir": str(tmp_path)}
    with pytest.raises(InputError, match="no kernels for bfloat16 on a CPU"):
        train(recipe_of(mini_architecture, data, **changes))


def test_more_names_of_classes_than_outputs_are_refused(mini_architecture: str, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    path.write_text("".join(f"class{number}\n" for number in range(12)))
    mapped = recipe_of(mini_architecture, data, class_map=str(path), num_classes=10)
    with pytest.raises(InputError, match="12 classes are named by the class map, and the network has 10 outputs"):
        train_data(mapped, Worker())
    network = create_model(mini_architecture, num_classes=10, dialect="paper", seed=1)
    with pytest.raises(InputError, match="12 classes are named by the class map, and the network has 10 outputs"):
        score(mapped, network, output=tmp_path / "out")
    with pytest.raises(InputError, match="12 classes are named by the network, and the network has 10 outputs"):
        score(recipe_of(mini_architecture, data), network, classes=path.read_text().split(), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="The data set has 3 classes, the network 2"):
        train_data(recipe_of(mini_architecture, data, num_classes=2, num_samples=2, batch_size=1), Worker())


def test_no_confusion_is_told_where_an_answer_has_no_name(
    mini_architecture: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "map.txt"
    path.write_text("class0\nclass1\nclass2\n")
    network = create_model(mini_architecture, num_classes=10, dialect="paper", seed=1)
    report = score(recipe_of(mini_architecture, data, class_map=str(path)), network)
    assert report is not None and report.record.confusion is None
    assert "images were answered with an output that has no name" in capsys.readouterr().err


def test_a_class_map_says_which_output_is_whose(mini_architecture: str, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    path.write_text("class2\nclass9\nclass0\nclass1\n")
    recipe = recipe_of(mini_architecture, data, class_map=str(path), num_classes=None)
    source, batches = train_data(recipe, Worker())
    assert (batches.classes, source.classes) == (4, ["class2", "class9", "class0", "class1"])
    for label, folder in ((0, "class2"), (2, "class0"), (3, "class1")):
        place = int(np.flatnonzero(source.labels == label)[0])
        assert folder in source.name(place)
    network = create_model(mini_architecture, num_classes=1000, dialect="paper", seed=1)
    report = score(
        recipe_of(mini_architecture, data, class_map=str(path)), network, classes=[str(n) for n in range(1000)]
    )
    assert report is not None
    assert report.ours.classes[:5, 0].tolist() == [3, 0, 3, 3, 0]
    for content, says in (("class0\nclass1\n", "not classes of the class map: class2"), ("a\n\nb\n", "one a line"),
                          ("a\na\n", "one a line"), ("", "one a line")):  # fmt: skip
        path.write_text(content)
        with pytest.raises(InputError, match=says):
            train_data(recipe, Worker())
    with pytest.raises(InputError, match="pickles can run code"):
        train_data(recipe_of(mini_architecture, data, class_map="map.pkl"), Worker())
