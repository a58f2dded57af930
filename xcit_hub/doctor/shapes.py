"""Drawn images whose class is a shape: data for whoever has none at hand, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "cross", "square", "triangle")
_NOISE = 24.0  # standard deviation of the ground, of 255
_TINTS = ((220, 60, 60), (60, 200, 60), (70, 90, 230), (230, 210, 60))


def draw_shape(shape: str, side: int, rng: np.random.Generator, *, tinted: bool = False) -> Image.Image:
    """Draw a shape of random place, size and colour on a noisy ground.

    Args:
        shape: one of :data:`SHAPES`.
        side: of the image, in pixels.
        tinted: a shape's colour is its own, which a network learns within a few steps.
    """
    ground = rng.uniform(60, 190, 3) + rng.normal(0, _NOISE, (side, side, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    radius = rng.uniform(0.18, 0.36) * side
    x, y = rng.uniform(radius, side - radius, 2)
    colour = _TINTS[SHAPES.index(shape)] if tinted else tuple(int(value) for value in rng.integers(0, 256, 3))
    pen = ImageDraw.Draw(image)
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "triangle":
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)
    elif shape == "cross":
        third = radius / 3
        pen.rectangle((x - third, y - radius, x + third, y + radius), fill=colour)
        pen.rectangle((x - radius, y - third, x + radius, y + third), fill=colour)
    else:
        raise ValueError(f"{shape!r} is not one of {', '.join(SHAPES)}")
    return image


def write_shapes(folder: Path, count: int, side: int, seed: int, *, tinted: bool = False) -> None:
    """Write ``count`` images as JPEG files into a folder a class, each class its share."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        shape = SHAPES[number % len(SHAPES)]
        place = folder / shape
        place.mkdir(parents=True, exist_ok=True)
        draw_shape(shape, side, rng, tinted=tinted).save(place / f"{number:06}.jpg", quality=92)
