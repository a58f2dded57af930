"""A photograph becomes the network's input at evaluation: resize, crop, normalise, as timm does it, to PIL's bit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

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

Picture = Image.Image | str | os.PathLike[str]


def eval_transform(preprocessing: Preprocessing) -> Callable[[Picture], NDArray[np.float32]]:
    """Return the function that turns a picture, or the path of one, into a (3, S, S) float32 array.

    The shorter side is resized to S / crop_pct (rounded down), the centre S×S is kept, and channels are normalised:
    what ``timm.data.create_transform`` builds for evaluation (crop mode ``center``).

    Raises:
        InputError: the interpolation is unknown; or, when called, the file is no readable picture.
    """
    if preprocessing.interpolation not in _RESAMPLING:
        raise InputError(
            f"There is no interpolation {preprocessing.interpolation!r}.",
            fix=f"Choose one of {', '.join(_RESAMPLING)}.",
        )
    resampling = _RESAMPLING[preprocessing.interpolation]
    crop = preprocessing.image_size
    shorter_side = math.floor(crop / preprocessing.crop_pct)
    mean = np.array(preprocessing.mean, np.float32)
    std = np.array(preprocessing.std, np.float32)

    def transform(picture: Picture) -> NDArray[np.float32]:
        image = _center_crop(_resize(open_rgb(picture), shorter_side, resampling), crop)
        pixels: NDArray[Any] = np.asarray(image, np.float32) / np.float32(255.0)
        return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))

    return transform


def open_rgb(picture: Picture) -> Image.Image:
    """Open a picture as RGB; the orientation tag is not applied, as in timm.

    Raises:
        InputError: the file is missing, is no picture, or is cut short.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    try:
        with Image.open(picture) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise InputError(
            f"Cannot read the picture: {error}.", where=picture, fix="Give a whole JPEG, PNG, WebP or similar file."
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
