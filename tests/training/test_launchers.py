"""How workers are started, as MindSpore's pages say: msrun, its dynamic cluster by hand, mpirun, a rank table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from image_folder import write_images
from workers import FLAGS, MINI_TRAIN, ROOT, environment, free_port

from xcit_hub.data.batches import Worker
from xcit_hub.errors import InputError
from xcit_hub.training import device
from xcit_hub.training.recipe import Recipe

_VARIABLES = (
    "MS_ROLE", "MS_WORKER_NUM", "MS_SIMULATION_LEVEL", "RANK_SIZE", "RANK_ID", "RANK_TABLE_FILE",
    "MINDSPORE_HCCL_CONFIG_PATH", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK",
)  # fmt: skip
CLUSTER = {"MS_WORKER_NUM": "8", "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": "8118", "MS_ROLE": "MS_WORKER"}
TABLE = {"RANK_TABLE_FILE": "rank_table_8pcs.json", "RANK_ID": "3", "DEVICE_ID": "3"}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "launcher"),
    [
        ({}, None),
        ({**CLUSTER, "RANK_ID": "3"}, "msrun"),  # msrun says the rank, a dynamic cluster does not
        (CLUSTER, "msrun"),
        ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "3"}, "mpirun"),
        ({**CLUSTER, "OMPI_COMM_WORLD_SIZE": "8"}, "msrun"),  # MindSpore prefers it, too
        (TABLE, "rank table"),
        ({"MINDSPORE_HCCL_CONFIG_PATH": "a.json", "RANK_ID": "0"}, "rank table"),
        ({"RANK_TABLE_FILE": "a.json"}, None),
        ({"RANK_ID": "0"}, None),
        ({"MS_WORKER_NUM": "8"}, None),
        ({"MS_SIMULATION_LEVEL": "1", "RANK_SIZE": "64", "RANK_ID": "5"}, "dry run"),
    ],
)
def test_what_started_a_worker_is_told_from_its_variables(alone, variables: dict[str, str], launcher) -> None:
    for name, value in variables.items():
        alone.setenv(name, value)
    assert device.started_by() == launcher


@pytest.mark.parametrize(("rank", "first"), [("0", True), ("3", False)])
@pytest.mark.parametrize("variables", [{"OMPI_COMM_WORLD_SIZE": "8"}, TABLE, CLUSTER], ids=["mpirun", "table", "msrun"])
def test_one_worker_speaks_for_all(alone, variables: dict[str, str], rank: str, first: bool) -> None:
    for name, value in variables.items():
        alone.setenv(name, value)
    alone.setenv("OMPI_COMM_WORLD_RANK" if "OMPI_COMM_WORLD_SIZE" in variables else "RANK_ID", rank)
    assert device.is_first() == first


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "8"}, "By mpirun MindSpore cannot join workers on CPU"),
        (TABLE, "By rank table"),
        ({"MS_SIMULATION_LEVEL": "1", "RANK_SIZE": "64"}, "By dry run"),
        ({}, "this process is alone"),
    ],
)
def test_a_way_that_a_cpu_does_not_have_is_refused_with_the_one_it_has(alone, variables, says: str) -> None:
    for name, value in variables.items():
        alone.setenv(name, value)
    with pytest.raises(InputError, match=says) as caught:
        device.prepare(Recipe.model_validate({"model": "xcit_nano_12_p16_224", "mode": 1}), distribute=True)
    assert "msrun" in str(caught.value.fix)


@pytest.mark.parametrize("variables", [CLUSTER, {"OMPI_COMM_WORLD_SIZE": "8"}], ids=["msrun", "mpirun"])
def test_processes_that_would_each_train_alone_are_refused(alone, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        alone.setenv(name, value)
    with pytest.raises(InputError, match="started 8 processes, and distribute is off") as caught:
        device.prepare(Recipe.model_validate({"model": "xcit_nano_12_p16_224", "mode": 1}), distribute=False)
    assert caught.value.where == "distribute"


@pytest.mark.parametrize("variables", [{"OMPI_COMM_WORLD_SIZE": "1"}, TABLE, {**CLUSTER, "MS_WORKER_NUM": "1"}])
def test_one_process_trains_alone_whatever_a_shell_still_says(alone, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        alone.setenv(name, value)
    recipe = Recipe.model_validate({"model": "xcit_nano_12_p16_224", "mode": 1})
    assert device.prepare(recipe, distribute=False) == Worker()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MS_ROLE", "MS_PSERVER"), ("MS_ROLE", "worker"), ("MS_WORKER_NUM", "0"), ("MS_WORKER_NUM", "eight"),
        ("MS_WORKER_NUM", "-1"), ("MS_SCHED_HOST", ""), ("MS_SCHED_HOST", "two hosts"), ("MS_SCHED_PORT", "99999"),
        ("MS_SCHED_PORT", "http"), ("MS_SCHED_PORT", "0"), ("MS_SCHED_PORT", ""), ("MS_SCHED_PORT", "65536"),
    ],
)  # fmt: skip
def test_a_wrong_variable_of_a_cluster_is_refused_by_its_name(alone, name: str, value: str) -> None:
    for each, right in {**CLUSTER, name: value}.items():
        alone.setenv(each, right)
    with pytest.raises(InputError, match=f"^{name} is") as caught:
        device.prepare(Recipe.model_validate({"model": "xcit_nano_12_p16_224", "mode": 1}), distribute=True)
    assert "msrun" in str(caught.value.fix)


@pytest.mark.campaign
def test_a_dynamic_cluster_started_by_hand_trains_and_one_worker_speaks(tmp_path: Path) -> None:
    data, folder = write_images(tmp_path / "data"), tmp_path / "run"
    command = [sys.executable, str(MINI_TRAIN), *FLAGS, "--data_dir", str(data), "--ckpt_save_dir", str(folder)]
    command += ["--epoch_size", "1", "--batch_size", "4", "--distribute", "True"]
    plain = {name: value for name, value in environment().items() if name not in _VARIABLES}
    plain |= {"MS_WORKER_NUM": "2", "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            command, env={**plain, "MS_ROLE": role}, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for role in ("MS_SCHED", "MS_WORKER", "MS_WORKER")
    ]
    try:
        said = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert json.loads((folder / "run.json").read_text())["cards"] == 2
    runs = [out for out, _ in said if '"kind": "run"' in out]
    assert len(runs) == 1, "the result is printed once"
