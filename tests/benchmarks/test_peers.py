"""The trainers beside each other: their images, their recipe in each one's words, and what is said of the scores."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import peers
from benchmarks.peers import Task
from benchmarks.peers_result import OTHER_DIALECT, Run, Trained, interval, merged, table, verdicts


@pytest.mark.parametrize("name", list(peers.DATA))
def test_the_images_are_the_same_every_time_and_no_image_is_in_both_splits(tmp_path: Path, name: str) -> None:
    pytest.importorskip("sklearn")
    counts = [peers.DATA[name](tmp_path / folder) for folder in ("a", "b")]
    files = {
        split: sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a" / split).rglob("*.png"))
        for split in ("train", "val")
    }
    assert counts[0] == counts[1] == len({path.parent.name for path in files["train"]})
    assert {path.parent.name for path in files["train"]} == {path.parent.name for path in files["val"]}
    pixels = {}
    for path in files["train"] + files["val"]:
        content = (tmp_path / "a" / path).read_bytes()
        assert content == (tmp_path / "b" / path).read_bytes()
        with Image.open(tmp_path / "a" / path) as image:
            assert (image.size, image.mode) == ((peers.SIDE, peers.SIDE), "RGB")
            pixels.setdefault(np.asarray(image).tobytes(), set()).add(path.parts[0])
    assert all(len(splits) == 1 for splits in pixels.values())


def test_an_interval_is_students() -> None:
    mean, low, high = interval([97.0, 98.0, 99.0])
    assert mean == 98.0
    assert high - mean == pytest.approx(4.303 / math.sqrt(3))
    assert mean - low == pytest.approx(high - mean)
    assert math.isnan(interval([97.0])[1])
    assert "| 97.00 | 97.00 |" in table([Trained("a", "b", {0: Run([1.0], [97.0])})])


def test_every_number_of_seeds_that_may_be_asked_for_has_its_own_quantile() -> None:
    t = pytest.importorskip("scipy.stats").t
    for seeds in range(2, 11):
        values = [float(seed) for seed in range(seeds)]
        mean, low, _ = interval(values)
        half = t.ppf(0.975, seeds - 1) * np.std(values, ddof=1) / math.sqrt(seeds)
        assert mean - low == pytest.approx(half, rel=2e-4)


def test_it_is_said_whether_our_mean_lies_within_the_interval_of_the_best() -> None:
    def scored(trainer: str, *scores: float) -> Trained:
        return Trained(trainer, "digits", {seed: Run([1.0], [score]) for seed, score in enumerate(scores)})

    ours = scored("xcit-hub", 96.0, 97.0, 98.0)
    assert verdicts([ours, scored("other", 96.5, 97.5, 98.5)]) == [
        "Of digits other has the best mean, 97.50; xcit-hub: 97.00, within its interval."
    ]
    assert "97.00, below its interval" in verdicts([ours, scored("other", 99.0, 99.1, 99.2)])[0]
    both = [ours, scored(OTHER_DIALECT, 98.0, 99.0), scored("other", 98.5, 98.6)]
    assert verdicts(both) == [
        "Of digits other has the best mean, 98.55; xcit-hub: 97.00, below its interval; "
        "xcit-hub, MindCV's dialect: 98.50, within its interval."
    ]
    assert verdicts([ours, scored("other", 90.0, 91.0)]) == ["Of digits xcit-hub has the best mean, 97.00."]
    assert verdicts([ours, scored("other", 99.0)]) == [], "one seed is not compared"


def test_what_was_trained_before_stays_whatever_happens_later() -> None:
    def breaks(task: Task) -> Run:
        raise RuntimeError("out of luck")

    before = [Trained("a", "shapes", {0: Run([1.0], [50.0])}), Trained("b", "digits", {0: Run([2.0], [60.0])})]
    found = peers.compare(["shapes"], {"a": breaks, "c": "not asked for"}, range(2), 3, pytest.fail, before)
    whole = merged(found, before)
    assert [(each.trainer, each.data, each.scores) for each in whole] == [
        ("a", "shapes", [50.0]), ("b", "digits", [60.0]), ("c", "shapes", []),
    ]  # fmt: skip
    assert "50.00; no more: seed 1: out of luck | 50.00" in table(whole)
    assert "not run: not asked for" in table(whole)


def test_a_trainer_that_is_not_there_is_named_and_one_that_breaks_does_not_end_the_others(tmp_path: Path) -> None:
    def broken(task: Task) -> Run:
        raise RuntimeError("exit code 1: out of luck")

    def works(task: Task) -> Run:
        assert (task.folder / "train").is_dir()
        return Run([2.0, 1.0], [50.0, 60.0 + task.seed])

    there = peers.trainers(None, tmp_path)
    assert isinstance(there["timm's train.py"], str)
    assert isinstance(there["MindCV's train.py"], str), "an empty folder is not a checkout"
    entrants = {"broken": broken, "works": works, "absent": "--timm names a checkout"}
    found = peers.compare(["shapes"], entrants, range(2), 3, lambda *_: None)
    assert [each.absent for each in found] == ["seed 0: exit code 1: out of luck", "", "--timm names a checkout"]
    shown = table(found)
    assert "60.00, 61.00 | 60.50" in shown
    assert "2.00 1.00" in shown
    assert "not run: seed 0: exit code 1" in shown
    assert json.dumps([vars(each) for each in found], default=vars)


def test_the_score_is_that_of_the_last_epoch() -> None:
    assert Trained("a", "b", {0: Run([1.0], [90.0, 80.0])}).scores == [80.0]


@pytest.mark.campaign
def test_our_trainer_learns_both_sets(tmp_path: Path) -> None:
    for name, chance in (("digits", 10), ("shapes", 25)):
        classes = peers.DATA[name](tmp_path / name)
        output = tmp_path / f"{name}-run"
        output.mkdir()
        trained = peers.ours(Task(tmp_path / name, classes, 4, 0, output), "paper")
        images = sum(1 for each in (tmp_path / name / "val").rglob("*") if each.is_file())
        luck = 100 * math.sqrt(chance / 100 * (1 - chance / 100) / images)
        assert trained.top1[-1] > chance + 5 * luck
        assert trained.losses[-1] < trained.losses[0]
