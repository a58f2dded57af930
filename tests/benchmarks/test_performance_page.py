"""docs/performance.md says what was measured, and measuring again replaces it."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import page, summary
from benchmarks.case import Case
from benchmarks.deploying import OPENVINO
from benchmarks.networks import FUSED, MINDCV, OURS, TIMM
from benchmarks.result import Comparison, Result, Row
from xcit_hub.errors import InputError


def _result(
    batch: int, seconds: float, instructions: str = "AVX-512", processor: str = "Maker One", commit: str = ""
) -> Result:
    rows = [Row(OURS, turns=[seconds])]
    machine = {"processor": processor, "instructions": instructions, "cores": 2}
    case = Case("xcit_nano_12_p16_224", batch=batch)
    return Result("inference", machine, [Comparison(case, rows, "2026-11-26", commit)])


def test_the_page_shows_the_kept_figures_of_one_commit_and_nothing_else() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.written(text) == text
    assert set(re.findall(r"\d{4}-\d\d-\d\d, commit (\w+\+?)", text)) == {page.of_the_page()}


def test_what_is_kept_of_other_commits_is_on_the_earlier_page() -> None:
    text = page.EARLIER.read_text(encoding="utf-8")
    assert page.between(text, "earlier", page.earlier()) == text
    shown = text + page.PAGE.read_text(encoding="utf-8")
    plots = [file.with_suffix(".svg").relative_to(page.ROOT) for name in page.RUNS for file in page.kept(name)]
    assert plots
    assert [plot for plot in plots if shown.count(f"(../{plot})") != 1] == []


def test_a_table_of_two_commits_or_of_none_is_not_on_the_page(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    for name, said in {"load": "aaaaaaaa1", "start": "aaaaaaaa1", "input": "bbbbbbbb2", "convert": ""}.items():
        page.keep(name, _result(1, 1.0, commit=said))
    page.keep("start", _result(16, 1.0, commit="bbbbbbbb2"))
    page.keep("quota", _result(16, 1.0, commit="bbbbbbbb2+"))
    page.keep("large", _result(16, 1.0, commit="aaaaaaaa1"))
    others = ("convert", "start", "input", "quota")
    assert page.of_the_page() == "aaaaaaaa1"
    monkeypatch.setattr(page, "_shown", lambda file: file.stem)
    assert page.earlier() == "\n".join(f"## {name.capitalize()}\n\n{name}" for name in others)


def test_the_readme_shows_the_kept_figures_and_nothing_else() -> None:
    text = page.README.read_text(encoding="utf-8")
    assert page.between(text, "speed", page.summed_up()) == text


def test_the_summary_has_a_block_for_each_processor_and_instruction_set_and_ratios_of_one_run() -> None:
    def result(name: str, instructions: str, peer: str, contender: str) -> Result:
        rows = [Row(peer, turns=[3.0, 2.0, 2.0]), Row(contender, turns=[1.0, 1.0, 1.0])]
        machine = {"processor": "a processor", "instructions": instructions, "cores": 2}
        return Result(name, machine, [Comparison(Case("xcit_tiny_12_p16_224"), rows, "2026-11-26", "abc")])

    inference = [result("inference", "AVX-512", MINDCV, FUSED), result("inference", "AVX2", TIMM, OURS)]
    text = summary.markdown(inference, [result("deployment", "AVX-512", OPENVINO, FUSED)], [])
    wide, narrow = text.split("**AVX2, a processor**")
    assert "| inference, `fuse()`, batch 1 |  |  | 2.00 (2.00–2.50) |  | 2.00 (2.00–2.50) |" in wide
    assert "| inference, batch 1 | 2.00 (2.00–2.50) |  |  |  |  |" in narrow
    assert "AVX-512, a processor: 2026-11-26, commit abc" in text


def test_measuring_a_case_again_replaces_it_and_keeps_the_others(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    for batch, seconds in ((16, 0.5), (1, 0.25), (1, 0.125)):
        page.keep("inference", _result(batch, seconds))
    page.keep("inference", _result(1, 1.0, "AVX2"))
    page.keep("inference", _result(1, 1.0, processor="Another maker's"))
    file, *others = page.kept("inference")
    assert [each.parent.name for each in (file, *others)] == ["avx512-maker", "avx512-another", "avx2-maker"]
    kept = Result.from_dict(json.loads(file.read_text(encoding="utf-8")))
    assert [(each.case.batch, each.rows[0].turns) for each in kept.comparisons] == [(1, [0.125]), (16, [0.5])]
    assert file.with_suffix(".svg").exists()


def test_a_table_of_another_commit_alone_is_said_to_be_on_the_page_of_earlier_ones() -> None:
    text, now = page.PAGE.read_text(encoding="utf-8"), page.of_the_page()
    names = [name for name in (*page.RUNS, *page.PRINTED) if page.kept(name)]
    elsewhere = [name for name in names if not any(page.commits(file) == {now} for file in page.kept(name))]
    assert [name for name in names if f"]({page.EARLIER.name}#{name})." in text] == elsewhere
    headings = page.EARLIER.read_text(encoding="utf-8").lower()
    assert all(f"\n## {name}\n" in headings for name in elsewhere)


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(InputError, match="no place for inference"):
        page.written("# Performance")
