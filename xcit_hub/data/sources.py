"""Where pictures lie: folders of classes, tar archives, CIFAR's binary files, MindRecord. Each is a list of pictures
with labels.

A source only finds and opens pictures; it neither shuffles nor transforms. Paths never leave the data folder.
"""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xcit_hub.data.records import open_records
from xcit_hub.data.transforms import decode_rgb, open_rgb
from xcit_hub.errors import InputError, closest
from xcit_hub.files import contained

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_CIFAR_PIXELS = 3 * 32 * 32
_KAGGLE_LABELS = "LOC_val_solution.csv"  # ImageNet as Kaggle ships it: validation images lie in one flat folder


class ImageSource(Protocol):
    """Pictures with labels, by position.

    Attributes:
        labels: class of each picture, int64.
        classes: name of each class.
    """

    labels: NDArray[np.int64]
    classes: list[str]

    def name(self, index: int) -> str:
        """Return what to call a picture in messages."""
        ...

    def open(self, index: int) -> Image.Image:
        """Open a picture as RGB; raises InputError if it cannot be read."""
        ...

    def in_turn(self, indices: Sequence[int]) -> Iterator[Callable[[], Image.Image]]:
        """Yield for each of ``indices`` what opens that picture, in any thread; for files that are read as a stream."""
        return (partial(self.open, index) for index in indices)


class Files(ImageSource):
    """Pictures in files of their own."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], classes: list[str]) -> None:
        self.paths = list(paths)
        self.labels = np.array(labels, np.int64)
        self.classes = classes

    def name(self, index: int) -> str:
        """Return the picture's path."""
        return str(self.paths[index])

    def open(self, index: int) -> Image.Image:
        """Open the file as RGB."""
        return open_rgb(self.paths[index])


class Archive(ImageSource):
    """Pictures in an uncompressed tar archive of class folders, read in place by their offsets."""

    def __init__(self, path: Path, members: Sequence[tuple[str, int, int]], labels: Sequence[int], classes: list[str]):
        self.path = path
        self.members = list(members)
        self.labels = np.array(labels, np.int64)
        self.classes = classes

    def name(self, index: int) -> str:
        """Return archive and member."""
        return f"{self.path}!{self.members[index][0]}"

    def open(self, index: int) -> Image.Image:
        """Read the member's bytes and decode them as RGB."""
        _, offset, size = self.members[index]
        with self.path.open("rb") as stream:
            stream.seek(offset)
            return decode_rgb(stream.read(size), self.name(index))


class Pixels(ImageSource):
    """Pictures whose pixels are in memory, as CIFAR's are: (N, 32, 32, 3) uint8."""

    def __init__(self, path: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64], classes: list[str]) -> None:
        self.path = path
        self.pixels = pixels
        self.labels = labels
        self.classes = classes

    def name(self, index: int) -> str:
        """Return folder and position."""
        return f"{self.path}#{index}"

    def open(self, index: int) -> Image.Image:
        """Return the picture."""
        return Image.fromarray(self.pixels[index])


def open_source(dataset: str, data_dir: str | Path, split: str, *, train: bool) -> ImageSource:
    """Find the pictures of one split.

    Args:
        dataset: ``imagenet``, ``imagefolder`` or ``""`` (folders of classes), ``tar``, ``mindrecord``, ``cifar10``,
            ``cifar100``.
        data_dir: the data set's folder.
        split: folder of the split, or stem of its archive or records; CIFAR's files have fixed names.
        train: which of CIFAR's files to read.

    Raises:
        InputError: nothing is there, or it is not what was said.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise InputError("The data folder does not exist.", where=root, fix="Give it with --data_dir.")
    if dataset in ("cifar10", "cifar100"):
        return _cifar(root, fine=dataset == "cifar100", train=train)
    if dataset == "tar":
        return _archive(contained(root, f"{split}.tar"))
    if dataset == "mindrecord":
        return open_records(contained(root, split))
    return _folder(root, split)


def _folder(root: Path, split: str) -> ImageSource:
    folder = contained(root, split)
    if not folder.is_dir():
        there = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        raise InputError(
            f"There is no split {split!r}.",
            where=root,
            fix=closest(split, there)
            or f"Choose one with --train_split or --val_split; there are: {', '.join(there)}.",
        )
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not classes and (root / _KAGGLE_LABELS).is_file():
        return _kaggle(root, folder)
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise InputError(
            "No picture was found.", where=folder, fix="Expected one folder for each class with pictures in it."
        )
    return Files(paths, labels, classes)


def _kaggle(root: Path, folder: Path) -> ImageSource:
    with (root / _KAGGLE_LABELS).open(newline="", encoding="utf-8") as stream:
        wanted = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(stream)}
    classes = sorted(set(wanted.values()))
    number = {name: label for label, name in enumerate(classes)}
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.stem in wanted)
    if not paths:
        raise InputError(f"No picture that {_KAGGLE_LABELS} names was found.", where=folder)
    return Files(paths, [number[wanted[path.stem]] for path in paths], classes)


def _archive(path: Path) -> ImageSource:
    if not path.is_file():
        raise InputError("The archive does not exist.", where=path, fix="Expected <split>.tar in the data folder.")
    members = []
    try:
        with tarfile.open(path, "r:") as archive:  # "r:" takes no compression: offsets must be file offsets
            for member in archive:
                parts = Path(member.name).parts
                if member.isfile() and len(parts) >= 2 and Path(member.name).suffix.lower() in SUFFIXES:
                    members.append((member.name, parts[-2], member.offset_data, member.size))
    except tarfile.TarError as error:
        raise InputError(f"This is no uncompressed tar archive: {error}.", where=path) from error
    if not members:
        raise InputError("The archive holds no picture in a class folder.", where=path)
    members.sort()
    classes = sorted({entry[1] for entry in members})
    number = {name: label for label, name in enumerate(classes)}
    places = [(name, offset, size) for name, _, offset, size in members]
    return Archive(path, places, [number[entry[1]] for entry in members], classes)


def _cifar(root: Path, *, fine: bool, train: bool) -> ImageSource:
    folder = next(
        (
            place
            for place in (root, root / "cifar-10-batches-bin", root / "cifar-100-binary")
            if list(place.glob("*.bin"))
        ),
        root,
    )
    if fine:
        names, meta, count = (["train.bin"] if train else ["test.bin"]), "fine_label_names.txt", 100
    else:
        names = [f"data_batch_{number}.bin" for number in range(1, 6)] if train else ["test_batch.bin"]
        meta, count = "batches.meta.txt", 10
    head = 2 if fine else 1  # CIFAR-100 writes the coarse label before the fine one
    records = []
    for path in (folder / name for name in names):
        if not path.is_file():
            raise InputError("A file of CIFAR's binary version is missing.", where=path)
        content = np.fromfile(path, np.uint8)
        if not content.size or content.size % (head + _CIFAR_PIXELS):
            raise InputError("The file is not a whole number of CIFAR records.", where=path)
        records.append(content.reshape(-1, head + _CIFAR_PIXELS))
    rows = np.concatenate(records)
    labels = rows[:, head - 1].astype(np.int64)
    if labels.max() >= count:
        raise InputError(f"A label is {labels.max()}; there are {count} classes.", where=folder)
    pixels = np.ascontiguousarray(rows[:, head:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    classes = [str(number) for number in range(count)]
    if (folder / meta).is_file():
        listed = [line.strip() for line in (folder / meta).read_text(encoding="utf-8").splitlines() if line.strip()]
        classes = listed if len(listed) == count else classes
    return Pixels(folder, pixels, labels, classes)
