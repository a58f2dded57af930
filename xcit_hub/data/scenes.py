"""Images whose pixels have classes: as a segmenter takes them, and as ADE20K's folders hold them.

Source: open-mmlab/mmsegmentation 0.11, ``Resize`` with ``keep_ratio`` and ``LoadAnnotations`` with
``reduce_zero_label``; facebookresearch/xcit ``semantic_segmentation/configs/_base_/datasets/ade20k.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xcit_hub import resampling
from xcit_hub.data.folders import find_images, readable
from xcit_hub.data.transforms import ImageLike, for_channels, normalize, open_image
from xcit_hub.errors import InputError, first_line
from xcit_hub.files import is_folder, open_regular
from xcit_hub.segmenters import LONGER_SIDE, MASK, SHORTER_SIDE
from xcit_hub.variants import Preprocessing

_LARGEST_ANNOTATION = 256 << 20


def scaled_size(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Return the sides of an image whose shorter one becomes ``shorter``, unless the longer would exceed 4 times that.

    mmcv's ``rescale_size`` for the scale (4 · shorter, shorter): both sides are rounded to the nearest pixel.
    """
    longest = shorter * (LONGER_SIDE // SHORTER_SIDE)
    scale = min(longest / max(height, width), shorter / min(height, width))
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def rescaled(image: Image.Image, height: int, width: int) -> Image.Image:
    """Resize bilinearly between the nearest pixels, as OpenCV does; Pillow, made smaller, would average over more."""
    if image.size == (width, height):
        return image
    pixels = np.asarray(image)
    planes = np.moveaxis(pixels.reshape(image.height, image.width, -1), 2, 0).astype(np.float32)
    found = np.moveaxis(np.rint(resampling.bilinear(planes, height, width)), 0, 2).astype(np.uint8)
    return Image.fromarray(found.reshape(height, width, *pixels.shape[2:]))


@dataclass(frozen=True)
class Scene:
    """An image on its way through a segmenter.

    Args:
        image: as it is.
        pixels: (C, h, w) float32, resized and normalised.
    """

    image: Image.Image
    pixels: NDArray[np.float32]


def scene(image: ImageLike, preprocessing: Preprocessing, *, in_chans: int = 3, exif: bool = False) -> Scene:
    """Open and prepare an image: its shorter side becomes the preprocessing's ``image_size``, its aspect is kept.

    Raises:
        InputError: it cannot be read, or the network takes other channels than an image has.
    """
    if in_chans not in (1, 3):
        raise InputError(
            f"The network takes {in_chans} channels, and an image file has 1 or 3.",
            where="the network",
            fix="Prepare its input yourself: (batch, channels, height, width), normalised.",
        )
    opened = open_image(image, "RGB" if in_chans == 3 else "L", exif=exif)
    size = scaled_size(opened.height, opened.width, preprocessing.image_size)
    pixels = np.empty((in_chans, *size), np.float32)
    normalize(rescaled(opened, *size), *levels(preprocessing, in_chans), pixels)
    return Scene(opened, pixels)


def levels(preprocessing: Preprocessing, in_chans: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation of each channel."""
    mean, std = preprocessing.mean, preprocessing.std
    return for_channels(mean, in_chans, "mean"), for_channels(std, in_chans, "std")


@dataclass(frozen=True)
class Annotated:
    """Images with the classes of their pixels, in the order of their names.

    Args:
        images, annotations: one beside the other.
        unreadable: what has an image's name and is not a file: path and reason.
        others: number of files without an image's name.
    """

    images: tuple[Path, ...]
    annotations: tuple[Path, ...]
    unreadable: tuple[str, ...] = ()
    others: int = 0

    def notes(self, split: str) -> tuple[str, ...]:
        """Return what the reader has to know of a split, though nothing failed."""
        left_out = f"{self.others:,} files of {split} are not images by their names, and were left out"
        return (left_out,) if self.others else ()


def annotated(folder: Path, split: str) -> Annotated:
    """Find ADE20K's pairs: ``images/SPLIT/NAME.jpg`` and ``annotations/SPLIT/NAME.png``.

    Other suffixes of images serve, too.

    Raises:
        InputError: there is no such folder or no image, an image has no annotation or the reverse, or two images or
            two annotations differ in the suffix alone.
    """
    found = {}
    for part in ("images", "annotations"):
        below = folder / part / split
        if split in ("", "..") or Path(split).name != split or not is_folder(below):
            splits = (
                sorted(each.name for each in (folder / part).iterdir() if each.is_dir())
                if is_folder(folder / part)
                else []
            )
            raise InputError(
                f"There is no {part}/{readable(split)} here.",
                where=readable(folder),
                fix=f"Name one of {', '.join(map(readable, splits))}."
                if splits
                else "ADE20K's folders are images/SPLIT and annotations/SPLIT.",
            )
        found[part] = find_images(below)
    images, marks = (_by_name(found[part].images, folder / part / split) for part in ("images", "annotations"))
    if not images:
        raise InputError("There is no image.", where=readable(folder / "images" / split), fix="Check the folder.")
    for one, other, what in (
        (images, marks, "image without an annotation"),
        (marks, images, "annotation without an image"),
    ):
        alone = sorted(one.keys() - other.keys())
        if alone:
            raise InputError(
                f"{len(alone)} of {len(one)} are an {what}, {readable(one[alone[0]].name)} for example.",
                where=readable(folder),
                fix="Put NAME.jpg into images/SPLIT and NAME.png into annotations/SPLIT.",
            )
    names = sorted(images)
    return Annotated(
        tuple(images[name] for name in names),
        tuple(marks[name] for name in names),
        (*found["images"].unreadable, *found["annotations"].unreadable),
        found["images"].others + found["annotations"].others,
    )


def _by_name(paths: Iterable[Path], below: Path) -> dict[Path, Path]:
    """Return each path by its name from ``below``, without its suffix.

    Raises:
        InputError: two have the same.
    """
    named: dict[Path, Path] = {}
    for path in paths:
        name = path.relative_to(below).with_suffix("")
        if name in named:
            raise InputError(
                f"{readable(named[name].name)} and {readable(path.name)} have one name but for the suffix.",
                where=readable(path.parent),
                fix="An image has one annotation, which is called as it is: remove or rename one of the two.",
            )
        named[name] = path
    return named


def annotation(path: Path, num_classes: int) -> NDArray[np.int32]:
    """Read the classes of an image's pixels, (H, W): 0 in the file is no class, N is class N − 1.

    What is no class is :data:`xcit_hub.segmenters.NO_CLASS`.

    Raises:
        InputError: it is not an image of single values, holds a class that there is not, or is a mask that
            ``xcit-hub predict`` wrote, whose classes begin at 0.
    """
    try:
        with open_regular(path) as stream, Image.open(stream) as image:
            if MASK in image.info:
                raise InputError(
                    "This is a mask that xcit-hub predict wrote: its N is class N, and an annotation's is class N - 1.",
                    where=readable(path),
                    fix="Add 1 to its values in a new file: Image.fromarray(np.asarray(Image.open(…), np.uint16) + 1).",
                )
            if image.mode not in ("L", "P", "I", "I;16") or image.width * image.height > _LARGEST_ANNOTATION:
                raise InputError(
                    f"This is an image of mode {image.mode} and {image.width}×{image.height} pixels, not of classes.",
                    where=readable(path),
                    fix="An annotation is a PNG of one 8-bit value a pixel: 0 for no class, N for class N.",
                )
            values = np.asarray(image).astype(np.int32)
    except InputError:
        raise
    except Exception as error:  # of any class: each of Pillow's readers has its own
        raise InputError(
            f"Cannot read the annotation: {first_line(error)}.", where=readable(path), fix="Give a whole PNG."
        ) from error
    if values.size and (values.max() > num_classes or values.min() < 0):
        raise InputError(
            f"The annotation holds class {int(values.max())}, and the network has {num_classes}.",
            where=readable(path),
            fix="Values are 0 for no class and 1 to the number of classes.",
        )
    return values - 1  # NO_CLASS is −1
