"""A loaded network at work: images become its input, its answers become classes with their probabilities."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from xcit_hub.data.folders import Found, entries, find_images, is_image, readable
from xcit_hub.data.shards import Stored, is_shard, list_shard
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.exported import ExportedNetwork
from xcit_hub.files import is_file, is_folder, is_there
from xcit_hub.hub.config import ModelConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xcit_hub.data.transforms import ImageLike
    from xcit_hub.hub.network import XCiT

_TOP = 5
_LISTED = 5


@dataclass(frozen=True)
class Prediction:
    """One class of an answer.

    Args:
        index: the classifier's row.
        label: the class's name, or ``class N`` where nobody named it.
        probability: softmax of the logits, 0 to 1.
    """

    index: int
    label: str
    probability: float


def preprocess(
    description: ModelConfig | XCiT | ExportedNetwork, *, exif: bool = False
) -> Callable[[ImageLike], NDArray[np.float32]]:
    """Return the function that turns an image (PIL image or path) into the network's input (C, H, W), float32.

    Args:
        description: a loaded network, or its ``config``; an exported file that takes bytes gets (H, W, C), uint8.
        exif: turn images as their EXIF orientation says; timm, whose pixels these otherwise are, does not.

    Raises:
        InputError: it is neither; or, when the function is called, its argument is not a readable image.
    """
    from PIL import Image

    from xcit_hub.data.transforms import EvalTransform

    described = getattr(description, "config", description)
    if not isinstance(described, ModelConfig):
        raise InputError(
            f"preprocess needs what a network was loaded with, and {type(description).__name__} has no description.",
            where="preprocess(description)",
            fix="Give it the network that xcit_hub.load returned, or that network's config.",
        )
    transform = (
        description.preprocess(exif=exif)
        if isinstance(description, ExportedNetwork)
        else EvalTransform(described.preprocessing, in_chans=described.in_chans, exif=exif)
    )

    def prepare(image: ImageLike) -> NDArray[np.float32]:
        if not isinstance(image, Image.Image | str | os.PathLike | Stored):
            raise InputError(
                f"{type(image).__name__} is not an image.",
                where="the image",
                fix="Give a PIL image (Image.fromarray makes one) or a path.",
            )
        return transform(image)

    return prepare


@dataclass(frozen=True)
class Answer:
    """What a network says of one image of several.

    Args:
        image: its path; ``image N`` for one that came without.
        classes: the most probable first; none where there is a problem.
        problem: why the image could not be read.
    """

    image: str
    classes: tuple[Prediction, ...]
    problem: str = ""


@overload
def predict(  # type: ignore[overload-overlap]  # a str is the path of one image, not several
    network: XCiT | ExportedNetwork, images: ImageLike, *, top: int | None = ..., batch: int = ..., exif: bool = ...
) -> list[Prediction]:
    pass


@overload
def predict(
    network: XCiT | ExportedNetwork,
    images: Iterable[ImageLike],
    *,
    top: int | None = ...,
    batch: int = ...,
    exif: bool = ...,
) -> list[Answer]:
    pass


def predict(
    network: XCiT | ExportedNetwork,
    images: ImageLike | Iterable[ImageLike],
    *,
    top: int | None = None,
    batch: int = 16,
    exif: bool = False,
) -> list[Prediction] | list[Answer]:
    """Classify one image or several, prepared as the network's description says.

    Args:
        network: a loaded classifier, in eval mode, or an exported one.
        images: a PIL image or the path of one; or several.
        top: how many classes; 5 by default, or all where there are fewer.
        batch: how many images go through the network at once.
        exif: turn images as their EXIF orientation says.

    Returns:
        Of one image its ``top`` most probable classes, the first one first; of several an :class:`Answer` each, in
        their order, those that cannot be read among them.

    Raises:
        InputError: the network has no classifier, there are no such numbers, or the one image cannot be read.
        WeightsError: the logits are not finite.
    """
    from PIL import Image

    if isinstance(images, str | os.PathLike | Image.Image | Stored):
        return classify(network, preprocess(network, exif=exif)(images)[None], top=top)[0]
    return list(answers(network, images, top=top, batch=batch, exif=exif))


def answers(
    network: XCiT | ExportedNetwork,
    images: Iterable[ImageLike],
    *,
    top: int | None = None,
    batch: int = 16,
    exif: bool = False,
) -> Iterator[Answer]:
    """Yield what :func:`predict` returns of several images, while the rest is still to come."""
    count_of_classes(network, top)
    refuse_unless_positive(batch, "batch")
    prepare = preprocess(network, exif=exif)

    def prepared(numbered: tuple[int, ImageLike]) -> tuple[str, NDArray[np.float32] | None, str]:
        number, image = numbered
        try:
            return name_of(image, number), prepare(image), ""
        except InputError as error:
            return name_of(image, number), None, error.what

    waiting = iter(enumerate(images))
    # The next batch is decoded while the network computes; Pillow lets other threads run meanwhile.
    with ThreadPoolExecutor(1) as second:
        coming = second.submit(lambda: [prepared(each) for each in islice(waiting, batch)])
        while group := coming.result():
            coming = second.submit(lambda: [prepared(each) for each in islice(waiting, batch)])
            pixels = [found for _, found, _ in group if found is not None]
            classes = iter(classify(network, np.stack(pixels), top=top) if pixels else ())
            for name, found, problem in group:
                yield Answer(name, () if found is None else tuple(next(classes)), problem)


def name_of(image: ImageLike, number: int) -> str:
    """Return what an image is called in answers: its path, or ``image N``."""
    if isinstance(image, Stored):
        return str(image)
    return readable(image) if isinstance(image, str | os.PathLike) else f"image {number}"


@dataclass(frozen=True)
class Sources:
    """The images that somebody named.

    Args:
        images: files and images in shards, in the order in which they were named; those of a folder by name.
        problems: what was named, or lies in a folder, and cannot be an image's file or a shard: path and reason.
        others: files in the folders, of the patterns and in the archives that are not images by their names, and were
            left out.
    """

    images: tuple[Path | Stored, ...]
    problems: tuple[str, ...]
    others: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader has to know, though nothing failed."""
        return (f"{self.others:,} files are not images by their names, and were left out",) if self.others else ()


