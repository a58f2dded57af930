"""Compile the operations when the package is built, and choose among what was compiled when it is used.

``python -m xcit_hub.accelerated.build`` compiles in a source tree what is missing or of other sources, as the build of
the package does. A library stands in ``lib/`` and ends with a seal: the digest of the sources that it was made from and
that of its own bytes. Nothing is compiled or loaded from anywhere else.

Only the standard library and the table of operands are imported: this runs where nothing is installed yet.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from xcit_hub.accelerated import operands
from xcit_hub.errors import ComputingWarning, InputError

SWITCH = "XCIT_HUB_NATIVE"
THREADS = "XCIT_HUB_THREADS"
MOST_THREADS = 1024

_FOLDER = Path(__file__).parent
SOURCES = _FOLDER / "source"
LIBRARIES = _FOLDER / "lib"

# Neither exceptions nor anything else of the C++ runtime is used, so none is linked: see source/memory.h and glibc.h.
_COMPILE = (
    *("-std=c++17", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-fPIC", "-fvisibility=hidden"),
)
_LINK = ("-shared", "-nodefaultlibs", "-Wl,--no-as-needed", "-l:libpthread.so.0", "-lc", "-lgcc")
_PATIENCE_SECONDS = 600.0
_PATIENCE_IN_USE_SECONDS = 120.0

_SEAL = b"\nxcit-hub seal 1\n"
_SEAL_SIZE = len(_SEAL) + 2 * hashlib.sha256().digest_size


@dataclass(frozen=True, eq=False)
class Target:
    """A kind of processor to compile for.

    Args:
        name: in the name of the library.
        wish: the value of ``XCIT_HUB_NATIVE`` that picks it.
        machine: as :func:`platform.machine` names it.
        features: what the processor must have, as ``/proc/cpuinfo`` names it, and how compilers call that.
        flags: further flags.
        source: the file of ``source/`` that it is compiled from.
    """

    name: str
    wish: str
    machine: str
    features: dict[str, str]
    flags: tuple[str, ...] = ()
    source: str = "kernels.cpp"

    @property
    def path(self) -> Path:
        """Where its library stands."""
        return LIBRARIES / f"kernels-{self.name}.so"

    @property
    def compiler_flags(self) -> tuple[str, ...]:
        """What is compiled with; by features and not by ``-march=x86-64-v3``, which older compilers do not know."""
        return (*_COMPILE, *self.features.values(), *self.flags)


_V3 = {"avx2": "-mavx2", "fma": "-mfma", "bmi1": "-mbmi", "bmi2": "-mbmi2", "f16c": "-mf16c"}
_V3 |= {"abm": "-mlzcnt", "movbe": "-mmovbe"}
_V4 = {name: f"-m{name}" for name in ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")}

# Of a machine those to be preferred come first. Compilers otherwise halve the registers of AVX-512. What is tuned for
# is what was quickest on a Zen 5; tuned for no processor, GCC's layer norm gradients take half as long again.
_TUNED_V4 = ("-mprefer-vector-width=512", "-mtune=znver3")
TARGETS = (
    Target("x86-64-v4", "v4", "x86_64", _V3 | _V4, _TUNED_V4),
    Target("x86-64-v3", "v3", "x86_64", _V3, ("-mtune=skylake-avx512",)),
    Target("aarch64", "neon", "aarch64", {}),
)

# Beside one of those, by the dtype that it multiplies, the preferred first; loaded where a network is asked to compute
# so, and not before.
_NARROW = {
    "bfloat16": ({"avx512_bf16": "-mavx512bf16"}, {"amx_tile": "-mamx-tile", "amx_bf16": "-mamx-bf16"}),
    "int8": ({"avx512_vnni": "-mavx512vnni"}, {"amx_tile": "-mamx-tile", "amx_int8": "-mamx-int8"}),
}
EXTENSIONS = {
    dtype: tuple(
        Target(f"x86-64-v4-{name}", "", "x86_64", _V3 | _V4 | features, _TUNED_V4, f"{dtype}.cpp")
        for name, features in ((f"{dtype}-amx", vectors | tiles), (dtype, vectors))
    )
    for dtype, (vectors, tiles) in _NARROW.items()
}
ALL = (*TARGETS, *(target for targets in EXTENSIONS.values() for target in targets))


class _UnavailableError(Exception):
    """Why there is no compiled library."""


# ---- choosing ------------------------------------------------------------------------------------


def library() -> Path | None:
    """Return the path of the compiled library for this processor.

    None where the environment variable ``XCIT_HUB_NATIVE`` is 0, or where no library was built, fits or loads:
    :func:`absence` says which. The latter is warned of once in a process, and so is ``XCIT_HUB_THREADS`` where it
    changes nothing.

    Raises:
        InputError: ``XCIT_HUB_NATIVE`` is not one of the known values, or asks for what is not here, or
            ``XCIT_HUB_THREADS`` is not a number of threads.
    """
    _check_threads()
    outcome = _outcome(os.environ.get(SWITCH, ""))
    if isinstance(outcome, Path):
        return outcome
    go_without(outcome)
    return None


def go_without(reason: str) -> None:
    """Check ``XCIT_HUB_THREADS`` where MindSpore's own operations compute, and warn once that it changes nothing there.

    Raises:
        InputError: ``XCIT_HUB_THREADS`` is not a number of threads.
    """
    _check_threads()
    if os.environ.get(THREADS):
        _say_threads_are_unused(reason)


@cache
def _say_threads_are_unused(reason: str) -> None:
    warnings.warn(
        f"{THREADS} has no effect without compiled operations ({reason}): MindSpore's own follow MindSpore's settings.",
        ComputingWarning,
        stacklevel=5,
    )


def threads() -> int:
    """Return on how many threads a process that starts now computes with the compiled operations.

    The cores that it may use, or fewer: what the environment variable ``XCIT_HUB_THREADS`` says is the most. A process
    asks once, at its first operation.

    Raises:
        InputError: ``XCIT_HUB_THREADS`` is not a whole number from 1 to :data:`MOST_THREADS`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _check_threads())


