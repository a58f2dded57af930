"""Where an image's time goes: the parts of our fused network, and OpenVINO's by its own profile, on as many cores.

    python -m benchmarks.parts [MODEL] [--avx2] [--seconds 1.0] > benchmarks/results/mindspore-2.8.0/avx512-amd/parts.md

Each of our parts is compiled into a program (``parts.cpp``) and called alone on random numbers; the least time counts,
as what is looked for is the operation's own. OpenVINO runs our exported file and says what each of its nodes took, the
mean of many calls; its kernels that took most of it stand beside it. Prints Markdown: milliseconds an image.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import deploying, machine
from benchmarks.case import Case
from xcit_hub import variants
from xcit_hub.accelerated import build
from xcit_hub.parameters import stem_widths
from xcit_hub.variants import Architecture

# A part as it is shown → what it is made of: the program's lines, each added or taken away, and how many there are.
_BLOCK = {
    "XCA: norm, queries, keys, values": ("qkv",),
    "XCA: attention": ("attention", "-qkv", "-mix"),
    "XCA: values mixed, projected": ("mix",),
    "LPI: norm, convolution, GELU, batch norm": ("first_convolution",),
    "LPI: convolution": ("second_convolution",),
    "MLP": ("mlp",),
}
_STEM = "patch embedding"

# A node of our exported file → the part it belongs to; those of no part are shown together.
_NODES = {
    r"^(patch_embed|pos_embed|add_position)": _STEM,
    r"(?<!attn_)blocks\.\d+/(xca|norm1|add1)": "XCA",
    r"(?<!attn_)blocks\.\d+/(lpi|norm3|add3)": "LPI",
    r"(?<!attn_)blocks\.\d+/(mlp|norm2|add2)": "MLP",
}
_REST = "class attention, head, the rest"
_WARM_CALLS, _CALLS = 5, 50


def ours(architecture: Architecture, target: build.Target, cores: Iterable[int], seconds: float) -> dict[str, float]:
    """Return the seconds of our parts, of all blocks together."""
    sizes = [architecture.image_size] * 2
    widths = stem_widths(architecture)
    hidden = round(architecture.embed_dim * architecture.mlp_ratio)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "parts"
        build.compile_source(Path(__file__).with_suffix(".cpp"), program, (*target.compiler_flags, "-pthread"))
        numbers = [*sizes, *widths, hidden, architecture.num_heads, seconds]
        done = subprocess.run(
            [program, *map(str, numbers)],
            check=True,
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    found = {name: float(value) for name, value in map(str.split, done.stdout.splitlines())}
    shown = {_STEM: found["stem"]}
    for part, lines in _BLOCK.items():
        of_block = sum(-found[line[1:]] if line.startswith("-") else found[line] for line in lines)
        shown[part] = architecture.depth * of_block
    return shown


def openvinos(architecture: Architecture, cores: int) -> tuple[dict[str, float], dict[str, str]]:
    """Return the seconds of OpenVINO's parts, and of each the kernels that took most of it."""
    import numpy as np
    import openvino

    from benchmarks.networks import random_batch

    case = Case(architecture.name, height=architecture.image_size, width=architecture.image_size)
    image, _ = random_batch(case)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ours.onnx"
        deploying.write_ours(case, file)
        told: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": cores,
            "PERFORMANCE_HINT": "LATENCY",
            "PERF_COUNT": True,
        }
        request = openvino.compile_model(file, "CPU", told).create_infer_request()
        seconds: defaultdict[str, float] = defaultdict(float)
        kernels: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        for call in range(_WARM_CALLS + _CALLS):
            request.infer([np.asarray(image)])
            if call < _WARM_CALLS:
                continue
            for node in request.get_profiling_info():
                part = next((part for form, part in _NODES.items() if re.search(form, node.node_name)), _REST)
                took = node.real_time.total_seconds() / _CALLS
                seconds[part] += took
                kernels[part][node.exec_type] += took
    most = {part: ", ".join(sorted(took, key=took.__getitem__)[:-3:-1]) for part, took in kernels.items()}
    return dict(seconds), most


def _together(parts: dict[str, float]) -> dict[str, float]:
    """Add up the parts that OpenVINO's profile does not tell apart."""
    together: defaultdict[str, float] = defaultdict(float)
    for part, seconds in parts.items():
        together[part.partition(":")[0]] += seconds
    return dict(together)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="xcit_tiny_12_p16_224", metavar="MODEL")
    parser.add_argument("--avx2", action="store_true", help="keep the libraries to AVX2")
    parser.add_argument("--seconds", type=float, default=1.0, help="that each of our parts is called for")
    arguments = parser.parse_args()
    if arguments.avx2:
        os.environ.update(machine.AVX2_ALONE)
    architecture = variants.architecture(arguments.model)
    library = build.library()
    target = next(each for each in build.TARGETS if each.path == library)
    everything = sorted(os.sched_getaffinity(0))
    print(f"{architecture.name}, one image, float32, milliseconds; {machine.line()}\n")
    for cores in dict.fromkeys((1, len(everything))):
        own = ours(architecture, target, everything[:cores], arguments.seconds)
        # A process for each number of cores: OpenVINO keeps the threads that it began with.
        context, those = multiprocessing.get_context("spawn"), everything[:cores]
        with ProcessPoolExecutor(1, context, initializer=os.sched_setaffinity, initargs=(0, those)) as process:
            theirs, kernels = process.submit(openvinos, architecture, cores).result()
        print(
            f"| on {cores} of {len(everything)} cores | xcit-hub, fused | OpenVINO | its kernels |\n|---|---|---|---|"
        )
        for part, seconds in own.items():
            print(f"| {part} | {1e3 * seconds:.2f} | | |")
        for part, seconds in _together(own).items():
            print(f"| **{part}** | {1e3 * seconds:.2f} | {1e3 * theirs.get(part, 0.0):.2f} | {kernels.get(part, '')} |")
        print(f"| {_REST} | | {1e3 * theirs.get(_REST, 0.0):.2f} | {kernels.get(_REST, '')} |\n")


if __name__ == "__main__":
    main()
