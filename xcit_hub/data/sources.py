"""Where images lie: folders of classes, tar archives, CIFAR's binary files, MindRecord. Each is a list of images with
labels.

A source only finds and opens images; it neither shuffles nor transforms. A split never leaves the data folder, other
than through a link that its owner put there.
"""

from __future__ import annotations

import csv
import io
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xcit_hub.data.folders import entries, find_images, is_image, readable
from xcit_hub.data.records import open_records
from xcit_hub.data.shards import Member, unlisted
from xcit_hub.data.transforms import ImageMode, decode, open_image
from xcit_hub.errors import InputError, closest, some
from xcit_hub.files import is_file, is_folder, read_bounded

_CIFAR_PIXELS = 3 * 32 * 32
_KAGGLE_LABELS = "LOC_val_solution.csv"  # ImageNet as Kaggle ships it: validation images lie in one flat folder
_LARGEST_CIFAR = 1 << 30  # bytes, some 350,000 images
_LARGEST_TABLE = 1 << 26
_AS_KAGGLE = "Take the table as Kaggle ships it."
_CIFARS = "Unpack the binary version of CIFAR's own archive there."


class ImageSource(Protocol):
    """Images with labels, by position.

    Attributes:
        labels: class of each image, int64.
        classes: name of each class.
        unreadable: what was found in an image's place and cannot be one, with the reason.
        others: number of files that are not images by their name or place.
        absent: number of images that a table of them names, and that are not there.
        mode: what images are opened as.
    """

    labels: NDArray[np.int64]
    classes: list[str]
    unreadable: Sequence[str] = ()
    others: int = 0
    absent: int = 0
    mode: ImageMode = "RGB"

    def name(self, index: int) -> str:
        """Return what to call an image in messages."""
        ...

    def open(self, index: int) -> Image.Image:
        """Open an image in ``mode``; raises InputError if it cannot be read."""
        ...

    def in_turn(self, indices: Sequence[int]) -> Iterator[Callable[[], Image.Image]]:
        """Yield for each of ``indices`` what opens that image, in any thread; for files that are read as a stream."""
        return (partial(self.open, index) for index in indices)


class Files(ImageSource):
    """Images in files of their own."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], classes: list[str]) -> None:
        self.paths = list(paths)
        self.labels = np.array(labels, np.int64)
        self.classes = classes

    def name(self, index: int) -> str:
        """Return the image's path."""
        return readable(self.paths[index])

    def open(self, index: int) -> Image.Image:
        """Open the file."""
        return open_image(self.paths[index], self.mode)


class Archive(ImageSource):
    """Images in an uncompressed tar archive of class folders, read in place by their offsets."""

    def __init__(self, path: Path, members: Sequence[tuple[str, int, int]], labels: Sequence[int], classes: list[str]):
        self.path = path
        self.members = list(members)
        self.labels = np.array(labels, np.int64)
        self.classes = classes

    def name(self, index: int) -> str:
        """Return archive and member."""
        return f"{readable(self.path)}!{self.members[index][0]}"

    def open(self, index: int) -> Image.Image:
        """Read the member's bytes and decode them."""
        content = Member(str(self.path), *self.members[index]).read()
        return decode(content, self.name(index), self.mode)


class Pixels(ImageSource):
    """Images whose pixels are in memory, as CIFAR's are: (N, 32, 32, 3) uint8."""

    def __init__(self, path: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64], classes: list[str]) -> None:
        self.path = path
        self.pixels = pixels
        self.labels = labels
        self.classes = classes

    def name(self, index: int) -> str:
        """Return folder and position."""
        return f"{readable(self.path)}#{index}"

    def open(self, index: int) -> Image.Image:
        """Return the image."""
        return open_image(Image.fromarray(self.pixels[index]), self.mode)


class Some(ImageSource):
    """Some images of a source, in its order.

    Args:
        indices: their positions in it.
    """

    def __init__(self, source: ImageSource, indices: NDArray[np.int64]) -> None:
        self._source = source
        self._indices = indices
        self.labels = source.labels[indices]
        self.classes = source.classes
        self.unreadable = source.unreadable
        self.others = source.others
        self.absent = source.absent
        self.mode = source.mode

    def name(self, index: int) -> str:
        """Return what the source calls it."""
        return self._source.name(int(self._indices[index]))

    def open(self, index: int) -> Image.Image:
        """Open it in the source."""
        return self._source.open(int(self._indices[index]))

    def in_turn(self, indices: Sequence[int]) -> Iterator[Callable[[], Image.Image]]:
        """Open them as the source does."""
        return self._source.in_turn(self._indices[np.asarray(indices, np.int64)].tolist())


