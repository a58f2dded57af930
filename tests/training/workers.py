"""Whole processes of training, one or several, and what several of them did in one start under msrun."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from image_folder import write_images
from mini_train import LEAST, least
from torch_twin import arrays_of

from xcit_hub.checkpoints import checkpoint
from xcit_hub.models import create_model
from xcit_hub.parity import random_images

ROOT = Path(__file__).parents[2]
MINI_TRAIN = Path(__file__).with_name("mini_train.py")
KILLED_TRAIN = Path(__file__).with_name("killed_train.py")
SEVERAL_JOBS = Path(__file__).with_name("several_jobs.py")
KEYS = [
    f"--model={LEAST}",
    "--mode=1",
    "--dataset=imagefolder",
    "--image_resize=32",
    "--warmup_epochs=0",
    "--weight_decay_filter=paper",
    "--dialect=paper",
    "--num_parallel_workers=1",
]
FLAGS = [*KEYS, "--json"]
NORM_CLASSES = 5


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # On a CPU a worker waits 30 seconds for the others' part of a sum; on a busy machine they may take longer.
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "MS_NODE_TIMEOUT": "600"}


def on_all_cores() -> None:
    """Leave the one core of a test's process: there a worker that waits spins while the other should run."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))


def run(*words: object, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(), cwd=ROOT, preexec_fn=on_all_cores
    )


def free_port() -> int:
    """Return a port below those that the system gives away by itself, another one for each process of tests."""
    for port in range(10_000 + os.getpid() % 20_000, 32_000):
        with socket.socket() as server, contextlib.suppress(OSError):
            server.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def msrun(logs: Path, script: Path = MINI_TRAIN, workers: int = 2) -> list[str]:
    together = ["--worker_num", str(workers), "--local_worker_num", str(workers), "--join", "True"]
    return ["msrun", *together, "--log_dir", str(logs), "--master_port", str(free_port()), str(script)]


@dataclass
class Training:
    """One run under msrun that is killed and taken up again.

    Args:
        workers: how many.
        epochs: of four or six steps, with a state after each second one.
    """

    root: Path
    workers: int
    epochs: int

    def __post_init__(self) -> None:
        self.data = write_images(self.root / "data", train=16)

    def words(self, folder: str) -> list[str]:
        """Return the keys of the run in ``folder``."""
        return [
            *KEYS, f"--data_dir={self.data}", f"--ckpt_save_dir={self.root / folder}", f"--epoch_size={self.epochs}",
            "--batch_size=4", "--recovery_interval=2", "--distribute", "--ema", "--ema_decay=0.9",
            "--drop_path_rate=0.1", "--gradient_accumulation_steps=3",
        ]  # fmt: skip

    def ended(self, folder: str, kill: str = "") -> subprocess.CompletedProcess[str]:
        """Begin or go on with the run in ``folder``, until its end or the death of a worker."""
        resumed = ["--resume"] if (self.root / folder / "resume.safetensors").exists() else []
        command = msrun(self.root / f"logs_of_{folder}", KILLED_TRAIN, self.workers)
        return subprocess.run(
            [*command, *self.words(folder), "--json", *resumed], capture_output=True, text=True, timeout=900,
            check=False, cwd=self.root, env={**environment(), "XCIT_KILL": kill or "- - 0"}, preexec_fn=on_all_cores,
        )  # fmt: skip

    def progress(self, folder: str) -> dict[str, Any]:
        with checkpoint.read(self.root / folder / "resume.safetensors") as stored:
            read: dict[str, Any] = json.loads(stored.metadata["progress"])
        return read

    def losses(self, folder: str) -> list[float]:
        """Return the training loss of every epoch."""
        return [epoch["loss"] for epoch in self.progress(folder)["history"]]

    def state(self, folder: str) -> dict[str, np.ndarray]:
        progress = self.progress(folder)
        assert (progress["epochs_done"], progress["part"]["steps"]) == (self.epochs, 0)
        with checkpoint.read(self.root / folder / "resume.safetensors") as stored:
            return {name: np.array(tensor.numpy()) for name, tensor in stored.tensors.items()}


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_array_equal(right[name], array, err_msg=name)


