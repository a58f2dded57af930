"""One wheel beside another: what is said follows from the rounds, and disturbed ones are measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.compare import Compared, Row, Turn, _measured
from benchmarks.result import Spread
from xcit_hub.errors import XcitHubError

_CHECKOUT = Path(__file__).parents[2]
_ROW = Row("work", "command")


def _turn(seconds: float, *, others: float = 0.0, stolen: float = 0.0) -> Turn:
    return Turn(seconds, stolen, others, load=0.0, peak_mb=100.0)


def _compared(*ratios: float) -> Compared:
    return Compared(
        _ROW, [{"old": _turn(number), "new": _turn(number * ratio)} for number, ratio in enumerate(ratios, 1)]
    )


def test_ratios_are_new_over_old_within_each_round() -> None:
    assert _compared(1.0, 2.0, 3.0).ratio == Spread(2.0, 1.5, 2.5)


@pytest.mark.parametrize(
    ("ratios", "verdict"), [((1.1, 1.2, 1.3), "slower"), ((0.9, 1.0, 1.1), "same"), ((0.7, 0.8, 0.9), "faster")]
)
def test_a_wheel_is_slower_where_both_quartiles_are_above_one(ratios: tuple[float, ...], verdict: str) -> None:
    assert _compared(*ratios).verdict == verdict


def test_the_wheels_take_turns_and_each_is_first_as_often() -> None:
    asked = []

    def turn(side: str) -> Turn:
        asked.append(side)
        return _turn(1.0)

    _measured(_ROW, turn, 2, 1, lambda _: None)
    assert asked == ["old", "new", "new", "old"]


@pytest.mark.parametrize("kind", ["others", "stolen"])
def test_a_disturbed_round_is_measured_again_and_the_quietest_is_kept(kind: str) -> None:
    taken = iter([0.9, 0.0, 0.0, 0.0])  # the first turn of the old wheel was beside other work

    compared = _measured(_ROW, lambda _: _turn(1.0, **{kind: next(taken)}), 1, 4, lambda _: None)
    assert (compared.repeated, compared.disturbed) == (1, 0)
    assert compared.rounds[0]["old"].disturbance == 0.0


def test_rounds_that_stay_disturbed_are_counted() -> None:
    compared = _measured(_ROW, lambda _: _turn(1.0, others=0.5), 2, 3, lambda _: None)
    assert (len(compared.rounds), compared.repeated, compared.disturbed) == (2, 4, 2)


def test_a_wheel_that_breaks_is_named_with_its_reason() -> None:
    def turn(side: str) -> Turn:
        raise XcitHubError("it broke", where=side)

    compared = _measured(_ROW, turn, 2, 1, lambda _: None)
    assert compared.as_dict()["failed"] == "it broke\n  where: old"


def test_two_trees_are_compared_and_every_round_is_written(run_benchmarks, tmp_path) -> None:
    figures = tmp_path / "compared.json"
    rows = ("--row", "xcit-hub*", "--row", "load*")
    quick = ("--rounds", "1", "--seconds", "0", "--tries", "1", "--model", "xcit_nano_12_p16_224")
    done = run_benchmarks("compare", str(_CHECKOUT), str(_CHECKOUT), *quick, *rows, "--json", str(figures))
    assert done.returncode == 0, done.stderr
    assert "new / old" in done.stdout
    content = json.loads(figures.read_text())
    assert [row["name"] for row in content["rows"]] == [
        "xcit-hub --version",
        "load from a folder hub, imports included",
    ]
    for row in content["rows"]:
        (turns,) = row["rounds"]
        assert row["ratio"]["median"] == pytest.approx(turns["new"]["seconds"] / turns["old"]["seconds"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.whl", str(_CHECKOUT)), "not a wheel of xcit-hub"),
        ((str(_CHECKOUT), str(_CHECKOUT / "README.md")), "not a wheel of xcit-hub"),
        ((str(_CHECKOUT), str(_CHECKOUT), "--row", "speed"), "inference, batch 1"),
        ((str(_CHECKOUT), str(_CHECKOUT), "--json", "nowhere/compared.json"), "does not exist"),
    ],
)
def test_a_mistake_in_a_comparison_is_answered_in_words(run_benchmarks, tmp_path, arguments, words: str) -> None:
    done = run_benchmarks("compare", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_called_a_wheel_and_is_not_is_refused(run_benchmarks, tmp_path) -> None:
    wheel = tmp_path / "xcit_hub-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"not a zip file")
    done = run_benchmarks("compare", str(wheel), str(_CHECKOUT))
    assert done.returncode == 2
    assert "cannot be installed" in done.stderr
