"""Every attack, and which cases of it a run tries."""

from __future__ import annotations

import random

import victims  # noqa: F401, I001  (first: it makes what the hub's tests have importable)
import hostile_hub
import killed_processes
import mutated_files
import odd_folders
from ledger import Attack, Case

ATTACKS: list[Attack] = [hostile_hub.ATTACK, odd_folders.ATTACK, mutated_files.ATTACK, *killed_processes.ATTACKS]


def chosen(attack: Attack, seed: int, *, whole: bool) -> list[Case]:
    """Return all cases, or the sample that a seed draws."""
    cases = attack.cases(seed)
    if whole or len(cases) <= attack.sample:
        return cases
    return random.Random(seed).sample(cases, attack.sample)
