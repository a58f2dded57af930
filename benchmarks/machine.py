"""What was measured on: recorded with every result."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from xcit_hub._version import __version__


def description() -> dict[str, str | int]:
    """Describe processor, cores that this process may use, memory in MB, system and Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "xcit_hub": __version__,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
