"""Random erasing (Zhong et al., arXiv:1708.04896) of a normalised image, as timm or MindSpore computes it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Filling = Literal["color", "pixel"]


@dataclass(frozen=True)
class RandomErasing:
    """Fill rectangles of an image with a value or with noise.

    Args:
        probability: chance that anything is erased.
        scale: share of the area that all rectangles have together.
        ratio: their aspect ratio: height to width, drawn evenly in logarithm, as in timm.
        filling: one number or one for each channel; ``color``: standard normal, one draw for a rectangle's channel;
            ``pixel``: one for each of its pixels, too.
        attempts: draws before a rectangle is left out.
        count: most rectangles; how many there are is drawn from 1 on.
        mindspores: draw the ratio as ``mindspore.dataset.vision.RandomErasing`` does: width to height, evenly.
    """

    probability: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    filling: float | tuple[float, ...] | Filling
    attempts: int = 10
    count: int = 1
    mindspores: bool = False

    def __call__(self, pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Erase in place from (C, H, W)."""
        if rng.random() > self.probability:
            return pixels
        count = 1 if self.count == 1 else int(rng.integers(1, self.count + 1))
        for _ in range(count):
            self._erase(pixels, pixels.shape[1] * pixels.shape[2] / count, rng)
        return pixels

    def _erase(self, pixels: NDArray[np.float32], whole: float, rng: np.random.Generator) -> None:
        _, height, width = pixels.shape
        for _ in range(self.attempts):
            tall, wide = self._sides(rng.uniform(*self.scale) * whole, rng)
            if wide < width and tall < height:
                top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
                pixels[:, top : top + tall, left : left + wide] = self._filled(len(pixels), tall, wide, rng)
                return

    def _sides(self, area: float, rng: np.random.Generator) -> tuple[int, int]:
        if self.mindspores:
            ratio = rng.uniform(*self.ratio)
            wide = round(math.sqrt(area * ratio))
            return round(wide / ratio), wide
        ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
        return round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))

    def _filled(self, channels: int, tall: int, wide: int, rng: np.random.Generator) -> NDArray[np.float32]:
        if self.filling == "pixel":
            return rng.standard_normal((channels, tall, wide), dtype=np.float32)
        if self.filling == "color":
            return rng.standard_normal((channels, 1, 1), dtype=np.float32)
        return np.array(self.filling, np.float32).reshape(-1, 1, 1)
