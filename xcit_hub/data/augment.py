"""Training augmentation of one image: what timm does, drawn from an explicit random generator.

Every random number comes from the generator that is passed in, so a view is a pure function of (image, key), whatever
process makes it. Operations and their ranges are timm's (``timm/data/auto_augment.py``, ``transforms.py``,
``random_erasing.py``, 1.0.31).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
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
    """Draw RandomResizedCrop's box (left, upper, right, lower) in an image of ``size`` (width, height)."""
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


def color_jitter(image: Image.Image, strengths: Sequence[float], rng: Rng) -> Image.Image:
    """Change brightness, contrast and saturation by factors in 1 ± strength, in random order (torchvision).

    Args:
        strengths: of the three.
    """
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = rng.uniform(np.maximum(0.0, 1 - np.array(strengths)), 1 + np.array(strengths))
    for which in rng.permutation(len(enhancers)):
        image = enhancers[which](image).enhance(float(factors[which]))
    return image


def _affine(image: Image.Image, matrix: tuple[float, ...], canvas: Canvas) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=canvas.resample, fillcolor=canvas.fill)


def _solarize_add(image: Image.Image, amount: int) -> Image.Image:
    return image.point([min(255, value + amount) if value < 128 else value for value in range(256)] * 3)


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    # Pillow's own posterize now refuses 0 bits, which a magnitude of 10 asks for: black. Beyond 10 they are negative.
    mask = 0xFF & ~(0xFF >> max(bits, 0))
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


# An operation maps (image, level in 0…1, sign ±1, canvas) to an image.
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


# timm's transform sets with unequal chances (``t…`` in its notation): they draw without replacement.
_WEIGHTS: dict[str, float] = {
    "Rotate": 3.0,
    "ShearX": 2.0,
    "ShearY": 2.0,
    "TranslateXRel": 1.0,
    "TranslateYRel": 1.0,
    "Color": 0.25,
    "Sharpness": 0.25,
    "AutoContrast": 0.25,
    "Solarize": 0.05,
    "SolarizeAdd": 0.05,
    "Contrast": 0.05,
    "Brightness": 0.05,
    "Equalize": 0.05,
    "Posterize": 0.05,
    "Invert": 0.05,
}
_EVEN_ABOVE = 100.0  # a deviation beyond this means: draw evenly in 0…magnitude
_WHOLE = r"[0-9]{1,3}"
_DECIMAL = r"[0-9]{1,6}(?:\.[0-9]{0,6})?"
# Parts of the notation: pattern of the number, field, and how it is read.
_PARTS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "m": (_WHOLE, "magnitude", int),
    "n": (_WHOLE, "layers", int),
    "p": (_DECIMAL, "probability", float),
    "mstd": (_DECIMAL, "deviation", float),
    "mmax": (_WHOLE, "limit", int),
    "inc": ("[01]", "increasing", lambda text: text == "1"),
    "t": ("weights", "weighted", lambda _: True),
}


@dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al., arXiv:1909.13719) as timm writes it: ``rand-m9-n2-mstd0.5-inc1``.

    MindCV calls it ``randaug``; its deviation is 0.5 where none is given, timm's 0.

    Args:
        magnitude: mean severity, 0…10, or up to ``limit``.
        deviation: its standard deviation, drawn for each operation; above 100 the severity is even in 0…magnitude.
        layers: operations an image.
        probability: chance that a chosen operation is applied.
        increasing: severity of every operation rises with the magnitude.
        limit: largest magnitude after the noise.
        weighted: operations are drawn with timm's weights (``tweights``), and none twice.
    """

    magnitude: float = 10.0
    deviation: float = 0.0
    layers: int = 2
    probability: float = 0.5
    increasing: bool = False
    limit: float = _LARGEST_MAGNITUDE
    weighted: bool = False

    @classmethod
    def parse(cls, text: str) -> RandAugment:
        """Read timm's notation.

        Raises:
            InputError: the policy is not RandAugment, or a part is unknown, malformed, given twice, or cannot be.
        """
        kind, *parts = text.split("-")
        if kind not in ("randaug", "rand"):
            raise InputError(
                f"{kind!r} is not an augmentation policy that is known here.",
                where="auto_augment",
                fix="RandAugment is what there is, for example randaug-m9-mstd0.5-inc1.",
            )
        settings: dict[str, Any] = {"deviation": 0.5} if kind == "randaug" else {}
        given = set()
        for part in parts:
            found = re.fullmatch(r"([a-z]+?)(\d.*|weights)", part)
            name = found[1] if found is not None else ""
            if found is None or name not in _PARTS or not re.fullmatch(_PARTS[name][0], found[2]):
                raise InputError(
                    f"RandAugment has no part {part!r}.",
                    where=f"auto_augment: {text}",
                    fix="The parts are m9, n2, mmax10 (whole numbers), p0.5, mstd0.5, inc0 or inc1, and tweights.",
                )
            if name in given:
                raise InputError(f"RandAugment's {name} is given twice.", where=f"auto_augment: {text}")
            given.add(name)
            _, field, read = _PARTS[name]
            settings[field] = read(found[2])
        policy = cls(**settings)
        if policy.probability > 1 or policy.limit < 1 or (policy.weighted and policy.layers > len(_WEIGHTS)):
            raise InputError(
                "RandAugment's p is at most 1, mmax at least 1, and n of tweights at most 15.",
                where=f"auto_augment: {text}",
            )
        return policy

    def __call__(self, image: Image.Image, canvas: Canvas, rng: Rng) -> Image.Image:
        """Apply ``layers`` random operations, drawn with replacement unless they are weighted."""
        for operation in self._drawn(rng):
            if rng.random() > self.probability:
                continue
            level = min(max(self._magnitude(rng), 0.0), self.limit) / _LARGEST_MAGNITUDE
            image = operation(image, level, -1 if rng.random() > 0.5 else 1, canvas)
        return image

    def _drawn(self, rng: Rng) -> list[Operation]:
        if self.weighted:
            names = list(_WEIGHTS)
            shares = np.array(list(_WEIGHTS.values()))
            chosen = rng.choice(len(names), self.layers, replace=False, p=shares / shares.sum())
            return [INCREASING[names[which]] for which in chosen]  # timm's weights are of these, whatever inc says
        operations = list((INCREASING if self.increasing else FALLING).values())
        return [operations[which] for which in rng.integers(0, len(operations), size=self.layers)]

    def _magnitude(self, rng: Rng) -> float:
        if self.deviation > _EVEN_ABOVE:
            return float(rng.uniform(0, self.magnitude))
        return float(rng.normal(self.magnitude, self.deviation)) if self.deviation else self.magnitude


@dataclass(frozen=True)
class RandomErasing:
    """Random erasing (Zhong et al., arXiv:1708.04896) of a normalised image.

    Args:
        probability: chance that a rectangle is erased.
        scale: its share of the area.
        ratio: its aspect ratio, drawn evenly in logarithm.
        noise: fill with standard normal noise for each pixel and channel (``pixel`` mode); else with 0, the mean.
        attempts: draws before an image is left whole.
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
    """An image becomes a training view: crop, flip, colours, normalise, erase, in timm's order.

    Args:
        size: side of the view in pixels; its height where ``width`` says another.
        scale, ratio: of RandomResizedCrop.
        hflip, vflip: probabilities.
        jitter: colour jitter's strengths; not applied beside ``policy``, as in timm.
        policy: RandAugment, or None.
        interpolation: a key of :data:`RESAMPLING`.
        mean, std: of each channel, in 0…1.
        erasing: random erasing, or None.
        channels: of the images.
    """

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    hflip: float
    vflip: float
    jitter: tuple[float, float, float]
    policy: RandAugment | None
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    erasing: RandomErasing | None
    width: int | None = None
    channels: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the view's shape, (C, height, width)."""
        return self.channels, self.size, self.width or self.size

    def cut(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Take an image up to its colours, and to the view's size."""
        resample = RESAMPLING[self.interpolation]
        box = crop_box(image.size, self.scale, self.ratio, rng)
        image = image.crop(box).resize(self.shape[:0:-1], resample)
        if rng.random() < self.hflip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < self.vflip:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if self.policy is not None:
            red, green, blue = (min(255, round(255 * value)) for value in self.mean)
            image = self.policy(image, Canvas((red, green, blue), resample), rng)
        elif any(self.jitter):
            image = color_jitter(image, self.jitter, rng)
        return image

    def finish(self, image: Image.Image, rng: Rng, pixels: NDArray[np.float32]) -> None:
        """Write what was cut into ``pixels`` (C, H, W) float32, normalised and erased."""
        normalize(image, self.mean, self.std, pixels)
        if self.erasing is not None:
            self.erasing(pixels, rng)
