"""How a map's rows or columns become others: a matrix for each axis, exactly as PyTorch weighs them.

Nearest and bilinear interpolation are ``torch.nn.functional.interpolate`` with ``size`` and ``align_corners=False``,
means are ``torch.nn.AdaptiveAvgPool2d``. Along an axis each is a matrix (wanted, length): at most two entries a row, or
a row of equal ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["nearest", "bilinear", "mean"]


@lru_cache(maxsize=256)
def matrix(kind: Kind, length: int, wanted: int) -> NDArray[np.float32]:
    """Return the matrix (wanted, length) that takes ``length`` values along an axis to ``wanted``, read-only.

    Args:
        kind: ``nearest`` and ``bilinear`` are of interpolation, ``mean`` of adaptive pooling.
    """
    rows = np.zeros((wanted, length), np.float64)
    places = np.arange(wanted)
    if kind == "nearest":
        rows[places, nearest(length, wanted)] = 1.0
    elif kind == "bilinear":
        below, above, share = neighbours(length, wanted)
        rows[places, below] += 1.0 - share
        rows[places, above] += share
    else:
        for place in range(wanted):
            first, last = place * length // wanted, -(-(place + 1) * length // wanted)
            rows[place, first:last] = 1.0 / (last - first)
    made = rows.astype(np.float32)
    made.flags.writeable = False
    return made


def nearest(length: int, wanted: int) -> NDArray[np.int64]:
    """Return of each of ``wanted`` places the one of ``length`` that it copies, found in float32 as PyTorch does."""
    found = np.floor(np.arange(wanted, dtype=np.float32) * (np.float32(length) / np.float32(wanted)))
    return np.minimum(found.astype(np.int64), length - 1)


def neighbours(length: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return of each of ``wanted`` places the two of ``length`` between which it lies, and the share of the second."""
    source = np.maximum((np.arange(wanted) + 0.5) * (length / wanted) - 0.5, 0.0)
    below = np.minimum(source.astype(np.int64), length - 1)
    return below, np.minimum(below + 1, length - 1), source - below


def bilinear(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Interpolate (…, h, w) to (…, height, width), of the same dtype."""
    dtype = values.dtype
    for axis, wanted in ((-2, height), (-1, width)):
        length = values.shape[axis]
        if length != wanted:
            below, above, share = neighbours(length, wanted)
            shares = share.astype(dtype)[:, None] if axis == -2 else share.astype(dtype)
            first = np.take(values, below, axis)
            values = first + (np.take(values, above, axis) - first) * shares
    return values
