"""What a machine without cards can say of many: bytes of the exchange, images a core, checkpoints, resumption.

Bytes are those that workers under msrun send each other over the loopback device of a network of their own, where
nobody else sends; seconds are medians of rounds, with the least and the most.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import feeding, machine
from benchmarks.case import Case
from benchmarks.cluster_model import ring_bytes
from xcit_hub.errors import XcitHubError
from xcit_hub.files import write_text

_MODEL = "xcit_tiny_12_p16_224"
_WORKERS = (2, 4)
_ROUNDS = 5
_PHOTOGRAPHS = 256
_PATIENCE_SECONDS = 1800.0


def measure(path: Path) -> None:
    """Measure everything, and write it into the file of figures, which keeps the others."""
    content = json.loads(path.read_text("utf-8"))
    found = {**exchange(), "images_a_core": feed(), **checkpoints()}
    for name, figure in found.items():
        content["figures"][name] = {**content["figures"].get(name, {}), **figure, "source": "[here]"}
    content["machine"] = machine.description()
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def exchange() -> dict[str, dict[str, Any]]:
    """Count the bytes that workers send to sum one step's gradients, over what a ring has to send."""
    figures = {}
    for workers in _WORKERS:
        with tempfile.TemporaryDirectory() as folder:
            counted = run_workers(workers, Path(folder))
        ring = workers * ring_bytes(counted["gradient_bytes"], workers)
        figures[f"sent_by_{workers}"] = {
            "what": f"bytes that {workers} workers send in a step, over those of a ring ({ring:,.0f})",
            "value": round(counted["sent_a_step"] / ring, 4),
            "unit": "×",
            "alone": counted["alone"],
        }
    return figures


def run_workers(workers: int, folder: Path, *, steps: int = 10) -> dict[str, Any]:
    """Train a few steps under msrun, and return what :mod:`benchmarks.cluster_process` counted."""
    command = [sys.executable, "-m", "benchmarks.cluster_process", str(workers), str(steps), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path]))}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False, env=environment
    )
    result = folder / "counted.json"
    if done.returncode or not result.is_file():
        last = (done.stdout + done.stderr).strip().splitlines()[-5:]
        raise XcitHubError(f"The workers ended with exit code {done.returncode}: {' / '.join(last)}")
    counted: dict[str, Any] = json.loads(result.read_text())
    return counted


def feed() -> dict[str, Any]:
    """Time the training view of real photographs on one core."""
    with tempfile.TemporaryDirectory() as folder:
        case = Case(_MODEL, "training", batch=32, workers=1, folder=str(Path(folder) / "photographs"))
        feeding.prepare(case, _PHOTOGRAPHS)
        epoch = feeding.our_loader(case)
        epoch()
        rates = []
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            images = epoch()
            rates.append(images / (time.perf_counter() - began))
    return {"what": "images that one core makes ready", "unit": "images/s", **_spread(rates, 1)}


def checkpoints() -> dict[str, dict[str, Any]]:
    """Time what all workers wait for: the state and the weights written, and the state read by one of them."""
    from xcit_hub.models import create_model
    from xcit_hub.training.keeping import save_checkpoint
    from xcit_hub.training.recipe import Recipe
    from xcit_hub.training.resume import Progress, load_state, save_state
    from xcit_hub.training.start import copy_of
    from xcit_hub.training.step import TrainStep

    recipe = Recipe.model_validate({"model": _MODEL, "dialect": "paper", "ema": True, "mode": 1})
    classes = [f"{number}" for number in range(1000)]
    network = create_model(_MODEL, num_classes=1000)
    step = TrainStep(network, recipe, ema=copy_of(network))
    progress = Progress(workers=1, steps=1, dialect="paper", classes=classes)
    with tempfile.TemporaryDirectory(dir=".") as scratch:  # not where temporary files may be in memory
        folder = Path(scratch)

        def write() -> None:
            save_state(folder, step.state(), recipe, progress)
            weights = {entry.name: entry.asnumpy() for entry in step.network.get_parameters()}
            save_checkpoint(
                folder / "weights.ckpt",
                weights,
                recipe,
                dialect="paper",
                classes=classes,
                weights="trained",
                metrics={},
            )

        def read() -> None:
            step.restore(load_state(folder, step.state(), recipe, progress)[0])

        return {
            "checkpoint_write": {"what": "state and weights written", "unit": "s", **_timed(write)},
            "resume_read": {"what": "state read by one worker, from a warm cache", "unit": "s", **_timed(read)},
        }


def _timed(work: Callable[[], None]) -> dict[str, float]:
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return _spread(seconds, 3)


def _spread(values: list[float], digits: int) -> dict[str, float]:
    return {
        "value": round(statistics.median(values), digits),
        "low": round(min(values), digits),
        "high": round(max(values), digits),
    }
