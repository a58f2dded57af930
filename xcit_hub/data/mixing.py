"""Mixup and CutMix of a batch with itself reversed (timm/data/mixup.py, batch mode), and smoothed dense targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Targets = NDArray[np.float32]


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


def cutmix_box(size: tuple[int, int], share: float, center: tuple[int, int]) -> tuple[int, int, int, int]:
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


def cutmix(images: Images, targets: Targets, box: tuple[int, int, int, int]) -> tuple[Images, Targets]:
    """Paste a box of every image's mirror into it; targets follow the area (Yun et al., arXiv:1905.04899)."""
    top, bottom, left, right = box
    mixed = images.copy()
    mixed[:, :, top:bottom, left:right] = images[::-1, :, top:bottom, left:right]
    kept = np.float32(1.0 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3]))
    return mixed, targets * kept + targets[::-1] * (np.float32(1.0) - kept)


@dataclass(frozen=True)
class Mixing:
    """What happens to each batch.

    Args:
        mixup_alpha: parameter of mixup's beta distribution; 0: no mixup.
        cutmix_alpha: the same for CutMix.
        probability: chance that a batch is mixed at all.
        switch: chance of CutMix where both are on.
    """

    mixup_alpha: float
    cutmix_alpha: float
    probability: float
    switch: float

    def __call__(self, images: Images, targets: Targets, rng: np.random.Generator) -> tuple[Images, Targets]:
        """Mix (B, 3, H, W) images and (B, classes) targets, or leave them."""
        if not (self.mixup_alpha or self.cutmix_alpha) or rng.random() >= self.probability:
            return images, targets
        both = bool(self.mixup_alpha and self.cutmix_alpha)
        cut = rng.random() < self.switch if both else bool(self.cutmix_alpha)
        alpha = self.cutmix_alpha if cut else self.mixup_alpha
        share = float(rng.beta(alpha, alpha))
        if not cut:
            return mixup(images, targets, share)
        height, width = images.shape[2:]
        center = (int(rng.integers(height)), int(rng.integers(width)))
        return cutmix(images, targets, cutmix_box((height, width), share, center))
