"""The environment variables that change what runs, each with the values it may have."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xcit_hub.accelerated.build import MOST_THREADS, SWITCH, TARGETS, THREADS, is_threads
from xcit_hub.doctor.finding import Finding, Machine, shown
from xcit_hub.errors import closest

# What this package reads beside RULES, which lines of their own judge.
_OWN = ("XCIT_HUB_HOME", SWITCH)
_PATHS = ("LD_LIBRARY_PATH", "PYTHONPATH")
_ON_ASCEND = {
    # What MindSpore itself looks for, in run_check: the kernels' Python, the driver's libraries, the operators.
    "PYTHONPATH": "opp/built-in/op_impl/ai_core/tbe",
    "LD_LIBRARY_PATH": "/lib64",
    "ASCEND_OPP_PATH": "/opp",
}


@dataclass(frozen=True)
class Rule:
    """What a variable may be.

    Args:
        admits: tells whether a value is one.
        values: which there are, for people.
        do: what to do with a wrong one, beside unsetting it.
    """

    admits: Callable[[str], bool]
    values: str
    do: str = ""


def _between(low: int, high: int) -> Rule:
    def admits(value: str) -> bool:
        return re.fullmatch(r"\d{1,10}", value, re.ASCII) is not None and low <= int(value) <= high

    return Rule(admits, f"a number from {low} to {high:,}")


def _one_of(*values: str) -> Rule:
    return Rule(lambda value: value in values, " or ".join(values))


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_host(value: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9:\[][A-Za-z0-9._:\[\]-]{0,252}", value) is not None


_FLAG = _one_of("0", "1")
_COUNT = _between(1, 1 << 20)
_RANK = _between(0, 1 << 20)

RULES: dict[str, Rule] = {
    "GLOG_v": _between(0, 4),
    "OMP_NUM_THREADS": Rule(
        lambda value: re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3})*", value, re.ASCII) is not None,
        "a number of threads, or one a level",
    ),
    # The next three are read by the build of the package and its measurements.
    "XCIT_HUB_MACHINE": _one_of(*sorted({target.machine for target in TARGETS})),
    "XCIT_HUB_REQUIRE_NATIVE": _FLAG,
    "XCIT_HUB_ALONE": _FLAG,
    THREADS: Rule(lambda value: not value or is_threads(value), f"a number from 1 to {MOST_THREADS:,}"),
    "MS_COMPILER_CACHE_ENABLE": Rule(
        lambda value: value == "0", "0", "It takes an old graph for a changed recipe's; training refuses it."
    ),
    "MS_SIMULATION_LEVEL": Rule(
        lambda value: not value, "unset", "Under a dry run nothing is computed: what is trained and measured is void."
    ),
    "MS_ASCEND_CHECK_OVERFLOW_MODE": _one_of("SATURATION_MODE", "INFNAN_MODE"),
    "MS_ROLE": _one_of("MS_SCHED", "MS_WORKER", "MS_PSERVER"),
    "MS_WORKER_NUM": _COUNT,
    "MS_SCHED_HOST": Rule(_is_host, "a host's name or address"),
    "MS_SCHED_PORT": _between(1, 65_535),
    "MS_NODE_TIMEOUT": _between(1, 10**6),
    "MS_TOPO_TIMEOUT": _between(1, 10**6),
    "RANK_ID": _RANK,
    "RANK_SIZE": _COUNT,
    "DEVICE_ID": _between(0, 1023),
    # Ranges as CANN's reference of environment variables gives them.
    "HCCL_CONNECT_TIMEOUT": _between(120, 7200),
    "HCCL_EXEC_TIMEOUT": _between(0, 2_147_483_647),
    "HCCL_BUFFSIZE": _between(1, 1 << 20),
    "HCCL_IF_IP": Rule(_is_address, "an address of this host"),
    "HCCL_IF_BASE_PORT": _between(1024, 65_520),
    "HCCL_WHITELIST_DISABLE": _FLAG,
    "HCCL_INTRA_PCIE_ENABLE": _FLAG,
    "HCCL_INTRA_ROCE_ENABLE": _FLAG,
    "HCCL_DETERMINISTIC": _one_of("true", "false", "strict"),
}


def variables(machine: Machine) -> Iterator[Finding]:
    """Judge every variable that is set, and on Ascend whether CANN's own are."""
    environment = machine.environment
    wrong = [
        Finding(
            name,
            "wrong",
            f"{shown(environment[name])}; it can be {rule.values}",
            f"{rule.do} Unset it, or correct it.".strip(),
        )
        for name, rule in RULES.items()
        if name in environment and not rule.admits(environment[name])
    ]
    for name in _PATHS:
        entries = environment.get(name, "").split(":")
        absent = [entry for entry in entries if entry and not machine.has(entry)]
        if absent:
            says = f"{len(absent)} of {len(entries)} places are not there, the first: {shown(absent[0])}"
            wrong.append(Finding(name, "wrong", says, "Take them out: they only slow down the search.", needed=False))
    strange = sorted(
        name for name in environment if name.startswith("XCIT_HUB_") and name not in RULES and name not in _OWN
    )
    if strange:
        says = f"{', '.join(shown(name) for name in strange[:5])}: nothing reads it"
        do = (
            closest(strange[0], [*(name for name in RULES if name.startswith("XCIT_HUB_")), *_OWN], 1)
            or "Correct its name, or unset it."
        )
        wrong.append(Finding("XCIT_HUB_*", "wrong", says, do, needed=False))
    if machine.is_ascend:
        for name, part in _ON_ASCEND.items():
            if part not in environment.get(name, ""):
                wrong.append(Finding(name, "missing", f"nothing of {part} in it", "source CANN's set_env.sh."))
    yield from wrong
    known = [name for name in RULES if name in environment and RULES[name].admits(environment[name])]
    others = sorted(name for name in environment if name.startswith("HCCL_") and name not in RULES)
    said = [f"{name}={shown(environment[name])}" for name in known]
    if others:
        said.append(f"not judged: {', '.join(shown(name) for name in others[:5])}")
    yield Finding("variables", "ok", ", ".join(said) or "none of those that change a run is set")
