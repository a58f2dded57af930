"""A photograph becomes the network's input at evaluation: resize, crop, normalise, as timm does it, to PIL's bit."""

from __future__ import annotations

import io
import math
import os
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from xcit_hub.errors import InputError
from xcit_hub.variants import Preprocessing

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}

ImageLike = Image.Image | str | os.PathLike[str]


class EvalTransform:
    """An image, or the path of one, becomes a (3, S, S) float32 array.

    The shorter side is resized to S / crop_pct (rounded down), the centre S×S is kept, and channels are normalised:
    what ``timm.data.create_transform`` builds for evaluation (crop mode ``center``). Who makes batches takes its two
    halves, ``cut`` and ``finish``.

    Raises:
        InputError: the interpolation is unknown; or, when called, the file is not a readable image.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        if preprocessing.interpolation not in _RESAMPLING:
            raise InputError(
                f"There is no interpolation {preprocessing.interpolation!r}.",
                fix=f"Choose one of {', '.join(_RESAMPLING)}.",
            )
        self.preprocessing = preprocessing
        self.shape = (3, preprocessing.image_size, preprocessing.image_size)

    def __call__(self, image: ImageLike) -> NDArray[np.float32]:
        """Open, cut and finish."""
        pixels = np.empty(self.shape, np.float32)
        self.finish(self.cut(open_rgb(image)), pixels)
        return pixels

    def cut(self, image: Image.Image) -> Image.Image:
        """Resize an RGB image and keep its centre, S×S."""
        side = self.preprocessing.image_size
        shorter_side = math.floor(side / self.preprocessing.crop_pct)
        return _center_crop(_resize(image, shorter_side, _RESAMPLING[self.preprocessing.interpolation]), side)

    def finish(self, image: Image.Image, pixels: NDArray[np.float32]) -> None:
        """Write what was cut into ``pixels`` (3, S, S), normalised."""
        normalize(image, self.preprocessing.mean, self.preprocessing.std, pixels)


def normalize(
    image: Image.Image, mean: tuple[float, float, float], std: tuple[float, float, float], planes: NDArray[np.float32]
) -> None:
    """Write an RGB image into ``planes`` (3, H, W) as (pixel / 255 − mean) / std of each channel."""
    pixels = np.asarray(image)
    for channel, levels in enumerate(_levels(mean, std)):
        # "clip" lets numpy write straight into the plane; no byte is out of range.
        np.take(levels, pixels[:, :, channel], out=planes[channel], mode="clip")


@lru_cache(maxsize=8)
def _levels(mean: tuple[float, float, float], std: tuple[float, float, float]) -> NDArray[np.float32]:
    """Return what each of a channel's 256 levels becomes, (3, 256): looking up is a third of computing each pixel."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255.0)
    return (levels - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]


def open_rgb(image: ImageLike) -> Image.Image:
    """Open an image as RGB; the orientation tag is not applied, as in timm.

    Raises:
        InputError: the file is missing, is not an image, or is cut short.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    return _decoded(image, image)


def decode_rgb(content: bytes, name: str) -> Image.Image:
    """Decode the bytes of a image file, called ``name`` in messages, as RGB.

    Raises:
        InputError: they are not an image, or are cut short.
    """
    return _decoded(io.BytesIO(content), name)


def _decoded(source: str | os.PathLike[str] | io.BytesIO, name: str | os.PathLike[str]) -> Image.Image:
    try:
        with Image.open(source) as image:
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise InputError(
            f"Cannot read the image: {error}.", where=name, fix="Give a whole JPEG, PNG, WebP or similar file."
        ) from error


def _resize(image: Image.Image, shorter_side: int, resampling: Image.Resampling) -> Image.Image:
    width, height = image.size
    if width <= height:
        size = (shorter_side, int(shorter_side * height / width))
    else:
        size = (int(shorter_side * width / height), shorter_side)
    return image if size == image.size else image.resize(size, resampling)


def _center_crop(image: Image.Image, side: int) -> Image.Image:
    left = round((image.width - side) / 2.0)
    top = round((image.height - side) / 2.0)
    return image.crop((left, top, left + side, top + side))
