"""Every attack, and which cases of it a run tries."""

from __future__ import annotations

import random

import crowded_hub
import hostile_cards
import hostile_hub
import killed_processes
import lying_runs
import mutated_files
import odd_data_sets
import odd_folders
import swapped_files
import victims  # noqa: F401  (first: it makes what the hub's tests have importable)
from ledger import Attack, Case

ATTACKS: list[Attack] = [
    hostile_hub.ATTACK,
    odd_folders.ATTACK,
    odd_data_sets.ATTACK,
    hostile_cards.ATTACK,
    lying_runs.ATTACK,
    mutated_files.ATTACK,
    swapped_files.ATTACK,
    *killed_processes.ATTACKS,
    crowded_hub.ATTACK,
]


def chosen(attack: Attack, seed: int, *, whole: bool) -> list[Case]:
    """Return all cases, or the sample that a seed draws."""
    if not whole and attack.small is not None:
        return attack.small()
    cases = attack.cases(seed)
    if whole or len(cases) <= attack.sample:
        return cases
    return random.Random(seed).sample(cases, attack.sample)
