"""Training augmentation of one picture: what timm does, drawn from an explicit random generator.

Every random number comes from the generator that is passed in, so a view is a pure function of (picture, key), whatever
process makes it. Operations and their ranges are timm's (``timm/data/auto_augment.py``, ``transforms.py``,
``random_erasing.py``, 1.0.31).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from xcit_hub.data.transforms import normalize
from xcit_hub.errors import InputError

Rng = np.random.Generator
Color = tuple[int, int, int]
Box = tuple[int, int, int, int]

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}
_CROP_ATTEMPTS = 10
_LARGEST_MAGNITUDE = 10.0


@dataclass(frozen=True)
class Canvas:
    """What geometric operations fill uncovered pixels with, and how they resample."""

    fill: Color
    resample: Image.Resampling


def crop_box(size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], rng: Rng) -> Box:
    """Draw RandomResizedCrop's box (left, upper, right, lower) in a picture of ``size`` (width, height)."""
    width, height = size
    for _ in range(_CROP_ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(rng.integers(0, width - crop_width + 1))
            upper = int(rng.integers(0, height - crop_height + 1))
            return left, upper, left + crop_width, upper + crop_height
    aspect = min(max(width / height, ratio[0]), ratio[1])
    crop_width, crop_height = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, upper = (width - crop_width) // 2, (height - crop_height) // 2
    return left, upper, left + crop_width, upper + crop_height


def color_jitter(image: Image.Image, strength: float, rng: Rng) -> Image.Image:
    """Change brightness, contrast and saturation by factors in 1 ± strength, in random order (torchvision)."""
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = rng.uniform(max(0.0, 1 - strength), 1 + strength, size=len(enhancers))
    for which in rng.permutation(len(enhancers)):
        image = enhancers[which](image).enhance(float(factors[which]))
    return image


def _affine(image: Image.Image, matrix: tuple[float, ...], canvas: Canvas) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=canvas.resample, fillcolor=canvas.fill)


def _solarize_add(image: Image.Image, amount: int) -> Image.Image:
    return image.point([min(255, value + amount) if value < 128 else value for value in range(256)] * 3)


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    # Pillow's own posterize now refuses 0 bits, which a magnitude of 10 asks for: black.
    mask = 0xFF & ~(0xFF >> bits)
    return image if bits >= 8 else image.point([value & mask for value in range(256)] * 3)


def _enhance_by(
    kind: Callable[[Image.Image], Any],
    factor: Callable[[float, int], float],
    image: Image.Image,
    level: float,
    sign: int,
    _: Canvas,
) -> Image.Image:
    enhanced: Image.Image = kind(image).enhance(factor(level, sign))
    return enhanced


# An operation maps (picture, level in 0…1, sign ±1, canvas) to a picture.
Operation = Callable[[Image.Image, float, int, Canvas], Image.Image]


def _factor(level: float, _: int) -> float:
    return level * 1.8 + 0.1


def _increasing_factor(level: float, sign: int) -> float:
    return max(0.1, 1.0 + sign * level * 0.9)


def _enhancements(factor: Callable[[float, int], float]) -> dict[str, Operation]:
    kinds = {
        "Color": ImageEnhance.Color,
        "Contrast": ImageEnhance.Contrast,
        "Brightness": ImageEnhance.Brightness,
        "Sharpness": ImageEnhance.Sharpness,
    }
    return {name: partial(_enhance_by, kind, factor) for name, kind in kinds.items()}


_ALWAYS: dict[str, Operation] = {
    "AutoContrast": lambda image, *_: ImageOps.autocontrast(image),
    "Equalize": lambda image, *_: ImageOps.equalize(image),
    "Invert": lambda image, *_: ImageOps.invert(image),
    "Rotate": lambda image, level, sign, canvas: image.rotate(
        sign * level * 30.0, resample=canvas.resample, fillcolor=canvas.fill
    ),
    "SolarizeAdd": lambda image, level, *_: _solarize_add(image, min(128, int(level * 110))),
    "ShearX": lambda image, level, sign, canvas: _affine(image, (1, sign * level * 0.3, 0, 0, 1, 0), canvas),
    "ShearY": lambda image, level, sign, canvas: _affine(image, (1, 0, 0, sign * level * 0.3, 1, 0), canvas),
    "TranslateXRel": lambda image, level, sign, canvas: _affine(
        image, (1, 0, sign * level * 0.45 * image.size[0], 0, 1, 0), canvas
    ),
    "TranslateYRel": lambda image, level, sign, canvas: _affine(
        image, (1, 0, 0, 0, 1, sign * level * 0.45 * image.size[1]), canvas
    ),
}

# Severity may fall with the level (the first papers) or rise with it (inc1).
FALLING: dict[str, Operation] = {
    **_ALWAYS,
    **_enhancements(_factor),
    "Posterize": lambda image, level, *_: _posterize(image, int(level * 4)),
    "Solarize": lambda image, level, *_: ImageOps.solarize(image, min(256, int(level * 256))),
}
INCREASING: dict[str, Operation] = {
    **_ALWAYS,
    **_enhancements(_increasing_factor),
    "Posterize": lambda image, level, *_: _posterize(image, 4 - int(level * 4)),
    "Solarize": lambda image, level, *_: ImageOps.solarize(image, 256 - min(256, int(level * 256))),
}


@dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al., arXiv:1909.13719) as timm writes it: ``randaug-m9-n2-mstd0.5-inc1``.

    Args:
        magnitude: mean severity, 0…10.
        deviation: its standard deviation, drawn for each operation.
        layers: operations a picture.
        probability: chance that a chosen operation is applied.
        increasing: severity of every operation rises with the magnitude.
        limit: largest magnitude after the noise.
    """

    magnitude: float = 10.0
    deviation: float = 0.0
    layers: int = 2
    probability: float = 0.5
    increasing: bool = False
    limit: float = _LARGEST_MAGNITUDE

    @classmethod
    def parse(cls, text: str) -> RandAugment:
        """Read timm's notation.

        Raises:
            InputError: the policy is not RandAugment, or a part is unknown.
        """
        kind, *parts = text.split("-")
        if kind not in ("randaug", "rand"):
            raise InputError(
                f"There is no augmentation policy {kind!r}.",
                where="auto_augment",
                fix="RandAugment is what there is, for example randaug-m9-mstd0.5-inc1.",
            )
        names = {
            "m": "magnitude",
            "mstd": "deviation",
            "n": "layers",
            "p": "probability",
            "inc": "increasing",
            "mmax": "limit",
        }
        settings: dict[str, Any] = {}
        for part in parts:
            found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
            if found is None or found[1] not in names:
                raise InputError(
                    f"RandAugment has no part {part!r}.",
                    where=f"auto_augment: {text}",
                    fix=f"The parts are {', '.join(names)}, each with a number.",
                )
            number = float(found[2])
            settings[names[found[1]]] = {"n": int(number), "inc": bool(number)}.get(found[1], number)
        return cls(**settings)

    def __call__(self, image: Image.Image, canvas: Canvas, rng: Rng) -> Image.Image:
        """Apply ``layers`` random operations, drawn with replacement."""
        operations = list((INCREASING if self.increasing else FALLING).values())
        for which in rng.integers(0, len(operations), size=self.layers):
            if rng.random() > self.probability:
                continue
            magnitude = rng.normal(self.magnitude, self.deviation) if self.deviation else self.magnitude
            level = min(max(magnitude, 0.0), self.limit) / _LARGEST_MAGNITUDE
            image = operations[which](image, level, -1 if rng.random() > 0.5 else 1, canvas)
        return image


@dataclass(frozen=True)
class RandomErasing:
    """Random erasing (Zhong et al., arXiv:1708.04896) of a normalised picture.

    Args:
        probability: chance that a rectangle is erased.
        scale: its share of the area.
        ratio: its aspect ratio, drawn evenly in logarithm.
        noise: fill with standard normal noise for each pixel and channel (``pixel`` mode); else with 0, the mean.
        attempts: draws before a picture is left whole.
    """

    probability: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    noise: bool
    attempts: int = 10

    def __call__(self, pixels: NDArray[np.float32], rng: Rng) -> NDArray[np.float32]:
        """Erase in place from (C, H, W)."""
        if rng.random() > self.probability:
            return pixels
        channels, height, width = pixels.shape
        for _ in range(self.attempts):
            area = rng.uniform(*self.scale) * height * width
            aspect = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if wide < width and tall < height:
                top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
                fill = rng.standard_normal((channels, tall, wide), dtype=np.float32) if self.noise else 0.0
                pixels[:, top : top + tall, left : left + wide] = fill
                break
        return pixels


@dataclass(frozen=True)
class TrainTransform:
    """A picture becomes a training view: crop, flip, colours, normalise, erase, in timm's order.

    Args:
        size: side of the view in pixels.
        scale, ratio: of RandomResizedCrop.
        hflip, vflip: probabilities.
        jitter: colour jitter's strength; not applied beside ``policy``, as in timm.
        policy: RandAugment, or None.
        interpolation: a key of :data:`RESAMPLING`.
        mean, std: of each channel, in 0…1.
        erasing: random erasing, or None.
    """

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    hflip: float
    vflip: float
    jitter: float
    policy: RandAugment | None
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    erasing: RandomErasing | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the view's shape, (3, size, size)."""
        return 3, self.size, self.size

    def cut(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Take an RGB picture up to its colours, size × size."""
        resample = RESAMPLING[self.interpolation]
        box = crop_box(image.size, self.scale, self.ratio, rng)
        image = image.crop(box).resize((self.size, self.size), resample)
        if rng.random() < self.hflip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < self.vflip:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if self.policy is not None:
            red, green, blue = (min(255, round(255 * value)) for value in self.mean)
            image = self.policy(image, Canvas((red, green, blue), resample), rng)
        elif self.jitter:
            image = color_jitter(image, self.jitter, rng)
        return image

    def finish(self, image: Image.Image, rng: Rng, pixels: NDArray[np.float32]) -> None:
        """Write what was cut into ``pixels`` (3, size, size) float32, normalised and erased."""
        normalize(image, self.mean, self.std, pixels)
        if self.erasing is not None:
            self.erasing(pixels, rng)
