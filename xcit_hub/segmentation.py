"""A loaded segmenter at work: images become the classes of their pixels, painted, counted and written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from xcit_hub.data.folders import readable
from xcit_hub.data.shards import Stored
from xcit_hub.errors import InputError
from xcit_hub.files import atomic_write, check_apart, numbered, read_bounded
from xcit_hub.segmenters import MASK, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from xcit_hub.data.transforms import ImageLike
    from xcit_hub.hub.dense import XCiTSegmenter

_LARGEST_NAMES = 8 << 20

Sliding = Window | Literal["whole"] | None
"""A window, the image whole, or as the network's description says (None)."""


def segment(
    network: XCiTSegmenter, image: ImageLike, *, window: Sliding = None, exif: bool = False
) -> NDArray[np.int32]:
    """Return the class of every pixel of an image, (H, W) of its own size: rows of the network's classifier.

    Args:
        network: what :func:`xcit_hub.load_segmenter` returned.
        image: a PIL image or the path of one.
        window: what slides over the image once it is resized; by default as the network's description says.
        exif: turn the image as its EXIF orientation says.

    Raises:
        InputError: it is not a readable image, or is smaller than the window.
        WeightsError: the logits are not finite.
    """
    return _segmented(network, image, window, exif)[1]


@dataclass(frozen=True)
class Segmented:
    """What a segmenter says of one image of several.

    Args:
        image: its path.
        shares: (class, name, share of the pixels), the largest first; none where there is a problem.
        problem: why there is no answer.
    """

    image: str
    shares: tuple[tuple[int, str, float], ...]
    problem: str = ""


def segment_all(
    network: XCiTSegmenter,
    images: Sequence[Path | Stored],
    *,
    painted: Path | None = None,
    masks: Path | None = None,
    window: Sliding = None,
    exif: bool = False,
    stage: Callable[[str], None] = lambda _: None,
) -> list[Segmented]:
    """Segment images and write what is wanted; an image that cannot be segmented is named, and the others are done.

    Args:
        painted: the folder for each image with its classes painted over it and a legend, ``NUMBER-NAME.png``.
        masks: the folder for each image's classes as a PNG of one value a pixel, ``NUMBER-NAME.png``: class N as N,
            from 0 on, where an annotation has N + 1; the PNG says so (:data:`xcit_hub.segmenters.MASK`).
        window, exif: as for :func:`segment`.
        stage: told how far it is.

    Raises:
        InputError: a folder cannot be written, or is named for both.
        WeightsError: the logits are not finite.
    """
    from xcit_hub.painting import paint, palette, with_legend

    sliding(network, window)  # or each image would say it
    check_apart({"painted": painted, "masks": masks}, "folder")
    for folder in (painted, masks):
        if folder is not None:
            _make(folder)
    colours = palette(network.config.labels, network.num_classes)
    answered: list[Segmented] = []
    for number, given in enumerate(images):
        called = str(given) if isinstance(given, Stored) else readable(given)
        try:
            image, classes = _segmented(network, given, window, exif)
        except InputError as error:
            answered.append(Segmented(called, (), error.what))
        else:
            answered.append(Segmented(called, _shares(network, classes)))
            name = numbered(number, given.stem, ".png")
            if painted is not None:
                _save(with_legend(paint(image, classes, colours), answered[-1].shares, colours), painted / name)
            if masks is not None:
                _save(_mask(classes, network.num_classes), masks / name, {MASK: "the value N is class N, from 0 on"})
        stage(f"{number + 1:,} of {len(images):,} images")
    return answered


def sliding(network: XCiTSegmenter, window: Sliding) -> Window | None:
    """Return what slides over an image, None where it goes through whole.

    Raises:
        InputError: it is no window.
    """
    slides = network.window if window is None else window
    if slides is None or slides == "whole":
        return None
    if not isinstance(slides, Window):
        raise InputError(
            f"window is {slides!r:.60}, and not a window.",
            where="window=… (--window)",
            fix="Give xcit_hub.segmenters.Window(size, stride), 'whole', or None.",
        )
    return slides


def parse_window(size: str | None, stride: str | None) -> Sliding:
    """Read a window as the command line gives it: ``512``, ``512x683`` (height × width) or ``whole``.

    Args:
        stride: likewise; two thirds of the window by default, as mmsegmentation's configs have it.

    Raises:
        InputError: it is not one.
    """
    if size is None or size == "whole":
        if stride is not None:
            raise InputError("A stride needs a window.", where="--stride", fix="Give --window, too.")
        return None if size is None else "whole"
    sides = _sides(size, "--window")
    steps = _sides(stride, "--stride") if stride is not None else (max(2 * sides[0] // 3, 1), max(2 * sides[1] // 3, 1))
    return Window(sides, steps)


def read_names(path: Path) -> tuple[str, ...]:
    """Read the classes' names from a text file, one a line.

    Raises:
        InputError: it cannot be read, is not UTF-8, or has an empty line between names.
    """
    try:
        text = read_bounded(path, _LARGEST_NAMES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"Cannot read the names of the classes: {error}.",
            where=readable(path),
            fix="Give a text of one name a line.",
        ) from error
    names = tuple(line.strip() for line in text.strip("\n").splitlines())
    if not names or not all(names):
        raise InputError("A line has no name of a class.", where=readable(path), fix="Give one name a line.")
    return names


def _sides(text: str, where: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise InputError(f"{text!r:.40} is not a size in pixels.", where=where, fix="Write 512 or 512x683.")
    return int(parts[0]), int(parts[-1])


def _segmented(
    network: XCiTSegmenter, image: ImageLike, window: Sliding, exif: bool
) -> tuple[Image.Image, NDArray[np.int32]]:
    from PIL import Image

    from xcit_hub.data.scenes import scene
    from xcit_hub.models import windows

    if not isinstance(image, Image.Image | str | os.PathLike | Stored):
        raise InputError(
            f"{type(image).__name__} is not an image.", where="the image", fix="Give a PIL image or a path."
        )
    slides = sliding(network, window)
    opened = scene(image, network.config.preprocessing, in_chans=network.in_chans, exif=exif)
    found = windows.logits(network, opened.pixels, slides)
    return opened.image, windows.classes(found, opened.image.height, opened.image.width)


def _shares(network: XCiTSegmenter, classes: NDArray[np.int32]) -> tuple[tuple[int, str, float], ...]:
    labels = network.config.labels
    counts = np.bincount(classes.ravel(), minlength=network.num_classes)
    order = np.argsort(-counts, kind="stable")
    return tuple(
        (int(index), labels[index] if labels else f"class {index}", float(counts[index] / classes.size))
        for index in order
        if counts[index]
    )


def _mask(classes: NDArray[np.int32], count: int) -> Image.Image:
    from PIL import Image

    return Image.fromarray(classes.astype(np.uint8 if count <= 256 else np.uint16))


def _save(image: Image.Image, path: Path, texts: Mapping[str, str] | None = None) -> None:
    from PIL.PngImagePlugin import PngInfo

    told = PngInfo()
    for name, text in (texts or {}).items():
        told.add_text(name, text)
    with atomic_write(path) as target:
        image.save(target, "PNG", pnginfo=told)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot write there: {error.strerror}.", where=readable(folder), fix="Name a folder."
        ) from error
