"""How long a fresh process takes from its first line to a network with weights, imports included.

Four ways to the same cached ``xcit_tiny_12_p16_224`` (seeded random weights, served by nobody: everything is on disk):

- ``xcit_hub.load`` by its id, offline, from huggingface_hub's cache: hash checked, strict;
- ``xcit_hub.load`` from a folder hub;
- MindSpore alone: ``load_checkpoint`` of the same safetensors and ``load_param_into_net`` into a ready network, whose
  building is not counted;
- ``timm.create_model("hf-hub:…", pretrained=True)`` from the same cache, offline.

Each runs in a process of its own, in turn, several times; the table has medians and the range of the wall clock, and
the processor's seconds (user and system), which other work on the machine disturbs less.

    python benchmarks/load.py --repeat 7
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "org/xcit_tiny"
ARCHITECTURE = "xcit_tiny_12_p16_224"

# What each process runs; `began` is the time of its first line.
_BEGIN = """import sys, time
began, worked = time.perf_counter(), time.process_time()
hub, cache, file = sys.argv[1:]
"""
_END = "\nprint(time.perf_counter() - began, time.process_time() - worked, flush=True)\nimport os; os._exit(0)"
WAYS = {
    "load, Hugging Face's cache": f"import xcit_hub\nxcit_hub.load('hf://{NAME}', cache_dir=cache, offline=True)",
    "load, folder hub": f"import xcit_hub\nxcit_hub.load('{NAME}', hub=hub)",
    "mindspore.load_checkpoint": (
        "import mindspore\n"
        "waited, paused = time.perf_counter(), time.process_time()\n"
        "from xcit_hub.models import create_model\n"
        f"network = create_model('{ARCHITECTURE}', init=False)\n"
        "began += time.perf_counter() - waited; worked += time.process_time() - paused\n"
        "mindspore.load_param_into_net(network, mindspore.load_checkpoint(file, format='safetensors'))"
    ),
    "timm.create_model": f"import timm\ntimm.create_model('hf-hub:{NAME}', pretrained=True, cache_dir=cache)",
}


def prepare(folder: Path) -> list[str]:
    """Publish seeded random weights to a folder hub, which is in huggingface_hub's cache layout as well."""
    import xcit_hub
    from converters import checkpoint
    from converters.convert import convert
    from xcit_hub.parameters import parameter_shapes
    from xcit_hub.parity import random_weights
    from xcit_hub.variants import architecture

    ours = folder / "ours.safetensors"
    marks = {"xcit_hub.architecture": ARCHITECTURE, "xcit_hub.dialect": "paper"}
    checkpoint.write(ours, random_weights(parameter_shapes(architecture(ARCHITECTURE))), marks)
    xcit_hub.publish(ours, NAME, to=folder / "hub", parity=False)
    # Its own names, so that nothing has to be translated: the fastest that MindSpore can be given.
    plain = folder / "plain.safetensors"
    convert(ours, plain, to="xcit-hub")
    return [str(folder / "hub"), str(folder / "hub"), str(plain)]


def seconds(way: str, arguments: list[str]) -> tuple[float, float]:
    """Run one way in a fresh process: seconds of the wall clock and of the processor."""
    environment = {**os.environ, "GLOG_v": "3", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + WAYS[way] + _END, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr}")
    wall, worked = done.stdout.split()[-2:]
    return float(wall), float(worked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from rich.console import Console
    from rich.table import Table

    with tempfile.TemporaryDirectory() as scratch:
        arguments = prepare(Path(scratch))
        for way in WAYS:
            seconds(way, arguments)  # everything is in the page cache for everybody
        runs: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(options.repeat):
            for way in WAYS:
                runs[way].append(seconds(way, arguments))
    medians = {way: [statistics.median(column) for column in zip(*times, strict=True)] for way, times in runs.items()}
    base = medians["mindspore.load_checkpoint"]
    table = Table("way", "wall s", "range", "×", "processor s", "×", caption="×: as many times MindSpore alone")
    for way, (wall, worked) in medians.items():
        walls = [each for each, _ in runs[way]]
        table.add_row(
            way,
            f"{wall:.2f}",
            f"{min(walls):.2f} to {max(walls):.2f}",
            f"{wall / base[0]:.2f}",
            f"{worked:.2f}",
            f"{worked / base[1]:.2f}",
        )
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
