"""The trainers themselves on the same images: ours, timm's train.py, MindCV's train.py; loss curves and top-1.

    python -m benchmarks.peers [--timm CHECKOUT] [--mindcv CHECKOUT] [--seeds 3] [--json FILE]
    python -m benchmarks.peers_page          # what of it docs/training.md shows, from the file that is kept

Each runs as its users run it, a command on folders of images, with the same recipe in its own words: AdamW, one cosine
after a linear warm-up by steps, label smoothing, no augmentation. The network is xcit_nano_12_p16 at 32 × 32 pixels;
MindCV's class builds it with the same widths, and ours in MindCV's dialect stands beside it. Two sets of images:
handwritten digits of scikit-learn, and drawn shapes (:mod:`xcit_hub.doctor.shapes`). A trainer that is not there is
named and left out. Prints Markdown; 24 trainings, about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import machine
from benchmarks.peers_result import MINDCV, OTHER_DIALECT, OURS, Run, Trained, merged, read, table, verdicts
from xcit_hub.doctor.shapes import SHAPES, draw_shape
from xcit_hub.errors import InputError
from xcit_hub.files import write_text
from xcit_hub.process import run
from xcit_hub.run_record import RunRecord

MODEL = "xcit_nano_12_p16_224"
SIDE = 32
_BATCH, _RATE, _LEAST, _DECAY, _SMOOTHING = 64, 1e-3, 1e-5, 0.05, 0.1
_WARMUP, _EPOCHS = 2, 12
_SHAPES = (1440, 480)  # drawn for training, and for the score
_PATIENCE_SECONDS = 3600.0


@dataclass(frozen=True)
class Task:
    """One training that is asked for."""

    folder: Path
    classes: int
    epochs: int
    seed: int
    output: Path


# ---- images --------------------------------------------------------------------------------------


def write_digits(folder: Path) -> int:
    """Write four fifths of scikit-learn's digits for training and the rest for the score; return how many classes."""
    from PIL import Image

    from benchmarks.int8 import digits

    images, labels = digits()
    unseen = np.random.default_rng(0).permutation(len(images)) < len(images) // 5
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / ("val" if unseen[number] else "train") / f"{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert("RGB").save(place / f"{number:04}.png")
    return 10


def write_drawn(folder: Path) -> int:
    """Draw shapes of every colour, with a seed for training and another for the score; return how many classes."""
    for split, count, seed in (("train", _SHAPES[0], 1), ("val", _SHAPES[1], 2)):
        rng = np.random.default_rng(seed)
        for number in range(count):
            shape = SHAPES[number % len(SHAPES)]
            place = folder / split / shape
            place.mkdir(parents=True, exist_ok=True)
            draw_shape(shape, SIDE, rng).save(place / f"{number:04}.png")
    return len(SHAPES)


_TIMM = "timm's train.py"
TRAINERS = (OURS, OTHER_DIALECT, _TIMM, MINDCV)
DATA: dict[str, Callable[[Path], int]] = {"digits": write_digits, "shapes": write_drawn}


# ---- trainers ------------------------------------------------------------------------------------


def ours(task: Task, dialect: str) -> Run:
    """Train with ``xcit-hub train``."""
    recipe = _recipe(task) | {"dialect": dialect, "weight_decay_filter": "timm", "device_target": "CPU"}
    _command(["-m", "xcit_hub", "train", "--json", "--config", _written(recipe, task)])
    curve = RunRecord.read(task.output / "run.json").curve
    return Run([each.loss or math.nan for each in curve], [each.top1 or 0.0 for each in curve])


def mindcv(task: Task, checkout: Path) -> Run:
    """Train with MindCV's train.py; its class builds the network, which its registry does not have."""
    recipe = _recipe(task) | {"weight_decay_filter": "norm_and_bias", "ckpt_save_dir": "."}
    command = ["-m", "benchmarks.peers_mindcv", str(checkout), "--config", _written(recipe, task)]
    _command(command, cwd=task.output)
    lines = [line.split() for line in (task.output / "result.log").read_text("utf-8").splitlines()[1:]]
    return Run([float(line[1]) for line in lines], [float(line[2].rstrip("%")) for line in lines])


