"""The 150 classes of ADE20K's scene parsing challenge: their names, and the colours that they are drawn in.

Source: CSAILVision/sceneparsing, ``objectInfo150.csv`` and ``visualizationCode/color150.mat``, in the short form of
open-mmlab/mmsegmentation ``mmseg/datasets/ade.py``. In an annotation 0 is no class, and class N of this table is N + 1.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

Colour = tuple[int, int, int]


@cache
def _table() -> tuple[tuple[str, Colour], ...]:
    lines = Path(__file__).with_name("ade20k.txt").read_text(encoding="utf-8").splitlines()
    words = [line.split(maxsplit=3) for line in lines]
    return tuple((name, (int(red), int(green), int(blue))) for red, green, blue, name in words)


def names() -> tuple[str, ...]:
    """Return the classes' names, in their order."""
    return tuple(name for name, _ in _table())


def colours() -> tuple[Colour, ...]:
    """Return the classes' colours, in their order: red, green and blue, 0 to 255."""
    return tuple(colour for _, colour in _table())
