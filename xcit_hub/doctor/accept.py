"""The acceptance of a machine: parity in each dtype, a short training, the same by several workers, and its time.

Every part is one of our own commands in a process of its own, so that what a broken installation does to it is a line
of the result. On Ascend the training is that of the Hub's card, whose figures stand beside what is measured.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xcit_hub.doctor.finding import Machine
from xcit_hub.doctor.shapes import SHAPES, write_shapes
from xcit_hub.errors import InputError
from xcit_hub.files import check_outputs, scratch_folder, write_text
from xcit_hub.run_record import RunRecord

FORMAT = 1
_STEPS_AN_EPOCH, _EPOCHS = 10, 5
_PATIENCE_SECONDS = 3600.0  # of one command; the card's graph took 329 s to compile
_EXTRA = "PyTorch and timm are not installed: pip install 'xcit-hub[timm]'"

# MindSpore Hub's card of xcit_tiny_12_p16_224 (2025): 8 cards of an Atlas 800T A2, graph mode, O2. MindCV's code.
CARD = {
    "cards": 8,
    "batch_size": 128,
    "ms_per_step": 233.86,
    "images_per_second": 4378.69,
    "graph_compile_seconds": 329.0,
}


@dataclass(frozen=True)
class _Programme:
    """What is run on a kind of device.

    Args:
        model: whose parity is proven.
        recipe: that ships with the library.
        flags: its keys that are other here.
        side: of the images, in pixels.
    """

    model: str
    dtypes: tuple[str, ...]
    recipe: str
    flags: Mapping[str, object]
    batch: int
    side: int
    workers: int


_PROGRAMMES = {
    "Ascend": _Programme(
        "xcit_tiny_12_p16_224", ("float32", "float16", "bfloat16"), "xcit_tiny_12_p16_ascend", {}, 128, 256, 8
    ),
    "CPU": _Programme(
        "xcit_nano_12_p16_224", ("float32", "float16"), "cpu_smoke", {"image_resize": 32, "ema": False}, 4, 40, 2
    ),
}


def refuse_unless_fit(machine: Machine, target: Path) -> None:
    """Raise InputError where the acceptance has no device, or its file no place."""
    if machine.device != "CPU" and not machine.cards:
        raise InputError(
            "There is no Ascend card on this machine.",
            where="--accept",
            fix="Say --device CPU to run the same programme there, at a small size.",
        )
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise InputError("The result cannot be written there.", where=target, fix="Name a file in a folder.")
    check_outputs({"--accept": target})


def accept(
    machine: Machine,
    target: Path,
    examination: Mapping[str, Any],
    *,
    workers: int | None = None,
    stage: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Run the programme, write the result to ``target`` as JSON, and return it.

    Args:
        examination: what was found before, which goes into the result, too.
        workers: how many train together.
        stage: told what is begun, and what came of it.

    Returns:
        ``passed``: of each part whether it passed, None where it was not run; and each part's figures.
    """
    say = stage or (lambda _: None)
    name = "CPU" if machine.device == "CPU" else "Ascend"
    programme = _PROGRAMMES[name]
    workers = workers or programme.workers
    result: dict[str, Any] = {"format": FORMAT, "device": name, "examination": dict(examination)}
    with scratch_folder() as folder:
        say(f"drawing images; parity of {programme.model}")
        images = programme.batch * workers * _STEPS_AN_EPOCH
        write_shapes(folder / "images" / "train", images, programme.side, seed=0, tinted=True)
        result["parity"] = {dtype: _parity(programme, dtype, folder) for dtype in programme.dtypes}
        for part, count in (("training", 1), ("workers", workers)):
            say(f"training {_STEPS_AN_EPOCH * _EPOCHS} steps with {count} worker{'s' * (count > 1)}")
            result[part] = _training(programme, name, count, folder)
    result["throughput"] = _throughput(name, result["workers"])
    result["passed"] = {
        **{f"parity in {dtype}": figures["passed"] for dtype, figures in result["parity"].items()},
        "training": result["training"]["passed"],
        f"{workers} workers": result["workers"]["passed"],
    }
    for part, passed in result["passed"].items():
        say(f"{ {True: 'passed', False: 'FAILED', None: 'not run'}[passed]:8}{part}")
    say(result["throughput"]["says"])
    write_text(target, json.dumps(result, indent=2) + "\n")
    return result


