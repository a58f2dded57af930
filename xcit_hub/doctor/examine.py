"""The whole examination: every check in its order, none of which can end the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from xcit_hub.doctor import ascend, places, probe, software
from xcit_hub.doctor.finding import Finding, Machine
from xcit_hub.doctor.rank_table import rank_table
from xcit_hub.doctor.variables import variables
from xcit_hub.errors import XcitHubError


def examine(machine: Machine, *, online: bool = False) -> Iterator[Finding]:
    """Look at everything, and yield a line each; nothing on the machine is changed.

    Args:
        online: also ask each hub whether it answers.
    """
    answers: dict[str, Any] = {}
    try:
        answers = probe.ask(machine.environment)
    except XcitHubError as error:
        answers = {"mindspore": {"error": error.what, "do": error.fix or ""}}
    listed = answers.get("mindspore", {}).get("cann") or ()
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "device": lambda: ascend.cards(machine),
        "driver": lambda: ascend.driver(machine),
        "CANN": lambda: ascend.cann(machine, listed),
        "HCCL": lambda: ascend.hccl(machine),
        "software": lambda: software.software(answers),
        "MindSpore's device": lambda: software.target(machine, answers),
        "compiled operations": lambda: software.compiled(machine, answers),
        "rank table": lambda: rank_table(machine),
        "variables": lambda: variables(machine),
        "cache": places.cache,
        "hub of this machine": lambda: places.machine_hub(machine),
        "hubs": lambda: places.hubs(machine, online=online),
        "extras": software.extras,
    }
    for name, check in checks.items():
        yield from _lines(name, check)


def _lines(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except XcitHubError as error:
        yield Finding(name, "wrong", str(error).replace("\n ", ";"), error.fix or "")
    except Exception as error:  # what a machine can be like has no end, and the other lines are wanted
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        yield Finding(name, "wrong", f"cannot be looked at: {said}", "Mend what it names; if it is right, report this.")
