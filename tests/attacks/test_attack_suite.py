"""What ``python -m tests.attacks`` tries whole is tried here as a sample that a seed draws."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the attacks are modules beside this file

from ledger import Attack, Case, LeftoverError, attempt, expect
from suite import ATTACKS, chosen

SEED = 17
LEAST = {"hostile hub": 75, "odd folders": 80, "odd data sets": 80, "hostile cards": 40}  # cases
MUTATED = 10_000
KILLS = 60


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_a_sample_of_every_attack_is_held_off(attack: Attack) -> None:
    row = attempt(attack, chosen(attack, SEED, whole=False))
    assert row.held, row


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_every_attack_is_held_off(attack: Attack) -> None:
    row = attempt(attack, chosen(attack, SEED, whole=True))
    assert row.held, row


def test_the_attacks_are_as_many_as_security_says() -> None:
    import killed_processes
    import mutated_files

    count = {attack.name: len(attack.cases(SEED)) for attack in ATTACKS}
    assert all(count[name] >= least for name, least in LEAST.items()), count
    assert len(mutated_files.cases(SEED)) * mutated_files._BATCH >= MUTATED
    assert killed_processes.KILLS >= KILLS


def test_the_ledger_counts_what_went_wrong(tmp_path: Path) -> None:
    def wrong(_: Path) -> None:
        expect(False, "it was believed")

    def broken(_: Path) -> None:
        raise KeyError("siblings")

    def littered(folder: Path) -> None:
        (folder / "x.tmp").write_text("half")
        raise LeftoverError("x.tmp")

    def hung(_: Path) -> None:
        while True:
            signal.pause()

    tried = [Case("wrong", wrong), Case("broken", broken), Case("littered", littered), Case("hung", hung)]
    row = attempt(Attack("all", lambda _: tried, sample=4, within=5.0), [*tried, Case("fine", lambda _: 3)])
    assert (row.tried, len(row.wrong), len(row.tracebacks), len(row.leftovers)) == (7, 1, 2, 1)
    assert not row.held
    assert "KeyError" in row.tracebacks[0]
    assert "did not come back" in row.tracebacks[1]
