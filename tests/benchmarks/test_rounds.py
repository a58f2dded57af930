"""Contenders take turns, and a round that others disturbed is measured again."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import rounds
from benchmarks.case import Case
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


def test_a_contender_is_stopped_but_in_its_turn_and_gone_afterwards(tmp_path) -> None:
    case = Case("xcit_nano_12_p16_224", folder=str(tmp_path))
    with rounds.Process("start", PYTHON, case) as process:
        for _ in range(2):
            _wait_until_stopped(process)
            assert process.turn(1)["images"] == 1
        _wait_until_stopped(process)
    assert _state(process) == ""


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
