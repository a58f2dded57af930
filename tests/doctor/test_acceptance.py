"""``xcit-hub doctor --accept``: the programme of an Ascend server, run here at a small size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from xcit_hub.doctor import accept
from xcit_hub.doctor.finding import Machine
from xcit_hub.doctor.shapes import SHAPES, draw_shape, write_shapes
from xcit_hub.errors import InputError


def test_the_figures_of_the_card_are_the_cards() -> None:
    card = next((Path(__file__).parents[2] / "cards" / "index").rglob("xcit_tiny_12_p16_224_imagenet2012.md"))
    text = card.read_text("utf-8")
    for figure in ("233.86", "4378.69", "329"):
        assert figure in text.replace(",", "")


def test_a_result_that_cannot_be_written_is_told_before_anything_runs(tmp_path: Path) -> None:
    for target in (tmp_path, tmp_path / "no" / "where.json"):
        with pytest.raises(InputError, match="cannot be written there"):
            accept.refuse_unless_fit(Machine(device="CPU"), target)


def test_throughput_is_compared_with_the_card_only_where_both_did_the_same() -> None:
    measured = {"ms_per_step": 116.93, "images_per_second": 8757.38, "graph_compile_seconds": 658.0}
    same = accept._throughput("Ascend", {"run": {**measured, "cards": 8, "batch_size": 128}})
    assert same["ratio"] == {"ms_per_step": 0.5, "images_per_second": 2.0, "graph_compile_seconds": 2.0}
    for device, cards, batch in (("CPU", 8, 128), ("Ascend", 4, 128), ("Ascend", 8, 64)):
        other = accept._throughput(device, {"run": {**measured, "cards": cards, "batch_size": batch}})
        assert other["ratio"] is None
        assert "not compared" in other["says"]
    assert "did not end" in accept._throughput("Ascend", {"passed": False})["says"]


def test_drawn_shapes_are_the_same_for_the_same_seed_and_fill_every_class(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_shapes(tmp_path / folder, 8, 32, seed=3)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jpg"))
    assert {path.parent.name for path in files} == set(SHAPES)
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)
    drawn = {shape: np.asarray(draw_shape(shape, 32, np.random.default_rng(1)), np.int64) for shape in SHAPES}
    assert all((drawn[a] != drawn[b]).any() for a in SHAPES for b in SHAPES if a < b)


def test_what_lies_in_the_users_folder_is_imported_by_no_part_of_the_programme(tmp_path: Path, monkeypatch) -> None:
    users, own = tmp_path / "users", tmp_path / "own"
    users.mkdir()
    own.mkdir()
    (users / "typer.py").write_text("raise SystemExit('the module of a stranger')\n")
    monkeypatch.chdir(users)
    assert accept._run(["list", "xcit_nano*"], own) == accept._Ended(0, "")


@pytest.mark.campaign
def test_the_programme_of_an_ascend_server_runs_here_at_a_small_size(run_cli, tmp_path: Path) -> None:
    target = tmp_path / "acceptance.json"
    done = run_cli("doctor", "--device", "CPU", "--accept", str(target))
    result = json.loads(target.read_text())
    assert result["passed"] == {
        "parity in float32": True, "parity in float16": True, "training": True, "2 workers": True,
    }, done.stdout  # fmt: skip
    assert result["workers"]["run"]["cards"] == 2
    assert result["throughput"]["ratio"] is None
    assert "not the card's machine" in done.stdout


def test_a_parity_that_is_refused_is_a_part_that_failed_and_says_why(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XCIT_HUB_NATIVE", "0")  # or some processors compute in it
    found = accept._parity(accept._PROGRAMMES["CPU"], "bfloat16", tmp_path)
    assert found["passed"] is False
    assert "cannot be fused in bfloat16" in found["says"]


@pytest.mark.campaign
def test_a_part_that_fails_is_reported_and_the_rest_runs(tmp_path: Path, monkeypatch) -> None:
    programme = dataclasses.replace(accept._PROGRAMMES["CPU"], dtypes=("bfloat16",), flags={"opt": "none"})
    monkeypatch.setitem(accept._PROGRAMMES, "CPU", programme)
    monkeypatch.setenv("XCIT_HUB_NATIVE", "0")  # or some processors compute in it
    said: list[str] = []
    result = accept.accept(Machine(device="CPU"), tmp_path / "a.json", {}, workers=2, stage=said.append)
    assert set(result["passed"].values()) == {False}
    assert "bfloat16" in result["parity"]["bfloat16"]["says"]
    assert "opt" in result["training"]["says"]
    assert "Traceback" not in json.dumps(result)
    assert "no throughput" in said[-1]
    assert json.loads((tmp_path / "a.json").read_text()) == result
