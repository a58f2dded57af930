from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xcit_hub.data.folders import SUFFIXES
from xcit_hub.data.sources import name_classes, open_source, sample
from xcit_hub.errors import InputError
from xcit_hub.training.inputs import left_out


def image(value: int) -> Image.Image:
    return Image.new("RGB", (20, 10), (value, 0, 0))


def write_folder(root: Path) -> None:
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            for number in range(2):
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image(100 * label + number).save(path)
    (root / "train" / "cat" / "notes.txt").write_text("not an image")


def test_a_folder_of_classes_is_read_in_order(tmp_path: Path) -> None:
    write_folder(tmp_path)
    source = open_source("imagenet", tmp_path, "train", train=True)
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert [source.open(index).getpixel((0, 0))[0] for index in range(4)] == [0, 1, 100, 101]
    assert source.name(3) == str(tmp_path / "train" / "dog" / "1.png")


def test_imagenets_flat_validation_folder_is_read_by_its_table(tmp_path: Path) -> None:
    flat = tmp_path / "val"
    flat.mkdir()
    for number in range(3):
        image(number).save(flat / f"ILSVRC2012_val_{number:08d}.png")
    rows = ["ImageId,PredictionString", *(f"ILSVRC2012_val_{n:08d},n0{1 - n % 2} 1 2 3 4 " for n in range(3))]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(rows))
    source = open_source("imagenet", tmp_path, "val", train=False)
    assert source.classes == ["n00", "n01"]
    assert source.labels.tolist() == [1, 0, 1]
    assert (source.absent, left_out(source, "val")) == (0, [])


def test_images_that_a_table_names_and_that_are_not_there_are_counted(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    image(0).save(tmp_path / "val" / "a.png")
    image(0).save(tmp_path / "val" / "b.png")
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\na,n00 1\nc,n01 1\nd,n01 1\n")
    source = open_source("imagenet", tmp_path, "val", train=False)
    assert left_out(sample(source, 1, None), "val") == [
        "1 files of val are not images by their names or places, and were left out",
        "2 images that the table of val names are not there",
    ]


def test_a_class_that_two_outputs_are_called_by_is_not_taken_for_one_of_them(tmp_path: Path) -> None:
    """ImageNet has two classes that are called crane, a bird and a machine; the later one was taken."""
    write_folder(tmp_path)
    source = open_source("imagefolder", tmp_path, "val", train=False)
    with pytest.raises(InputError, match=r"Which of the network is meant, cat does not say"):
        name_classes(source, ["cat", "dog", "cat"], whose="the network")
    name_classes(source, ["dog", "cow", "cow", "cat"], whose="the network")
    assert source.labels.tolist() == [3, 3, 0, 0]


def test_an_image_that_stands_twice_in_an_archive_is_refused_by_name(tmp_path: Path) -> None:
    """``tar -r`` appends the newer file, and what unpacks it has one of them; an evaluation counted both."""
    write_folder(tmp_path)
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        archive.add(tmp_path / "train", ".")
        archive.add(tmp_path / "train" / "dog" / "1.png", "dog/1.png")
    with pytest.raises(InputError, match=r"dog/1\.png stands in the archive more than once"):
        open_source("tar", tmp_path, "train", train=True)


@pytest.mark.parametrize("what", ["cut before a header", "cut in a header", "no end", "damaged", "joined"])
def test_an_archive_whose_images_cannot_all_be_listed_is_refused(tmp_path: Path, what: str) -> None:
    """tarfile itself ends its list there without a word."""
    write_folder(tmp_path)
    with tarfile.open(tmp_path / "train.tar", "w", format=tarfile.USTAR_FORMAT) as archive:  # a header a member
        for name in ("cat/0.png", "dog/0.png"):
            archive.add(tmp_path / "train" / name, name)
        end = archive.offset
    assert len(open_source("tar", tmp_path, "train", train=True).labels) == 2
    whole = (tmp_path / "train.tar").read_bytes()
    second = whole.index(b"dog/0.png")
    content = {
        "cut before a header": whole[:second],
        "cut in a header": whole[: second + 100],
        "no end": whole[:end],
        "damaged": whole[:second] + b"c" + whole[second + 1 :],
        "joined": whole + whole.replace(b"cat/", b"cow/"),
    }[what]
    (tmp_path / "train.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"^Not all images can be listed: the archive") as caught:
        open_source("tar", tmp_path, "train", train=True)
    assert caught.value.where == str(tmp_path / "train.tar")


def test_a_tar_archive_is_read_in_place(tmp_path: Path) -> None:
    write_folder(tmp_path)
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        archive.add(tmp_path / "train", "train")
    inside, outside = (open_source(kind, tmp_path, "train", train=True) for kind in ("tar", "imagefolder"))
    assert inside.classes == outside.classes
    assert inside.labels.tolist() == outside.labels.tolist()
    for index in range(4):
        assert np.array_equal(np.asarray(inside.open(index)), np.asarray(outside.open(index)))


def test_an_archive_that_is_cut_or_gone_while_it_is_in_use_has_images_that_cannot_be_read(tmp_path: Path) -> None:
    write_folder(tmp_path)
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "train", "train")
    source = open_source("tar", tmp_path, "train", train=True)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError, match="the archive is cut short") as caught:
        source.open(3)
    assert caught.value.where == source.name(3)
    path.unlink()
    with pytest.raises(InputError, match=r"Cannot read the image: .*No such file"):
        source.open(0)


