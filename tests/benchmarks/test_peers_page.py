"""docs/training.md shows what was kept of the comparison with the other trainers, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import peers_page
from benchmarks.peers_result import interval, read
from xcit_hub.errors import InputError


def kept() -> dict:
    return json.loads(peers_page.KEPT.read_text("utf-8"))


def test_the_page_shows_what_was_kept_and_nothing_else() -> None:
    text = peers_page.PAGE.read_text("utf-8")
    assert peers_page.written(text, kept()) == text
    assert peers_page.KEPT.with_suffix(".svg").is_file()


def test_ours_is_within_the_interval_of_the_best_wherever_two_seeds_ran() -> None:
    trained = [each for each in read(kept()) if len(each.runs) > 1]
    compared = 0
    for data in {each.data for each in trained}:
        means = {each.trainer: interval(each.scores) for each in trained if each.data == data}
        _, low, _ = max(means.values())
        for name in ("xcit-hub", "xcit-hub, MindCV's dialect"):
            assert means[name][2] >= low, (data, name)
        compared += len(means) - 2
    assert compared >= 2, "others were trained on both kinds of images"


def test_curves_are_drawn_to_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        peers_page.draw(read(kept()), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(InputError, match="no place"):
        peers_page.written("# Training", kept())