def is_threads(value: str) -> bool:
    """Tell whether ``XCIT_HUB_THREADS`` may be this: a whole number from 1 to :data:`MOST_THREADS`."""
    return re.fullmatch(r"[1-9]\d{0,3}", value, re.ASCII) is not None and int(value) <= MOST_THREADS


def _check_threads() -> int:
    value = os.environ.get(THREADS, "")
    if value and not is_threads(value):
        raise InputError(
            f"{value[:40]!r} is not a value of {THREADS}.",
            where=THREADS,
            fix=f"Set it to the most threads to compute on, a whole number from 1 to {MOST_THREADS}, or unset it.",
        )
    return int(value or MOST_THREADS)


def absence() -> str:
    """Say in a few words why :func:`library` returned None; empty if it did not."""
    outcome = _outcome(os.environ.get(SWITCH, ""))
    return "" if isinstance(outcome, Path) else outcome


def extension(dtype: str) -> Path | None:
    """Return the path of the operations in one of :data:`EXTENSIONS`; None where they are not here.

    They stand beside :func:`library` where the processor alone chooses: what ``XCIT_HUB_NATIVE`` names is used alone.
    """
    outcome = _extension_outcome(dtype, os.environ.get(SWITCH, ""))
    return outcome if isinstance(outcome, Path) else None


def extension_absence(dtype: str) -> str:
    """Say in a few words why :func:`extension` returned None; empty if it did not."""
    outcome = _extension_outcome(dtype, os.environ.get(SWITCH, ""))
    return "" if isinstance(outcome, Path) else outcome


@cache
def _extension_outcome(dtype: str, wish: str) -> Path | str:
    if wish:
        return f"{SWITCH}={wish}"
    reasons = []
    for target in EXTENSIONS[dtype]:
        try:
            return _usable(target)
        except (_UnavailableError, OSError) as reason:
            reasons.append(str(reason))
    return reasons[-1]  # of what asks for least


