"""One turn of one installed wheel, in a process of its own: started by :mod:`benchmarks.compare`.

It reads one line of JSON, does the work, and writes one line. Whatever libraries print goes to the error stream. Only
the public interface that 0.1.0 had is used here, so that every later wheel can be held against an earlier one.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import clock

PREPARE = "prepare"

_PHOTOGRAPHS = Path("photographs")
_TIMM_FILE = Path("timm.safetensors")
_OUR_FILE = Path("ours.ckpt")
_HUB = Path("hub")
_MODEL_ID = "bench/model"

_COMMAND = (sys.executable, "-c", "from xcit_hub.cli import main; main()")
_CLASSES = 1000
_SIDE = 224
_RATE = 1e-4
_STEPS_OF_A_RUN = 6

# Does the work once and returns its seconds.
Step = Callable[[], float]


@dataclass(frozen=True)
class Order:
    """What one process has to do.

    Args:
        work: a key of :data:`WORKS`, or ``prepare``.
        model: an architecture's name.
        batch: images a call.
        seconds: length of the turn; at least one call is made.
        once: the first call is what counts, and the only one.
        wheel: the folder that ``xcit_hub`` must come from.
    """

    work: str
    model: str
    batch: int
    seconds: float
    once: bool
    wheel: str


def main() -> None:
    """Answer one order in the working directory, and end."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    order = Order(**json.loads(sys.stdin.readline()))
    answer = _prepare(order) if order.work == PREPARE else _measured(order)
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    sys.stderr.flush()
    os._exit(0)  # MindSpore's cells complain when the interpreter takes them down


def _measured(order: Order) -> dict[str, Any]:
    step = WORKS[order.work](order)
    if not order.once:
        step()  # compiles
        step()  # still allocates
    gc.collect()
    load, began = os.getloadavg()[0], time.perf_counter()
    own, everybody, stolen = clock.worked(), clock.worked_by_all(), clock.stolen()
    seconds = [step()]
    while not order.once and time.perf_counter() - began < order.seconds:
        seconds.append(step())
    wall, own, everybody = time.perf_counter() - began, clock.worked() - own, clock.worked_by_all() - everybody
    stolen = clock.stolen() - stolen
    _check_origin(order)
    return {
        "seconds": statistics.median(seconds) / order.batch,
        "stolen": stolen / wall,
        "others": max(everybody - stolen - own, 0.0) / wall,
        "load": load,
        "peak_mb": _peak_mb(),
    }


def _check_origin(order: Order) -> None:
    import xcit_hub

    if not Path(xcit_hub.__file__).is_relative_to(order.wheel):
        raise RuntimeError(f"xcit_hub was imported from {xcit_hub.__file__}, not from {order.wheel}")


def _peak_mb() -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def _prepare(order: Order) -> dict[str, Any]:
    """Write random weights as our file, timm's file and a folder hub, and photographs of noise: what all turns read."""
    import mindspore
    from PIL import Image

    import xcit_hub

    network = xcit_hub.create_model(order.model, seed=0)
    mindspore.save_checkpoint(network, str(_OUR_FILE))
    _converter(order, _OUR_FILE, _TIMM_FILE, "timm")()
    xcit_hub.publish(_OUR_FILE, _MODEL_ID, to=_HUB, model=order.model, dialect="paper", parity=False)
    generator = np.random.default_rng(0)
    for number in range(order.batch * _STEPS_OF_A_RUN):
        folder = _PHOTOGRAPHS / "train" / f"class_{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)).save(folder / f"{number:03}.png")
    _check_origin(order)
    return {"xcit_hub": xcit_hub.__version__, "mindspore": mindspore.__version__}


def _converter(order: Order, source: Path, target: Path, family: str) -> Callable[[], Any]:
    """Convert a file without the proof beside PyTorch, which later versions make by default."""
    import xcit_hub

    convert: Callable[..., Any] = xcit_hub.convert
    unproved = {"verify": False} if "verify" in inspect.signature(convert).parameters else {}
    return partial(convert, source, target, to=family, model=order.model, dialect="paper", **unproved)


def _timed(work: Callable[[], Any]) -> Step:
    def step() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return step


def _images(order: Order) -> Any:
    import mindspore

    pixels = np.random.default_rng(0).standard_normal((order.batch, 3, _SIDE, _SIDE), np.float32)
    return mindspore.Tensor(pixels)


def _inference(order: Order, *, fused: bool = False) -> Step:
    """Logits of noise, in graph mode."""
    import mindspore

    import xcit_hub

    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    network = xcit_hub.create_model(order.model, seed=0).set_train(False)
    if fused:
        network = network.fuse()
    images = _images(order)
    return _timed(lambda: network(images).asnumpy())


def _fused(order: Order) -> Step:
    return _inference(order, fused=True)


def _training(order: Order) -> Step:
    """One step as ``xcit-hub train`` takes it: forward, backward, AdamW."""
    import mindspore

    import xcit_hub
    from xcit_hub.training.recipe import Recipe
    from xcit_hub.training.step import TrainStep

    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    network = xcit_hub.create_model(order.model, seed=0)
    train = TrainStep(network, Recipe.model_validate({"model": order.model, "dialect": "paper"}))
    images = _images(order)
    targets = mindspore.Tensor(np.eye(_CLASSES, dtype=np.float32)[np.arange(order.batch) % _CLASSES])
    return _timed(lambda: train(images, targets, _RATE).loss.asnumpy())


def _training_run(order: Order) -> Step:
    """``xcit-hub train`` from photographs on disk: the milliseconds a step that its run.json tells."""
    recipe = {
        "model": order.model,
        "dialect": "paper",
        "data_dir": _PHOTOGRAPHS,
        "batch_size": order.batch,
        "epoch_size": 1,
        "val_while_train": False,
        "distribute": False,
    }
    flags = [word for name, value in recipe.items() for word in (f"--{name}", str(value))]

    def step() -> float:
        folder = Path(f"run-{time.time_ns()}")
        _run("train", *flags, "--ckpt_save_dir", str(folder))
        return float(json.loads((folder / "run.json").read_text())["ms_per_step"]) / 1e3

    return step


def _import(order: Order) -> Step:
    """Every public name, the framework behind it included."""
    del order

    def work() -> None:
        import xcit_hub

        for name in ("create_model", "load", "convert", "publish"):
            getattr(xcit_hub, name)

    return _timed(work)


def _command(order: Order) -> Step:
    del order
    return _timed(lambda: _run("--version"))


def _convert(order: Order) -> Step:
    """A whole file in a process that has already imported everything."""
    return _timed(_converter(order, _TIMM_FILE, Path("out.ckpt"), "xcit-hub"))


def _convert_back(order: Order) -> Step:
    return _timed(_converter(order, _OUR_FILE, Path("out.safetensors"), "timm"))


def _load(order: Order) -> Step:
    """From a folder hub, imports included."""
    del order

    def work() -> None:
        import xcit_hub

        xcit_hub.load(_MODEL_ID, hub=_HUB)

    return _timed(work)


def _run(*arguments: str) -> None:
    done = subprocess.run([*_COMMAND, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"xcit-hub {arguments[0]} ended with code {done.returncode}: {done.stderr.strip()[-200:]!r}")


WORKS: dict[str, Callable[[Order], Step]] = {
    "inference": _inference,
    "fused": _fused,
    "training": _training,
    "training run": _training_run,
    "import": _import,
    "command": _command,
    "convert": _convert,
    "convert back": _convert_back,
    "load": _load,
}

if __name__ == "__main__":
    main()