class Together:
    """What two workers did in one start under msrun, which is four processes that import everything.

    One start before it: its run is killed, and taken up again at the end.

    Attributes:
        data, settings: the images and the flags of ``plain``, a run of which one worker does the like.
        training: in the folder ``undisturbed`` a run that nobody killed, in ``killed`` one that was and went on.
        killed, left: how that start ended, and the progress of the state that it left.
        ended: how the other start ended, with the last run's own end.
        spied, broken: a run whose statistics were kept, and its images that cannot be read.
        given, norm: weights and images, and the gradients and statistics of both workers in either mode.
        saturated: what both did where a worker's gradients overflow unseen.
        log: what the first worker said.
    """

    def __init__(self, root: Path) -> None:
        self.data, self.spied, self.norm = write_images(root / "few", train=6), root / "spied", root / "norm"
        self.saturated = root / "saturated"
        self.plain, self.given, self.broken = root / "plain", root / "given.npz", self._break(root / "with_broken")
        self.settings = [
            # Adam would make a whole step of a gradient that is but rounding.
            *KEYS, f"--data_dir={self.data}", "--epoch_size=2", "--sync_bn", "--val_while_train",
            "--opt=momentum", "--lr=0.01",
        ]  # fmt: skip
        self.training = Training(root, workers=2, epochs=1)
        self.killed = self.training.ended("killed", "1 step 6")
        self.left = self.training.progress("killed")
        self.norm.mkdir()
        self.saturated.mkdir()
        self._give()
        # Unshuffled, images go to the workers in turn: numbers 10 and 21 are one of each.
        spied = [
            *KEYS, f"--data_dir={root / 'with_broken'}", f"--ckpt_save_dir={self.spied}", "--epoch_size=1",
            "--batch_size=11", "--drop_remainder=False", "--distribute", "--ema", "--shuffle=False",
        ]  # fmt: skip
        jobs = [
            ("train", [*self.settings, "--batch_size=4", "--distribute", f"--ckpt_save_dir={self.plain}"]),
            ("train", self.training.words("undisturbed")),
            ("spied", spied),
            ("saturating", [str(self.saturated)]),
            ("norm", [str(self.given), str(self.norm), str(NORM_CLASSES)]),
            ("command", [*self.training.words("killed"), "--json", "--resume"]),
        ]
        (root / "jobs.json").write_text(json.dumps(jobs))
        self.ended = run(*msrun(root / "logs", SEVERAL_JOBS), root / "jobs.json")
        self.log = (root / "logs" / "worker_0.log").read_text(errors="replace")
        assert self.ended.returncode == 0, self.ended.stdout + self.ended.stderr + self.log

    @staticmethod
    def _break(data: Path) -> list[Path]:
        write_images(data)
        broken = [data / "train" / "class1" / "2.png", data / "train" / "class2" / "5.png"]
        for path in broken:
            path.write_bytes(path.read_bytes()[:100])
        # Of 23 images 22 make a step of two batches: without padding one worker would wait for the other for ever.
        (data / "train" / "class2" / "7.png").unlink()
        return broken

    def _give(self) -> None:
        network = create_model(least(), num_classes=NORM_CLASSES, dialect="paper", seed=1)
        rng = np.random.default_rng(0)
        arrays = {}
        for name, array in arrays_of(network).items():
            spread = rng.uniform(0.5, 1.5, array.shape) if name.endswith((".moving_variance", "gamma")) else None
            moved = array + 0.05 * rng.standard_normal(array.shape) if spread is None else spread
            arrays[name] = moved.astype(np.float32)
        np.savez(self.given, **arrays, images=random_images(8, 3, 64, 64))
