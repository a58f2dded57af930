"""The drawings of the HTML page: coordinates as numbers, for the template to write as SVG and HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xcit_hub.run_record import RunRecord

_WIDTH, _HEIGHT = 420.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 12.0, 34.0
_MOST_TICKS = 8
_MOST_CELLS = 30  # classes up to which the whole matrix is shown
_CONFUSED = 10  # beyond that: the pairs most often confused


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: where, in the drawing's units or per cent, and what it says."""

    place: float
    text: str


@dataclass(frozen=True)
class Line:
    """One curve: its name among the template's words, and the points of a polyline."""

    name: str
    points: str


@dataclass(frozen=True)
class Graph:
    """Curves over whole epochs, with their axes."""

    title: str
    lines: tuple[Line, ...]
    epochs: tuple[Tick, ...]
    values: tuple[Tick, ...]
    width: float = _WIDTH
    height: float = _HEIGHT
    left: float = _LEFT
    right: float = _WIDTH - _RIGHT
    bottom: float = _HEIGHT - _BOTTOM


def ticks(low: float, high: float) -> list[float]:
    """Return at most eight round numbers between two values, 1, 2 or 5 times a power of ten apart."""
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-12)))
    step = next(
        each for each in (step / 5, step / 2, step, 2 * step, 5 * step) if (high - low) / each <= _MOST_TICKS - 1
    )
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def curves(run: RunRecord) -> tuple[Graph, ...]:
    """Return the loss and the accuracy after each epoch; nothing for fewer than two epochs."""
    wanted = {"loss": ("loss", "eval_loss", "average_eval_loss"), "top1": ("top1", "average_top1")}
    graphs = []
    for title, names in wanted.items():
        series = {
            name: [(each.epoch, value) for each in run.curve if (value := getattr(each, name)) is not None]
            for name in names
        }
        series = {name: points for name, points in series.items() if len(points) > 1}
        if series:
            graphs.append(_graph(title, series))
    return tuple(graphs)


def _graph(title: str, series: dict[str, list[tuple[int, float]]]) -> Graph:
    epochs = [epoch for points in series.values() for epoch, _ in points]
    values = [value for points in series.values() for _, value in points]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, high + margin
    first, last = min(epochs), max(epochs)
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(epoch: float) -> float:
        return _LEFT + across * (epoch - first) / max(last - first, 1)

    def y(value: float) -> float:
        return _TOP + down * (high - value) / (high - low)

    lines = tuple(
        Line(name, " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in points))
        for name, points in series.items()
    )
    whole = [value for value in ticks(first, last) if value == round(value)]
    return Graph(
        title,
        lines,
        tuple(Tick(x(value), f"{value:.0f}") for value in whole),
        tuple(Tick(y(value), f"{value:g}") for value in ticks(low, high)),
    )


@dataclass(frozen=True)
class Cell:
    """One count of the confusion matrix, and its share of the class, 0 to 1."""

    count: int
    share: float


@dataclass(frozen=True)
class Confusion:
    """What was answered for what.

    Args:
        names: of the classes, in the matrix' order.
        rows: of each class, how often it was answered as which; none beyond 30 classes.
        pairs: beyond them: class, answer and count of what was confused most often.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    pairs: tuple[tuple[str, str, int], ...]


def confusion(run: RunRecord) -> Confusion | None:
    """Return the confusion matrix of a record that has one."""
    if not run.confusion:
        return None
    size = len(run.confusion)
    names = tuple((run.classes or [])[:size]) + tuple(map(str, range(len(run.classes or []), size)))
    if size <= _MOST_CELLS:
        return Confusion(names, tuple(_cells(row) for row in run.confusion), ())
    wrong = [
        (count, row, column)
        for row, counts in enumerate(run.confusion)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    wrong.sort(key=lambda each: (-each[0], each[1], each[2]))
    return Confusion(names, (), tuple((names[row], names[column], count) for count, row, column in wrong[:_CONFUSED]))


def _cells(row: Sequence[int]) -> tuple[Cell, ...]:
    whole = sum(row) or 1
    return tuple(Cell(count, count / whole) for count in row)
