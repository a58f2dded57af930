"""The cards, their driver and firmware, CANN and HCCL, as their installers leave them; the fit is MindSpore's own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from xcit_hub.doctor.finding import Finding, Machine, is_folder, shown

_INSTALL = "Install it by https://www.mindspore.cn/install, in the order driver, firmware, CANN, MindSpore."
_DEVICES = ("davinci_manager", "devmm_svm", "hisi_hdc")  # beside a card's own; all have to be open to the user
_SET_ENV = "source .../ascend-toolkit/set_env.sh"
_VERSION = re.compile(r"(\d+)\.(\d+)")
_WHEELS = ("te", "hccl")  # CANN's Python packages without which MindSpore does not start on a card


def cards(machine: Machine) -> Iterator[Finding]:
    """Look for cards and for the right to use them."""
    if not machine.is_ascend:
        yield Finding("device", "ok", "a CPU; there is no Ascend card, driver or CANN on this machine")
        return
    if not machine.cards:
        yield Finding("device", "missing", "no /dev/davinci*", "See that the driver is loaded: npu-smi info.")
        return
    files = [*machine.cards, *(name for name in _DEVICES if machine.has(f"/dev/{name}"))]
    closed = [name for name in files if not os.access(machine.at(f"/dev/{name}"), os.R_OK | os.W_OK)]
    if closed:
        yield Finding(
            "device",
            "wrong",
            f"not open to this user: {', '.join(f'/dev/{name}' for name in closed)}",
            "Join the group of the driver (HwHiAiUser), or pass the devices into the container.",
        )
        return
    absent = [name for name in _DEVICES if name not in files]
    if absent:
        named = ", ".join(f"/dev/{name}" for name in absent)
        yield Finding("device", "wrong", f"without {named}", "Load the driver, or pass them into the container.")
        return
    yield Finding("device", "ok", f"{len(machine.cards)} Ascend cards: {', '.join(machine.cards)}")


def driver(machine: Machine) -> Iterator[Finding]:
    """Look for the driver and the firmware."""
    for name in ("driver", "firmware"):
        path = f"{machine.driver_folder}/{name}/version.info"
        version = machine.note(path).get("Version")
        if version:
            yield Finding(name, "ok", shown(version).strip("'"))
        elif machine.has(path):
            yield Finding(name, "wrong", f"{path} names no Version=", _INSTALL, needed=machine.is_ascend)
        else:
            yield Finding(name, "missing", f"no {path}", _INSTALL, needed=machine.is_ascend)


def cann(machine: Machine, supported: Sequence[str]) -> Iterator[Finding]:
    """Look for CANN, and whether MindSpore supports its version.

    Args:
        supported: versions, ``major.minor``, as MindSpore itself lists them; empty where it could not be asked.
    """
    needed = machine.is_ascend
    if not machine.toolkit:
        yield Finding("CANN", "missing", "ASCEND_HOME_PATH is not set", f"Install CANN, then {_SET_ENV}.", needed)
        return
    if not is_folder(machine.at(machine.toolkit)):
        says = f"ASCEND_HOME_PATH={shown(machine.toolkit)} is not a folder"
        yield Finding("CANN", "wrong", says, f"{_SET_ENV} of the CANN that is installed.", needed)
        return
    path = f"{machine.toolkit}/compiler/version.info"
    written = machine.note(path).get("Version", "")
    found = _VERSION.match(written)
    if found is None:
        yield Finding("CANN", "wrong", f"{shown(path)} names no version", _INSTALL, needed)
    elif supported and found[0] not in supported:
        says = f"{shown(written)}, and MindSpore here is made for {', '.join(supported)}"
        yield Finding("CANN", "wrong", says, "Install one of these, or the MindSpore for this one.", needed)
    else:
        fit = "as MindSpore asks" if supported else "whether it fits could not be told: MindSpore was not asked"
        yield Finding("CANN", "ok", f"{shown(written)}, {fit}")


def hccl(machine: Machine) -> Iterator[Finding]:
    """Look for the library by which cards exchange gradients, and for CANN's Python packages."""
    needed = machine.is_ascend
    library = f"{machine.toolkit}/lib64/libhccl.so"
    if machine.toolkit and machine.has(library):
        yield Finding("HCCL", "ok", shown(library))
    else:
        yield Finding("HCCL", "missing", "no lib64/libhccl.so below ASCEND_HOME_PATH", _INSTALL, needed)
    absent = [name for name in _WHEELS if find_spec(name) is None]
    if not absent:
        yield Finding("CANN's Python", "ok", "te and hccl can be imported")
    elif needed:
        do = f"{_SET_ENV}, which puts them on PYTHONPATH; else pip install those in the toolkit's lib64."
        yield Finding("CANN's Python", "missing", f"not importable: {', '.join(absent)}", do)
