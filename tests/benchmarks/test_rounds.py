"""Contenders take turns, and a round that others disturbed is measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import clock, contender_process, rounds
from benchmarks.case import Case
from benchmarks.networks import TORCH_LIMIT
from benchmarks.starting import PYTHON


@pytest.mark.parametrize(("quiet", "again"), [(-1.0, 2), (1e3, 0)])
def test_a_disturbed_round_is_measured_again_and_counted(tmp_path, quiet: float, again: int) -> None:
    case = Case("xcit_nano_12_p16_224", folder=str(tmp_path))
    entrants = [rounds.Entrant(PYTHON, PYTHON)]
    comparison = rounds.compare("start", case, entrants, rounds=2, turn_seconds=0.0, quiet=quiet)
    (row,) = comparison.rows
    assert len(row.turns) == len(row.others) == len(row.stolen) == 2
    assert comparison.repeated == 2 * again
    assert comparison.disturbed == (2 if again else 0)
    assert comparison.date


def test_what_the_host_took_counts_once_and_not_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    stolen = iter((0.0, 100.0))  # so much that nothing else that runs here can be seen beside it
    everybody = iter((0.0, 100.0))
    monkeypatch.setattr(clock, "stolen", lambda: next(stolen))
    monkeypatch.setattr(clock, "worked_by_all", lambda: next(everybody))
    turn = contender_process._turn(lambda: 1, steps=1, waking=False, programs_of=None)
    assert turn["stolen"] > 0
    assert turn["others"] == 0.0


def test_a_contender_is_stopped_but_in_its_turn_and_gone_afterwards(tmp_path) -> None:
    case = Case("xcit_nano_12_p16_224", folder=str(tmp_path))
    with rounds.Process("start", PYTHON, case) as process:
        for _ in range(2):
            _wait_until_stopped(process)
            assert process.turn(1)["images"] == 1
        _wait_until_stopped(process)
    assert _state(process) == ""


def test_the_call_after_a_pause_is_timed_apart_and_counts_in_no_turn(tmp_path) -> None:
    case = Case("xcit_nano_12_p16_224", height=32, width=32, folder=str(tmp_path))
    with rounds.Process("inference", TORCH_LIMIT, case) as process:
        cold, warm = process.turn(1), process.turn(3, waking=True)
    assert (len(cold["seconds"]), cold["woken"]) == (1, None)
    assert len(warm["seconds"]) == 3
    assert warm["woken"] > 0


def test_a_turn_is_as_many_calls_as_fill_it_however_long_the_first_ones_took(tmp_path, monkeypatch) -> None:
    asked = []

    class Slow(rounds.Process):
        """The real process, whose calls are said to take a second until it is warm, then a fiftieth."""

        def turn(self, steps: int, *, waking: bool = False) -> dict[str, Any]:
            asked.append((steps, waking))
            answer = super().turn(steps, waking=waking)
            return {**answer, "seconds": [0.02 if waking else 1.0] * steps, "woken": 1.0 if waking else None}

    monkeypatch.setattr(rounds, "Process", Slow)
    case = Case("xcit_nano_12_p16_224", height=32, width=32, folder=str(tmp_path))
    entrants = [rounds.Entrant(TORCH_LIMIT, TORCH_LIMIT)]
    comparison = rounds.compare("inference", case, entrants, rounds=2, turn_seconds=0.1, quiet=1e3)
    assert asked[:3] == [(1, False), (1, True), (5, True)]
    (row,) = comparison.rows
    assert (row.first_seconds, row.turns, row.woken) == (1.0, [0.02, 0.02], [1.0, 1.0])


def _wait_until_stopped(process: rounds.Process) -> None:
    """The system stops a process soon, not at once; a test that waits for ever has failed."""
    while _state(process) != "T":
        pass


def _state(process: rounds.Process) -> str:
    """Return the letter that the system has for what a process does; none of one that is gone."""
    try:
        stat = Path(f"/proc/{process._process.pid}/stat").read_text()
    except FileNotFoundError:
        return ""
    return stat.rpartition(")")[2].split()[0]
