"""Does the prose say what the metadata says? Figures are looked for in the prose's tables, by their column heads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cards import figures
from cards.card import outside_code
from cards.faults import Fault
from cards.metadata import CardMetadata

_COLUMNS: dict[str, re.Pattern[str]] = {
    "top-1": re.compile(r"acc@(top)?[-\s]?1\b|(?<![a-z])top[-\s]?1\b", re.IGNORECASE),
    "top-5": re.compile(r"acc@(top)?[-\s]?5\b|(?<![a-z])top[-\s]?5\b", re.IGNORECASE),
    "mindspore": re.compile(r"^mind\s?spore( version)?$", re.IGNORECASE),
}
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_DELIMITER = re.compile(r"\|?(:?-+:?\|)+(:?-+:?)?")
_SPLIT = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Said:
    """One cell of a table: what it says, and the line it stands on."""

    line: int
    text: str


def disagreements(metadata: CardMetadata, prose: str, prose_line: int, field_lines: dict[str, int]) -> Iterator[Fault]:
    """Warn for every figure of the metadata that no table of the prose repeats though the tables have a column for it.

    A card may quote several sources in its prose; it contradicts its metadata only if none of them is the metadata's.

    Args:
        prose_line: the line of the file at which ``prose`` begins.
        field_lines: field → line of the file.
    """
    said = cells(prose, prose_line)
    for field, ranked in _figures(metadata).items():
        for rank, value in ranked.items():
            found = [
                (cell, number) for cell in said[f"top-{rank}"] if (number := figures.number(cell.text)) is not None
            ]
            if found and all(_differ(value, number) for _, number in found):
                listed = ", ".join(f"{number:g} (line {cell.line})" for cell, number in found)
                message = f"the metadata says top-{rank} {value:g}, the prose says {listed}"
                yield Fault(field_lines.get(field), field, message, "warning")
    version = metadata.mindspore_version
    versions = [cell for cell in said["mindspore"] if _VERSION.match(cell.text)]
    if version and versions and not any(_same_version(version, cell.text) for cell in versions):
        message = f"the metadata says {version}, the prose says {versions[0].text} (line {versions[0].line})"
        yield Fault(field_lines.get("mindspore-version"), "mindspore-version", message, "warning")


def cells(prose: str, first_line: int) -> dict[str, list[Said]]:
    """Return the cells of every known column of every table of ``prose``."""
    found: dict[str, list[Said]] = {name: [] for name in _COLUMNS}
    lines = outside_code(prose, first_line)
    head: list[str] | None = None
    for index, (number, line) in enumerate(lines):
        if "|" not in line:
            head = None
        elif head is None:
            following = lines[index + 1][1] if index + 1 < len(lines) else ""
            head = _row(line) if _is_delimiter(following) else None
        elif not _is_delimiter(line):
            for title, text in zip(head, _row(line), strict=False):
                for name, pattern in _COLUMNS.items():
                    if pattern.search(title):
                        found[name].append(Said(number, text))
    return found


def _figures(metadata: CardMetadata) -> dict[str, dict[int, float]]:
    of_results = {rank: value for rank in (1, 5) if (value := metadata.accuracy_of(rank)) is not None}
    ranked = figures.read(metadata.evaluation).ranked
    return {"evaluation": {rank: ranked[rank] for rank in (1, 5) if rank in ranked}, "model-index": of_results}


def _is_delimiter(line: str) -> bool:
    return _DELIMITER.fullmatch("".join(line.split())) is not None


def _row(line: str) -> list[str]:
    return [cell.strip() for cell in _SPLIT.split(line.strip().removeprefix("|").removesuffix("|"))]


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > 5e-3


def _same_version(short: str, long: str) -> bool:
    return f"{long}.".startswith(f"{short}.") or f"{short}.".startswith(f"{long}.")
