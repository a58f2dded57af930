"""Drawn scenes in ADE20K's folders: shapes of any colour on a coloured ground, each shape a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("ground", "disc", "square", "triangle")


def scene(chance: np.random.Generator, side: int = 64) -> tuple[Image.Image, Image.Image]:
    """Draw an image and its annotation: 1 is the ground, 2 … 4 the shapes; the edge of the image is of no class."""
    ground = chance.integers(0, 90, 3)
    image, marks = Image.new("RGB", (side, side), tuple(ground.tolist())), Image.new("L", (side, side), 1)
    drawings = ImageDraw.Draw(image), ImageDraw.Draw(marks)
    for _ in range(2):
        kind = int(chance.integers(0, 3))
        size = int(chance.integers(side // 3, side // 2))
        x, y = (int(each) for each in chance.integers(0, side - size, 2))
        colour = tuple(int(each) for each in chance.integers(130, 256, 3))
        for drawing, fill in zip(drawings, (colour, kind + 2), strict=True):
            if kind == 0:
                drawing.ellipse((x, y, x + size, y + size), fill=fill)
            elif kind == 1:
                drawing.rectangle((x, y, x + size, y + size), fill=fill)
            else:
                drawing.polygon(((x + size / 2, y), (x, y + size), (x + size, y + size)), fill=fill)
    noise = chance.normal(0, 6, (side, side, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)), marks


def draw(folder: Path, training: int, validation: int, side: int = 64) -> Path:
    """Write a data set, always the same one."""
    for split, count, seed in (("training", training, 0), ("validation", validation, 1)):
        chance = np.random.default_rng(seed)
        for part in ("images", "annotations"):
            (folder / part / split).mkdir(parents=True)
        for index in range(count):
            image, marks = scene(chance, side)
            image.save(folder / "images" / split / f"{index:04}.jpg", quality=95)
            marks.save(folder / "annotations" / split / f"{index:04}.png")
    return folder
