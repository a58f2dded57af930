"""Time and memory of conversions beside ``cp``, hashing and MindSpore's own functions, in one run.

    python benchmarks/convert.py [--rounds 5] [--json FILE]

Files of xcit_large_24_p8 (756 MB) with random weights are made in a temporary folder; it takes 3.1 GB there. Every
figure is the best of the rounds, which are interleaved, each in a process of its own; seconds are of the work alone,
without MindSpore's import, CPU seconds and the peak resident set are the whole process's. Page caches are warm. Our
conversions end with the result on the disk (fsync) and hash source and target; cp and MindSpore do neither.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from converters import checkpoint, dialects
from converters.checkpoint import StoredTensor
from converters.convert import convert
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import Architecture, architecture

_MODEL = "xcit_large_24_p8_224"

# What runs in a process of its own; {0} is the folder. Each prints the seconds its work took.
_TIMED = "import time; start = time.perf_counter(); {work}; print(time.perf_counter() - start)"
_CONVERT = "from converters.convert import convert; " + _TIMED.format(work="convert('{0}/{1}', '{0}/{2}', to='{3}')")
_MINDSPORE = "import mindspore; " + _TIMED.format(
    work="mindspore.save_checkpoint(mindspore.load_checkpoint('{0}/ours.ckpt'), '{0}/out.ckpt')"
)
_COPYING = "subprocess.run(['cp', '{0}/timm.safetensors', '{0}/out.copy'])"
_COPY = "import subprocess; " + _TIMED.format(work=_COPYING)
_COPY_TO_DISK = "import os, subprocess; " + _TIMED.format(
    work=f"{_COPYING}; os.fsync(os.open('{{0}}/out.copy', os.O_RDONLY))"
)
_HASH = "from xcit_hub.files import sha256_of; " + _TIMED.format(work="sha256_of('{0}/timm.safetensors')")

_TO_SAFETENSORS = ".safetensors (timm) → .safetensors (ours)"
_FROM_CKPT = ".ckpt (ours) → .safetensors (timm)"
_THEIRS = "mindspore load_checkpoint + save_checkpoint"
_RUNS = {
    "cp": _COPY,
    "cp, then fsync": _COPY_TO_DISK,
    "sha256 of one file": _HASH,
    _TO_SAFETENSORS: (_CONVERT, "timm.safetensors", "out.safetensors", "xcit-hub"),
    ".safetensors (timm) → .ckpt (ours)": (_CONVERT, "timm.safetensors", "out.ckpt", "xcit-hub"),
    _FROM_CKPT: (_CONVERT, "ours.ckpt", "out.safetensors", "timm"),
    _THEIRS: _MINDSPORE,
    ".pth (facebook) → .safetensors (ours)": (_CONVERT, "facebook.pth", "out.safetensors", "xcit-hub"),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: a child's peak memory begins with its parent's.
        measured(f"from benchmarks.convert import make_files; print(make_files({folder!r}))")
        size = (Path(folder) / "timm.safetensors").stat().st_size
        results = {name: Measured(float("inf"), float("inf"), 0.0) for name in _RUNS}
        for _ in range(chosen.rounds):
            for name, run in _RUNS.items():
                code = run.format(folder) if isinstance(run, str) else run[0].format(folder, *run[1:])
                results[name] = results[name].better_of(measured(code))
                for path in Path(folder).glob("out*"):
                    path.unlink()
        start = min(start_up(Path(folder)) for _ in range(chosen.rounds))
    print(table(results, size, start))
    if chosen.json:
        figures = {name: entry._asdict() for name, entry in results.items()}
        chosen.json.write_text(json.dumps({"bytes": size, "start_seconds": start, **figures}, indent=2) + "\n")


class Measured(NamedTuple):
    """What one program took."""

    seconds: float
    cpu_seconds: float
    peak_mb: float

    def better_of(self, other: Measured) -> Measured:
        """Return the shorter times and, for the bar's sake, the larger memory of both."""
        return Measured(
            min(self.seconds, other.seconds),
            min(self.cpu_seconds, other.cpu_seconds),
            max(self.peak_mb, other.peak_mb),
        )


def make_files(place: str) -> float:
    folder = Path(place)
    generator = np.random.default_rng(0)  # positive numbers: variances may not be negative
    shapes = parameter_shapes(architecture(_MODEL))
    ours = {
        name: StoredTensor.of(np.abs(generator.standard_normal(shape, np.float32)) * np.float32(0.02))
        for name, shape in shapes.items()
    }
    checkpoint.write(folder / "timm.safetensors", dialects.from_ours(ours, "timm"), {"format": "pt"})
    convert(folder / "timm.safetensors", folder / "ours.ckpt")
    checkpoint.write(folder / "facebook.pth", dialects.from_ours(ours, "facebook"))
    small = Architecture("small", 8, 16, 1, 2, 1.0, True, 224)
    zeros = {name: StoredTensor.of(np.zeros(shape, np.float32)) for name, shape in parameter_shapes(small).items()}
    checkpoint.write(folder / "small.safetensors", dialects.from_ours(zeros, "timm"))
    return 0.0


def measured(code: str) -> Measured:
    """Run a program that prints the seconds its work took."""
    environment = os.environ | {"GLOG_v": "3", "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {code}")
    return Measured(float(printed.split()[-1]), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def start_up(folder: Path) -> float:
    """Seconds from starting a door to the end of a conversion of almost nothing."""
    command = [sys.executable, "-m", "converters.timm2ms", f"{folder}/small.safetensors", f"{folder}/out.ckpt"]
    command.append("--no-verify")
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parent.parent)
    return time.perf_counter() - started


def table(results: dict[str, Measured], size: int, start: float) -> str:
    lines = [
        f"{_MODEL}, {size / 1e6:.0f} MB, {os.cpu_count()} cores",
        "",
        "| | seconds | CPU seconds | peak MB |",
        "|---|---|---|---|",
    ]
    for name, entry in results.items():
        lines.append(f"| {name} | {entry.seconds:.2f} | {entry.cpu_seconds:.2f} | {entry.peak_mb:.0f} |")
    copied = results["cp"].seconds + results["sha256 of one file"].seconds
    slower = results[_TO_SAFETENSORS].seconds / copied
    faster = results[_THEIRS].seconds / results[_FROM_CKPT].seconds
    memory, room = results[_TO_SAFETENSORS].peak_mb, results[_FROM_CKPT].peak_mb
    return "\n".join(
        [
            *lines,
            "",
            f"{_TO_SAFETENSORS}: {slower:.2f} × (cp + hashing one file), bar 1.5; {memory:.0f} MB, bar 300.",
            f"{_FROM_CKPT}: {faster:.1f} × as fast as MindSpore, bar 3; {room:.0f} MB, bar {size / 1e6 + 200:.0f}.",
            f"A conversion of almost nothing: {start:.2f} s from command to prompt, bar 0.5.",
        ]
    )


if __name__ == "__main__":
    main()
