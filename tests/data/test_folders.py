"""Folders as they are found on shared machines: pipes, loops, names in odd encodings, links."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xcit_hub.data.sources import name_classes, open_source, sample
from xcit_hub.errors import InputError


def write(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, 0, 0)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        for number in range(2):
            write(tmp_path / "train" / name / f"{number}.png", number)
    return tmp_path


def test_what_cannot_be_an_image_is_named_and_left_out(root: Path) -> None:
    cat = root / "train" / "cat"
    os.mkfifo(cat / "pipe.png")
    (cat / "dangling.png").symlink_to("nowhere.png")
    (cat / "itself.png").symlink_to("itself.png")
    (cat / "inside").symlink_to("..")
    (cat / "here").symlink_to(".")
    (cat / "notes.txt").write_text("not an image")
    write(root / "train" / "stray.png")
    source = open_source("imagenet", root, "train", train=True)
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert len(source.unreadable) == 5
    for name in ("pipe.png", "dangling.png", "itself.png", "inside", "here"):
        assert any(f"/{name} (" in entry for entry in source.unreadable), name
    assert source.others == 2


def test_links_to_folders_are_followed_as_torchvision_does(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for number in range(3):
        write(elsewhere / "val" / "cat" / "deep" / f"{number}.png")
        write(elsewhere / "birds" / f"{number}.png")
    (root / "val").symlink_to(elsewhere / "val")
    (elsewhere / "val" / "owl").symlink_to(elsewhere / "birds")
    ours, theirs = open_source("imagenet", root, "val", train=False), datasets.ImageFolder(root / "val")
    assert ours.classes == theirs.classes == ["cat", "owl"]
    found = [(ours.name(index), int(label)) for index, label in enumerate(ours.labels)]
    assert found == theirs.samples


def test_names_that_are_not_utf_8_are_told_in_text(root: Path) -> None:
    folder = os.fsencode(root / "train") + b"/\xff\xfe"
    Path(os.fsdecode(folder)).mkdir()
    Image.new("RGB", (8, 8)).save(os.fsdecode(folder + b"/\xe9.png"))
    source = open_source("imagenet", root, "train", train=True)
    assert source.classes == ["cat", "dog", "\\xff\\xfe"]
    assert source.name(4).endswith("/\\xff\\xfe/\\xe9.png")
    source.name(4).encode("utf-8")
    assert source.open(4).size == (8, 8)


def test_an_empty_class_folder_is_refused_by_name(root: Path) -> None:
    (root / "train" / "cow").mkdir()
    with pytest.raises(InputError, match="1 class folders have no image: cow"):
        open_source("imagenet", root, "train", train=True)


@pytest.mark.parametrize("split", ["..", "../train", "/etc", "train/../.."])
def test_a_split_does_not_climb_out(root: Path, split: str) -> None:
    with pytest.raises(InputError, match="leaves its folder"):
        open_source("imagenet", root, split, train=True)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"ImageId,PredictionString\nILSVRC_\xff,n01 1\n", "is not UTF-8"),
        ("ImageId,PredictionString\na,n01\n".encode("utf-16"), "is not UTF-8"),
        (b"Image,Label\na,n01\n", "no columns"),
        (b"", "No image"),
        (b"ImageId,PredictionString\na\n", "Line 2"),
        (b"ImageId,PredictionString\na,\n", "Line 2"),
        (b"ImageId,PredictionString\na,n01\na,n02\n", "Line 3"),
        (b'ImageId,PredictionString\n"' + b"a" * 200_000 + b'",n01\n', "no columns|No image"),
    ],
    ids=["latin 1", "utf-16", "columns", "empty", "short row", "no class", "two classes", "field of 200 kB"],
)
def test_a_table_of_kaggle_that_cannot_be_used_is_said(tmp_path: Path, content: bytes, says: str) -> None:
    write(tmp_path / "val" / "a.png")
    (tmp_path / "LOC_val_solution.csv").write_bytes(content)
    with pytest.raises(InputError, match=says):
        open_source("imagenet", tmp_path, "val", train=False)


def test_an_archive_takes_classes_below_what_all_images_share(root: Path) -> None:
    write(root / "train" / "cat" / "deep" / "9.png")
    (root / "train" / "cat" / "link.png").symlink_to("0.png")
    (root / "train" / "notes.txt").write_text("not an image")
    for place in ("train", "data/set/train", "."):
        with tarfile.open(root / "train.tar", "w") as archive:
            archive.add(root / "train", place)
        source = open_source("tar", root, "train", train=True)
        assert source.classes == ["cat", "dog"]
        assert np.bincount(source.labels).tolist() == [3, 2]
        assert len(source.unreadable) == 1
        assert source.others == 1


def test_classes_are_matched_by_name_and_strangers_refused(root: Path) -> None:
    for number in range(3):
        write(root / "val" / "dog" / f"{number}.png")
    source = open_source("imagenet", root, "val", train=False)
    assert name_classes(source, ["cat", "dog"], whose="the training data") == ["cat"]
    assert source.labels.tolist() == [1, 1, 1]
    assert source.classes == ["cat", "dog"]
    write(root / "val" / "owl" / "0.png")
    source = open_source("imagenet", root, "val", train=False)
    with pytest.raises(InputError, match="1 of the 2 classes to evaluate are not classes of the training data: owl"):
        name_classes(source, ["cat", "dog"], whose="the training data")


def test_a_sample_holds_of_every_class_its_share(tmp_path: Path) -> None:
    for name, count in (("a", 50), ("b", 30), ("c", 20)):
        for number in range(count):
            path = tmp_path / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    source = open_source("imagenet", tmp_path, "train", train=True)
    drawn = sample(source, 10, np.random.default_rng(1))
    assert np.bincount(drawn.labels).tolist() == [5, 3, 2]
    assert drawn.name(9).startswith(str(tmp_path / "train" / "c"))
    again, other = (sample(source, 10, np.random.default_rng(seed)) for seed in (1, 2))
    names = [[each.name(index) for index in range(10)] for each in (drawn, again, other)]
    assert names[0] == names[1] != names[2]
    first = sample(source, 11, None)
    assert np.bincount(first.labels).sum() == 11
    with pytest.raises(InputError, match="num_samples is 101, the data set has 100"):
        sample(source, 101, None)
