"""What MindCV's optimizers, losses and augmentations and ours are run on."""

from __future__ import annotations

from typing import Any

import numpy as np

STEPS = 50
# Names and shapes of what is trained: two layers of one kind, and what decay filters tell apart.
SHAPES = {
    "blocks.0.fc.weight": (3, 2),
    "blocks.1.fc.weight": (3, 2),
    "blocks.0.norm.gamma": (2,),
    "blocks.1.norm.gamma": (2,),
    "head.bias": (3,),
}
# A run's name: what create_optimizer is given.
RUNS: dict[str, dict[str, Any]] = {
    "sgd": {"opt": "sgd", "momentum": 0.9},
    "sgd nesterov": {"opt": "sgd", "momentum": 0.9, "nesterov": True},
    "momentum": {"opt": "momentum", "momentum": 0.9},
    "momentum nesterov": {"opt": "momentum", "momentum": 0.8, "nesterov": True},
    "nesterov": {"opt": "nesterov", "momentum": 0.9},
    "adam": {"opt": "adam"},
    "adam nesterov": {"opt": "adam", "nesterov": True},
    "adamw": {"opt": "adamw"},
    "adamw auto": {"opt": "adamw", "weight_decay_filter": "auto"},
    "nadam": {"opt": "nadam"},
    "lamb": {"opt": "lamb"},
    "lamb norm_and_bias": {"opt": "lamb", "weight_decay_filter": "norm_and_bias"},
    "lion": {"opt": "lion"},
    "rmsprop": {"opt": "rmsprop", "momentum": 0.9, "eps": 1e-3},
    "rmsprop plain": {"opt": "rmsprop", "momentum": 0.0},
    "adan": {"opt": "adan"},
    "adan auto": {"opt": "adan", "weight_decay_filter": "auto"},
}
DECAY = 0.05


def drawn() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]], list[float]]:
    """Return first weights, the gradients of every step, and its learning rate."""
    rng = np.random.default_rng(5)
    first = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    gradients = [
        {
            name: (rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 1)).astype(np.float32)
            for name, shape in SHAPES.items()
        }
        for _ in range(STEPS)
    ]
    return first, gradients, [0.02 * min(1.0, (step + 1) / 5) * 0.97**step for step in range(STEPS)]


def drawn_logits() -> tuple[np.ndarray, np.ndarray]:
    """Return logits (6, 11) of two images in three views, and their classes (6,)."""
    rng = np.random.default_rng(7)
    return (rng.standard_normal((6, 11)) * 3).astype(np.float32), np.tile(np.array([3, 8]), 3)


FILL = (124, 116, 104)


def drawn_image() -> np.ndarray:
    """Return an image (12, 16, 3) uint8: two slopes, a square and some noise."""
    rows, columns = np.mgrid[:12, :16]
    image = np.stack([rows * 18, columns * 14, 255 - rows * 8 - columns * 6], -1).astype(np.float64)
    image[3:8, 5:11] = (240, 30, 80)
    return np.clip(image + np.random.default_rng(3).normal(0, 6, image.shape), 0, 255).astype(np.uint8)