@cache
def _outcome(wish: str) -> Path | str:
    known = [target.wish for target in TARGETS]
    if wish == "0":
        return f"{SWITCH}=0"
    if wish and wish not in known:
        raise InputError(
            f"{wish!r} is not a value of {SWITCH}.",
            where=SWITCH,
            fix=f"Choose 0, {', '.join(known)}, or leave it unset.",
        )
    reasons = []
    for target in _candidates(wish):
        try:
            return _usable(target)
        except (_UnavailableError, OSError) as reason:
            reasons.append(f"{target.wish}: {reason}")
    said = "; ".join(reasons) or f"none for {platform.machine()}"
    if wish:
        raise InputError(
            f"{SWITCH} asks for what is not here: {said}.", where=SWITCH, fix=f"Unset it, or build: {_HOW}"
        )
    warnings.warn(
        f"xcit-hub computes with MindSpore's own operations, which are slower ({said}). To compile: {_HOW}",
        ComputingWarning,
        stacklevel=4,
    )
    return said


_seen_ahead: dict[Target, str] = {}


def look_ahead() -> None:
    """Look through the libraries that :func:`library` will choose from, in a thread, before it is asked.

    For while MindSpore is being imported: reading and hashing do not hold Python's lock.
    """
    if _outcome.cache_info().currsize:
        return
    for target in _candidates(os.environ.get(SWITCH, "")):
        if _processor_features().issuperset(target.features):
            with suppress(OSError):
                _seen_ahead[target] = _fault(target)
                if not _seen_ahead[target]:
                    return


def _candidates(wish: str) -> list[Target]:
    """What may be used, the preferred first: the machine's, or what ``XCIT_HUB_NATIVE`` names."""
    return [target for target in TARGETS if wish == target.wish or (not wish and target.machine == platform.machine())]


_HOW = "python -m xcit_hub.accelerated.build in a source tree, or install the package again."


def _usable(target: Target) -> Path:
    """Return the target's library if this processor and system can run it and it is whole and of these sources."""
    here = platform.system(), platform.machine()
    if here != ("Linux", target.machine):
        raise _UnavailableError(f"this is {' on '.join(here)}")
    if lacking := sorted(set(target.features) - _processor_features()):
        raise _UnavailableError(f"this processor lacks {', '.join(lacking)}")
    if "amx_tile" in target.features and not _may_use_tiles():
        raise _UnavailableError("the system does not let this process use AMX")
    seen = _seen_ahead.pop(target, None)
    fault = _fault(target) if seen is None else seen
    if fault == _STALE and _in_source_tree():
        sys.stderr.write(
            f"xcit-hub: the sources of {target.path.name} have changed; compiling them, a quarter of a minute\n"
        )
        with _lock():
            reason = _attempt(target, _PATIENCE_IN_USE_SECONDS)
        fault = reason and f"{_STALE}, and {reason}"
    if fault:
        raise _UnavailableError(f"{target.path.name} {fault}")
    ctypes.CDLL(
        str(target.path)
    )  # on a file system that forbids running code, or beside an older system library: OSError
    return target.path


@cache
def _processor_features() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(found.partition(":")[2].split())


@cache
def _may_use_tiles() -> bool:
    """Ask Linux for AMX's registers, for this process and what it forks: who uses them unasked is ended."""
    system_call, ask_for, tile_data = 158, 0x1023, 18  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) of x86-64
    return ctypes.CDLL(None).syscall(system_call, ask_for, tile_data) == 0


def _in_source_tree() -> bool:
    return (_FOLDER.parents[1] / "hatch_build.py").is_file()


# ---- the seal ------------------------------------------------------------------------------------

_MISSING, _DAMAGED, _STALE = "was not built", "is not whole", "was built from other sources"


