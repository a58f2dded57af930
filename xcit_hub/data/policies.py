"""Augmentation policies as timm or MindCV computes them: RandAugment, AutoAugment, 3-Augment, TrivialAugment, AugMix.

A policy's name mostly says whose it is: ``rand``, ``original``, ``originalr``, ``v0`` and ``v0r`` are timm's,
``randaug``, ``autoaug``, ``autoaugr`` and ``trivialaugwide`` MindCV's; ``3a`` and ``augmix`` are those of the recipe's
library. Sources: ``timm/data/auto_augment.py`` 1.0.31, ``mindcv/data/auto_augment.py`` 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xcit_hub.data import operations
from xcit_hub.data.operations import Canvas, Operation
from xcit_hub.data.sub_policies import SubPolicies

Rng = np.random.Generator
Library = Literal["mindcv", "timm"]
# 8-bit RGB, or what MindCV's AugMix mixes: (H, W, 3) float32 in 0…255.
Augmented = Image.Image | NDArray[np.float32]

_LARGEST = 10.0  # the magnitude of level 1


class Policy(Protocol):
    """Changes an 8-bit RGB image at random."""

    def __call__(self, image: Image.Image, canvas: Canvas, rng: Rng) -> Augmented:
        """Return the changed image."""


@dataclass(frozen=True)
class Severity:
    """How strong operations are.

    Args:
        deviation: of the magnitude, normally distributed; infinite: even in 0…magnitude.
        limit: largest magnitude.
        full: the magnitude of level 1.
    """

    deviation: float = 0.0
    limit: float = _LARGEST
    full: float = _LARGEST

    def level(self, magnitude: float, rng: Rng) -> float:
        """Draw a level around a magnitude."""
        if math.isinf(self.deviation):
            magnitude = float(rng.uniform(0, magnitude))
        elif self.deviation:
            magnitude = float(rng.normal(magnitude, self.deviation))
        return min(max(magnitude, 0.0), self.limit) / self.full


def _applied(
    operation: Operation, image: Image.Image, magnitude: float, severity: Severity, canvas: Canvas, rng: Rng
) -> Image.Image:
    level = severity.level(magnitude, rng)
    return operation(image, level, float(rng.random()), canvas)


def _table(library: Library) -> Mapping[str, Operation]:
    if library == "timm":
        return operations.OPERATIONS
    from xcit_hub.data.mindcv_operations import OPERATIONS  # MindSpore's

    return OPERATIONS


@dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al., arXiv:1909.13719).

    Args:
        magnitude: mean severity.
        severity: how it varies.
        names: the operations that are drawn from.
        shares: how often each is drawn, and then none twice; none: all alike.
        layers: operations an image.
        probability: chance that a chosen operation is applied.
    """

    library: Library
    magnitude: float
    severity: Severity
    names: tuple[str, ...]
    shares: tuple[float, ...] | None = None
    layers: int = 2
    probability: float = 0.5

    def __call__(self, image: Image.Image, canvas: Canvas, rng: Rng) -> Image.Image:
        """Apply ``layers`` random operations."""
        table = _table(self.library)
        for which in self._drawn(rng):
            if rng.random() <= self.probability:
                image = _applied(table[self.names[which]], image, self.magnitude, self.severity, canvas, rng)
        return image

    def _drawn(self, rng: Rng) -> Sequence[int]:
        if self.shares is None:
            return [int(which) for which in rng.integers(0, len(self.names), size=self.layers)]
        shares = np.array(self.shares)
        return [int(which) for which in rng.choice(len(shares), self.layers, replace=False, p=shares / shares.sum())]


@dataclass(frozen=True)
class AutoAugment:
    """One sub-policy for each image, its steps in order, each with its own chance (Cubuk et al., arXiv:1805.09501)."""

    library: Library
    policies: SubPolicies
    severity: Severity

    def __call__(self, image: Image.Image, canvas: Canvas, rng: Rng) -> Image.Image:
        """Apply a sub-policy."""
        table = _table(self.library)
        for name, probability, magnitude in self.policies[int(rng.integers(len(self.policies)))]:
            if probability >= 1.0 or rng.random() <= probability:
                image = _applied(table[name], image, magnitude, self.severity, canvas, rng)
        return image


@dataclass(frozen=True)
class TrivialAugment:
    """One operation for each image, of any strength (Müller and Hutter, arXiv:2103.10158), in MindCV's wide ranges."""

    names: tuple[str, ...]
    magnitude: float = 31.0

    def __call__(self, image: Image.Image, canvas: Canvas, rng: Rng) -> Image.Image:
        """Apply an operation."""
        from xcit_hub.data.mindcv_operations import WIDE

        severity = Severity(math.inf, self.magnitude, self.magnitude)
        name = self.names[int(rng.integers(len(self.names)))]
        return _applied(WIDE[name], image, self.magnitude, severity, replace(canvas, shift=0.15), rng)


@dataclass(frozen=True)
class AugMix:
    """A mix of an image and of several chains of operations on it (Hendrycks et al., arXiv:1912.02781).

    Args:
        width: chains.
        depth: operations of a chain; 0: one to three.
        alpha: of the distributions of the chains' weights and of the image's own.
        blended: timm's quicker way, which blends one chain after another into the image.
    """

    library: Library
    names: tuple[str, ...]
    severity: Severity = Severity(math.inf)
    magnitude: float = 3.0
    width: int = 3
    depth: int = 0
    alpha: float = 1.0
    blended: bool = False

    def __call__(self, image: Image.Image, canvas: Canvas, rng: Rng) -> Augmented:
        """Return the mix: an image of timm's, floating-point pixels of MindCV's."""
        canvas = replace(canvas, shift=0.3)
        weights = rng.dirichlet([self.alpha] * self.width).astype(np.float32)
        share = np.float32(rng.beta(self.alpha, self.alpha))
        if self.blended:
            mixed = image
            for weight in _one_after_another(weights * share):
                mixed = Image.blend(mixed, self._chain(image, canvas, rng), float(weight))
            return mixed
        total = np.zeros((image.height, image.width, 3), np.float32)
        for weight in weights:
            total += weight * np.asarray(self._chain(image, canvas, rng), dtype=np.float32)
        whole = np.clip(total, 0, 255).astype(np.uint8)
        if self.library == "timm":
            return Image.blend(image, Image.fromarray(whole), float(share))
        mix: NDArray[np.float32] = np.asarray(image) * (np.float32(1) - share) + whole * share
        return mix

    def _chain(self, image: Image.Image, canvas: Canvas, rng: Rng) -> Image.Image:
        table = _table(self.library)
        for which in rng.integers(0, len(self.names), size=self.depth or int(rng.integers(1, 4))):
            image = _applied(table[self.names[which]], image, self.magnitude, self.severity, canvas, rng)
        return image


def _one_after_another(weights: NDArray[np.float32]) -> Sequence[float]:
    """Return what each chain is blended with, so that all have the given weights in the end."""
    left, blends = 1.0, []
    for weight in weights[::-1].tolist():
        blends.append(weight / left)
        left *= 1 - blends[-1]
    return blends[::-1]
