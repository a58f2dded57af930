"""What was measured on, of which commit and when: recorded with every result."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from xcit_hub._version import __version__

_ROOT = Path(__file__).parent.parent

# Widest first: the name of an instruction set, and what /proc/cpuinfo calls it.
_INSTRUCTION_SETS = {"AVX-512, AMX": "amx_tile", "AVX-512": "avx512f", "AVX2": "avx2", "NEON": "asimd"}

# How libraries are told to leave the wider instructions of a processor alone: ours, oneDNN (in torch, MindSpore and
# OpenVINO), ATen with torch.compile, and MKL. onnxruntime has no such switch.
AVX2_ALONE = {
    "XCIT_HUB_NATIVE": "v3",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def description() -> dict[str, str | int]:
    """Describe processor, instruction set, cores that this process may use, memory in MB, system and Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "processor": _processor() + (" kept to AVX2" if kept_to_avx2() else ""),
        "instructions": "AVX2" if kept_to_avx2() else instruction_set(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "xcit_hub": __version__,
    }


def line() -> str:
    """Return processor, instruction set, cores, day and commit, as a table of its own script begins."""
    found = description()
    where = f"{found['processor']}, {found['instructions']}, {counted(int(found['cores']))}"
    return f"{where}; {today()}, commit {commit()}"


def counted(cores: int) -> str:
    """Return a number of cores in words."""
    return "1 core" if cores == 1 else f"{cores} cores"


def instruction_set() -> str:
    """Return the widest instruction set that is told apart here; the machine's name where it has none of them."""
    names = set(_information("flags") or _information("Features"))
    return next((name for name, flag in _INSTRUCTION_SETS.items() if flag in names), platform.machine())


def kept_to_avx2() -> bool:
    """Whether this process was told to leave the wider instructions of its processor alone."""
    told = os.environ.get("ONEDNN_MAX_CPU_ISA") == AVX2_ALONE["ONEDNN_MAX_CPU_ISA"]
    return told and instruction_set().startswith("AVX-512")


def today() -> str:
    """Return the day, in UTC."""
    return datetime.now(timezone.utc).date().isoformat()


def commit() -> str:
    """Return the checkout's commit, abbreviated, with a + behind it where files differ from it; else nothing.

    What measuring writes itself, results and the page, is not counted as different.
    """
    head = _git("rev-parse", "--short=9", "HEAD")
    changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results", ":!docs", ":!README.md")
    return f"{head}+" if head and changed else head


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    name = re.sub(r"\((R|TM)\)|\bProcessor\b", "", " ".join(_information("model name")))
    return " ".join(name.split()) or platform.machine()


def _information(key: str) -> list[str]:
    """Return the words of /proc/cpuinfo's first line with a key."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, words = line.partition(":")
        if name.strip() == key:
            return words.split()
    return []