def _sources_digest(target: Target) -> bytes:
    """Digest what a library is made from: the sources, the table of operands, and how it is compiled."""
    digest = hashlib.sha256("\0".join((*target.compiler_flags, *_LINK, operands.header())).encode())
    for path in sorted((*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp"))):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.digest()


def _seal(code: bytes, sources: bytes) -> bytes:
    return _SEAL + sources + hashlib.sha256(code + sources).digest()


def _fault(target: Target) -> str:
    """Say what is wrong with a target's library; empty if nothing is."""
    if not target.path.is_file():
        return _MISSING
    content = target.path.read_bytes()
    code, seal = content[:-_SEAL_SIZE], content[-_SEAL_SIZE:]
    sources = seal[len(_SEAL) : len(_SEAL) + 32]
    if seal != _seal(code, sources):
        return _DAMAGED
    return "" if sources == _sources_digest(target) else _STALE


# ---- building ------------------------------------------------------------------------------------


def build(machine: str | None = None, patience: float = _PATIENCE_SECONDS) -> dict[Target, str]:
    """Compile for a kind of machine what is missing, damaged or of other sources.

    Args:
        machine: as :func:`platform.machine` names it; this one by default. For another, ``CXX`` has to name a
            compiler for it.
        patience: seconds that a compilation may take.

    Returns:
        the machine's targets, and why each could not be compiled: empty where its library is there.
    """
    chosen = [target for target in ALL if target.machine == (machine or platform.machine())]
    with _lock(), ThreadPoolExecutor() as pool:
        return dict(zip(chosen, pool.map(lambda target: _attempt(target, patience), chosen), strict=True))


def _attempt(target: Target, patience: float) -> str:
    try:
        if _fault(target):
            _build(target, patience)
    except subprocess.TimeoutExpired:
        return f"the compiler took longer than {patience:.0f} seconds"
    except subprocess.CalledProcessError as failed:
        said = (failed.stderr or b"").decode(errors="replace").strip().splitlines()
        return f"{failed.cmd[0]} failed: {said[0] if said else f'exit code {failed.returncode}'}"
    except (_UnavailableError, OSError) as reason:
        return str(reason)
    return ""


def _build(target: Target, patience: float) -> None:
    """Compile a target's library. What stood there goes first: nobody else need try where this fails."""
    target.path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=LIBRARIES) as workshop:
        made = Path(workshop) / target.path.name
        compile_source(SOURCES / target.source, made, (*target.compiler_flags, *_LINK), patience)
        code, sources = made.read_bytes(), _sources_digest(target)
        made.write_bytes(code + _seal(code, sources))
        made.chmod(0o644)
        made.replace(target.path)


def compile_source(source: Path, made: Path, flags: Iterable[str], patience: float = _PATIENCE_SECONDS) -> None:
    """Compile a C++ file that may include those of ``source/``, and ``operands.h``, written beside the result."""
    made.with_name("operands.h").write_text(operands.header())
    flags = [*flags]
    libraries = [flag for flag in flags if flag.startswith(("-l", "-Wl"))]  # these come after what needs them
    before = [flag for flag in flags if flag not in libraries]
    command = [_compiler(), *before, f"-I{SOURCES}", f"-I{made.parent}", str(source), "-o", str(made), *libraries]
    subprocess.run(command, check=True, capture_output=True, timeout=patience, stdin=subprocess.DEVNULL)


def _compiler() -> str:
    named = os.environ.get("CXX")
    for name in (named,) if named else ("g++", "clang++", "c++"):
        if found := shutil.which(name):
            return found
    raise _UnavailableError(f"CXX={named} is not a program" if named else "no C++ compiler")


@contextmanager
def _lock() -> Iterator[None]:
    """One builder at a time; those that waited find what it made."""
    LIBRARIES.mkdir(exist_ok=True)
    with (LIBRARIES / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Build, say what became of it, and exit 1 if nothing could be compiled."""
    parser = argparse.ArgumentParser(
        prog="python -m xcit_hub.accelerated.build", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--machine", help="x86_64 or aarch64; CXX names a compiler for it (default: this machine)")
    made = build(parser.parse_args().machine)
    for target, reason in made.items():
        sys.stdout.write(f"{target.name}: {f'not built: {reason}' if reason else target.path}\n")
    if all(reason for target, reason in made.items() if target in TARGETS):
        raise SystemExit("xcit-hub will compute with MindSpore's own operations, which are slower.")


if __name__ == "__main__":
    main()
