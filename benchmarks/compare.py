"""One wheel of xcit-hub beside another, on this machine: is the new one slower than the old one?

Each wheel is installed into a folder of its own, without its dependencies, which both take from this interpreter. Every
turn is a new process; the wheels take turns, old new, new old, old new …, so that what drifts cancels out. A ratio is
taken within each round and shown with its quartiles. A round in which the machine was not ours is measured again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.table import Column, Table
from rich.text import Text

from benchmarks import clock, machine, output
from benchmarks.result import FORMAT, Spread
from benchmarks.wheel_process import PREPARE, Order
from xcit_hub.errors import InputError, XcitHubError

_CHECKOUT = Path(__file__).parent.parent
_SIDES = ("old", "new")
_BATCH = 16


@dataclass(frozen=True)
class Row:
    """What is compared.

    Args:
        once: the first call of a process is what counts.
    """

    name: str
    work: str
    batch: int = 1
    once: bool = False


ROWS = (
    Row("inference, batch 1", "inference"),
    Row(f"inference, batch {_BATCH}", "inference", _BATCH),
    Row("inference, fused, batch 1", "fused"),
    Row(f"inference, fused, batch {_BATCH}", "fused", _BATCH),
    Row(f"training step, batch {_BATCH}", "training", _BATCH),
    Row(f"step of a training run, batch {_BATCH}", "training run", _BATCH, once=True),
    Row("first call, inference", "inference", once=True),
    Row("first call, training", "training", _BATCH, once=True),
    Row("import of all public names", "import", once=True),
    Row("xcit-hub --version", "command"),
    Row("convert, timm .safetensors to .ckpt", "convert"),
    Row("convert, .ckpt to timm .safetensors", "convert back"),
    Row("load from a folder hub, imports included", "load", once=True),
)


@dataclass(frozen=True)
class Turn:
    """What one process measured.

    Args:
        seconds: an image (a file, a load, a command), the median of its calls.
        stolen, others: cores that the host and that other processes took meanwhile.
        load: the system's load average of the last minute before.
        peak_mb: most resident memory of the process.
    """

    seconds: float
    stolen: float
    others: float
    load: float
    peak_mb: float

    @property
    def disturbance(self) -> float:
        """Cores that were not ours."""
        return self.stolen + self.others


@dataclass
class Compared:
    """One row's rounds.

    Args:
        rounds: a turn of each wheel by ``old`` and ``new``.
        repeated: rounds that were measured again because others had taken part of the machine.
        failed: why the row could not be measured.
    """

    row: Row
    rounds: list[dict[str, Turn]] = field(default_factory=list)
    repeated: int = 0
    failed: str | None = None

    @property
    def ratio(self) -> Spread:
        """Seconds of the new wheel over those of the old one, round by round: below 1 is faster."""
        return Spread.of([turns["new"].seconds / turns["old"].seconds for turns in self.rounds])

    @property
    def verdict(self) -> str:
        """Whether the quartiles lie on one side of 1."""
        low, high = self.ratio.low, self.ratio.high
        return "slower" if low > 1 else "faster" if high < 1 else "same"

    def spread(self, side: str, figure: str) -> Spread:
        """Summarise one figure of one wheel."""
        return Spread.of([getattr(turns[side], figure) for turns in self.rounds])

    @property
    def disturbed(self) -> int:
        """Rounds that stayed disturbed however often they were measured."""
        return sum(not _quiet(turns) for turns in self.rounds)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON's types."""
        said: dict[str, Any] = {"name": self.row.name, "batch": self.row.batch, "failed": self.failed}
        if self.rounds:
            said |= {
                "ratio": asdict(self.ratio),
                "verdict": self.verdict,
                **{side: asdict(self.spread(side, "seconds")) for side in _SIDES},
                "repeated": self.repeated,
                "disturbed": self.disturbed,
                "rounds": [{side: asdict(turn) for side, turn in turns.items()} for turns in self.rounds],
            }
        return said


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD_WHEEL", help="A .whl file, or a folder that has xcit_hub in it.")],
    new: Annotated[Path, typer.Argument(metavar="NEW_WHEEL", help="The same, to be judged.")],
    model: Annotated[str, typer.Option(help="The architecture.")] = "xcit_tiny_12_p16_224",
    rows: Annotated[
        list[str] | None, typer.Option("--row", metavar="PATTERN", help="Only these, e.g. 'inference*'; repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each wheel.")] = 10,
    seconds: Annotated[float, typer.Option(min=0.0, help="Length of a turn; at least one call is made.")] = 1.0,
    tries: Annotated[int, typer.Option(min=1, help="How often a disturbed round is measured at most.")] = 4,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write every round.")] = None,
) -> None:
    """Hold one wheel against another: ratios new / old with quartiles over interleaved rounds of fresh processes.

    A round in which others took more than a tenth of a core, the host of a virtual machine among them, is measured
    again; what stayed disturbed is counted in the table. Exits 1 if a row could not be measured.

    Examples:

        python -m benchmarks compare old/xcit_hub-0.1.0-py3-none-any.whl dist/xcit_hub-0.2.0-py3-none-any.whl

        python -m benchmarks compare OLD_WHEEL NEW_WHEEL --row 'inference*' --rounds 20 --json compared.json
    """
    output.check_folder(json_file)
    chosen = _matching(rows)
    status = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, status.status("preparing") as spinner:
        folder = Path(scratch)
        wheels = {side: _installed(wheel, folder / side) for side, wheel in zip(_SIDES, (old, new), strict=True)}
        work = folder / "work"
        work.mkdir()
        # The new one's first process fills its caches as well; the files that all turns read are the old one's.
        versions = {}
        for side in reversed(_SIDES):
            place = work if side == "old" else folder / "unused"
            place.mkdir(exist_ok=True)
            versions[side] = _asked(Order(PREPARE, model, _BATCH, 0.0, True, str(wheels[side])), place)
        compared = []
        for row in chosen:

            def turn(side: str, row: Row = row) -> Turn:
                order = Order(row.work, model, row.batch, seconds, row.once, str(wheels[side]))
                return Turn(**_asked(order, work))

            def say(number: int, name: str = row.name) -> None:
                spinner.update(f"{name}, round {number + 1}")

            compared.append(_measured(row, turn, rounds, tries, say))
    output.show(Group(_table(compared), *(Text(f"{each.row.name}: {each.failed}") for each in compared if each.failed)))
    content = {
        "format": FORMAT,
        "machine": machine.description(),
        "model": model,
        "wheels": {side: {"file": str(path)} | versions[side] for side, path in zip(_SIDES, (old, new), strict=True)},
        "rows": [each.as_dict() for each in compared],
    }
    output.write_json(json_file, content)
    if any(each.failed for each in compared):
        raise typer.Exit(1)


