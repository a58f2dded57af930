"""Images in MindRecord files, read through ``mindspore.dataset.MindDataset``."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mindspore.dataset as ds
import numpy as np
from mindspore.mindrecord import FileReader
from numpy.typing import NDArray
from PIL import Image

from xcit_hub.data.folders import entries
from xcit_hub.data.transforms import ImageMode, decode
from xcit_hub.errors import InputError, first_line
from xcit_hub.files import is_file, is_folder

# The columns of the converters in mindspore.mindrecord (ImageNet, MNIST, CIFAR-10, CIFAR-100), and of its tutorials.
_IMAGE = (("image", "data"), ("bytes",))
_LABEL = (("label", "fine_label"), ("int32", "int64"))
_AT_ONCE = 8192  # labels a read


class Records:
    """Encoded images and labels of one set of MindRecord files.

    Any order of images is one stream: opening a single one reads the whole index anew, and is for replacements.

    Args:
        files: the set, in its order.
        image, label: the columns.
    """

    def __init__(self, files: Sequence[Path], image: str, label: str) -> None:
        self.files = list(files)
        self._image = image
        self._ends = np.cumsum([_rows([path]) for path in files]).tolist()
        self.labels = np.concatenate(
            [batch for (batch,) in _read(self.files, label, batch=_AT_ONCE)] or [np.empty(0)]
        ).astype(np.int64)
        if not len(self.labels) or self.labels.min() < 0:
            raise InputError(
                "The records hold no image, or a label below 0.",
                where=self.files[0],
                fix="Write them anew: labels are class numbers from 0 on.",
            )
        self.unreadable: Sequence[str] = ()
        self.others = self.absent = 0
        self.mode: ImageMode = "RGB"
        self.classes = [str(number) for number in range(int(self.labels.max()) + 1)]

    def name(self, index: int) -> str:
        """Return the file and the row in it."""
        number = bisect_right(self._ends, index)
        return f"{self.files[number]}#{index - (self._ends[number - 1] if number else 0)}"

    def open(self, index: int) -> Image.Image:
        """Read one row and decode it."""
        return next(self.in_turn([index]))()

    def in_turn(self, indices: Sequence[int]) -> Iterator[Callable[[], Image.Image]]:
        """Yield for each of ``indices`` what decodes that image; the bytes are read here, in one stream."""
        rows = _read(self.files, self._image, order=indices)
        for index, (content,) in zip(indices, rows, strict=True):
            yield partial(decode, content.tobytes(), self.name(int(index)), self.mode)


def open_records(place: Path) -> Records:
    """Find the MindRecord files of a split: ``<split>.mindrecord``, its shards ``<split>.mindrecord0`` …, or a folder.

    Args:
        place: path of the folder, or of the files without ``.mindrecord``.

    Raises:
        InputError: there are none or their folder cannot be listed, one of the set is missing, or their columns are
            not those of an image data set.
    """
    inside = is_folder(place)
    pattern = r".+\.mindrecord\d*" if inside else re.escape(place.name) + r"\.mindrecord\d*"
    folder = place if inside else place.parent
    named = [folder / entry.name for entry in entries(folder) if re.fullmatch(pattern, entry.name)]
    files = [path for path in named if is_file(path)]
    if not files:
        raise InputError(
            "No MindRecord file was found.",
            where=place,
            fix="Expected <split>.mindrecord, <split>.mindrecord0 … or a folder <split> of such files.",
        )
    schema = _schema(files[0])
    image, label = (_column(schema, *wanted, where=files[0]) for wanted in (_IMAGE, _LABEL))
    # By one file's name MindSpore finds the rest of its set and misses none; by a list it reads what it is given.
    if _rows(str(files[0])) != _rows(files):
        raise InputError("The files belong to more than one set.", where=folder, fix="Keep one set in a folder.")
    return Records(files, image, label)


def _schema(path: Path) -> Mapping[str, Any]:
    try:
        reader = FileReader(str(path))
        schema: Mapping[str, Any] = reader.schema()
        reader.close()
    except (RuntimeError, ValueError) as error:
        raise _unreadable(path, error) from error
    return schema


def _column(schema: Mapping[str, Any], names: Sequence[str], types: Sequence[str], *, where: Path) -> str:
    for name in names:
        entry = schema.get(name, {})
        if entry.get("type") in types and "shape" not in entry:
            return name
    held = ", ".join(f"{name} ({entry.get('type')})" for name, entry in schema.items())
    raise InputError(
        f"The records have no column {' or '.join(names)} of type {' or '.join(types)}; they have {held}.",
        where=where,
        fix="Write encoded images (JPEG, PNG) and class numbers, as mindspore.mindrecord.ImageNetToMR does.",
    )


def _rows(files: str | Sequence[Path]) -> int:
    first = files if isinstance(files, str) else files[0]
    try:
        return int(ds.MindDataset(_named(files)).get_dataset_size())
    except (RuntimeError, ValueError) as error:
        raise _unreadable(Path(first), error) from error


def _read(
    files: Sequence[Path], column: str, *, order: Sequence[int] | None = None, batch: int = 0
) -> Iterator[tuple[NDArray[Any]]]:
    """Yield one column of all rows, or of those of ``order``, row by row or in batches."""
    sampler = ds.SequentialSampler() if order is None else ds.SubsetSampler(order)
    try:
        rows = ds.MindDataset(_named(files), columns_list=[column], sampler=sampler, num_parallel_workers=1)
        rows = rows.batch(batch) if batch else rows
        yield from rows.create_tuple_iterator(num_epochs=1, output_numpy=True)
    except (RuntimeError, ValueError) as error:
        raise _unreadable(files[0], error) from error


def _named(files: str | Sequence[Path]) -> str | list[str]:
    return files if isinstance(files, str) else [str(path) for path in files]


def _unreadable(path: Path, error: Exception) -> InputError:
    # MindSpore's message is a page; its own sentence stands behind the mark.
    said = re.search(r"\[ERROR\] (.+)", str(error))
    return InputError(
        f"The MindRecord file cannot be read: {said[1].rstrip('.') if said else first_line(error)}.",
        where=path,
        fix="Keep every file of the set and its .db under the names they were written with.",
    )