def sample(source: ImageSource, count: int, rng: np.random.Generator | None) -> ImageSource:
    """Return ``count`` images of a source, of every class its share, rounded by largest remainders.

    Args:
        rng: draws which; None takes the first ones of each class.

    Raises:
        InputError: the source has fewer.
    """
    total = len(source.labels)
    if count > total:
        raise InputError(
            f"num_samples is {count}, the data set has {total} images.",
            where="num_samples",
            fix=f"Ask for {total} or fewer.",
        )
    sizes = np.bincount(source.labels, minlength=len(source.classes))
    quotas, remainders = np.divmod(sizes * count, total)
    quotas[np.argsort(-remainders, kind="stable")[: count - quotas.sum()]] += 1
    chosen = []
    for label in np.flatnonzero(quotas):
        there = np.flatnonzero(source.labels == label)
        picked = there if rng is None else rng.permutation(there)
        chosen.append(picked[: quotas[label]])
    return Some(source, np.sort(np.concatenate(chosen)).astype(np.int64))


def name_classes(source: ImageSource, classes: Sequence[str], *, whose: str) -> list[str]:
    """Renumber the classes of ``source``, in place, as ``classes`` numbers them, by name.

    Args:
        whose: who numbers them so, for the message.

    Returns:
        Classes that ``source`` has no image of.

    Raises:
        InputError: ``source`` has a class that is not among them, or stands there twice.
    """
    number = {name: label for label, name in enumerate(classes)}
    strangers = [name for name in source.classes if name not in number]
    if strangers:
        raise InputError(
            f"{len(strangers)} of the {len(source.classes)} classes to evaluate are not classes of {whose}: "
            f"{some(strangers)}; it has {some(classes)}.",
            where="the class folders",
            fix="Evaluate on the classes that were trained on; class folders are matched by their names.",
        )
    counted = Counter(classes)
    if twice := [name for name in source.classes if counted[name] > 1]:
        raise InputError(
            f"Which of {whose} is meant, {some(twice)} does not say: several are called so.",
            where="the class folders",
            fix="Say whose each output is with --class_map FILE, or evaluate without these folders.",
        )
    new = np.array([number[name] for name in source.classes], np.int64)
    source.labels = new[source.labels]
    source.classes = list(classes)
    there = set(np.unique(source.labels).tolist())
    return [name for label, name in enumerate(classes) if label not in there]


def open_source(dataset: str, data_dir: str | Path, split: str, *, train: bool, mode: ImageMode = "RGB") -> ImageSource:
    """Find the images of one split.

    Args:
        dataset: ``imagenet``, ``imagefolder`` or ``""`` (folders of classes), ``tar``, ``mindrecord``, ``cifar10``,
            ``cifar100``.
        data_dir: the data set's folder.
        split: folder of the split, or stem of its archive or records; CIFAR's files have fixed names.
        train: which of CIFAR's files to read.
        mode: what images are opened as.

    Raises:
        InputError: nothing is there, or it is not what was said.
    """
    source = _found(dataset, Path(data_dir), split, train)
    source.mode = mode
    return source


def _found(dataset: str, root: Path, split: str, train: bool) -> ImageSource:
    if not is_folder(root):
        raise InputError("The data folder does not exist.", where=root, fix="Give it with --data_dir.")
    if dataset in ("cifar10", "cifar100"):
        return _cifar(root, fine=dataset == "cifar100", train=train)
    if dataset == "tar":
        return _archive(_inside(root, f"{split}.tar"))
    if dataset == "mindrecord":
        return open_records(_inside(root, split))
    return _folder(root, split)


def _inside(root: Path, split: str) -> Path:
    """Join as ``files.contained`` does, but follow links: data sets are often put together from them."""
    if Path(split).is_absolute() or ".." in Path(split).parts:
        raise InputError(f"The split {split!r} leaves its folder.", where=root, fix="Name a folder inside data_dir.")
    return root / split


def _folder(root: Path, split: str) -> ImageSource:
    folder = _inside(root, split)
    if not is_folder(folder):
        there = [readable(entry.name) for entry in entries(root) if (root / entry.name).is_dir()]
        raise InputError(
            f"There is no split {split!r}.",
            where=root,
            fix=closest(split, there)
            or f"Choose one with --train_split or --val_split; there are: {some(there) or 'no folders'}.",
        )
    listed = entries(folder)
    classes = [entry.name for entry in listed if (folder / entry.name).is_dir()]
    if not classes and (root / _KAGGLE_LABELS).is_file():
        return _kaggle(root, folder)
    paths: list[Path] = []
    labels: list[int] = []
    unreadable: list[str] = []
    empty: list[str] = []
    others = len(listed) - len(classes)
    for label, name in enumerate(classes):
        found = find_images(folder / name)
        paths += found.images
        labels += [label] * len(found.images)
        unreadable += found.unreadable
        others += found.others
        if not found.images:
            empty.append(readable(name))
    if not paths:
        raise InputError(
            "No image was found.", where=folder, fix="Expected one folder for each class with images in it."
        )
    if empty:
        raise InputError(
            f"{len(empty)} class folders have no image: {some(empty)}.",
            where=folder,
            fix="Put images into them, or remove them.",
        )
    source = Files(paths, labels, [readable(name) for name in classes])
    source.unreadable, source.others = unreadable, others
    return source


