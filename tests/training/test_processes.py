"""Whole processes: the commands of MindCV's README, workers under msrun, a kill at any moment."""

from __future__ import annotations

import contextlib
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
import psutil
import pytest
from image_folder import write_images

from xcit_hub.checkpoints import checkpoint

ROOT = Path(__file__).parents[2]
MINI_TRAIN = Path(__file__).with_name("mini_train.py")
SPIED_TRAIN = Path(__file__).with_name("spied_train.py")
FLAGS = [
    "--model=xcit_mini_2_p16_64",
    "--mode=1",
    "--dataset=imagefolder",
    "--image_resize=32",
    "--warmup_epochs=0",
    "--weight_decay_filter=paper",
    "--dialect=paper",
    "--num_parallel_workers=1",
    "--json",
]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(*words: object, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment(), cwd=ROOT)


def free_port() -> int:
    """Return a port below those that the system gives away by itself, another one for each process of tests."""
    for port in range(10_000 + os.getpid() % 20_000, 32_000):
        with socket.socket() as server, contextlib.suppress(OSError):
            server.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def weights(folder: Path, epoch: int) -> dict[str, np.ndarray]:
    with checkpoint.read(next(path for path in folder.glob(f"*-{epoch}_*.ckpt") if "_ema" not in path.name)) as stored:
        return {name: np.array(tensor.numpy()) for name, tensor in stored.tensors.items()}


@pytest.mark.slow
def test_two_workers_under_msrun_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    settings = [*FLAGS, "--data_dir", data, "--epoch_size", 2, "--freeze_bn", "--val_while_train"]
    alone = run(sys.executable, MINI_TRAIN, *settings, "--batch_size", 8, "--ckpt_save_dir", tmp_path / "one")
    assert alone.returncode == 0, alone.stderr
    together = run(
        *msrun(tmp_path / "logs"), *settings,
        "--batch_size", 4, "--distribute", "True", "--ckpt_save_dir", tmp_path / "two",
    )  # fmt: skip
    log = (tmp_path / "logs" / "worker_0.log").read_text(errors="replace")
    assert together.returncode == 0, together.stderr + log
    one, two = (json.loads((tmp_path / folder / "run.json").read_text()) for folder in ("one", "two"))
    assert (one["cards"], two["cards"]) == (1, 2)
    assert two["final_loss"] == pytest.approx(one["final_loss"], rel=1e-4)
    assert (two["top1"], two["eval_samples"]) == (one["top1"], 9), "nine images on two workers, each once"
    left, right = weights(tmp_path / "one", 2), weights(tmp_path / "two", 2)
    assert max(float(np.abs(left[name] - right[name]).max()) for name in left) < 1e-4


def msrun(logs: Path, script: Path = MINI_TRAIN) -> list[str]:
    together = ["--worker_num", "2", "--local_worker_num", "2", "--join", "True"]
    return ["msrun", *together, "--log_dir", str(logs), "--master_port", str(free_port()), str(script)]


@pytest.mark.slow
def test_workers_share_statistics_and_what_they_could_not_read(tmp_path: Path) -> None:
    data, folder = write_images(tmp_path / "data"), tmp_path / "run"
    broken = [data / "train" / "class1" / "2.png", data / "train" / "class2" / "5.png"]
    for path in broken:
        path.write_bytes(path.read_bytes()[:100])
    flags = [flag for flag in FLAGS if flag != "--json"]
    # Of 23 images 22 make a step of two batches: without padding one worker would wait for the other for ever.
    (data / "train" / "class2" / "7.png").unlink()
    # Unshuffled, images go to the workers in turn: numbers 10 and 21 are one of each.
    flags += [
        "--data_dir",
        str(data),
        "--ckpt_save_dir",
        str(folder),
        "--epoch_size",
        "1",
        "--batch_size",
        "11",
        "--drop_remainder",
        "False",
    ]
    ended = run(*msrun(tmp_path / "logs", SPIED_TRAIN), *flags, "--distribute", "--ema", "--shuffle", "False")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert json.loads((folder / "run.json").read_text())["unreadable"] == [str(path) for path in broken]
    first, second = (np.load(folder / f"worker{rank}.npz") for rank in range(2))
    names = {name.partition("/")[2] for name in first}
    assert {name.rpartition(".")[2] for name in names} == {"moving_mean", "moving_variance"}
    assert any(name.startswith("ema.") for name in names)
    with checkpoint.read(next(folder.glob("*_ema.ckpt"))) as average:
        stored = {name: np.array(tensor.numpy()) for name, tensor in average.tensors.items()}
    for name in names:
        before = [worker[f"before/{name}"] for worker in (first, second)]
        assert not np.array_equal(*before), "each worker sees other images"
        np.testing.assert_allclose(first[f"after/{name}"], (before[0] + before[1]) / 2, rtol=1e-6)
        np.testing.assert_array_equal(first[f"after/{name}"], second[f"after/{name}"])
        if name.startswith("ema."):
            np.testing.assert_array_equal(stored[name.removeprefix("ema.")], first[f"after/{name}"])


@pytest.mark.slow
def test_a_workers_death_ends_all_with_one_message_and_leaves_whole_files(tmp_path: Path) -> None:
    data, folder = write_images(tmp_path / "data", train=16), tmp_path / "run"
    command = [*msrun(tmp_path / "logs"), *FLAGS, "--data_dir", str(data), "--ckpt_save_dir", str(folder)]
    command += ["--epoch_size", "500", "--batch_size", "4", "--distribute"]
    launcher = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), cwd=tmp_path
    )
    try:
        deadline = time.monotonic() + 600
        while not epochs_done(folder) and time.monotonic() < deadline:
            assert launcher.poll() is None, launcher.communicate()
            time.sleep(0.05)
        time.sleep(0.5)  # into the next epoch
        started = [child for child in psutil.Process(launcher.pid).children() if str(MINI_TRAIN) in child.cmdline()]
        workers = {child.environ()["RANK_ID"]: child for child in started if child.environ()["MS_ROLE"] == "MS_WORKER"}
        workers["1"].kill()
        said, _ = launcher.communicate(timeout=600)
    finally:
        launcher.kill()
    assert launcher.returncode != 0
    assert said.count("Error:") == 1
    assert f"worker 1 (process {workers['1'].pid}) was killed by SIGKILL" in said
    assert not any(worker.is_running() for worker in workers.values())
    assert epochs_done(folder) >= 1
    for path in folder.glob("*.ckpt"):
        with checkpoint.read(path) as stored:
            assert stored.tensors


@pytest.mark.slow
def test_a_kill_at_any_moment_costs_at_most_the_current_epoch(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", train=16)
    folder = tmp_path / "run"
    command = [sys.executable, str(MINI_TRAIN), *FLAGS, "--data_dir", str(data), "--ckpt_save_dir", str(folder)]
    command += ["--epoch_size", "200", "--batch_size", "8", "--keep_checkpoint_max", "2"]
    finished = 0
    for patience in (0.0, 0.7):
        resumed = ["--resume"] if finished else []
        process = subprocess.Popen([*command, *resumed], stdout=subprocess.DEVNULL, env=environment(), cwd=ROOT)
        try:
            deadline = time.monotonic() + 600
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
    ended = run(sys.executable, *words, timeout=600)
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_the_commands_of_mindcvs_readme_run_as_written_on_cpu(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", train=1, val=1)
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
    assert "3 images" in validated.stdout
    shutil.rmtree(tmp_path / "run")
