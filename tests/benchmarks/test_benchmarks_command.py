"""``python -m benchmarks`` from end to end, on the smallest network and images."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import pytest
from PIL import Image

_NANO = "xcit_nano_12_p16_224"
_QUICK = ("--rounds", "1", "--seconds", "0", "--size", "32")


def test_a_suite_runs_and_records_everything(run_benchmarks, tmp_path) -> None:
    figures, plot = tmp_path / "figures.json", tmp_path / "plot.svg"
    chosen = ("--contender", "timm, eager", "--contender", "xcit-hub, graph", "--contender", "limit: torch*")
    files = ("--json", str(figures), "--plot", str(plot))
    done = run_benchmarks("inference", _NANO, *_QUICK, "--batch", "2", *chosen, *files)
    assert done.returncode == 0, done.stderr
    assert "× timm, eager" in done.stdout
    assert plot.read_text().lstrip().startswith("<?xml")
    result = json.loads(figures.read_text())
    assert {"mindspore", "torch", "timm"} <= set(result["versions"])
    assert result["machine"]["cores"] >= 1
    (comparison,) = result["comparisons"]
    rows = {row["contender"]: row for row in comparison["rows"]}
    assert comparison["case"]["batch"] == 2
    for name in ("timm, eager", "xcit-hub, graph"):
        assert len(rows[name]["turns"]) == 1
        assert rows[name]["threads"] >= 1
        assert rows[name]["peak_mb"] >= rows[name]["running_mb"] > rows[name]["start_mb"] > 50
        assert 0 < rows[name]["share_of_peak"] < 1
    both = [rows[name]["turns"][0] for name in ("timm, eager", "xcit-hub, graph")]
    ratio = rows["xcit-hub, graph"]["times_as_fast_as"]["timm, eager"]["median"]
    assert ratio == pytest.approx(both[0] / both[1])


def test_a_contender_that_is_not_installed_is_named_and_no_failure(run_benchmarks) -> None:
    done = run_benchmarks("inference", _NANO, *_QUICK, "--contender", "MindCV, graph")
    assert done.returncode == 0, done.stderr
    assert "MindCV, graph: not measured, " in done.stdout


def test_a_contender_that_breaks_is_named_with_its_reason_and_the_exit_code_says_so(run_benchmarks, tmp_path) -> None:
    (tmp_path / "class").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "class" / "only.png")
    chosen = ("--photographs", str(tmp_path), "--work", "training", "--workers", "1", "--contender", "xcit-hub")
    done = run_benchmarks("input", _NANO, *_QUICK, *chosen)
    assert done.returncode == 1
    assert "xcit-hub: not measured, InputError: 1 images do not fill one batch of 32." in done.stdout
    assert "Traceback" not in done.stderr


def test_prediction_is_measured_beside_its_parts(run_benchmarks, tmp_path) -> None:
    for number in range(5):
        Image.new("RGB", (64, 64 + number)).save(tmp_path / f"{number}.png")
    figures = tmp_path / "figures.json"
    chosen = ("--batch", "2", "--contender", "decoding and*", "--contender", "xcit-hub predict")
    done = run_benchmarks("predict", _NANO, *_QUICK, *chosen, "--photographs", str(tmp_path), "--json", str(figures))
    assert done.returncode == 0, done.stderr
    (comparison,) = json.loads(figures.read_text())["comparisons"]
    rows = {row["contender"]: row for row in comparison["rows"]}
    apart = "decoding and network, one after the other"
    assert list(rows) == [apart, "xcit-hub predict"]
    assert rows["xcit-hub predict"]["times_as_fast_as"][apart]["median"] > 0


def test_our_contenders_run_with_another_interpreter_beside_this_one(run_benchmarks, tmp_path) -> None:
    figures = tmp_path / "figures.json"
    chosen = ("--contender", "xcit-hub, PyNative", "--python", sys.executable, "--json", str(figures))
    done = run_benchmarks("inference", _NANO, *_QUICK, "--batch", "1", *chosen)
    assert done.returncode == 0, done.stderr
    (comparison,) = json.loads(figures.read_text())["comparisons"]
    mindspore = version("mindspore")
    assert [row["contender"] for row in comparison["rows"] if row["turns"]] == [
        "xcit-hub, PyNative",
        f"xcit-hub, PyNative, MindSpore {mindspore}",
    ]


def test_files_are_prepared_for_each_network(run_benchmarks, tmp_path) -> None:
    figures = tmp_path / "figures.json"
    networks = (_NANO, "xcit_nano_12_p8_224")
    chosen = ("--contender", "cp", "--contender", ".safetensors (timm)*")
    done = run_benchmarks("convert", *networks, "--rounds", "2", *chosen, "--json", str(figures))
    assert done.returncode == 0, done.stderr
    comparisons = json.loads(figures.read_text())["comparisons"]
    assert [comparison["case"]["model"] for comparison in comparisons] == list(networks)
    assert all(len(row["turns"]) == 2 for comparison in comparisons for row in comparison["rows"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("infrence",), "Did you mean 'inference'?"),
        (("inference", "xcit_nano_12_p16"), "did you mean"),
        (("inference", "--size", "100"), "multiples of 16"),
        (("inference", "--size", "big"), "224 or 4000x6000"),
        (("inference", "--contender", "jax*"), "timm, eager"),
        (("inference", "--json", "nowhere/figures.json"), "does not exist"),
        (("inference", "--plot", "plot.gif"), ".svg or .png"),
        (("input", "--photographs", "nowhere"), "does not exist"),
        (("inference", "--python", "nowhere/python"), "not a Python with MindSpore"),
        (("input", "--work", "inference"), "evaluation, training"),
    ],
)
def test_a_mistake_is_answered_in_words(run_benchmarks, tmp_path, arguments, words: str) -> None:
    done = run_benchmarks(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_that_moved_says_where_to(run_cli) -> None:
    done = run_cli("bench", "inference", _NANO, "--rounds", "1")
    assert done.returncode == 2
    assert f"python -m benchmarks inference {_NANO} --rounds 1" in done.stderr
    assert "Traceback" not in done.stderr
