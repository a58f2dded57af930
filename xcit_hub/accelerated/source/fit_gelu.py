"""Fit the two polynomials of ``gelu.h`` and print them: ``python xcit_hub/accelerated/source/fit_gelu.py``.

Both are best in the sense of Chebyshev: the greatest error is as small as it can be, which is where the error reaches
it with changing sign once more often than there are coefficients to choose (Remez' exchange, with Newton's method for
what is not linear). A test holds the constants of ``gelu.h`` against this.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Error = Callable[[Array, Array], Array]

_ROUNDS = 60


def best(error: Error, start: Array, grid: Array) -> tuple[Array, float]:
    """Return the coefficients whose greatest absolute error over the grid is least, and that error.

    Args:
        error: of coefficients (K) at points (P), (P).
        start: coefficients near the best, (K).
        grid: where the error counts, ascending, dense.
    """
    coefficients = start.copy()
    for _ in range(_ROUNDS):
        points = _extremes(error(coefficients, grid), grid, len(start) + 1)
        signs = (-1.0) ** np.arange(len(points))
        level = float(signs @ error(coefficients, points)) / len(points)
        unknown = np.append(coefficients, level)
        for _ in range(8):
            residual = error(unknown[:-1], points) - signs * unknown[-1]
            unknown = unknown - np.linalg.solve(_jacobian(error, unknown[:-1], points, signs), residual)
        coefficients = unknown[:-1]
    return coefficients, float(np.abs(error(coefficients, grid)).max())


def _extremes(values: Array, grid: Array, count: int) -> Array:
    """The places of the greatest errors of alternating sign."""
    runs = np.split(np.arange(len(grid)), np.flatnonzero(np.diff(np.sign(values)) != 0) + 1)
    places = [run[np.abs(values[run]).argmax()] for run in runs]
    while len(places) > count:  # at an end, to keep the signs in turn
        places.pop(0 if abs(values[places[0]]) < abs(values[places[-1]]) else -1)
    if len(places) < count:
        raise ArithmeticError(f"The error changes its sign {len(places) - 1} times, not {count - 1}: start nearer.")
    return grid[places]


def _jacobian(error: Error, coefficients: Array, points: Array, signs: Array) -> Array:
    step = 1e-7
    columns = []
    for index in range(len(coefficients)):
        apart = np.zeros_like(coefficients)
        apart[index] = step
        columns.append((error(coefficients + apart, points) - error(coefficients - apart, points)) / (2.0 * step))
    return np.stack([*columns, -signs], axis=1)


_TAIL_GRID = np.linspace(1e-4, 13.0, 40_001)
_NORMAL_TAIL = np.array([0.5 * math.erfc(x * math.sqrt(0.5)) for x in _TAIL_GRID])
_BELL = np.exp(-0.5 * _TAIL_GRID**2)


def tail_error(coefficients: Array, points: Array) -> Array:
    """The error of GELU at x > 0 where Φ(−x) is a polynomial of t = 1 / (1 + p · x) without constant, times e^(−x²/2).

    The form of Abramowitz and Stegun's 7.1.26, one degree higher. The coefficients: p, then those of t, t², …, t⁶.
    """
    at = np.searchsorted(_TAIL_GRID, points)
    t = 1.0 / (1.0 + coefficients[0] * points)
    series = np.zeros_like(points)
    for coefficient in coefficients[:0:-1]:
        series = (series + coefficient) * t
    return points * (series * _BELL[at] - _NORMAL_TAIL[at])


def power_error(coefficients: Array, points: Array) -> Array:
    """The relative error where 2ʳ, |r| ≤ ½, is 1 plus a polynomial; its coefficients: of r, r², …, r⁶."""
    series = np.zeros_like(points)
    for coefficient in coefficients[::-1]:
        series = (series + coefficient) * points
    return (1.0 + series) * 2.0**-points - 1.0


def least_squares(error: Error, fixed: list[float], count: int, grid: Array) -> Array:
    """Coefficients to start from: after the fixed ones, ``count`` in which the error is linear."""
    zero = np.array([*fixed, *[0.0] * count])
    base = error(zero, grid)
    columns = [error(zero + unit, grid) - base for unit in np.eye(len(zero))[len(fixed) :]]
    return np.append(fixed, np.linalg.lstsq(np.stack(columns, axis=1), -base, rcond=None)[0])


def normal_tail() -> tuple[Array, float]:
    """Return p and the coefficients of Φ(−x), and GELU's greatest error."""
    return best(tail_error, least_squares(tail_error, [0.281], 6, _TAIL_GRID), _TAIL_GRID)


def power_of_two() -> tuple[Array, float]:
    """Return the coefficients of 2ʳ, and its greatest relative error."""
    grid = np.linspace(-0.5, 0.5, 40_000)
    return best(power_error, least_squares(power_error, [], 6, grid), grid)


if __name__ == "__main__":
    for fit in (normal_tail, power_of_two):
        numbers, greatest = fit()
        print(f"{fit.__name__}: greatest error {greatest:.3g}")
        print(*(f"  {np.float32(number):.9g}f" for number in numbers), sep="\n")
