"""How fast the network is beside timm's, on the same cores, in one run: inference, and a training step.

Every contender runs in a process of its own, one at a time, in turn, several times; the first call (compilation) is
told apart from the steady ones. The table has medians of milliseconds an image and the ratio to timm's plain (eager)
network: above 1 is faster than it. Peak memory is each process's own.

    python benchmarks/network.py --model xcit_tiny_12_p16_224 --batch 1 16 --rounds 3 --json network.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

Step = Callable[[], object]


def timm_inference(name: str, images: np.ndarray, _: np.ndarray, *, layout: str = "", compiled: bool = False) -> Step:
    import timm
    import torch

    network, batch = timm.create_model(name).eval(), torch.from_numpy(images)
    if layout:
        network, batch = (each.to(memory_format=getattr(torch, layout)) for each in (network, batch))
    if compiled:
        network = torch.compile(network)

    def step() -> object:
        with torch.inference_mode():
            return network(batch).numpy()

    return step


def our_inference(name: str, images: np.ndarray, _: np.ndarray, *, graph: bool) -> Step:
    import mindspore

    import xcit_hub

    network, batch = xcit_hub.create_model(name, seed=0), mindspore.Tensor(images)
    network.set_train(False)
    forward = mindspore.jit(network.construct) if graph else network
    return lambda: forward(batch).asnumpy()


def timm_training(name: str, images: np.ndarray, labels: np.ndarray) -> Step:
    import timm
    import torch

    network = timm.create_model(name).train()
    batch, targets = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(network(batch), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_training(name: str, images: np.ndarray, labels: np.ndarray) -> Step:
    import mindspore
    from mindspore.experimental import optim

    import xcit_hub

    network = xcit_hub.create_model(name, seed=0)
    network.set_train(True)
    batch, targets = mindspore.Tensor(images), mindspore.Tensor(labels.astype(np.int32))
    optimizer = optim.AdamW(network.trainable_params(), lr=1e-4)

    def loss_of(batch: Any, targets: Any) -> Any:
        return mindspore.ops.cross_entropy(network(batch), targets)

    value_and_grad = mindspore.value_and_grad(loss_of, None, optimizer.parameters)

    @mindspore.jit
    def update(batch: Any, targets: Any) -> Any:
        loss, gradients = value_and_grad(batch, targets)
        optimizer(gradients)
        return loss

    return lambda: update(batch, targets).asnumpy()


BASE = "timm, eager"
WORK: dict[str, dict[str, Callable[..., Step]]] = {
    "inference": {
        BASE: timm_inference,
        "timm, channels_last": partial(timm_inference, layout="channels_last"),
        "timm, torch.compile": partial(timm_inference, compiled=True),
        "xcit-hub, graph": partial(our_inference, graph=True),
        "xcit-hub, PyNative": partial(our_inference, graph=False),
    },
    "training": {BASE: timm_training, "xcit-hub, graph": our_training},
}


def run_contender(work: str, contender: str, options: argparse.Namespace) -> None:
    """In a process of its own: time one contender and print what was measured as JSON."""
    (batch,) = options.batch
    images = np.random.default_rng(0).standard_normal((batch, 3, options.side, options.side), np.float32)
    step = WORK[work][contender](options.model, images, np.arange(batch) % 1000)
    times = []
    for _ in range(options.repeats + 2):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"first": times[0], "times": times[2:], "peak_mb": peak}), flush=True)
    os._exit(0)


def measure(work: str, contender: str, batch: int, options: argparse.Namespace) -> dict[str, Any] | None:
    """Run one contender in a fresh process; None where it cannot run here."""
    arguments = ["--model", options.model, "--side", str(options.side), "--repeats", str(options.repeats)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--batch", str(batch), "--contender", work, contender],
        env={**os.environ, "GLOG_v": "3", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"{contender} cannot run here: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def compare(work: str, batch: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every contender of a kind of work, in turn, and return its figures."""
    runs: dict[str, list[dict[str, Any]]] = {contender: [] for contender in WORK[work]}
    for _ in range(options.rounds):
        for contender, done in runs.items():
            run = measure(work, contender, batch, options)
            done += [run] if run else []
    figures = []
    for contender, done in runs.items():
        if not done:
            continue
        each = [1e3 * statistics.median(run["times"]) / batch for run in done]
        figures.append(
            {
                "work": work,
                "batch": batch,
                "network": contender,
                "ms_per_image": statistics.median(each),
                "range": [min(each), max(each)],
                "first_call_seconds": statistics.median(run["first"] for run in done),
                "peak_mb": max(run["peak_mb"] for run in done),
            }
        )
    base = next(row["ms_per_image"] for row in figures if row["network"] == BASE)
    return [{**row, "ratio": base / row["ms_per_image"]} for row in figures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="xcit_tiny_12_p16_224")
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contender")
    parser.add_argument("--repeats", type=int, default=10, help="timed calls in each process")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        run_contender(*options.contender, options)
    from importlib.metadata import version

    from rich.console import Console
    from rich.table import Table

    versions = ", ".join(f"{name} {version(name)}" for name in ("mindspore", "torch", "timm"))
    title = f"{options.model}, {options.side}², float32, {os.cpu_count()} cores; {versions}"
    figures = [row for work in options.work for batch in options.batch for row in compare(work, batch, options)]
    table = Table(
        "work", "batch", "network", "ms/image", "range", "× timm eager", "first call s", "peak MB", title=title
    )
    for row in figures:
        low, high = row["range"]
        table.add_row(
            row["work"],
            str(row["batch"]),
            row["network"],
            f"{row['ms_per_image']:.1f}",
            f"{low:.1f} to {high:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['first_call_seconds']:.1f}",
            f"{row['peak_mb']:.0f}",
        )
    Console(width=130).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps({"title": title, "figures": figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
