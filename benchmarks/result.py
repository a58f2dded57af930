"""What was measured: rows, comparisons, and what follows from them. Kept as JSON, shown as tables and plots."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from benchmarks.case import Case
from benchmarks.flops import tokens
from benchmarks.suites import suite
from xcit_hub import variants
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

    def exponents(self) -> dict[str, dict[str, float]]:
        """Fit time and memory to a power of the number of tokens, by least squares over logarithms.

        A process holds several hundred megabytes whatever the image, which would hide how memory grows: it is fitted
        beyond the smallest image's, against the tokens beyond the smallest image's.
        """
        points: dict[str, list[tuple[int, float, float]]] = {}
        for comparison in self.comparisons:
            case = comparison.case
            count = tokens(variants.architecture(case.model), case.height, case.width) * case.batch
            for row in comparison.rows:
                if row.turns and not is_limit(row.contender):
                    points.setdefault(row.contender, []).append(
                        (count, row.seconds.median * case.batch, row.running_mb)
                    )
        fits = {}
        for contender, found in points.items():
            least, *larger = sorted(found)
            if len({count for count, _, _ in larger} - {least[0]}) > 1:
                beyond = [(count - least[0], max(most - least[2], 1.0)) for count, _, most in larger]
                times = [(count, seconds) for count, seconds, _ in found]
                fits[contender] = {"time": _exponent(times), "memory": _exponent(beyond)}
        return fits

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON's types: what was measured, and what follows from it."""
        return {
            "format": FORMAT,
            "suite": self.suite,
            "machine": self.machine,
            "versions": self.versions,
            "exponents": self.exponents() if suite(self.suite).scales else {},
            "comparisons": [
                {
                    **{key: getattr(comparison, key) for key in _MEASURED},
                    "case": {key: value for key, value in asdict(comparison.case).items() if key != "folder"},
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


def _exponent(points: Sequence[tuple[float, float]]) -> float:
    logarithms = [[math.log(value) for value in axis] for axis in zip(*points, strict=True)]
    return statistics.linear_regression(*logarithms).slope
