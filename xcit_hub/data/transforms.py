"""A photograph becomes the network's input at evaluation: resize, crop, normalise, as timm does it, to PIL's bit."""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from xcit_hub.data.shards import Stored
from xcit_hub.deprecated import moved_names
from xcit_hub.errors import InputError, first_line
from xcit_hub.files import is_file, is_there
from xcit_hub.variants import Preprocessing

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
_CROP_MODES = ("center", "squash", "border")
_MOST_PIXELS = 178_956_970  # where Pillow, too, takes an image for an attack

ImageMode = Literal["RGB", "L", "RGBA"]
MODES: dict[int, ImageMode] = {1: "L", 3: "RGB", 4: "RGBA"}
"""How Pillow calls an image of so many channels."""

ImageLike = Image.Image | str | os.PathLike[str] | Stored


class EvalTransform:
    """An image, or the path of one, becomes a (C, H, W) float32 array.

    What ``timm.data.create_transform`` builds for evaluation, in all three crop modes (see
    :class:`xcit_hub.variants.Preprocessing`). Who makes batches takes its two halves, ``cut`` and ``finish``.

    Args:
        in_chans: 3 reads images as RGB, 1 as grey, as timm's validation does.
        alpha: 4 channels are RGBA, opaque where an image has no alpha; refused without.
        exif: turn the image as its EXIF orientation says; timm does not.

    Raises:
        InputError: the interpolation, the crop mode or the number of channels is not one of timm's; or, when called,
            the file is not a readable image, or its proportions are absurd.
    """

    def __init__(
        self, preprocessing: Preprocessing, *, in_chans: int = 3, exif: bool = False, alpha: bool = False
    ) -> None:
        if preprocessing.interpolation not in _RESAMPLING:
            raise InputError(
                f"The interpolation {preprocessing.interpolation!r} is not known.",
                where="preprocessing.interpolation",
                fix=f"Choose one of {', '.join(_RESAMPLING)}.",
            )
        if preprocessing.crop_mode not in _CROP_MODES:
            raise InputError(
                f"The crop mode {preprocessing.crop_mode!r} is not known.",
                where="preprocessing.crop_mode",
                fix=f"Choose one of {', '.join(_CROP_MODES)}.",
            )
        if in_chans not in ((1, 3, 4) if alpha else (1, 3)):
            raise InputError(
                f"The network takes {in_chans} channels, and an image file has 1 or 3.",
                where="the network",
                fix="Prepare its input yourself: (batch, channels, height, width), normalised.",
            )
        self.preprocessing = preprocessing
        self.mode: ImageMode = MODES[in_chans]
        self.exif = exif
        self.shape = (in_chans, *preprocessing.size)
        self.mean = for_channels(preprocessing.mean, in_chans, "mean")
        self.std = for_channels(preprocessing.std, in_chans, "std")

    def __call__(self, image: ImageLike) -> NDArray[np.float32]:
        """Open, cut and finish."""
        pixels = np.empty(self.shape, np.float32)
        self.finish(self.cut(open_image(image, self.mode, exif=self.exif)), pixels)
        return pixels

    def cut(self, image: Image.Image) -> Image.Image:
        """Resize an image of this transform's mode and keep its centre, H×W."""
        return center_crop(self.resized(image), *self.preprocessing.size, self.fill)

    @property
    def fill(self) -> tuple[int, ...]:
        """The colour of borders."""
        is_mean = self.preprocessing.crop_mode == "border"
        return tuple(round(255 * level) for level in self.mean) if is_mean else (0,) * len(self.mean)

    def resized(self, image: Image.Image) -> Image.Image:
        """Resize an image of this transform's mode, not yet cropped."""
        height, width = self.preprocessing.size
        scaled = tuple(math.floor(side / self.preprocessing.crop_pct) for side in (height, width))
        resampling = _RESAMPLING[self.preprocessing.interpolation]
        mode = self.preprocessing.crop_mode
        if mode == "squash":
            size = scaled
        elif mode == "border":
            size = _keeping_ratio(image, scaled, longest=True)
        elif scaled[0] == scaled[1]:
            size = _shorter_side(image, scaled[0])
        else:
            size = _keeping_ratio(image, scaled, longest=False)
        return _resize(image, size, resampling)

    def finish(self, image: Image.Image, pixels: NDArray[np.float32]) -> None:
        """Write what was cut into ``pixels`` (C, H, W), normalised."""
        normalize(image, self.mean, self.std, pixels)


def normalize(image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...], planes: NDArray[np.float32]) -> None:
    """Write an image of C channels into ``planes`` (C, H, W) as (pixel / 255 − mean) / std of each channel."""
    pixels = np.asarray(image).reshape(*planes.shape[1:], -1)
    for channel, levels in enumerate(_levels(mean, std)):
        # "clip" lets numpy write straight into the plane; no byte is out of range.
        np.take(levels, pixels[:, :, channel], out=planes[channel], mode="clip")


