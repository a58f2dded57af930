"""A result as a table, on a terminal and in a document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from benchmarks import clock, machine
from benchmarks.case import Case
from benchmarks.growth import ON_PAPER
from benchmarks.result import Comparison, Result, Row, Spread, is_limit
from benchmarks.suites import Suite, suite


@dataclass(frozen=True)
class _Sheet:
    headers: list[str]
    sections: dict[str, list[list[str]]]  # by case


def rich_table(result: Result) -> Group:
    """Return the table for a terminal, what was measured above it and who is missing below."""
    sheet = _sheet(result)
    table = Table("", *(Column(header, justify="right") for header in sheet.headers))
    for case, rows in sheet.sections.items():
        table.add_row(case, style="bold")
        for row in rows:
            table.add_row(*row)
        table.add_section()
    # As text: reasons have brackets in them, which would be taken for markup.
    return Group(Text(heading(result)), table, *map(Text, notes(result)))


def markdown(result: Result) -> str:
    """Return the table for a document."""
    sheet = _sheet(result)
    lines = [_line(["", *sheet.headers]), "|" + "---|" * (1 + len(sheet.headers))]
    for case, rows in sheet.sections.items():
        lines += [_line([f"**{case}**", *[""] * len(sheet.headers)]), *map(_line, rows)]
    title = heading(result)
    return (
        "\n".join(
            [f"{title[:1].upper()}{title[1:]}.", "", *lines, "", *(f"- {note}" for note in notes(result))]
        ).rstrip()
        + "\n"
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def heading(result: Result) -> str:
    """Say what was measured on what."""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    described, under = result.machine, result.machine.get("conditions", "")
    rounds = sorted({len(row.turns) for each in result.comparisons for row in each.rows if row.turns}) or [0]
    return (
        f"{suite(result.suite).explanation}; {described['processor']}, {described.get('instructions', 'unknown')}, "
        f"{machine.counted(int(described['cores']))}{under and f', {under}'}; {versions}; rounds: "
        f"{' to '.join(map(str, dict.fromkeys((*rounds[:1], *rounds[-1:]))))}; {result.measured}"
    )


def notes(result: Result) -> list[str]:
    """Say who was not measured and why, and how time and memory grow."""
    reasons = {row.contender: row.absent for each in result.comparisons for row in each.rows if row.absent}
    said = [f"{contender}: not measured, {reason}" for contender, reason in reasons.items()]
    said += [
        f"{label(each.case, result)}: measured {clock.TRIES} times, {each.disturbed} of "
        f"{max(len(row.turns) for row in each.rows)} rounds stayed disturbed: others took up to "
        f"{each.disturbance():.1f} cores"
        for each in result.comparisons
        if each.disturbed
    ]
    if len(suite(result.suite).scales) == 1:
        said += [
            f"{each.contender}: time grows as {each.quantity}^{each.time:.2f}"
            + ("" if each.memory is None else f", memory as {each.quantity}^{each.memory:.2f}")
            for each in result.series()
        ]
    return said


def label(case: Case, of: Result) -> str:
    """Name a case by what tells it from the others."""
    cases = [comparison.case for comparison in of.comparisons]
    parts = {
        "model": case.model,
        "work": case.work,
        "batch": f"batch {case.batch}",
        "height": f"{case.height}×{case.width}",
        "workers": f"workers {case.workers}",
        "depth": f"depth {case.depth}",
        "cores": f"cores {case.cores}",
    }
    differing = [
        text for key, text in parts.items() if key == "model" or len({getattr(each, key) for each in cases}) > 1
    ]
    return ", ".join(differing)


def _sheet(result: Result) -> _Sheet:
    what = suite(result.suite)
    return _growth(result) if len(what.scales) > 1 else _figures(result, what)


def _growth(result: Result) -> _Sheet:
    """What grew with what: a section for each quantity, a row for what is on paper and each contender."""
    sections: dict[str, list[list[str]]] = {}
    for each in result.series():
        on_paper = each.contender == ON_PAPER
        times = [f"{(1.0 if on_paper else 1e3) * seconds:.3g}" for seconds in each.seconds]
        row = [
            each.contender,
            f"{', '.join(times)} {'GFLOP a core' if on_paper else 'ms'}",
            f"{each.time:.2f}",
            f"{', '.join(f'{most:.0f}' for most in each.memory_mb)} MB",
            "" if each.memory is None else f"{each.memory:.2f}",
        ]
        sections.setdefault(f"{each.quantity}: {', '.join(map(str, each.values))}", []).append(row)
    return _Sheet(["a call", "time ~ quantity^", "resident", "memory ~ quantity^"], sections)


def _figures(result: Result, what: Suite) -> _Sheet:
    measured = {row.contender for each in result.comparisons for row in each.rows if row.turns}
    references = [reference for reference in what.references if reference in measured]
    columns = _columns(what, references)
    used = {
        header: column
        for header, column in columns.items()
        if any(column(each, row) for each in result.comparisons for row in each.rows if row.turns)
    }
    sections = {
        label(comparison.case, result): [
            [row.contender, *(column(comparison, row) for column in used.values())]
            for row in comparison.rows
            if row.turns
        ]
        for comparison in result.comparisons
    }
    return _Sheet(list(used), sections)


_Column = Callable[[Comparison, Row], str]


def _columns(what: Suite, references: list[str]) -> dict[str, _Column]:
    """Return every column that a suite may have; one without an entry is not shown."""

    def figure(_: Comparison, row: Row) -> str:
        return "" if is_limit(row.contender) else f"{what.unit.of(row.seconds.median):.3g}"

    def arithmetic(comparison: Comparison, row: Row) -> str:
        if what.fresh:
            return ""  # most of a first call is no arithmetic
        share = comparison.share_of_peak(row)
        of_peak = "" if share is None else f" ({100 * share:.0f}%)"
        return "" if row.flops_per_second is None else f"{row.flops_per_second / 1e9:.0f}{of_peak}"

    def ratio_to(reference: str) -> _Column:
        return lambda comparison, row: spread(comparison.times_as_fast(row, reference))

    return {
        what.unit.name: figure,
        **{f"× {reference}": ratio_to(reference) for reference in references},
        "GFLOP/s (of peak)": arithmetic,
        "first call s": lambda _, row: "" if what.fresh else f"{row.first_seconds:.1f}",
        "peak MB": lambda _, row: f"{row.peak_mb:.0f}",
        "cores (threads)": lambda _, row: f"{row.cores:.1f} ({row.threads})",
    }


def spread(ratio: Spread | None) -> str:
    """Return a ratio's median with its quartiles; nothing for none."""
    return "" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
