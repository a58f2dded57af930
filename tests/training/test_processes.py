"""Whole processes: the seeds' commands, workers under msrun, a kill at any moment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pictures import write_pictures

from converters import checkpoint

ROOT = Path(__file__).parents[2]
MINI_TRAIN = Path(__file__).with_name("mini_train.py")
FLAGS = [
    "--model=xcit_mini_2_p16_64",
    "--mode=1",
    "--dataset=imagefolder",
    "--image_resize=32",
    "--warmup_epochs=0",
    "--weight_decay_filter=paper",
    "--num_parallel_workers=1",
    "--json",
]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(*words: object, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment(), cwd=ROOT)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def weights(folder: Path, epoch: int) -> dict[str, np.ndarray]:
    with checkpoint.read(next(folder.glob(f"*-{epoch}_*.ckpt"))) as stored:
        return {name: np.array(tensor.numpy()) for name, tensor in stored.tensors.items()}


@pytest.mark.slow
def test_two_workers_under_msrun_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data")
    settings = [*FLAGS, "--data_dir", data, "--epoch_size", 2, "--freeze_bn", "--val_while_train"]
    alone = run(sys.executable, MINI_TRAIN, *settings, "--batch_size", 8, "--ckpt_save_dir", tmp_path / "one")
    assert alone.returncode == 0, alone.stderr
    msrun = ["msrun", "--worker_num", 2, "--local_worker_num", 2, "--join", "True", "--log_dir", tmp_path / "logs"]
    together = run(
        *msrun, "--master_port", free_port(), MINI_TRAIN, *settings,
        "--batch_size", 4, "--distribute", "True", "--ckpt_save_dir", tmp_path / "two",
    )  # fmt: skip
    log = (tmp_path / "logs" / "worker_0.log").read_text(errors="replace")
    assert together.returncode == 0, together.stderr + log
    one, two = (json.loads((tmp_path / folder / "run.json").read_text()) for folder in ("one", "two"))
    assert (one["cards"], two["cards"]) == (1, 2)
    assert two["final_loss"] == pytest.approx(one["final_loss"], rel=1e-4)
    assert (two["top1"], two["eval_samples"]) == (one["top1"], 9), "nine pictures on two workers, each once"
    left, right = weights(tmp_path / "one", 2), weights(tmp_path / "two", 2)
    assert max(float(np.abs(left[name] - right[name]).max()) for name in left) < 1e-4


@pytest.mark.slow
def test_a_kill_at_any_moment_costs_at_most_the_current_epoch(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", train=16)
    folder = tmp_path / "run"
    command = [sys.executable, str(MINI_TRAIN), *FLAGS, "--data_dir", str(data), "--ckpt_save_dir", str(folder)]
    command += ["--epoch_size", "200", "--batch_size", "8", "--keep_checkpoint_max", "2"]
    finished = 0
    for patience in (0.0, 0.7):
        resumed = ["--resume"] if finished else []
        process = subprocess.Popen([*command, *resumed], stdout=subprocess.DEVNULL, env=environment(), cwd=ROOT)
        try:
            deadline = time.monotonic() + 120
            while epochs_done(folder) <= finished and time.monotonic() < deadline:
                assert process.poll() is None, "the run ended by itself"
                time.sleep(0.01)
            time.sleep(patience)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        done = epochs_done(folder)
        assert done > finished, "every run must add an epoch to what the killed one left"
        finished = done
        for path in folder.glob("*.ckpt"):
            with checkpoint.read(path) as stored:
                assert stored.tensors


def epochs_done(folder: Path) -> int:
    path = folder / "resume.safetensors"
    if not path.exists():
        return 0
    with checkpoint.read(path) as stored:
        return int(json.loads(stored.metadata["progress"])["epochs_done"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train.py", "--config", "configs/xcit/xcit_tiny_12_p16_ascend.yaml", "--data_dir", "."], "msrun"),
        (["train.py", "--config", "configs/xcit/cpu_smoke.yaml", "--epoch_sizes", "2"], "epoch_size"),
        (["train.py", "--config", "configs/xcit/cpu_smoke.yaml", "--data_dir", "/no/where"], "does not exist"),
        (["validate.py", "-c", "configs/xcit/cpu_smoke.yaml", "--data_dir", "."], "--ckpt_path"),
    ],
    ids=["alone", "key", "data", "weights"],
)
def test_what_the_user_can_mend_exits_2_without_a_traceback(words: list[str], says: str, tmp_path: Path) -> None:
    if words[0] == "train.py":
        words = [*words, "--ckpt_save_dir", str(tmp_path / "run")]
    ended = run(sys.executable, *words, timeout=60)
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_the_seeds_commands_run_as_written_on_cpu(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", train=1, val=1)
    seed = "configs/xcit/xcit_tiny_12_p16_ascend.yaml"
    small = ["--epoch_size", 1, "--batch_size", 2, "--image_resize", 32, "--ckpt_save_dir", tmp_path / "run"]
    trained = run(sys.executable, "train.py", "--config", seed, "--data_dir", data, "--distribute", "False", *small)
    assert trained.returncode == 0, trained.stderr
    best = tmp_path / "run" / "xcit_tiny_12_p16_224_best.ckpt"
    twin = "configs/xcit/xcit_tiny_12_p16_224_ascend.yaml"
    validated = run(
        sys.executable, "validate.py", "-c", twin, "--data_dir", data, "--ckpt_path", best, "--image_resize", 32
    )
    assert validated.returncode == 0, validated.stderr
    assert "3 pictures" in validated.stdout
    shutil.rmtree(tmp_path / "run")
