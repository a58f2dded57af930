"""docs/performance.md says what was measured, and measuring again replaces it."""

from __future__ import annotations

import json

import pytest

from benchmarks import page
from benchmarks.case import Case
from benchmarks.networks import OURS
from benchmarks.result import Comparison, Result, Row
from xcit_hub.errors import InputError


def _result(batch: int, seconds: float) -> Result:
    rows = [Row(OURS, turns=[seconds])]
    machine = {"processor": "a processor", "cores": 2}
    return Result("inference", machine, [Comparison(Case("xcit_nano_12_p16_224", batch=batch), rows)])


def test_the_page_shows_the_kept_figures_and_nothing_else() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.written(text) == text


def test_measuring_a_case_again_replaces_it_and_keeps_the_others(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    for batch, seconds in ((16, 0.5), (1, 0.25), (1, 0.125)):
        page.keep("inference", _result(batch, seconds))
    (file,) = tmp_path.glob("*/inference.json")
    kept = Result.from_dict(json.loads(file.read_text(encoding="utf-8")))
    assert [(each.case.batch, each.rows[0].turns) for each in kept.comparisons] == [(1, [0.125]), (16, [0.5])]
    assert file.with_suffix(".svg").exists()


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(InputError, match="no place for inference"):
        page.written("# Performance")
