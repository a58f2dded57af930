"""What is installed: Python, MindSpore, numpy, our compiled code, the extras, and whether their versions fit."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

# MindSpore and huggingface_hub both bring it.
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from xcit_hub._version import __version__
from xcit_hub.accelerated.build import THREADS
from xcit_hub.doctor.finding import Finding, Machine

_NAME = "xcit-hub"
_NOT_FOR_USERS = ("dev", "docs")
_TARGETS = {"v4": "AVX-512", "v3": "AVX2", "aarch64": "NEON"}
_AGAIN = "pip install --force-reinstall xcit-hub"


def software(answers: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge the versions of what xcit-hub runs on.

    Args:
        answers: the probe's.
    """
    needs = _requirements()
    yield Finding(_NAME, "ok", f"{__version__}{_described()}")
    python = SpecifierSet(_metadata("Requires-Python") or "")
    yield _fits("Python", platform.python_version(), python, "Make an environment with another Python.")
    yield _version("numpy", answers.get("numpy"), needs)
    mindspore = answers.get("mindspore")
    if not isinstance(mindspore, Mapping) or "error" in mindspore:
        yield _broken("MindSpore", mindspore)
        return
    yield _version("MindSpore", mindspore["version"], needs)


def target(machine: Machine, answers: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge what MindSpore computes on, beside what the machine has."""
    mindspore = answers.get("mindspore")
    if not isinstance(mindspore, Mapping) or "error" in mindspore:
        return
    device = mindspore["device"]
    if machine.is_ascend and device != "Ascend":
        do = "See the lines above; then `python -c \"import mindspore; mindspore.set_device('Ascend'); "
        do += 'mindspore.run_check()"` says what it misses.'
        yield Finding("MindSpore's device", "wrong", f"{device}, although this is a machine for Ascend", do)
    else:
        yield Finding("MindSpore's device", "ok", device)


def compiled(machine: Machine, answers: Mapping[str, Any]) -> Iterator[Finding]:
    """Say whether our compiled operations are there, and for which instruction set."""
    answer = answers.get("compiled")
    name = "compiled operations"
    unused = f"; {THREADS} has no effect" if machine.environment.get(THREADS) else ""
    mindspore = answers.get("mindspore")
    device = mindspore.get("device", "CPU") if isinstance(mindspore, Mapping) else "CPU"
    device = "Ascend" if machine.is_ascend else device
    if device != "CPU":
        yield Finding(name, "ok", f"not used: {device} computes with MindSpore's own{unused}")
    elif not isinstance(answer, Mapping) or "error" in answer:
        yield _broken(name, answer)
    elif "absent" in answer:
        yield Finding(name, "missing", f"{answer['absent']}; MindSpore's own are slower{unused}", _AGAIN, needed=False)
    else:
        library = str(answer["library"])
        sets = next((words for ending, words in _TARGETS.items() if library.endswith(f"{ending}.so")), "")
        narrow = "; ".join(
            f"no {dtype}: {here['absent']}"
            if "absent" in here
            else f"{dtype} where fuse() is asked for it ({here['library']})"
            for dtype, here in answer["dtypes"].items()
        )
        threads = answer["threads"]
        on = f"on {threads} {'thread' if threads == 1 else 'threads'}"
        yield Finding(name, "ok", f"{library}{sets and f' ({sets})'}, {on}; {narrow}")


def extras() -> Iterator[Finding]:
    """Say which extras are installed whole."""
    try:
        names = metadata.metadata(_NAME).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return
    for name in names:
        if name in _NOT_FOR_USERS:
            continue
        absent = [str(each.name) for each in _required(name) if not _is_installed(each)]
        if absent:
            do = f"pip install 'xcit-hub[{name}]', if you want it."
            yield Finding(f"extra {name}", "missing", f"without {', '.join(absent)}", do, needed=False)
        else:
            yield Finding(f"extra {name}", "ok", "installed")


def _required(extra: str) -> list[Requirement]:
    """Return what an extra asks for beside what the package asks for always."""
    every = [Requirement(line) for line in metadata.requires(_NAME) or ()]
    return [
        each
        for each in every
        if each.marker is not None
        and not each.marker.evaluate({"extra": ""})
        and each.marker.evaluate({"extra": extra})
    ]


def _is_installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def _requirements() -> dict[str, SpecifierSet]:
    try:
        lines = metadata.requires(_NAME) or ()
    except metadata.PackageNotFoundError:
        return {}
    every = [Requirement(line) for line in lines]
    return {each.name: each.specifier for each in every if each.marker is None}


def _metadata(key: str) -> str:
    try:
        found = metadata.metadata(_NAME)
        return str(found[key]) if key in found else ""
    except metadata.PackageNotFoundError:
        return ""


def _described() -> str:
    """Say where the versions that are asked for come from, if not from this very version."""
    described = _metadata("Version")
    if not described:
        return ", not installed: it runs from its sources, and no version can be judged"
    return "" if described == __version__ else f", from its sources; versions are judged by the installed {described}"


def _version(name: str, found: Any, needs: Mapping[str, SpecifierSet]) -> Finding:
    if not isinstance(found, str):
        return _broken(name, found)
    return _fits(name, found, needs.get(name.lower(), SpecifierSet()), f"pip install '{name.lower()}{{}}'")


def _fits(name: str, found: str, wanted: SpecifierSet, do: str) -> Finding:
    if wanted.contains(found, prereleases=True):
        return Finding(name, "ok", f"{found}{wanted and f', wanted {wanted}'}")
    return Finding(name, "wrong", f"{found}, wanted {wanted}", do.format(wanted))


def _broken(name: str, answer: Any) -> Finding:
    if isinstance(answer, Mapping):
        return Finding(name, "wrong", str(answer.get("error")), str(answer.get("do") or "Install it again."))
    return Finding(name, "missing", "nobody answered", "See MindSpore's line.")