def _parity(programme: _Programme, dtype: str, folder: Path) -> dict[str, Any]:
    figures = folder / f"{dtype}.json"
    ended = _run(["parity", programme.model, "--dtype", dtype, "--json", str(figures)], folder)
    found = json.loads(figures.read_bytes()) if figures.is_file() else {"error": ended.said}
    if isinstance(found, list):  # of the networks compared; else of the error that ended it
        (compared,) = found
        return {"passed": bool(compared["passed"]), "figures": compared}
    absent = "is not installed" in ended.said
    return {"passed": None if absent else False, "says": _EXTRA if absent else ended.said}


def _training(programme: _Programme, device: str, workers: int, folder: Path) -> dict[str, Any]:
    run = folder / f"run-{workers}"
    settings: dict[str, object] = {
        "dataset": "imagefolder",
        "data_dir": folder / "images",
        "num_classes": len(SHAPES),
        "num_samples": programme.batch * workers * _STEPS_AN_EPOCH,
        "batch_size": programme.batch,
        "epoch_size": _EPOCHS,
        "warmup_epochs": 0,
        "decay_epochs": _EPOCHS,
        "val_while_train": False,
        "device_target": device,
        "distribute": workers > 1,
        "ckpt_save_dir": run,
        **programme.flags,
    }
    flags = [f"--{key}={value}" for key, value in settings.items()]
    ended = _run(["train", "--config", programme.recipe, "--json", *flags], folder, workers=workers)
    record = run / "run.json"
    if ended.code or not record.is_file():
        return {"passed": False, "says": ended.said}
    measured = RunRecord.read(record)
    losses = [each.loss for each in measured.curve]
    first, last = losses[0], losses[-1]
    falls = first is not None and last is not None and last < first
    return {
        "passed": falls and measured.cards == workers and measured.device == device,
        "says": f"loss {first} → {last} in {_STEPS_AN_EPOCH * _EPOCHS} steps",
        "run": measured.model_dump(mode="json", exclude={"samples", "confusion"}),
    }


def _throughput(device: str, workers: Mapping[str, Any]) -> dict[str, Any]:
    """Put what several workers did beside the card, where both did the same."""
    measured = workers.get("run") or {}
    if not measured:
        return {"card": CARD, "says": "no throughput: the training of several workers did not end"}
    own = {key: measured[key] for key in CARD}
    said = f"{own['ms_per_step']} ms a step, {own['images_per_second']} images/s"
    if device != "Ascend" or any(own[key] != CARD[key] for key in ("cards", "batch_size")):
        says = f"{said}; not the card's machine or size, and not compared with it"
        return {"card": CARD, "measured": own, "ratio": None, "says": says}
    ratio = {key: round(own[key] / CARD[key], 4) for key in CARD if own[key] and key not in ("cards", "batch_size")}
    says = f"{said}; the card has {CARD['ms_per_step']} ms and {CARD['images_per_second']} images/s"
    return {"card": CARD, "measured": own, "ratio": ratio, "says": says}


@dataclass(frozen=True)
class _Ended:
    """A command's exit code, and the last that it said."""

    code: int
    said: str


def _run(words: Sequence[str], folder: Path, *, workers: int = 1) -> _Ended:
    """Run ``xcit-hub`` with these words; by several workers under msrun."""
    command = [sys.executable, "-m", "xcit_hub", *words]
    if workers > 1:
        together = ["--worker_num", str(workers), "--local_worker_num", str(workers), "--join", "True"]
        logs = ["--log_dir", str(folder / "logs"), "--master_port", str(_free_port())]
        # msrun takes no other name of Python's than this one, and looks for it on the path.
        launcher = [sys.executable, "-m", "mindspore.parallel.cluster.run"]
        command = [*launcher, *together, *logs, "python", "-m", "xcit_hub", *words]
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    modules = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    environment = {**os.environ, "PATH": places, "PYTHONPATH": modules}
    try:
        ended = subprocess.run(  # noqa: S603
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE_SECONDS,
            check=False,
            env=environment,
            cwd=folder,  # and not the user's: `python -m` imports what lies there first
        )
    except subprocess.TimeoutExpired:
        return _Ended(1, f"it took longer than {_PATIENCE_SECONDS / 60:.0f} minutes")
    said = [line for line in ended.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
    return _Ended(ended.returncode, " / ".join(said[-8:])[-2000:] if ended.returncode else "")


def _free_port() -> int:
    """Return a port below those that the system gives away by itself."""
    for port in range(10_000 + os.getpid() % 20_000, 32_000):
        with socket.socket() as server, suppress(OSError):
            server.bind(("127.0.0.1", port))
            return port
    raise InputError("No port from 10000 to 31999 is free.", where="127.0.0.1", fix="End what holds them.")