def _written(recipe: Mapping[str, object], task: Task) -> str:
    path = task.output / "recipe.yaml"
    path.write_text(yaml.safe_dump(dict(recipe)), "utf-8")
    return str(path)


def _recipe(task: Task) -> dict[str, object]:
    """Return the recipe in MindCV's words, which are ours."""
    return {
        "mode": 0,
        "distribute": False,
        "val_while_train": True,
        "seed": task.seed,
        "dataset": "imagenet",
        "data_dir": str(task.folder),
        "num_parallel_workers": 1,
        "batch_size": _BATCH,
        "drop_remainder": True,
        "image_resize": SIDE,
        "scale": [1.0, 1.0],
        "ratio": [1.0, 1.0],
        "hflip": 0.0,
        "color_jitter": None,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": [127.5] * 3,
        "std": [127.5] * 3,
        "model": MODEL,
        "num_classes": task.classes,
        "epoch_size": task.epochs,
        "dataset_sink_mode": False,
        "keep_checkpoint_max": 1,
        "ckpt_save_interval": task.epochs,
        "ckpt_save_dir": str(task.output),
        "label_smoothing": _SMOOTHING,
        "scheduler": "cosine_decay",
        "lr": _RATE,
        "min_lr": _LEAST,
        "warmup_epochs": _WARMUP,
        "warmup_factor": 0.0,
        "decay_epochs": task.epochs - _WARMUP,
        "opt": "adamw",
        "weight_decay": _DECAY,
    }


def timm(task: Task, checkout: Path) -> Run:
    """Train with timm's train.py."""
    flags = {
        "data-dir": task.folder,
        "train-split": "train",
        "val-split": "val",
        "model": MODEL,
        "num-classes": task.classes,
        "img-size": SIDE,
        "crop-pct": 1.0,
        "interpolation": "bilinear",
        "batch-size": _BATCH,
        "opt": "adamw",
        "weight-decay": _DECAY,
        "lr": _RATE,
        "min-lr": _LEAST,
        "warmup-lr": 1e-9,
        "warmup-epochs": _WARMUP,
        "epochs": task.epochs - _WARMUP,  # with --warmup-prefix the warm-up comes on top
        "smoothing": _SMOOTHING,
        "seed": task.seed,
        "workers": 1,
        "device": "cpu",
        "checkpoint-hist": 1,
        "output": task.output,
        "experiment": "run",
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    switches = ["--sched", "cosine", "--sched-on-updates", "--warmup-prefix", "--no-aug", "--no-prefetcher"]
    colours = ["--mean", *["0.5"] * 3, "--std", *["0.5"] * 3]
    _command([str(checkout / "train.py"), *words, *switches, *colours])
    with (task.output / "run" / "summary.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    return Run([float(row["train_loss"]) for row in rows], [float(row["eval_top1"]) for row in rows])


def _command(words: Sequence[str], cwd: Path | None = None) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path]))}
    environment |= {"GLOG_v": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False, cwd=cwd, env=environment
    )
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-6:]
        raise RuntimeError(f"exit code {done.returncode}: {' / '.join(last)}")


def trainers(timm_checkout: Path | None, mindcv_checkout: Path | None) -> dict[str, Callable[[Task], Run] | str]:
    """Return what trains a task, by the trainers' names; where one is not there, why."""
    there = {
        _TIMM: (timm_checkout, timm, "--timm names a checkout of timm's repository"),
        MINDCV: (mindcv_checkout, mindcv, "--mindcv names a checkout of MindCV's repository"),
    }
    found: dict[str, Callable[[Task], Run] | str] = {
        OURS: lambda task: ours(task, "paper"),
        OTHER_DIALECT: lambda task: ours(task, "mindcv"),
    }
    for name, (checkout, train, advice) in there.items():
        if checkout is None or not (checkout / "train.py").is_file():
            found[name] = advice
        else:
            place = checkout.resolve()
            found[name] = lambda task, train=train, place=place: train(task, place)  # type: ignore[misc]
    return found


# ---- all of them ---------------------------------------------------------------------------------


