"""Training augmentation of one image: what timm does, drawn from an explicit random generator.

Every random number comes from the generator that is passed in, so a view is a pure function of (image, key), whatever
process makes it. Crops, flips and colours are timm's (``timm/data/transforms.py`` 1.0.31); policies and erasing are
those of the recipe's library (:mod:`xcit_hub.data.policies`, :mod:`xcit_hub.data.erasing`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from xcit_hub.data.erasing import RandomErasing
from xcit_hub.data.operations import Canvas
from xcit_hub.data.policies import Augmented, Policy
from xcit_hub.data.transforms import normalize
from xcit_hub.deprecated import moved_names

Rng = np.random.Generator
Box = tuple[int, int, int, int]

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}
_CROP_ATTEMPTS = 10


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
        strengths: of the three; a fourth, at most 0.5, turns the hue by up to that share of the circle either way.
    """
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    spread = np.array(strengths[:3])
    factors = rng.uniform(np.maximum(0.0, 1 - spread), 1 + spread)
    turn = float(rng.uniform(-strengths[3], strengths[3])) if len(strengths) > 3 else 0.0
    for which in rng.permutation(len(strengths)):
        image = enhancers[which](image).enhance(float(factors[which])) if which < 3 else _turned(image, turn)
    return image


def _turned(image: Image.Image, turn: float) -> Image.Image:
    if image.mode == "L":
        return image  # grey has no hue
    hue, saturation, value = image.convert("HSV").split()
    shift = int(turn * 255) % 256
    turned = Image.merge("HSV", (hue.point([(level + shift) % 256 for level in range(256)]), saturation, value))
    colours = turned.convert("RGB")
    if image.mode == "RGBA":
        colours.putalpha(image.getchannel("A"))  # as the other changes keep it
    return colours


@dataclass(frozen=True)
class TrainTransform:
    """An image becomes a training view: crop, flip, colours, normalise, erase, in timm's order.

    Args:
        size: side of the view in pixels; its height where ``width`` says another.
        scale, ratio: of RandomResizedCrop.
        hflip, vflip: probabilities.
        jitter: colour jitter's strengths, after the policy; all 0: none.
        policy: an augmentation policy, or None.
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
    jitter: tuple[float, ...]
    policy: Policy | None
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

    def cut(self, image: Image.Image, rng: Rng) -> Augmented:
        """Take an image up to its colours, and to the view's size."""
        return self.colored(self.placed(image, rng), rng)

    def placed(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Crop, resize and flip an image."""
        box = crop_box(image.size, self.scale, self.ratio, rng)
        image = image.crop(box).resize(self.shape[:0:-1], RESAMPLING[self.interpolation])
        if rng.random() < self.hflip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < self.vflip:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return image

    def colored(self, image: Image.Image, rng: Rng) -> Augmented:
        """Apply the policy and the colour jitter to an image in its place."""
        changed: Augmented = image
        if self.policy is not None:
            red, green, blue = (min(255, round(255 * value)) for value in self.mean)
            changed = self.policy(image, Canvas((red, green, blue), RESAMPLING[self.interpolation]), rng)
        if any(self.jitter) and isinstance(changed, Image.Image):
            changed = color_jitter(changed, self.jitter, rng)
        return changed

    def finish(self, image: Augmented, rng: Rng, pixels: NDArray[np.float32], *, whole: bool = False) -> None:
        """Write what was cut into ``pixels`` (C, H, W) float32, normalised and, but for ``whole``, erased."""
        if isinstance(image, Image.Image):
            normalize(image, self.mean, self.std, pixels)
        else:
            scaled = (image / np.float32(255.0) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
            pixels[:] = scaled.transpose(2, 0, 1)
        if self.erasing is not None and not whole:
            self.erasing(pixels, rng)


@dataclass(frozen=True)
class SplitTransform:
    """Several views of one crop, as AugMix's loss compares them: the first untouched, the others augmented.

    Args:
        transform: crops, augments, normalises and erases.
        views: how many.
        first_whole: nothing is erased from the first.
    """

    transform: TrainTransform
    views: int
    first_whole: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape of all views, (views, 3, size, size)."""
        return self.views, *self.transform.shape

    def cut(self, image: Image.Image, rng: Rng) -> list[Augmented]:
        """Take an RGB image up to the colours of its views."""
        placed = self.transform.placed(image, rng)
        return [placed, *(self.transform.colored(placed, rng) for _ in range(self.views - 1))]

    def finish(self, images: list[Augmented], rng: Rng, pixels: NDArray[np.float32]) -> None:
        """Write what was cut into ``pixels`` (views, 3, size, size) float32, normalised and erased."""
        for number, (image, plane) in enumerate(zip(images, pixels, strict=True)):
            self.transform.finish(image, rng, plane, whole=self.first_whole and number == 0)


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