def _kaggle(root: Path, folder: Path) -> ImageSource:
    table = root / _KAGGLE_LABELS
    wanted: dict[str, str] = {}
    try:
        rows = csv.DictReader(io.StringIO(read_bounded(table, _LARGEST_TABLE).decode("utf-8-sig"), newline=""))
        for row in rows:
            image, answer = row["ImageId"], (row["PredictionString"] or "").split()
            if not image or not answer or wanted.get(image, answer[0]) != answer[0]:
                raise InputError(
                    f"Line {rows.line_num} does not give one class to one image.", where=table, fix=_AS_KAGGLE
                )
            wanted[image] = answer[0]
    except UnicodeDecodeError as error:
        raise InputError(f"Byte {error.start} of the table is not UTF-8.", where=table, fix=_AS_KAGGLE) from error
    except (KeyError, csv.Error) as error:
        raise InputError(
            f"The table has no columns ImageId and PredictionString ({error}).", where=table, fix=_AS_KAGGLE
        ) from error
    found = find_images(folder)
    classes = sorted(set(wanted.values()))
    number = {name: label for label, name in enumerate(classes)}
    paths = [path for path in found.images if path.stem in wanted]
    if not paths:
        raise InputError(
            f"No image that {_KAGGLE_LABELS} names was found.", where=folder, fix="Put ILSVRC2012_val_….JPEG there."
        )
    source = Files(paths, [number[wanted[path.stem]] for path in paths], classes)
    source.unreadable, source.others = found.unreadable, found.others + len(found.images) - len(paths)
    source.absent = len(wanted.keys() - {path.stem for path in paths})
    return source


def _archive(path: Path) -> ImageSource:
    if not is_file(path):
        raise InputError("The archive does not exist.", where=path, fix="Expected <split>.tar in the data folder.")
    members = []
    unreadable: list[str] = []
    others = 0
    try:
        with tarfile.open(path, "r:") as archive:  # "r:" takes no compression: offsets must be file offsets
            for member in archive:
                if member.isdir():
                    continue
                if not is_image(member.name):
                    others += 1
                elif not member.isfile() or member.issparse():
                    unreadable.append(f"{readable(path)}!{readable(member.name)} (not a plain file)")
                else:
                    members.append((member.name, member.offset_data, member.size))
            unread = unlisted(path, archive.offset)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"This is not an uncompressed tar archive: {error}.", where=path, fix="Pack it anew, as tar -cf does."
        ) from error
    if unread:
        raise InputError(
            f"Not all images can be listed: {unread}.",
            where=path,
            fix="Fetch it again, or pack it anew, as tar -cf does.",
        )
    members.sort()
    names = [Path(name) for name, _, _ in members]
    if len(set(names)) < len(names):  # as tar -r leaves them, which unpacks the last one
        twice = next(readable(name) for name, count in Counter(names).items() if count > 1)
        raise InputError(f"{twice} stands in the archive more than once.", where=path, fix="Pack it anew.")
    # Below what all have in common stand the classes; where all lie in one folder, that is the class.
    folders = [Path(name).parent.parts for name, _, _ in members]
    shared = [len(set(level)) == 1 for level in zip(*folders, strict=False)]
    depth = [*shared, False].index(False) - (len(set(folders)) == 1)
    placed = [
        (parts[depth], (readable(name), offset, size))
        for parts, (name, offset, size) in zip(folders, members, strict=True)
        if len(parts) > depth >= 0
    ]
    if not placed:
        raise InputError(
            "The archive holds no image in a class folder.", where=path, fix="Expected <class>/<image> in it."
        )
    classes = sorted({name for name, _ in placed})
    number = {name: label for label, name in enumerate(classes)}
    source = Archive(
        path,
        [place for _, place in placed],
        [number[name] for name, _ in placed],
        [readable(name) for name in classes],
    )
    source.unreadable, source.others = unreadable, others + len(members) - len(placed)
    return source


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
        if not is_file(path):
            raise InputError("A file of CIFAR's binary version is missing.", where=path, fix=_CIFARS)
        content = np.frombuffer(read_bounded(path, _LARGEST_CIFAR), np.uint8)
        if not content.size or content.size % (head + _CIFAR_PIXELS):
            raise InputError("The file is not a whole number of CIFAR records.", where=path, fix=_CIFARS)
        records.append(content.reshape(-1, head + _CIFAR_PIXELS))
    rows = np.concatenate(records)
    labels = rows[:, head - 1].astype(np.int64)
    if labels.max() >= count:
        raise InputError(f"A label is {labels.max()}; there are {count} classes.", where=folder, fix=_CIFARS)
    pixels = np.ascontiguousarray(rows[:, head:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    classes = [str(number) for number in range(count)]
    if is_file(folder / meta):
        try:
            text = read_bounded(folder / meta, _LARGEST_TABLE).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError("The class names are not UTF-8.", where=folder / meta, fix=_CIFARS) from error
        classes = [line.strip() for line in text.splitlines() if line.strip()]
        if len(classes) != count or len(set(classes)) != count:
            raise InputError(f"These are not {count} class names.", where=folder / meta, fix=_CIFARS)
    return Pixels(folder, pixels, labels, classes)
