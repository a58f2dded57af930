"""What was measured: rows, comparisons, and what follows from them. Kept as JSON, shown as tables and plots."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from benchmarks.case import Case
from benchmarks.growth import Point, Series, series
from benchmarks.suites import suite
from xcit_hub.errors import InputError

FORMAT = 1  # of a result's JSON

# What a comparison says of itself beside its rows.
_MEASURED = ("date", "commit", "repeated", "disturbed")


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one value a round."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass
class Row:
    """What one contender did.

    Args:
        turns: seconds an image (a file, a load) in each round, the median of its steps.
        first_seconds: its first step, compilation included.
        woken: seconds of the step before each turn, once others had filled the caches; empty where none is made.
        start_mb, running_mb, peak_mb: resident memory of its process before its first step, at most from then on, and
            at most in its life.
        cores: processor seconds a second, of its process and that one's children.
        others: the same of everybody else on the machine, in each round; stolen: what the host of this virtual machine
            gave to others.
        threads: how many its framework may compute with.
        flops_per_second: where the work is known.
        absent: why it was not measured; then nothing else is set.
        failed: whether that was a surprise.
    """

    contender: str
    turns: list[float] = field(default_factory=list)
    first_seconds: float = 0.0
    woken: list[float] = field(default_factory=list)
    start_mb: float = 0.0
    running_mb: float = 0.0
    peak_mb: float = 0.0
    cores: float = 0.0
    others: list[float] = field(default_factory=list)
    stolen: list[float] = field(default_factory=list)
    threads: int = 0
    flops_per_second: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    absent: str | None = None
    failed: bool = False

    @property
    def seconds(self) -> Spread:
        """Seconds an image over the rounds."""
        return Spread.of(self.turns)


@dataclass
class Comparison:
    """All contenders' rows for one case.

    Args:
        date, commit: when this was measured, and of what; empty in what earlier versions kept.
        repeated: how often a round was measured again because others had taken part of the machine.
        disturbed: rounds that stayed so.
    """

    case: Case
    rows: list[Row]
    date: str = ""
    commit: str = ""
    repeated: int = 0
    disturbed: int = 0

    def row(self, contender: str) -> Row | None:
        """Return a contender's row, if it was measured."""
        return next((row for row in self.rows if row.contender == contender and row.turns), None)

    def disturbance(self) -> float:
        """Return how many cores others took in the worst turn that counts."""
        turns = [both for row in self.rows for both in zip(row.others, row.stolen, strict=True)]
        return max(map(sum, turns), default=0.0)

    def times_as_fast(self, row: Row, reference: str) -> Spread | None:
        """Return how many times as fast as ``reference`` a row is, round by round; None without both."""
        base = self.row(reference)
        if base is None or not row.turns or row.contender == reference or is_limit(row.contender):
            return None
        return Spread.of([theirs / own for theirs, own in zip(base.turns, row.turns, strict=True)])

    def share_of_peak(self, row: Row) -> float | None:
        """Return the share of the best measured matrix product's throughput that a row reaches."""
        limits = [each.flops_per_second or 0.0 for each in self.rows if is_limit(each.contender)]
        if row.flops_per_second is None or not any(limits):
            return None
        return row.flops_per_second / max(limits)


def is_limit(contender: str) -> bool:
    """Whether a contender is the machine's limit and does other work than the rest."""
    return contender.startswith("limit:")


@dataclass
class Result:
    """One run of one suite.

    Args:
        machine: what it ran on.
    """

    suite: str
    machine: dict[str, str | int]
    comparisons: list[Comparison]

    @property
    def versions(self) -> dict[str, str]:
        """Versions of everything that took part."""
        found: dict[str, list[str]] = {}
        for comparison in self.comparisons:
            for row in comparison.rows:
                for name, version in row.versions.items():
                    found.setdefault(name, []).append(version)
        return {name: " and ".join(sorted(set(several))) for name, several in found.items()}

    @property
    def measured(self) -> str:
        """When all this was measured, and of which commits."""
        days = sorted({each.date for each in self.comparisons if each.date})
        commits = dict.fromkeys(each.commit or "an unknown one" for each in self.comparisons)
        when = " to ".join(dict.fromkeys((*days[:1], *days[-1:]))) or "on an unknown day"
        return f"{when}, commit {', '.join(commits)}"

    def series(self) -> list[Series]:
        """Return how time and memory grew with what the suite varies, on paper and of every contender."""
        every = int(self.machine["cores"])
        points = [
            Point(
                replace(comparison.case, cores=comparison.case.cores or every),
                *(row.contender, row.seconds.median * comparison.case.batch, row.running_mb),
            )
            for comparison in self.comparisons
            for row in comparison.rows
            if row.turns and not is_limit(row.contender)
        ]
        return [each for each in series(points) if each.quantity in suite(self.suite).scales]

    def exponents(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Return the exponents of time and memory alone, by quantity and contender."""
        fits: dict[str, dict[str, dict[str, float | None]]] = {}
        for each in self.series():
            fits.setdefault(each.quantity, {})[each.contender] = {"time": each.time, "memory": each.memory}
        return fits

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON's types: what was measured, and what follows from it."""
        return {
            "format": FORMAT,
            "suite": self.suite,
            "machine": self.machine,
            "versions": self.versions,
            "exponents": self.exponents(),
            "comparisons": [
                {
                    **{key: getattr(comparison, key) for key in _MEASURED},
                    "case": {
                        key: value
                        for key, value in asdict(comparison.case).items()
                        if key != "folder" and (value or key not in ("depth", "cores"))
                    },
                    "rows": [asdict(row) | self._derived(comparison, row) for row in comparison.rows],
                }
                for comparison in self.comparisons
            ],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Result:
        """Read what :meth:`as_dict` wrote; what follows from the measured figures is derived again.

        Raises:
            InputError: a later version wrote it.
        """
        written = content.get("format", FORMAT)  # 0.1.0 did not say it
        if written != FORMAT:
            raise InputError(f"The result is of format {written!r}, and this version reads {FORMAT}.")
        known = {entry.name for entry in fields(Row)}
        comparisons = [
            Comparison(
                Case(**entry["case"]),
                [Row(**{key: value for key, value in row.items() if key in known}) for row in entry["rows"]],
                **{key: entry[key] for key in _MEASURED if key in entry},
            )
            for entry in content["comparisons"]
        ]
        return cls(content["suite"], content["machine"], comparisons)

    def _derived(self, comparison: Comparison, row: Row) -> dict[str, Any]:
        if not row.turns:
            return {}
        ratios = {
            reference: asdict(ratio)
            for reference in suite(self.suite).references
            if (ratio := comparison.times_as_fast(row, reference)) is not None
        }
        return {
            "seconds": asdict(row.seconds),
            "times_as_fast_as": ratios,
            "share_of_peak": comparison.share_of_peak(row),
        }
