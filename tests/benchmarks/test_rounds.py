"""Contenders take turns, and a round that others disturbed is measured again."""

from __future__ import annotations

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
