"""docs/performance.md says what was measured, and measuring again replaces it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks.case import Case
from benchmarks.networks import OURS
from benchmarks.result import Comparison, Result, Row

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "performance.py"


@pytest.fixture
def performance():
    specification = importlib.util.spec_from_file_location("performance", _SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _result(batch: int, seconds: float) -> Result:
    rows = [Row(OURS, turns=[seconds])]
    machine = {"processor": "a processor", "cores": 2}
    return Result("inference", machine, [Comparison(Case("xcit_nano_12_p16_224", batch=batch), rows)])


def test_the_page_shows_the_kept_figures_and_nothing_else(performance) -> None:
    text = performance.PAGE.read_text(encoding="utf-8")
    assert performance.page(text) == text


def test_measuring_a_case_again_replaces_it_and_keeps_the_others(performance, tmp_path) -> None:
    performance.RESULTS = tmp_path
    for batch, seconds in ((16, 0.5), (1, 0.25), (1, 0.125)):
        performance.keep("inference", _result(batch, seconds))
    (file,) = tmp_path.glob("*/inference.json")
    kept = Result.from_dict(json.loads(file.read_text(encoding="utf-8")))
    assert [(each.case.batch, each.rows[0].turns) for each in kept.comparisons] == [(1, [0.125]), (16, [0.5])]
    assert file.with_suffix(".svg").exists()


def test_a_page_without_a_place_for_a_table_is_refused(performance) -> None:
    with pytest.raises(SystemExit, match="no place for inference"):
        performance.page("# Performance")
