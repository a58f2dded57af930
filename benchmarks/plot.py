"""A result as a picture: curves over the number of tokens where it varies, bars elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from benchmarks.flops import tokens
from benchmarks.result import Comparison, Result, is_limit
from benchmarks.suites import suite
from benchmarks.tables import label
from xcit_hub import variants
from xcit_hub.errors import InputError
from xcit_hub.files import atomic_write

_SUFFIXES = (".svg", ".png")
_MOST_MARKED_SIZES = 8


def check(path: Path) -> None:
    """Refuse a picture that could not be written, before anything is measured.

    Raises:
        InputError: the suffix is unknown, or matplotlib is not installed.
    """
    if path.suffix not in _SUFFIXES:
        raise InputError(
            f"A plot cannot be a {path.suffix or 'file without a suffix'}.", where=path, fix="Use .svg or .png."
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            "matplotlib, which draws the plot, is not installed.",
            fix="pip install 'xcit-hub[train]', or leave --plot out.",
        ) from error


def draw(result: Result, path: Path) -> None:
    """Draw time and memory of every contender and write the picture, whole or not at all."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    sizes = {_tokens(comparison) for comparison in result.comparisons}
    height = 4.5 if len(sizes) > 1 else 1.5 + 0.28 * sum(len(each.rows) for each in result.comparisons)
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots(1, 2, sharey=len(sizes) == 1)
    (_curves if len(sizes) > 1 else _bars)(result, axes)
    figure.suptitle(f"{result.suite}: {suite(result.suite).explanation}")
    picture = io.BytesIO()
    # The same figures give the same bytes; text stays text.
    with rc_context({"svg.hashsalt": result.suite, "svg.fonttype": "none"}):
        figure.savefig(picture, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None)
    with atomic_write(path) as stream:
        stream.write(picture.getvalue())


def _tokens(comparison: Comparison) -> int:
    case = comparison.case
    return tokens(variants.architecture(case.model), case.height, case.width)


def _curves(result: Result, axes: Any) -> None:
    unit = suite(result.suite).unit
    points: dict[str, list[tuple[int, float, float]]] = {}
    for comparison in result.comparisons:
        for row in comparison.rows:
            if row.turns and not is_limit(row.contender):
                place = (_tokens(comparison), unit.of(row.seconds.median), row.peak_mb)
                points.setdefault(row.contender, []).append(place)
    one_network = len({comparison.case.model for comparison in result.comparisons}) == 1
    for contender, places in points.items():
        counts, figures, memory = zip(*sorted(places), strict=True)
        for axis, values in zip(axes, (figures, memory), strict=True):
            axis.plot(counts, values, marker="o", linestyle="-" if one_network else "none", label=contender, alpha=0.8)
    for axis, name in zip(axes, (unit.name, "peak MB"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel=name)
        marked = sorted({_tokens(comparison) for comparison in result.comparisons})
        if len(marked) <= _MOST_MARKED_SIZES:
            axis.set_xticks(marked, [str(count) for count in marked])
            axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend()


def _bars(result: Result, axes: Any) -> None:
    unit = suite(result.suite).unit
    names, figures, errors, memory = [], [], [], []
    for comparison in result.comparisons:
        for row in comparison.rows:
            if row.turns and not is_limit(row.contender):
                low, middle, high = sorted(
                    unit.of(each) for each in (row.seconds.low, row.seconds.median, row.seconds.high)
                )
                prefix = f"{label(comparison.case, result)}: " if len(result.comparisons) > 1 else ""
                names.append(prefix + row.contender)
                figures.append(middle)
                errors.append((middle - low, high - middle))
                memory.append(row.peak_mb)
    places = range(len(names))
    axes[0].barh(places, figures, xerr=list(zip(*errors, strict=True)))
    axes[1].barh(places, memory, color="tab:gray")
    axes[0].set_yticks(places, names)
    axes[0].invert_yaxis()
    for axis, name in zip(axes, (unit.name, "peak MB"), strict=True):
        axis.set_xlabel(name)
        axis.grid(axis="x", alpha=0.3)