@lru_cache(maxsize=8)
def _levels(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Return what each of a channel's 256 levels becomes, (C, 256): looking up is a third of computing each pixel."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255.0)
    return (levels - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]


def open_rgb(image: ImageLike) -> Image.Image:
    """Open an image as RGB, see :func:`open_image`."""
    return open_image(image, "RGB")


def open_image(image: ImageLike, mode: ImageMode, *, exif: bool = False) -> Image.Image:
    """Open an image in 8 bits a channel.

    16-bit images are scaled, as are floating-point ones between 0 and 1; timm's reader cuts both off at 255.

    Args:
        mode: RGB, L for grey, or RGBA.
        exif: turn the image as its EXIF orientation says; timm does not.

    Raises:
        InputError: the file is missing, is not an image, is cut short, or its values have no known range.
    """
    if isinstance(image, Image.Image):
        with _reading("the image"):
            image.load()  # where it was opened and not yet read
            return _in_mode(image, mode, exif, "the image")
    if isinstance(image, Stored):
        return _decoded(io.BytesIO(image.read()), str(image), mode, exif)
    return _decoded(image, image, mode, exif)


def decode_rgb(content: bytes, name: str) -> Image.Image:
    """Decode an image file as RGB, see :func:`decode`."""
    return decode(content, name, "RGB")


def decode(content: bytes, name: str, mode: ImageMode) -> Image.Image:
    """Decode the bytes of an image file, called ``name`` in messages.

    Raises:
        InputError: they are not an image, or are cut short, or their values have no known range.
    """
    return _decoded(io.BytesIO(content), name, mode, False)


def _decoded(
    source: str | os.PathLike[str] | io.BytesIO,
    name: str | os.PathLike[str],
    mode: ImageMode,
    exif: bool,
) -> Image.Image:
    if not isinstance(source, io.BytesIO) and is_there(source) and not is_file(source):
        raise InputError("This is not a file.", where=name, fix="Give an image file; devices and pipes are not read.")
    with _reading(name), Image.open(source) as image:
        image.load()
        return _in_mode(image, mode, exif, name)


@contextmanager
def _reading(name: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of any class: each of Pillow's readers has its own
        said = first_line(error).partition(" <_io.BytesIO")[0]  # which is an address
        raise InputError(
            f"Cannot read the image: {said}.", where=name, fix="Give a whole JPEG, PNG, WebP or similar file."
        ) from error


def _in_mode(image: Image.Image, mode: ImageMode, exif: bool, name: object) -> Image.Image:
    told = image.format  # which turning forgets
    if exif:
        try:
            image = ImageOps.exif_transpose(image)
        except struct.error as error:  # of a few formats Pillow lets it through
            raise ValueError(f"its EXIF is damaged: {error}") from error
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _in_bytes(image, told, name)
    return image if image.mode == mode else image.convert(mode)


def _in_bytes(image: Image.Image, file_format: str | None, name: object) -> Image.Image:
    """Scale an image of more than 8 bits a pixel to bytes; Pillow's own conversion cuts off at 255."""
    values = np.asarray(image).astype(np.float64)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    # Older Pillow opens 16-bit PNG files in mode I, and any scales Netpbm's greys of more than 8 bits to 16 there.
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and file_format in ("PNG", "PPM"))
    if is_16_bit and low >= 0 and high <= 65535:
        values = values / 257.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255.0
    else:
        raise InputError(
            f"The image's values go from {low:g} to {high:g} (mode {image.mode}), and nothing says what white is.",
            where=name,
            fix="Save it in 8 or 16 bits, or as floats between 0 and 1.",
        )
    return Image.fromarray(np.rint(values).astype(np.uint8))


def for_channels(levels: tuple[float, ...], channels: int, name: str) -> tuple[float, ...]:
    """Return a mean or deviation with a number for each channel: one for all of them, or the mean of three for grey.

    Raises:
        InputError: there are other channels.
    """
    if len(levels) == channels:
        return levels
    if len(levels) == 1:
        return levels * channels
    if channels == 1:
        return (sum(levels) / len(levels),)  # what timm's loader does for networks of grey images
    raise InputError(
        f"{name} has {len(levels)} numbers for {channels} channels.",
        where=f"preprocessing.{name}",
        fix="Give one, or one for each.",
    )


def _shorter_side(image: Image.Image, side: int) -> tuple[int, int]:
    width, height = image.size
    return (int(side * height / width), side) if width <= height else (side, int(side * width / height))


def _keeping_ratio(image: Image.Image, target: tuple[int, ...], *, longest: bool) -> tuple[int, int]:
    ratios = (image.height / target[0], image.width / target[1])
    ratio = max(ratios) if longest else min(ratios)
    return round(image.height / ratio), round(image.width / ratio)


def _resize(image: Image.Image, size: tuple[int, ...], resampling: Image.Resampling) -> Image.Image:
    height, width = size
    if not (height > 0 and width > 0 and height * width <= _MOST_PIXELS):
        raise InputError(
            f"An image of {image.height}×{image.width} pixels would become one of {height}×{width}.",
            where="the image",
            fix="Its proportions are extreme: crop it first.",
        )
    return image if image.size == (width, height) else image.resize((width, height), resampling)


def center_crop(image: Image.Image, height: int, width: int, fill: tuple[int, ...]) -> Image.Image:
    """Return the centre of an image, H×W; where it is smaller, ``fill`` stands around it, as in torchvision."""
    missing = (max(width - image.width, 0), max(height - image.height, 0))
    if any(missing):
        padded = Image.new(image.mode, (image.width + missing[0], image.height + missing[1]), fill)
        padded.paste(image, (missing[0] // 2, missing[1] // 2))
        image = padded
    left = round((image.width - width) / 2.0)
    top = round((image.height - height) / 2.0)
    return image.crop((left, top, left + width, top + height))


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