@pytest.mark.parametrize(("dataset", "head"), [("cifar10", 1), ("cifar100", 2)])
def test_cifars_binary_files_are_read(tmp_path: Path, dataset: str, head: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (4, head + 3072)).astype(np.uint8)
    rows[:, head - 1] = [3, 1, 4, 1]
    names = ["test.bin"] if head == 2 else ["test_batch.bin"]
    folder = tmp_path / ("cifar-100-binary" if head == 2 else "cifar-10-batches-bin")
    folder.mkdir()
    rows.tofile(folder / names[0])
    source = open_source(dataset, tmp_path, "val", train=False)
    assert source.labels.tolist() == [3, 1, 4, 1]
    red, green = rows[2, head : head + 1024].reshape(32, 32), rows[2, head + 1024 : head + 2048].reshape(32, 32)
    pixels = np.asarray(source.open(2))
    assert np.array_equal(pixels[:, :, 0], red)
    assert np.array_equal(pixels[:, :, 1], green)
    (folder / names[0]).write_bytes(rows.tobytes()[:-1])
    with pytest.raises(InputError, match="whole number"):
        open_source(dataset, tmp_path, "val", train=False)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that nobody can read, root neither")
def test_a_file_of_cifars_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").symlink_to("/proc/self/mem")
    with pytest.raises(InputError, match=r"^Cannot read the file: ") as caught:
        open_source("cifar10", tmp_path, "val", train=False)
    assert caught.value.where == str(tmp_path / "test_batch.bin")


@pytest.mark.parametrize(
    ("dataset", "split", "says"),
    [
        ("imagenet", "vall", "no split"),
        ("imagenet", "../elsewhere", "leaves its folder"),
        ("imagenet", "empty", "No image"),
        ("tar", "train", "does not exist"),
        ("tar", "broken", "not an uncompressed tar"),
        ("cifar10", "train", "missing"),
    ],
)
def test_missing_data_is_named(tmp_path: Path, dataset: str, split: str, says: str) -> None:
    write_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.tar").write_bytes(b"\x1f\x8b no tar at all")
    with pytest.raises(InputError, match=says):
        open_source(dataset, tmp_path, split, train=True)


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_kind_of_file_is_opened_as_a_whole_rgb_image(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / "train" / "cat" / f"0{suffix}"
    path.parent.mkdir(parents=True)
    noise = Image.effect_noise((20, 10), 50).convert(mode)
    noise.save(path, lossless=True) if suffix == ".webp" else noise.save(path)
    with Image.open(path) as saved:
        expected = np.asarray(saved.convert("RGB"))
    opened = open_source("imagefolder", tmp_path, "train", train=True).open(0)
    path.unlink()
    assert opened.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(opened.crop((2, 0, 20, 10))), expected[:, 2:])


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(whole, "JPEG")
    (tmp_path / "train" / "cat" / "0.png").write_bytes(whole.getvalue()[:200])
    source = open_source("imagenet", tmp_path, "train", train=True)
    with pytest.raises(InputError) as caught:
        source.open(0)
    assert "0.png" in str(caught.value)