def commit(checkout: Path | None) -> str | None:
    """Return the commit of a checkout; None where there is none, or git does not know it."""
    if checkout is None:
        return None
    asked = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or None


def compare(
    data: Sequence[str],
    entrants: Mapping[str, Callable[[Task], Run] | str],
    seeds: Sequence[int],
    epochs: int,
    say: Callable[[str, list[Trained]], None],
    done: Sequence[Trained] = (),
) -> list[Trained]:
    """Train everything that is asked for, one after another, each seed with all trainers.

    Args:
        say: told of each training, with all that is known by then.
        done: what was trained before, and is not again.
    """
    kept = {(each.data, each.trainer): each.runs for each in done}
    found = [
        Trained(trainer, name, runs, absent=train if isinstance(train, str) and not runs else "")
        for name in data
        for trainer, train in entrants.items()
        for runs in [kept.get((name, trainer), {})]
    ]
    with tempfile.TemporaryDirectory() as scratch:
        classes = {name: DATA[name](Path(scratch) / name) for name in data}
        for seed in seeds:
            for place, trained in enumerate(found):
                train = entrants[trained.trainer]
                if trained.absent or isinstance(train, str) or seed in trained.runs:
                    continue
                output = Path(scratch) / f"run-{place}-{seed}"
                output.mkdir()
                name = trained.data
                try:
                    trained.runs[seed] = train(Task(Path(scratch) / name, classes[name], epochs, seed, output))
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
                    trained.absent = f"seed {seed}: {error}"  # what was trained before stays
                    continue
                say(f"{name}, {trained.trainer}, seed {seed}: {trained.runs[seed].top1[-1]:.2f} %", found)
    return found


def earlier(path: Path, about: Mapping[str, Any]) -> list[Trained]:
    """Return what a file holds of earlier trainings.

    Raises:
        InputError: they were of other trainers or another recipe.
    """
    content = json.loads(path.read_text("utf-8"))
    for name in ("versions", "commits", "model", "side", "epochs"):
        if content.get(name) != about[name]:
            raise InputError(
                f"{name} was {content.get(name)} and is {about[name]}.", where=path, fix="Write another file."
            )
    return read(content)


def main() -> None:
    """Train what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", choices=list(DATA), help="only these images; may be repeated")
    parser.add_argument("--trainer", action="append", choices=list(TRAINERS), help="only this one; may be repeated")
    parser.add_argument("--timm", type=Path, help="a checkout of huggingface/pytorch-image-models")
    parser.add_argument("--mindcv", type=Path, help="a checkout of mindspore-lab/mindcv")
    parser.add_argument("--seeds", type=int, choices=range(1, 11), metavar="N", default=3, help="1 to 10")
    parser.add_argument("--epochs", type=int, choices=range(_WARMUP + 1, 101), metavar="N", default=_EPOCHS)
    parser.add_argument("--json", type=Path, help="also write every run; what stands there is not trained again")
    asked = parser.parse_args()
    entrants = trainers(asked.timm, asked.mindcv)
    if asked.trainer:
        entrants |= {name: "not asked for" for name in entrants if name not in asked.trainer}

    about: dict[str, Any] = {
        "machine": machine.description(),
        "versions": {name: version(name) for name in ("mindspore", "torch")},
        "commits": {"timm": commit(asked.timm), "mindcv": commit(asked.mindcv)},
        "model": MODEL,
        "side": SIDE,
        "epochs": asked.epochs,
    }

    def keep(text: str, found: list[Trained]) -> None:
        print(text, file=sys.stderr)
        if asked.json is not None:
            whole = [asdict(each) for each in merged(found, done)]
            write_text(asked.json, json.dumps({**about, "trained": whole}, indent=1) + "\n")

    done = [] if asked.json is None or not asked.json.exists() else earlier(asked.json, about)
    found = compare(asked.data or list(DATA), entrants, range(asked.seeds), asked.epochs, keep, done)
    print(f"{MODEL} at {SIDE} × {SIDE} pixels, {asked.epochs} epochs, {asked.seeds} seeds\n")
    print("\n".join([table(found), "", *verdicts(found)]))


if __name__ == "__main__":
    run(main)
