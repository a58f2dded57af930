"""Accuracies in text: read exactly or not at all. MindSpore Hub writes them ``top1acc77.27 | top5acc93.56``.

A part between bars is an accuracy if the whole of it is one. What only looks like one (``top1acc77,27``,
``top1caa79.38``, ``laptop1 77``), cannot be one, or is given twice, is refused by name; other metrics are left alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_VALUE = r"(?P<value>[0-9]{1,3}(?:\.[0-9]{1,15})?) ?%?"
_FIGURE = re.compile(
    rf"top[\s@_-]?(?P<rank>[1-9][0-9]{{0,3}})(?:[\s_-]?acc(?:uracy)?[\s=:]*|[\s=:]+){_VALUE}", re.IGNORECASE
)
_LOOKS_LIKE_ONE = re.compile(r"top[\s@_-]?[0-9]|acc(?:uracy)?\s?@", re.IGNORECASE)
_RANK = re.compile(r"(?<![A-Za-z])top[\s@_-]?(?P<rank>[1-9][0-9]{0,3})(?![0-9.])", re.IGNORECASE)
_NUMBER = re.compile(rf"[*_`]*{_VALUE}[*_`]*")


class Figures(NamedTuple):
    """What a line of accuracies says.

    Args:
        ranked: k → top-k accuracy in per cent.
        refused: what looks like an accuracy and was left out, each with its reason.
    """

    ranked: dict[int, float]
    refused: list[str]


def read(evaluation: str | None) -> Figures:
    """Read ``top1acc77.27 | top5acc93.56`` as ``{1: 77.27, 5: 93.56}``."""
    found: dict[int, list[float]] = {}
    refused: list[str] = []
    for part in map(str.strip, (evaluation or "").split("|")):
        if figure := _FIGURE.fullmatch(part):
            found.setdefault(int(figure["rank"]), []).append(float(figure["value"]))
        elif _LOOKS_LIKE_ONE.search(part):
            refused.append(f"{part[:80]!r} is not written topKacc and a number")
    ranked: dict[int, float] = {}
    for rank, values in found.items():
        if len(values) > 1:
            refused.append(f"top-{rank} is given {len(values)} times ({', '.join(f'{value:g}' for value in values)})")
        elif values[0] > 100:
            refused.append(f"top-{rank} cannot be {values[0]:g} %")
        else:
            ranked[rank] = values[0]
    if {1, 5} <= ranked.keys() and ranked[1] > ranked[5]:
        refused.append(f"top-1 ({ranked.pop(1):g}) cannot exceed top-5 ({ranked.pop(5):g})")
    return Figures(ranked, refused)


def write(top1: float | None, top5: float | None) -> str | None:
    """Return the line that :func:`read` reads, or None where there is nothing to say."""
    said = [f"top{rank}acc{value:.15g}" for rank, value in ((1, top1), (5, top5)) if value is not None]
    return " | ".join(said) or None


def rank_of(metric: str) -> int | None:
    """Return k where a metric's name says ``top-k``, whatever else it says; None where it names none or several."""
    ranks = {int(found["rank"]) for found in _RANK.finditer(metric)}
    return ranks.pop() if len(ranks) == 1 else None


def number(cell: str) -> float | None:
    """Return the number that a table's cell is, in per cent or none; None where the cell is anything more."""
    found = _NUMBER.fullmatch(cell.strip())
    return float(found["value"]) if found else None
