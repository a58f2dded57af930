"""What is said follows from what was measured."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from benchmarks import plot, tables
from benchmarks.case import Case
from benchmarks.networks import FUSED, OURS, TIMM, TIMM_COMPILED, TORCH_LIMIT
from benchmarks.result import Comparison, Result, Row, Spread
from xcit_hub.errors import InputError

_MACHINE = {"processor": "a processor", "cores": 2}


def _scaling(exponent: float, sides: tuple[int, ...] = (224, 448, 896)) -> Result:
    comparisons = []
    for side in sides:
        tokens = (side // 16) ** 2
        seconds = 1e-5 * tokens**exponent
        rows = [
            Row(TIMM, turns=[2 * seconds] * 3, start_mb=300.0, running_mb=300.0 + tokens / 10),
            Row(OURS, turns=[seconds] * 3, start_mb=200.0, running_mb=200.0 + tokens / 20),
        ]
        comparisons.append(Comparison(Case("xcit_nano_12_p16_224", height=side, width=side), rows))
    return Result("scaling", dict(_MACHINE), comparisons)


def test_quartiles_are_those_of_the_rounds() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine slowed down in the second round for both: the ratio must not see it.
    rows = [Row(TIMM, turns=[1.0, 10.0, 1.0]), Row(OURS, turns=[0.5, 5.0, 0.5])]
    comparison = Comparison(Case("xcit_nano_12_p16_224"), rows)
    assert comparison.times_as_fast(rows[1], TIMM) == Spread(2.0, 2.0, 2.0)
    assert comparison.times_as_fast(rows[0], TIMM) is None
    assert comparison.times_as_fast(rows[1], "timm, torch.compile") is None


def test_the_share_of_peak_is_of_the_faster_limit() -> None:
    rows = [
        Row(OURS, turns=[1.0], flops_per_second=25e9),
        Row(TORCH_LIMIT, turns=[1.0], flops_per_second=100e9),
        Row("limit: MindSpore matmul", turns=[1.0], flops_per_second=50e9),
    ]
    comparison = Comparison(Case("xcit_nano_12_p16_224"), rows)
    assert comparison.share_of_peak(rows[0]) == pytest.approx(0.25)
    assert comparison.times_as_fast(rows[1], OURS) is None  # it does other work


@pytest.mark.parametrize("exponent", [1.0, 1.5])
def test_exponents_are_those_the_figures_were_made_with(exponent: float) -> None:
    fitted = _scaling(exponent).exponents()
    assert fitted[OURS]["time"] == pytest.approx(exponent)
    assert fitted[OURS]["memory"] == pytest.approx(1.0)


def test_a_result_survives_its_file() -> None:
    result = _scaling(1.0)
    again = Result.from_dict(json.loads(json.dumps(result.as_dict())))
    assert again == result
    assert again.as_dict() == result.as_dict()


def test_a_result_of_a_later_format_is_refused_naming_it() -> None:
    with pytest.raises(InputError, match="format 2"):
        Result.from_dict({**_scaling(1.0).as_dict(), "format": 2})


def test_tables_have_every_contender_and_say_who_is_missing() -> None:
    result = _scaling(1.0)
    result.comparisons[0].rows.append(Row(FUSED, absent="it does not fuse"))
    text = tables.markdown(result)
    assert text.count(f"| {OURS} | 1.96 |") == 1  # 196 tokens of 1e-5 s, in ms
    assert text.count("| 2.00 (2.00–2.00) |") == 3
    assert f"- {FUSED}: not measured, it does not fuse" in text
    assert f"- {OURS}: time grows as tokens^1.00, memory as tokens^1.00" in text


def test_a_terminal_shows_reasons_as_they_are() -> None:
    result = _scaling(1.0)
    result.comparisons[0].rows.append(Row(TIMM_COMPILED, absent="pip install 'xcit-hub[timm]'"))
    console = Console(width=180, file=io.StringIO())
    console.print(tables.rich_table(result))
    assert f"{TIMM_COMPILED}: not measured, pip install 'xcit-hub[timm]'" in console.file.getvalue()


def test_a_table_says_which_rounds_stayed_disturbed_and_by_how_much() -> None:
    result = _scaling(1.0)
    assert "disturbed" not in tables.markdown(result)
    comparison = result.comparisons[1]
    comparison.disturbed = 2
    comparison.rows[0].others, comparison.rows[0].stolen = [0.0, 0.3, 0.1], [0.0, 0.1, 0.6]
    said = f"- {tables.label(comparison.case, result)}: measured 3 times, 2 of 3 rounds stayed disturbed: others took"
    assert f"{said} up to 0.7 cores" in tables.markdown(result)


def test_a_table_says_when_it_was_measured_and_of_which_commits() -> None:
    result = _scaling(1.0)
    assert "on an unknown day, commit an unknown one" in tables.heading(result)
    for comparison, day, commit in zip(
        result.comparisons, ("02", "01", "02"), ("b" * 9, "a" * 9, "b" * 9), strict=True
    ):
        comparison.date, comparison.commit = f"2026-11-{day}", commit
    assert result.measured == f"2026-11-01 to 2026-11-02, commit {'b' * 9}, {'a' * 9}"


@pytest.mark.parametrize(("suffix", "magic"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
@pytest.mark.parametrize("sides", [(224,), (224, 448)])
def test_a_plot_is_written_for_one_size_and_for_several(tmp_path, suffix: str, magic: bytes, sides) -> None:
    path = tmp_path / f"plot{suffix}"
    plot.check(path)
    plot.draw(_scaling(1.0, sides), path)
    assert path.read_bytes().startswith(magic)


def test_a_plot_of_another_kind_is_refused_before_anything_is_measured(tmp_path) -> None:
    with pytest.raises(InputError, match=r"\.gif"):
        plot.check(tmp_path / "plot.gif")
