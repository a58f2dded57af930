"""A result as a figure: curves over the number of tokens where it varies, bars elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.flops import tokens
from benchmarks.growth import ON_PAPER
from benchmarks.result import Comparison, Result, is_limit
from benchmarks.suites import suite
from benchmarks.tables import label
from xcit_hub.errors import InputError
from xcit_hub.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES = (".svg", ".png")
_MOST_MARKED_SIZES = 8

# How a contender's name begins → whose it is; one colour each in every figure.
_FRAMEWORKS = {
    "xcit-hub": "xcit-hub", "xcit_hub": "xcit-hub", "timm2ms": "xcit-hub", ".": "xcit-hub",
    "timm": "timm", "MindCV": "MindCV", "mindspore": "MindSpore", "onnxruntime": "onnxruntime", "OpenVINO": "OpenVINO",
}  # fmt: skip
_COLOURS = {
    "xcit-hub": "#c8102e", "timm": "#3b6fb6", "MindCV": "#e08a1e", "MindSpore": "#8c6d3f", "onnxruntime": "#4a9a5b",
    "OpenVINO": "#7a5aa6",
}  # fmt: skip
_OTHERS = "#8a97a5"
_MARKERS = "os^Dv<>"
_FEW_DECADES = 100


def check(path: Path) -> None:
    """Refuse a plot that could not be written, before anything is measured.

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
    """Draw time and memory of every contender and write the plot, whole or not at all."""
    from matplotlib import rc_context

    figure = _growth(result) if len(suite(result.suite).scales) > 1 else _figures(result)
    figure.suptitle(f"{result.suite}: {suite(result.suite).explanation}")
    image = io.BytesIO()
    # The same figures give the same bytes; text stays text.
    with rc_context({"svg.hashsalt": result.suite, "svg.fonttype": "none"}):
        figure.savefig(image, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None)
    with atomic_write(path) as stream:
        stream.write(image.getvalue())


def _figures(result: Result) -> Figure:
    from matplotlib.figure import Figure

    sizes = {_tokens(comparison) for comparison in result.comparisons}
    height = 4.5 if len(sizes) > 1 else 1.5 + 0.28 * sum(len(each.rows) for each in result.comparisons)
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots(1, 2, sharey=len(sizes) == 1)
    (_curves if len(sizes) > 1 else _bars)(result, axes)
    return figure


def _growth(result: Result) -> Figure:
    """Time above and memory below, against each quantity in a column of its own."""
    from matplotlib.figure import Figure

    found = [each for each in result.series() if each.contender != ON_PAPER]
    quantities = list(dict.fromkeys(each.quantity for each in found))
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, max(len(quantities), 1), squeeze=False, sharey="row")
    for each in found:
        column = quantities.index(each.quantity)
        marker = _MARKERS[[other.contender for other in found if other.quantity == each.quantity].index(each.contender)]
        milliseconds = [1e3 * seconds for seconds in each.seconds]
        for axis, values in zip(axes[:, column], (milliseconds, each.memory_mb), strict=True):
            axis.plot(
                each.values, values, marker=marker, color=_colour(each.contender), label=each.contender, alpha=0.8
            )
            axis.set(xscale="log", yscale="log", xlabel=each.quantity)
            axis.set_xticks(each.values, [str(value) for value in each.values])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    for axis, name in zip(axes[:, 0], ("ms a call", "resident MB"), strict=True):
        axis.set_ylabel(name)
    axes[0, 0].legend()
    return figure


def _tokens(comparison: Comparison) -> int:
    case = comparison.case
    return tokens(case.architecture, case.height, case.width)


def _curves(result: Result, axes: Any) -> None:
    unit = suite(result.suite).unit
    points: dict[str, list[tuple[int, float, float]]] = {}
    for comparison in result.comparisons:
        for row in comparison.rows:
            if row.turns and not is_limit(row.contender):
                place = (_tokens(comparison), unit.of(row.seconds.median), row.peak_mb)
                points.setdefault(row.contender, []).append(place)
    one_network = len({comparison.case.model for comparison in result.comparisons}) == 1
    used: dict[str, int] = {}
    for contender, places in points.items():
        colour = _colour(contender)
        marker = _MARKERS[used.setdefault(colour, 0) % len(_MARKERS)]
        used[colour] += 1
        counts, figures, memory = zip(*sorted(places), strict=True)
        for axis, values in zip(axes, (figures, memory), strict=True):
            axis.plot(
                counts, values, marker=marker, linestyle="-" if one_network else "none", color=colour, label=contender,
                alpha=0.8,
            )  # fmt: skip
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
    names, colours, figures, errors, memory = [], [], [], [], []
    for comparison in result.comparisons:
        for row in comparison.rows:
            if row.turns and not is_limit(row.contender):
                low, middle, high = sorted(
                    unit.of(each) for each in (row.seconds.low, row.seconds.median, row.seconds.high)
                )
                prefix = f"{label(comparison.case, result)}: " if len(result.comparisons) > 1 else ""
                names.append(prefix + row.contender)
                colours.append(_colour(row.contender))
                figures.append(middle)
                errors.append((middle - low, high - middle))
                memory.append(row.peak_mb)
    places = range(len(names))
    axes[0].barh(places, figures, xerr=list(zip(*errors, strict=True)), color=colours, ecolor="#333333")
    axes[1].barh(places, memory, color=colours)
    axes[0].set_yticks(places, names)
    axes[0].invert_yaxis()
    for axis, name, values in zip(axes, (unit.name, "peak MB"), (figures, memory), strict=True):
        positive = [value for value in values if value > 0] or [1.0]
        # A bar of a logarithmic axis needs a beginning: half of the shortest.
        axis.set(xscale="log", xlim=(min(positive) / 2, max(positive) * 1.3), xlabel=f"{name}, logarithmic")
        axis.xaxis.set_major_formatter(_plain)
        axis.xaxis.set_minor_formatter(_plain if max(positive) / min(positive) < _FEW_DECADES else "")
        axis.tick_params(axis="x", which="both", labelsize=8)
        axis.grid(axis="x", which="both", alpha=0.25)
    patches = [axes[0].barh(0, 0, color=colour, label=name) for name, colour in _COLOURS.items() if colour in colours]
    axes[0].figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)


def _plain(value: float, _: object) -> str:
    """A tick's number, written out; of the minor ticks 2 and 5 alone."""
    return f"{value:g}" if f"{value:e}"[0] in "125" else ""


def _colour(contender: str) -> str:
    """Return the colour of the framework that a contender belongs to."""
    owner = next((name for start, name in _FRAMEWORKS.items() if contender.startswith(start)), "")
    return _COLOURS.get(owner, _OTHERS)
