"""How time and memory grow with tokens, batch, depth, width and cores: what to measure, and the exponents that fit."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.case import Case
from benchmarks.flops import multiply_adds, numbers, tokens
from xcit_hub import variants

ON_PAPER = "on paper"

QUANTITIES: dict[str, Callable[[Case], int]] = {
    "tokens": lambda case: tokens(case.architecture, case.height, case.width),
    "batch": lambda case: case.batch,
    "depth": lambda case: case.architecture.depth,
    "width": lambda case: case.architecture.embed_dim,
    "cores": lambda case: case.cores,
}

_SIDES = (2, 3, 4)  # of the model's own
_BATCHES = (4, 16, 32)
_FEWEST = 3  # points beyond whose first one memory can be fitted


def cases_around(base: Case, sizes: Sequence[tuple[int, int]] = (), batches: Sequence[int] = ()) -> list[Case]:
    """Return a case and those that differ from it in one quantity.

    The depths are half and twice its own; the widths those of the published architectures of its patches and image
    size, at its depth; the cores 1, 2, 4 … to all.

    Args:
        base: the one in the middle.
        sizes, batches: the others than its own; 2, 3 and 4 times its sides, and batches of 4, 16 and 32, by default.
    """
    own = base.architecture
    every = len(os.sched_getaffinity(0))
    base = replace(base, depth=own.depth, cores=every)
    found = [base]
    found += [
        replace(base, height=height, width=width)
        for height, width in sizes or [(side * base.height, side * base.width) for side in _SIDES]
    ]
    found += [replace(base, batch=batch) for batch in batches or _BATCHES]
    found += [replace(base, depth=depth) for depth in (own.depth // 2, 2 * own.depth)]
    alike = [
        each
        for each in variants.ARCHITECTURES.values()
        if (each.patch_size, each.image_size) == (own.patch_size, own.image_size) and each.embed_dim != own.embed_dim
    ]
    found += [replace(base, model=each.name) for each in {each.embed_dim: each for each in reversed(alike)}.values()]
    found += [replace(base, cores=2**power) for power in range(every.bit_length()) if 2**power < every]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Point:
    """What a contender needed for a call of a case: seconds and MB of memory."""

    case: Case
    contender: str
    seconds: float
    memory_mb: float


@dataclass(frozen=True)
class Series:
    """What one contender needed while one quantity varied, and the powers of the quantity that fit it.

    Args:
        values: of the quantity, the least first; ``seconds`` and ``memory_mb`` belong to them.
        time: the exponent, by least squares over logarithms.
        memory: the same of what memory exceeds that of the least value by, against what the quantity does: a process
            holds several hundred megabytes whatever it computes. None with fewer than three values.
    """

    quantity: str
    contender: str
    values: tuple[int, ...]
    seconds: tuple[float, ...]
    memory_mb: tuple[float, ...]
    time: float
    memory: float | None


def on_paper(case: Case) -> Point:
    """Return what a case needs as the network is written: operations a core, as seconds at one a nanosecond, and MB."""
    sides = case.height, case.width
    operations = 2 * multiply_adds(case.architecture, *sides, batch=case.batch, training=case.work == "training")
    held = 4 * numbers(case.architecture, *sides, batch=case.batch)
    return Point(case, ON_PAPER, operations / max(case.cores, 1) / 1e9, held / 2**20)


def series(points: Sequence[Point]) -> list[Series]:
    """Fit every quantity that varies while the others stand still, for each contender; first what is on paper."""
    found = []
    for quantity, of in QUANTITIES.items():
        alike: dict[tuple[object, ...], list[Point]] = {}
        for point in points:
            others = tuple(other(point.case) for name, other in QUANTITIES.items() if name != quantity)
            alike.setdefault((*others, point.case.architecture.patch_size, point.case.work), []).append(point)
        most = max(alike.values(), key=lambda several: len({of(point.case) for point in several}), default=[])
        if len({of(point.case) for point in most}) < 2:
            continue
        of_contender = {ON_PAPER: [on_paper(case) for case in dict.fromkeys(point.case for point in most)]}
        for point in most:
            of_contender.setdefault(point.contender, []).append(point)
        fits = (_fit(quantity, of, name, several) for name, several in of_contender.items())
        found += [fit for fit in fits if fit is not None]
    return found


def _fit(quantity: str, of: Callable[[Case], int], contender: str, points: Sequence[Point]) -> Series | None:
    by_value = {of(point.case): point for point in points}
    if len(by_value) < 2:
        return None
    values = sorted(by_value)
    least, *larger = values
    seconds = [by_value[value].seconds for value in values]
    memory = [by_value[value].memory_mb for value in values]
    beyond = [max(each - memory[0], 1.0) for each in memory[1:]]
    return Series(
        *(quantity, contender, tuple(values), tuple(seconds), tuple(memory)),
        time=_exponent(values, seconds),
        memory=_exponent([value - least for value in larger], beyond) if len(values) >= _FEWEST else None,
    )


def _exponent(values: Sequence[float], results: Sequence[float]) -> float:
    return statistics.linear_regression([math.log(each) for each in values], [math.log(each) for each in results]).slope
