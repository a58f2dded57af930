"""The dry run of examples/ascend: its reader, on files that MindSpore writes here and on lines of its documentation."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "ascend" / "dry_run.py"
# As MindSpore's page about the dry run prints it; the lines of Ascend's memory are not to be had on a CPU.
MEMORY = """[INFO] DEVICE(1,ffff,python):2025-01-01 [ascend_memory_manager.cc:1] Finalize
Device MOC memory size: 65536M
MindSpore Used memory size: 59392M
MindSpore memory base address: 0xffffe9dc1407
Used peak memory usage (without fragments): 23716M
Actual peak memory usage (with fragments): 26244M
"""


@pytest.fixture(scope="module")
def dry_run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dry_run_example", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_memory_is_read_from_the_lines_that_mindspore_documents(dry_run: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"\xff\xfe noise\n" + MEMORY.encode())
    (tmp_path / "exit_code").write_text("0\n")
    assert dry_run.read(tmp_path) == {
        "compiled": True, "device_mb": 65536, "usable_mb": 59392, "peak_mb": 23716, "peak_with_fragments_mb": 26244,
    }  # fmt: skip
    assert "| 23716 | 26244 |" in dry_run.table({"tiny/8": dry_run.read(tmp_path)})


@pytest.mark.parametrize(
    "log", ["", "Device MOC memory size: M\n", "Used peak memory usage (without fragments): 1e9M\n"]
)
def test_a_log_without_figures_gives_none_and_a_failure_is_one(dry_run: ModuleType, tmp_path: Path, log: str) -> None:
    (tmp_path / "log.txt").write_text(log)
    (tmp_path / "exit_code").write_text("1\n")
    assert dry_run.read(tmp_path) == {"compiled": False}
    assert dry_run.read(tmp_path / "nothing") == {}


SMALL = """
import mindspore, numpy
from mindspore import nn
mindspore.set_context(mode=mindspore.GRAPH_MODE)
network = nn.SequentialCell(nn.Dense(4, 4), nn.LayerNorm((4,)), nn.Dense(4, 3), nn.ReLU())
network(mindspore.Tensor(numpy.ones((2, 4), numpy.float32))).asnumpy()
"""


def test_operators_are_counted_in_a_graph_that_mindspore_writes_here(dry_run: ModuleType, tmp_path: Path) -> None:
    environment = {"MS_DEV_SAVE_GRAPHS": "1", "MS_DEV_SAVE_GRAPHS_PATH": str(tmp_path / "graphs"), "GLOG_v": "3"}
    subprocess.run(
        [sys.executable, "-c", SMALL], check=True, timeout=900, capture_output=True, env={**os.environ, **environment}
    )
    found = dry_run.read(tmp_path)
    assert found["graphs"] >= 1
    kinds = found["kinds"]
    assert sum(kinds.get(kind, 0) for kind in ("MatMul", "Dense")) == 2
    assert kinds["ReLU"] == 1


@pytest.mark.campaign
@pytest.mark.gigabytes(5)  # a whole network's training without compiled code, 4.4 measured
def test_a_recipe_is_compiled_and_its_graphs_are_read_as_mindspore_writes_them(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XCIT_HUB_NATIVE": "0", "GLOG_v": "3"}
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--recipe", "cpu_smoke", "--cards", "1", "--device", "CPU"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)
    assert done.returncode == 0, done.stderr + (tmp_path / "cpu_smoke" / "1" / "log.txt").read_text()[-2000:]
    (found,) = json.loads((tmp_path / "dry_run.json").read_text()).values()
    assert found["compiled"]
    assert found["graphs"] >= 2, "a step's and an evaluation's"
    # 12 blocks, each of them with attention and two matrices of its MLP, forward and backward.
    assert found["kinds"].get("LayerNorm", 0) + found["kinds"].get("LayerNormV3", 0) >= 12
    assert found["operators"] > 1000
    assert "AllReduce" not in found["kinds"]
    assert "peak_mb" not in found
    again = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "--read"], capture_output=True, text=True, check=False, timeout=900
    )
    assert again.stdout == done.stdout


@pytest.mark.parametrize(("words", "says"), [((), "name a folder"), (("out", "--device", "CPU"), "--cards 1")])
def test_a_mistake_is_answered_in_words(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False, timeout=900, cwd=tmp_path
    )
    assert ended.returncode == 2
    assert says in ended.stderr


def test_every_recipe_of_the_library_is_compiled(dry_run: ModuleType) -> None:
    assert dry_run.recipes() == sorted(path.stem for path in (ROOT / "configs" / "xcit").glob("*.yaml"))
    assert dry_run.CARDS == (1, 8, 64)
