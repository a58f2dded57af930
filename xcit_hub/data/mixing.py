"""Mixup and CutMix of a batch with itself reversed (timm/data/mixup.py), and smoothed dense targets.

Numbers are drawn in timm's order, so that from the same draws the same batch comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Targets = NDArray[np.float32]
Box = tuple[int, int, int, int]  # top, bottom, left, right
MixingMode = Literal["batch", "pair", "elem"]


def dense_targets(labels: NDArray[np.int64], classes: int, smoothing: float) -> Targets:
    """Return one row of probabilities a label, (B, classes): 1 − s + s/classes on the label, s/classes elsewhere."""
    targets = np.full((len(labels), classes), smoothing / classes, np.float32)
    targets[np.arange(len(labels)), labels] = 1.0 - smoothing + smoothing / classes
    return targets


def mixup(images: Images, targets: Targets, share: float) -> tuple[Images, Targets]:
    """Blend every image and target with its mirror in the batch, ``share`` of itself (Zhang, arXiv:1710.09412)."""
    kept = np.float32(share)
    other = np.float32(1.0 - share)
    return images * kept + images[::-1] * other, targets * kept + targets[::-1] * other


def cutmix_box(size: tuple[int, int], share: float, center: tuple[int, int]) -> Box:
    """Return the box (top, bottom, left, right) of 1 − ``share`` of the area around ``center``, cut at the border."""
    height, width = size
    side = math.sqrt(1.0 - share)
    tall, wide = int(height * side), int(width * side)
    row, column = center
    return (
        max(row - tall // 2, 0),
        min(row + (tall + 1) // 2, height),
        max(column - wide // 2, 0),
        min(column + (wide + 1) // 2, width),
    )


def cutmix(images: Images, targets: Targets, box: Box) -> tuple[Images, Targets]:
    """Paste a box of every image's mirror into it; targets follow the area (Yun et al., arXiv:1905.04899)."""
    top, bottom, left, right = box
    mixed = images.copy()
    mixed[:, :, top:bottom, left:right] = images[::-1, :, top:bottom, left:right]
    kept = np.float32(_left_over(images.shape[2:], box))
    return mixed, targets * kept + targets[::-1] * (np.float32(1.0) - kept)


def _left_over(size: tuple[int, ...], box: Box) -> float:
    """Return the share of an image that stands outside of a box."""
    top, bottom, left, right = box
    return 1.0 - (bottom - top) * (right - left) / (size[0] * size[1])


@dataclass(frozen=True)
class Mixing:
    """What happens to each batch.

    Args:
        mixup_alpha: parameter of mixup's beta distribution; 0: no mixup.
        cutmix_alpha: the same for CutMix.
        probability: chance that a batch (in ``batch`` mode), a pair or an image is mixed at all.
        switch: chance of CutMix where both are on.
        mode: one draw for the whole batch; one for each image and its mirror (``pair``), or one for each image.
        minmax: least and largest share of a side of CutMix's box, which is then drawn evenly; CutMix is on.
        until: epochs that are mixed; 0: all.
    """

    mixup_alpha: float
    cutmix_alpha: float
    probability: float
    switch: float
    mode: MixingMode = "batch"
    minmax: tuple[float, float] | None = None
    until: int = 0

    def __call__(
        self, images: Images, targets: Targets, rng: np.random.Generator, epoch: int = 0
    ) -> tuple[Images, Targets]:
        """Mix (B, C, H, W) images and (B, classes) targets, or leave them."""
        alphas = self.mixup_alpha, 1.0 if self.minmax else self.cutmix_alpha
        if not any(alphas) or (self.until and epoch >= self.until):
            return images, targets
        if self.mode == "batch":
            return self._whole(images, targets, rng, *alphas)
        return self._each(images, targets, rng, *alphas)

    def _whole(
        self, images: Images, targets: Targets, rng: np.random.Generator, mixup_alpha: float, cutmix_alpha: float
    ) -> tuple[Images, Targets]:
        if rng.random() >= self.probability:
            return images, targets
        cut = rng.random() < self.switch if mixup_alpha and cutmix_alpha else bool(cutmix_alpha)
        alpha = cutmix_alpha if cut else mixup_alpha
        share = float(rng.beta(alpha, alpha))
        if not cut:
            return mixup(images, targets, share)
        return cutmix(images, targets, self._box(images.shape[2:], share, rng))

    def _each(
        self, images: Images, targets: Targets, rng: np.random.Generator, mixup_alpha: float, cutmix_alpha: float
    ) -> tuple[Images, Targets]:
        """Mix image by image; of a pair both get the same share and box. The middle one of an odd batch stays."""
        pairs = self.mode == "pair"
        count = len(images) // 2 if pairs else len(images)
        cuts = np.full(count, bool(cutmix_alpha))
        if mixup_alpha and cutmix_alpha:
            cuts = rng.random(count) < self.switch
            of_cuts = rng.beta(cutmix_alpha, cutmix_alpha, count)
            drawn = np.where(cuts, of_cuts, rng.beta(mixup_alpha, mixup_alpha, count))
        else:
            alpha = cutmix_alpha or mixup_alpha
            drawn = rng.beta(alpha, alpha, count)
        shares = np.ones(len(images), np.float32)
        shares[:count] = np.where(rng.random(count) < self.probability, drawn.astype(np.float32), np.float32(1.0))
        mixed = images.copy()
        for place in np.flatnonzero(shares[:count] != 1.0).tolist():
            mirror = len(images) - 1 - place
            share = shares[place]
            both = [(place, mirror), (mirror, place)][: 2 if pairs else 1]
            if cuts[place]:
                box = self._box(images.shape[2:], float(share), rng)
                top, bottom, left, right = box
                for one, other in both:
                    mixed[one, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
                shares[place] = _left_over(images.shape[2:], box)
            else:
                for one, other in both:
                    mixed[one] = images[one] * share + images[other] * np.float32(1.0 - share)
        if pairs and count:
            shares[-count:] = shares[:count][::-1]
        column: Targets = shares[:, None]
        return mixed, targets * column + targets[::-1] * (1.0 - column)

    def _box(self, size: tuple[int, ...], share: float, rng: np.random.Generator) -> Box:
        height, width = size
        if self.minmax is None:
            return cutmix_box((height, width), share, (int(rng.integers(height)), int(rng.integers(width))))
        least, most = self.minmax
        tall, wide = (int(rng.integers(int(side * least), int(side * most))) for side in (height, width))
        top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        return top, top + tall, left, left + wide
