"""Compile ``source/kernels.cpp`` for this very processor, once, and keep the library in the user's cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SWITCH = "XCIT_HUB_NATIVE"
_SOURCE = Path(__file__).parent / "source" / "kernels.cpp"
_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"),
    *("-shared", "-fPIC", "-pthread", "-fvisibility=hidden"),
)
_WIDE = ("-mprefer-vector-width=512",)  # x86 compilers otherwise halve AVX-512's registers
_PATIENCE_SECONDS = 120


def library() -> Path | None:
    """Return the compiled library's path, compiling it at the first call on a machine.

    None where the environment variable ``XCIT_HUB_NATIVE`` is 0, where no C++ compiler is found, or where it fails:
    :func:`absence` says which.
    """
    outcome = _outcome()
    return outcome if isinstance(outcome, Path) else None


def absence() -> str:
    """Say in a few words why :func:`library` returned None; empty if it did not."""
    outcome = _outcome()
    return "" if isinstance(outcome, Path) else outcome


class _UnavailableError(Exception):
    pass


@cache
def _outcome() -> Path | str:
    try:
        return _build()
    except (_UnavailableError, OSError, subprocess.SubprocessError) as reason:
        return str(reason)


def _build() -> Path:
    if os.environ.get(SWITCH) == "0":
        raise _UnavailableError(f"{SWITCH}=0")
    compiler = _compiler()
    flags = (*_FLAGS, *(_WIDE if platform.machine() in ("x86_64", "AMD64") else ()))
    text = [path.read_bytes() for path in sorted(_SOURCE.parent.iterdir()) if path.is_file()]
    described = "\n".join((compiler, _version(compiler), *flags, _processor()))
    digest = hashlib.sha256(b"".join(text) + described.encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xcit_hub" / "native"
    target = folder / f"kernels-{digest}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as workshop:
            made = Path(workshop) / target.name
            subprocess.run(
                [compiler, *flags, str(_SOURCE), "-o", str(made)],
                check=True,
                capture_output=True,
                timeout=_PATIENCE_SECONDS,
            )
            made.replace(target)  # several processes may build at once; each replaces the same bytes
    return target


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (found := shutil.which(name)):
            return found
    raise _UnavailableError("no C++ compiler")


def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True, timeout=30).stdout


def _processor() -> str:
    """Name what ``-march=native`` means here: a cache may be shared by machines of different kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
