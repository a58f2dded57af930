"""Which of MindSpore's operators hold the plain network's time and memory: each kind left out in turn.

    python -m benchmarks.operators [--rounds 5] > benchmarks/results/mindspore-2.8.0/operators.md

The network is the one that an unknown processor gets, without compiled code; what is left out is replaced by what costs
nothing, the rest is measured, and what that takes less is the share of what was left out. Every figure comes from a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import mindspore
import numpy as np
from mindspore import Tensor, nn

import xcit_hub
from benchmarks import machine
from benchmarks.case import Case
from benchmarks.contender_process import memory_mb
from benchmarks.networks import TIMM, random_batch, timm_network
from xcit_hub.accelerated.build import SWITCH
from xcit_hub.models import xcit
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.step import TrainStep

_MODEL = "xcit_tiny_12_p16_224"
_RATE = 1e-4
_WHOLE = "nothing"


def _pass_on(network: nn.Cell, kind: type[nn.Cell], wanted: Callable[[Any], bool] = lambda _: True) -> None:
    """Let all cells of a kind return what they are given."""

    class Through(kind):
        def construct(self, x: Tensor, *_: Any) -> Tensor:
            return x

    for _, cell in network.cells_and_names():
        if isinstance(cell, kind) and wanted(cell):
            cell.__class__ = Through


def _without_norms_of_queries(network: nn.Cell) -> None:
    for _, cell in network.cells_and_names():
        if isinstance(cell, xcit.XCA):
            cell.normalize = False


class _Cut(nn.Cell):
    """Some of the image's numbers as tokens, as many as the patch embedding makes."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.patch, self.dim = network.patch_size, network.embed_dim

    def construct(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        batch, _, height, width = image.shape
        grid = height // self.patch, width // self.patch
        tokens = image.reshape(batch, -1)[:, : grid[0] * grid[1] * self.dim]
        return tokens.reshape(batch, grid[0] * grid[1], self.dim), grid


def _without_stem(network: Any) -> None:
    network.patch_embed = _Cut(network)


# What is left out → how.
LEFT_OUT: dict[str, Callable[[Any], None]] = {
    _WHOLE: lambda _: None,
    "GELU": lambda network: _pass_on(network, xcit.Gelu),
    "layer norm": lambda network: _pass_on(network, nn.LayerNorm),
    "batch norm": lambda network: _pass_on(network, nn.BatchNorm2d),
    "depth-wise convolutions": lambda network: _pass_on(network, nn.Conv2d, lambda cell: cell.group > 1),
    "norms of queries and keys": _without_norms_of_queries,
    "cross-covariance attention, whole": lambda network: _pass_on(network, xcit.XCA),
    "local patch interaction, whole": lambda network: _pass_on(network, xcit.LPI),
    "MLPs, whole": lambda network: _pass_on(network, xcit.Mlp),
    "patch embedding, whole": _without_stem,
}


def measured(left_out: str, work: str, batch: int, rounds: int) -> dict[str, float]:
    """Return milliseconds an image and MB at the peak, beyond what the process held before the first call."""
    case = Case(_MODEL, "training" if work == "training" else "inference", batch=batch)
    step = timm_network(case) if left_out == TIMM else _ours(left_out, case)
    before = memory_mb("VmRSS")
    step()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        step()
        taken.append(1e3 * (time.perf_counter() - began) / batch)
    return {"ms": statistics.median(taken), "mb": memory_mb("VmHWM") - before}


def _ours(left_out: str, case: Case) -> Callable[[], Any]:
    os.environ[SWITCH] = "0"
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    network = xcit_hub.create_model(case.model, seed=0)
    LEFT_OUT[left_out](network)
    images, labels = random_batch(case)
    if case.work == "inference":
        network.set_train(False)
        return lambda: network(Tensor(images)).asnumpy()
    step = TrainStep(network, Recipe.model_validate({"model": case.model, "dialect": "paper"}))
    targets = Tensor(np.eye(network.num_classes, dtype=np.float32)[labels])
    return lambda: step(Tensor(images), targets, _RATE).loss.asnumpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--only", action="append", help="what is left out; may be repeated")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, work = given.one
        print(json.dumps(measured(name, work, given.batch, given.rounds)), flush=True)
        os._exit(0)  # MindSpore's cells complain when the interpreter takes them down
    print(
        f"MindSpore {mindspore.__version__} without compiled code, {_MODEL}, batch {given.batch}, float32, "
        f"in brackets what is saved; {machine.line()}\n"
    )
    print("| left out | inference, ms/image | training, ms/image | training, peak MB |\n|---|---|---|---|")
    whole: dict[str, float] = {}
    for name in given.only or [*LEFT_OUT, TIMM]:
        cells = []
        for work, unit in (("inference", "ms"), ("training", "ms"), ("training", "mb")):
            if unit == "ms":
                found = _in_a_process(name, work, given.batch, given.rounds)
            value, key = found[unit], f"{work} {unit}"
            saved = whole.setdefault(key, value) - value if name != TIMM else 0.0
            cells.append(f"{value:.3g}" + (f" ({100 * saved / whole[key]:.0f} %)" if saved else ""))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _in_a_process(name: str, work: str, batch: int, rounds: int) -> dict[str, float]:
    arguments = ["--one", name, work, "--batch", str(batch), "--rounds", str(rounds)]
    environment = {**os.environ, "GLOG_v": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.operators", *arguments],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
