"""The operations of timm's augmentation policies, on Pillow images (``timm/data/auto_augment.py``, 1.0.31).

An operation is told how strong it is to be (its level, 0…1, or more where a policy allows it) and takes what chance it
needs from one number that is drawn evenly from 0…1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Color = tuple[int, int, int]
# Maps (image, level, chance in 0…1, canvas) to an image.
Operation = Callable[["Image.Image", float, float, "Canvas"], "Image.Image"]


@dataclass(frozen=True)
class Canvas:
    """What geometric operations fill uncovered pixels with, how they resample, and how far they shift at level 1.

    Args:
        shift: share of the image's side.
    """

    fill: Color
    resample: Image.Resampling
    shift: float = 0.45


def signed(value: float, chance: float) -> float:
    """Return a value or its negative, each in half of the cases."""
    return -value if chance > 0.5 else value


def _affine(image: Image.Image, matrix: tuple[float, ...], canvas: Canvas) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=canvas.resample, fillcolor=canvas.fill)


def _shear_x(image: Image.Image, level: float, chance: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, signed(level * 0.3, chance), 0, 0, 1, 0), canvas)


def _shear_y(image: Image.Image, level: float, chance: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, 0, signed(level * 0.3, chance), 1, 0), canvas)


def _translate_x(image: Image.Image, level: float, chance: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, signed(level * canvas.shift, chance) * image.size[0], 0, 1, 0), canvas)


def _translate_y(image: Image.Image, level: float, chance: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, signed(level * canvas.shift, chance) * image.size[1]), canvas)


def _rotate(image: Image.Image, level: float, chance: float, canvas: Canvas) -> Image.Image:
    return image.rotate(signed(level * 30.0, chance), resample=canvas.resample, fillcolor=canvas.fill)


def _solarize_add(image: Image.Image, level: float, _: float, __: Canvas) -> Image.Image:
    amount = min(128, int(level * 110))
    return image.point([min(255, value + amount) if value < 128 else value for value in range(256)] * 3)


def _posterize(bits: Callable[[float], int], image: Image.Image, level: float, _: float, __: Canvas) -> Image.Image:
    # Pillow's own posterize now refuses 0 bits, which a magnitude of 10 asks for: black. Beyond 10 they are negative.
    kept = bits(level)
    mask = 0xFF & ~(0xFF >> max(kept, 0))
    return image if kept >= 8 else image.point([value & mask for value in range(256)] * 3)


def _enhance(
    kind: Callable[[Image.Image], Any],
    factor: Callable[[float, float], float],
    image: Image.Image,
    level: float,
    chance: float,
    _: Canvas,
) -> Image.Image:
    enhanced: Image.Image = kind(image).enhance(factor(level, chance))
    return enhanced


def _blur(radius: Callable[[float, float], float], image: Image.Image, level: float, chance: float, _: Canvas) -> Any:
    return image.filter(ImageFilter.GaussianBlur(radius=radius(level, chance)))


def _factor(level: float, _: float) -> float:
    return level * 1.8 + 0.1


def _increasing_factor(level: float, chance: float) -> float:
    return max(0.1, 1.0 + signed(level * 0.9, chance))


def _between(low: float, high: float, level: float) -> float:
    return max(low, min(high, low + (high - low) * level))


_ENHANCERS = {
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Brightness": ImageEnhance.Brightness,
    "Sharpness": ImageEnhance.Sharpness,
}

# By timm's names.
OPERATIONS: dict[str, Operation] = {
    "AutoContrast": lambda image, *_: ImageOps.autocontrast(image),
    "Equalize": lambda image, *_: ImageOps.equalize(image),
    "Invert": lambda image, *_: ImageOps.invert(image),
    "Rotate": _rotate,
    "SolarizeAdd": _solarize_add,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateXRel": _translate_x,
    "TranslateYRel": _translate_y,
    **{name: partial(_enhance, kind, _factor) for name, kind in _ENHANCERS.items()},
    **{f"{name}Increasing": partial(_enhance, kind, _increasing_factor) for name, kind in _ENHANCERS.items()},
    "Posterize": partial(_posterize, lambda level: int(level * 4)),
    "PosterizeIncreasing": partial(_posterize, lambda level: 4 - int(level * 4)),
    "PosterizeOriginal": partial(_posterize, lambda level: int(level * 4) + 4),
    "Solarize": lambda image, level, *_: ImageOps.solarize(image, min(256, int(level * 256))),
    "SolarizeIncreasing": lambda image, level, *_: ImageOps.solarize(image, 256 - min(256, int(level * 256))),
    "Desaturate": partial(
        _enhance, ImageEnhance.Color, lambda level, _: min(1.0, max(0.0, 1.0 - _between(0.5, 1.0, level)))
    ),
    "GaussianBlur": partial(_blur, lambda level, _: _between(0.1, 2.0, level)),
    "GaussianBlurRand": partial(_blur, lambda level, chance: 0.1 + (2.0 * _between(0.0, 1.0, level) - 0.1) * chance),
}
