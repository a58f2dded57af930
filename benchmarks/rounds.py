"""Contenders take turns, A B C A B C …: what disturbs the machine disturbs them all, and ratios stand.

A ratio is taken within each round and its quartiles over all rounds are given, not the ratio of two medians.
"""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import clock, machine
from benchmarks.case import Case
from benchmarks.result import Comparison, Row
from benchmarks.suites import suite
from xcit_hub.errors import XcitHubError

_MOST_STEPS = 50


@dataclass(frozen=True)
class Entrant:
    """A contender under the name of its row, run by an interpreter."""

    name: str
    contender: str
    python: str = sys.executable


class Process:
    """One contender in its own process; without a contender, the one that prepares the suite's files.

    It and its children are stopped but in their turns: MindSpore's threads spin for a second after the last PyNative
    operation, in which others' turns began.

    Raises:
        Gone: when it cannot be built, or stops answering.
    """

    def __init__(self, suite_name: str, contender: str | None, case: Case, *, python: str = sys.executable) -> None:
        environment = {"GLOG_v": "3", "PYTHONWARNINGS": "ignore", **suite(suite_name).environment}
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(  # the user's interpreter, our module
            [python, "-m", "benchmarks.contender_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            text=True,
            env={**os.environ, **environment},
            process_group=0,  # and not a session: stopped ones end if we are killed
        )
        order = {"suite": suite_name, "contender": contender, "case": asdict(case)}
        try:
            self.ready = self._ask(json.dumps(order))
            self._signal(signal.SIGSTOP)
        except BaseException:
            self.close()
            raise

    def turn(self, steps: int, *, waking: bool = False) -> dict[str, Any]:
        """Let it take some steps while all others are stopped, after one that does not count if ``waking``."""
        self._signal(signal.SIGCONT)
        try:
            return self._ask(json.dumps({"steps": steps, "waking": waking}))
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)
        self._process.communicate()
        self._noise.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _ask(self, question: str) -> dict[str, Any]:
        assert self._process.stdin is not None  # for the type checker: both are pipes
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            end = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            raise Gone(f"its process {end}: {self._last_words()}", failed=True)
        answer: dict[str, Any] = json.loads(line)
        if "absent" in answer:
            raise Gone(answer["absent"], failed=False)
        if "failed" in answer:
            raise Gone(answer["failed"], failed=True)
        return answer

    def _last_words(self) -> str:
        self._noise.seek(0)
        lines = self._noise.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


class Gone(Exception):  # noqa: N818  # it reads as what happened
    """A contender cannot go on."""

    def __init__(self, reason: str, *, failed: bool) -> None:
        self.failed = failed
        super().__init__(reason)


def prepare(suite_name: str, case: Case) -> None:
    """Make a suite's files, in a process of its own so that this one stays small.

    Raises:
        XcitHubError: they cannot be made.
    """
    if suite(suite_name).prepare is None:
        return
    Path(case.folder).mkdir()
    try:
        Process(suite_name, None, case).close()
    except Gone as reason:
        raise XcitHubError(f"The files to measure with cannot be made: {reason}.", where=case.folder) from reason


