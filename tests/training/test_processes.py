"""Whole processes: the commands of MindCV's README, workers under msrun, a kill at any moment."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from image_folder import write_images
from workers import FLAGS, MINI_TRAIN, ROOT, Together, Training, assert_same, environment, run

from xcit_hub.checkpoints import checkpoint
from xcit_hub.training.engine import train
from xcit_hub.training.recipe_file import load_recipe, parse_flags


def weights(folder: Path, epoch: int) -> dict[str, np.ndarray]:
    """What a run has trained."""
    with checkpoint.read(next(path for path in folder.glob(f"*-{epoch}_*.ckpt") if "_ema" not in path.name)) as stored:
        return {name: np.array(tensor.numpy()) for name, tensor in stored.tensors.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("pynative", "least_architecture")
def test_two_workers_under_msrun_equal_one_with_twice_the_batch(
    two_workers: Together, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = [*two_workers.settings, "--batch_size=8", f"--ckpt_save_dir={tmp_path}"]
    train(load_recipe(None, parse_flags(alone)), as_json=True)
    one, two = (json.loads((folder / "run.json").read_text()) for folder in (tmp_path, two_workers.plain))
    assert (one["cards"], two["cards"]) == (1, 2)
    assert "sync_bn has no effect: there is one worker" in capsys.readouterr().out
    assert "statistics of all 2 workers" in two_workers.log
    assert two["final_loss"] == pytest.approx(one["final_loss"], rel=1e-4)
    assert (two["top1"], two["eval_samples"]) == (one["top1"], 9), "nine images on two workers, each once"
    left, right = weights(tmp_path, 2), weights(two_workers.plain, 2)
    assert max(float(np.abs(left[name] - right[name]).max()) for name in left) < 1e-5


@pytest.mark.slow
def test_workers_share_statistics_and_what_they_could_not_read(two_workers: Together) -> None:
    folder = two_workers.spied
    assert json.loads((folder / "run.json").read_text())["unreadable"] == [str(path) for path in two_workers.broken]
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
def test_a_workers_death_ends_all_with_one_message_and_changes_nothing(two_workers: Together) -> None:
    killed, training = two_workers.killed, two_workers.training
    assert killed.returncode != 0
    assert killed.stdout.count("Error:") == 1
    assert re.search(r"worker 1 \(process \d+\) (was killed by SIGKILL|ended, as msrun says,)", killed.stdout)
    # The third step was taken together, after the state of the second; that of the fourth may have been under way.
    assert two_workers.left["epochs_done"] == 0
    assert two_workers.left["part"]["steps"] in (2, 4)
    assert two_workers.ended.returncode == 0, two_workers.ended
    assert_same(training.state("undisturbed"), training.state("killed"))
    assert training.losses("killed") == training.losses("undisturbed")


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", [2, 3])
def test_ten_deaths_of_any_worker_at_any_moment_change_nothing(workers: int, tmp_path: Path) -> None:
    """Before a step of any worker, and at a change that the first one makes to the run's folder; prints where."""
    chance = random.Random(f"{workers} workers")
    training = Training(tmp_path, workers, epochs=8)
    ended = training.ended("undisturbed")
    assert ended.returncode == 0, ended
    print(f"\n{workers} workers: worker, what it was killed at, and the epochs and steps of the state that was left")
    for _ in range(10):
        rank = chance.randrange(workers)
        step = f"{rank} step {chance.randint(1, 4)}"
        kill = step if rank or chance.random() < 0.5 else f"0 change {chance.randint(3, 12)}"
        killed = training.ended("killed", kill)
        assert killed.returncode != 0, f"the run came to its end before {kill}"
        assert "was killed by SIGKILL" in killed.stdout, killed
        if (tmp_path / "killed" / "resume.safetensors").exists():
            left = training.progress("killed")
            print(f"{kill}: {left['epochs_done']} and {left['part']['steps']}")
        else:
            print(f"{kill}: none")
        for path in (tmp_path / "killed").glob("*.ckpt"):
            with checkpoint.read(path) as stored:
                assert stored.tensors
    ended = training.ended("killed")
    assert ended.returncode == 0, ended
    assert_same(training.state("undisturbed"), training.state("killed"))
    assert training.losses("killed") == training.losses("undisturbed")


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
        (["validate.py", "-c", "configs/xcit/cpu_smoke.yaml", "--data_dir", "."], "--ckpt_path"),
    ],
    ids=["alone", "weights"],
)
def test_what_the_user_can_mend_exits_2_without_a_traceback(words: list[str], says: str, tmp_path: Path) -> None:
    """One fault of each script; every other is refused by the same command within a test, see test_wrong_recipes.py."""
    if words[0] == "train.py":
        words = [*words, "--ckpt_save_dir", str(tmp_path / "run")]
    ended = run(sys.executable, *words, timeout=600)
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


# A script as it is, in front of a network of so many blocks of each kind: a graph of one takes two seconds to compile.
_OF_BLOCKS = """
import dataclasses, runpy, sys
from xcit_hub import variants
_, script, name, depth, last = sys.argv[:5]
fewer = {"depth": int(depth), "cls_attn_layers": int(last)}
variants.ARCHITECTURES[name] = dataclasses.replace(variants.ARCHITECTURES[name], **fewer)
sys.argv = [script, *sys.argv[5:]]
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [(1, 1), pytest.param((12, 2), marks=pytest.mark.campaign)], ids=["2", "14"])
def test_the_commands_of_mindcvs_readme_run_as_written_on_cpu(blocks: tuple[int, int], tmp_path: Path) -> None:
    def ran(script: str, *words: object) -> subprocess.CompletedProcess[str]:
        ended = run(sys.executable, "-c", _OF_BLOCKS, script, "xcit_tiny_12_p16_224", *blocks, *words)
        assert ended.returncode == 0, ended.stderr
        return ended

    data = write_images(tmp_path / "data", train=1, val=1)
    seed = "configs/xcit/xcit_tiny_12_p16_ascend.yaml"
    small = ["--epoch_size", 1, "--batch_size", 2, "--image_resize", 32, "--ckpt_save_dir", tmp_path / "run"]
    ran("train.py", "--config", seed, "--data_dir", data, "--distribute", "False", *small)
    best = tmp_path / "run" / "xcit_tiny_12_p16_224_best.ckpt"
    twin = "configs/xcit/xcit_tiny_12_p16_224_ascend.yaml"
    validated = ran("validate.py", "-c", twin, "--data_dir", data, "--ckpt_path", best, "--image_resize", 32)
    assert "3 images" in validated.stdout
    shutil.rmtree(tmp_path / "run")