def sources(named: Iterable[str], lines: Iterable[str] = (), *, column: str | None = None) -> Sources:
    """Find the images that files, folders, shell patterns and ``-`` name, in tar archives and Parquet tables, too.

    Args:
        named: paths; a folder stands for the images below it and the shards in it, a pattern for what it matches
            (with ``**`` for files alone), ``-`` for ``lines``.
        lines: a path each; empty ones are passed over.
        column: of Parquet tables, that holds the images; see :func:`xcit_hub.data.shards.list_shard`.

    Raises:
        InputError: nothing at all is an image; a column of no table is named; or
            Parquet is not installed.
    """
    images: list[Path | Stored] = []
    problems: list[str] = []
    nothing: list[str] = []
    tables = others = 0
    for name in named:
        if name == "-":
            found = [Path(line) for line in (line.strip("\r\n") for line in lines) if line]
        elif is_folder(name) or (glob.has_magic(name) and not is_there(name)):
            below = _below(Path(name)) if is_folder(name) else _matched(name)
            found = below.images
            problems += below.unreadable
            others += below.others
        else:
            found = [Path(name)]
        if not found:
            nothing.append(readable(name))
        for path in found:
            if is_shard(path.name) and is_file(path):
                tables += path.suffix.lower() == ".parquet"
                shard = list_shard(path, column)
                images += shard.images
                problems += shard.problems
                others += shard.others
            else:
                images.append(path)
    if column is not None and not tables:
        raise InputError(
            f"A column {column!r:.100} is named, and no Parquet table.",
            where="column",
            fix="Leave it out, or name a table.",
        )
    if not images and not problems:
        raise InputError(
            "There is no image.",
            where=", ".join(nothing[:_LISTED]) or None,
            fix="Name images, folders, shards, patterns, or - for a list on standard input.",
        )
    return Sources(tuple(images), (*problems, *(f"{name}: there is no image" for name in nothing)), others)


def _below(folder: Path) -> Found:
    """Find the images below a folder and the shards in it. A folder called as a shard is one like any other."""
    below = find_images(folder)
    called = [folder / entry.name for entry in entries(folder) if is_shard(entry.name)]
    shards = [path for path in called if not is_folder(path)]
    return Found(sorted([*below.images, *shards]), below.unreadable, below.others - len(shards))


def _matched(pattern: str) -> Found:
    """Find what a shell pattern matches; folders are walked, but with ``**``, which matches what is in them as well."""
    found = Found()
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  # Path.glob takes no absolute pattern
        if is_folder(name):
            below = Found() if "**" in pattern else _below(Path(name))
            found.images += below.images
            found.unreadable += below.unreadable
            found.others += below.others
        elif is_image(name) or is_shard(name):
            found.images.append(Path(name))
        else:
            found.others += is_file(name)
    return found


def refuse_unless_positive(number: int, what: str) -> None:
    """Raise InputError unless a number counts something."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(
            f"{what}={number!r} is not a number of at least 1.",
            where=f"{what}=… (--{what})",
            fix=f"Choose {what}=5, say.",
        )


def count_of_classes(network: XCiT | ExportedNetwork, top: int | None) -> int:
    """Return how many classes an answer has.

    Raises:
        InputError: the network has no classifier, or not so many classes.
    """
    if top is not None:
        refuse_unless_positive(top, "top")
    if network.num_classes == 0:
        raise InputError(
            "These weights have no classifier, and a backbone names no classes.",
            where=network.config.provenance.source,
            fix="Load a classifier; leave --image out on the command line.",
        )
    if top is not None and top > network.num_classes:
        raise InputError(
            f"The network has {network.num_classes:,} classes, and top={top} asks for more.",
            where=network.config.provenance.source,
            fix=f"Choose 1 to {network.num_classes}.",
        )
    return min(_TOP, network.num_classes) if top is None else top


def classify(
    network: XCiT | ExportedNetwork, pixels: NDArray[np.float32], *, top: int | None = None
) -> list[list[Prediction]]:
    """Classify a batch of prepared images: the ``top`` most probable classes of each, the first one first.

    Args:
        pixels: (B, C, H, W) float32, as :func:`preprocess` makes them.
        top: 5 by default, or all where there are fewer.

    Raises:
        InputError: the network has no classifier, or not so many classes.
        WeightsError: the logits are not finite.
    """
    count = count_of_classes(network, top)
    logits = _logits(network, pixels).astype(np.float64)
    if not np.isfinite(logits).all():
        raise WeightsError(
            f"The network's outputs are not finite: {int((~np.isfinite(logits)).sum())} of {logits.size} logits are "
            "NaN or infinite.",
            where=network.config.provenance.source,
            fix="The weights are damaged, or of another dialect; see where they come from.",
        )
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    labels = network.config.labels or [f"class {index}" for index in range(logits.shape[-1])]
    return [[Prediction(int(i), labels[i], float(row[i])) for i in np.argsort(-row)[:count]] for row in probabilities]


def _logits(network: XCiT | ExportedNetwork, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    if isinstance(network, ExportedNetwork):
        return network(pixels)
    import mindspore

    return network(mindspore.Tensor(pixels)).asnumpy()