def compare(
    suite_name: str,
    case: Case,
    entrants: Sequence[Entrant],
    *,
    rounds: int,
    turn_seconds: float,
    quiet: float = clock.QUIET,
    on_turn: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Measure contenders against each other; of a disturbed round's tries the least disturbed one counts.

    Args:
        rounds: how often each takes its turn.
        turn_seconds: how long a turn shall be, in seconds; at least one step, at most fifty.
        quiet: cores that others may take in a turn before its round is measured again.
        on_turn: is told who has the machine now.
    """
    what = suite(suite_name)
    rows = {entrant: Row(entrant.name) for entrant in entrants}
    comparison = Comparison(case, list(rows.values()), machine.today(), machine.commit())
    with (_NewProcesses if what.fresh else _KeptProcesses)(suite_name, case, turn_seconds) as processes:

        def take_turns() -> _Round:
            answers = {}
            for entrant, row in rows.items():
                if row.absent is None:
                    on_turn(entrant.name)
                    try:
                        answers[entrant] = processes.turn(entrant)
                    except Gone as reason:
                        row.absent, row.failed = str(reason), reason.failed
            for entrant, answer in answers.items():
                _note(rows[entrant], answer)
            return answers

        for _ in range(processes.first_rounds + what.warm_up):
            take_turns()
        for _ in range(rounds):
            tries = [take_turns()]
            while _disturbance(tries[-1]) > quiet and len(tries) < clock.TRIES:
                tries.append(take_turns())
            best = min(tries, key=_disturbance)
            comparison.repeated += len(tries) - 1
            comparison.disturbed += _disturbance(best) > quiet
            for entrant, answer in best.items():
                _count(rows[entrant], answer)
    for row in rows.values():
        if row.absent is not None:
            row.turns = []  # rounds that others completed have no counterpart here
    return comparison


_Round = dict[Entrant, dict[str, Any]]


def _disturbance(answers: _Round) -> float:
    return max((answer["others"] + answer["stolen"] for answer in answers.values()), default=0.0)


def _note(row: Row, answer: Mapping[str, Any]) -> None:
    """Keep what any turn shows, whether it counts or not."""
    row.first_seconds = row.first_seconds or answer["seconds"][0]
    row.start_mb, row.running_mb = answer["start_mb"], max(row.running_mb, answer["running_mb"])
    row.peak_mb = max(row.peak_mb, answer["peak_mb"], answer["running_mb"])
    row.threads, row.versions = answer["threads"], answer["versions"]


def _count(row: Row, answer: Mapping[str, Any]) -> None:
    """Keep a turn's figures."""
    row.turns.append(statistics.median(answer["seconds"]) / answer["images"])
    if answer["woken"] is not None:
        row.woken.append(answer["woken"])
    row.cores = answer["cores"]
    row.others.append(answer["others"])
    row.stolen.append(answer["stolen"])
    if answer["flops"] is not None:
        row.flops_per_second = answer["flops"] / answer["images"] / row.seconds.median


class _NewProcesses:
    """Every turn is a new process and its first step."""

    first_rounds = 0

    def __init__(self, suite_name: str, case: Case, _turn_seconds: float) -> None:
        self._suite, self._case = suite_name, case

    def turn(self, entrant: Entrant) -> dict[str, Any]:
        with Process(self._suite, entrant.contender, self._case, python=entrant.python) as process:
            return {**process.ready, **process.turn(1)}

    def __enter__(self) -> _NewProcesses:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass


class _KeptProcesses:
    """A process serves all turns of its contender: the first step, two that say how long one is, then a turn's.

    The first step of a turn finds caches that others filled. That is timed apart: among few steps, it would decide.
    """

    first_rounds = 1

    def __init__(self, suite_name: str, case: Case, turn_seconds: float) -> None:
        self._suite, self._case, self._seconds = suite_name, case, turn_seconds
        self._stack = ExitStack()
        self._processes: dict[Entrant, Process] = {}
        self._steps: dict[Entrant, int] = {}

    def turn(self, entrant: Entrant) -> dict[str, Any]:
        first = entrant not in self._processes
        if first:
            started = Process(self._suite, entrant.contender, self._case, python=entrant.python)
            self._processes[entrant] = self._stack.enter_context(started)
        process = self._processes[entrant]
        answer = process.turn(self._steps.get(entrant, 1), waking=not first)
        if not first and entrant not in self._steps:
            wanted = math.ceil(self._seconds / min(answer["seconds"]))
            self._steps[entrant] = min(max(wanted, 1), _MOST_STEPS)
        return {**process.ready, **answer}

    def __enter__(self) -> _KeptProcesses:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()
