"""Whether two samples are of one distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def same_distribution(left: Sequence[float], right: Sequence[float]) -> bool:
    """Two-sample Kolmogorov-Smirnov test at the 0.1% level."""
    values = np.sort(np.concatenate([left, right]))
    distance = np.abs(
        np.searchsorted(np.sort(left), values, "right") / len(left)
        - np.searchsorted(np.sort(right), values, "right") / len(right)
    ).max()
    return bool(distance < 1.95 * math.sqrt((len(left) + len(right)) / (len(left) * len(right))))