def _matching(patterns: list[str] | None) -> list[Row]:
    for pattern in patterns or []:
        if not any(fnmatchcase(row.name, pattern) for row in ROWS):
            names = "; ".join(row.name for row in ROWS)
            raise InputError(f"No row is called {pattern!r}.", where="--row", fix=f"There are: {names}.")
    return [row for row in ROWS if any(fnmatchcase(row.name, pattern) for pattern in patterns or ["*"])]


def _installed(wheel: Path, folder: Path) -> Path:
    """Install a wheel into a folder of its own; a folder is taken as it is."""
    if (wheel / "xcit_hub" / "__init__.py").is_file():
        return wheel.resolve()
    if wheel.suffix != ".whl" or not wheel.is_file():
        raise InputError("This is not a wheel of xcit-hub.", where=wheel, fix="Build one: python -m build --wheel.")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder),
        str(wheel),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / "xcit_hub").is_dir():
        said = done.stderr.strip().splitlines() or ["there is no xcit_hub in it"]
        raise InputError(f"The wheel cannot be installed: {said[-1]}", where=wheel)
    return folder.resolve()


def _measured(
    row: Row, turn: Callable[[str], Turn], rounds: int, most_tries: int, on_round: Callable[[int], None]
) -> Compared:
    """Measure one row; of the tries of a disturbed round the least disturbed one is kept."""
    compared = Compared(row)
    for number in range(rounds):
        on_round(number)
        order = _SIDES if number % 2 == 0 else tuple(reversed(_SIDES))
        tries: list[dict[str, Turn]] = []
        while len(tries) < most_tries and not (tries and _quiet(tries[-1])):
            try:
                tries.append({side: turn(side) for side in order})
            except XcitHubError as error:
                compared.failed, compared.rounds = str(error), []
                return compared
        compared.repeated += len(tries) - 1
        compared.rounds.append(min(tries, key=_disturbance))
    return compared


def _disturbance(turns: dict[str, Turn]) -> float:
    return max(turn.disturbance for turn in turns.values())


def _quiet(turns: dict[str, Turn]) -> bool:
    return _disturbance(turns) <= clock.QUIET


def _asked(order: Order, folder: Path) -> dict[str, Any]:
    """Let a new process do one piece of work in ``folder``.

    Raises:
        XcitHubError: it ended without an answer.
    """
    # The wheel before everything, then this checkout for the module that is run; neither is the working directory.
    path = os.pathsep.join([order.wheel, str(_CHECKOUT)])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.wheel_process"],
        input=json.dumps(asdict(order)) + "\n",
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "GLOG_v": "3", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not done.stdout:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise XcitHubError(f"{order.work} cannot be measured: {said[-1][:300]}", where=order.wheel)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _table(compared: list[Compared]) -> Table:
    headers = ("old ms", "new ms", "new / old", "", "peak MB, old", "new", "others, cores", "stolen", "load", "again")
    table = Table("", *(Column(header, justify="right") for header in headers))
    for each in compared:
        if each.failed:
            table.add_row(each.row.name, "", "", "", "failed")
            continue
        ratio, turns = each.ratio, [turn for both in each.rounds for turn in both.values()]
        table.add_row(
            each.row.name,
            *(f"{1e3 * each.spread(side, 'seconds').median:.4g}" for side in _SIDES),
            f"{ratio.median:.3f} ({ratio.low:.3f}–{ratio.high:.3f})",
            each.verdict,
            *(f"{each.spread(side, 'peak_mb').median:.0f}" for side in _SIDES),
            f"{max(turn.others for turn in turns):.2f}",
            f"{max(turn.stolen for turn in turns):.2f}",
            f"{max(turn.load for turn in turns):.1f}",
            f"{each.repeated}" + (f", {each.disturbed} disturbed" if each.disturbed else ""),
        )
    return table
