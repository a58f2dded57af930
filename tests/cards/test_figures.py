"""Figures of cards are read exactly or not at all."""

import pytest

from cards import figures
from cards.check import check
from cards.metadata import CardMetadata, Result


@pytest.mark.parametrize(
    ("evaluation", "ranked"),
    [
        ("top1acc77.27 | top5acc93.56", {1: 77.27, 5: 93.56}),
        ("top1acc79", {1: 79.0}),
        ("Top-1 accuracy: 77.3 % | TOP5ACC 93", {1: 77.3, 5: 93.0}),
        ("top1: 77.27|top5: 93.56", {1: 77.27, 5: 93.56}),
        ("top10acc88.5", {10: 88.5}),
        ("top15acc80", {15: 80.0}),
        ("acc0.93", {}),
        ("mAP37.3 | rank1acc90", {}),
        ("", {}),
        (None, {}),
    ],
)
def test_an_accuracy_is_read_whole(evaluation, ranked):
    assert figures.read(evaluation) == (ranked, [])


@pytest.mark.parametrize(
    ("evaluation", "ranked", "named"),
    [
        ("top1acc77,27", {}, "top1acc77,27"),
        ("laptop1 77", {}, "laptop1 77"),
        ("acc@1 77", {}, "acc@1 77"),
        ("top1pem88.0", {}, "top1pem88.0"),
        ("top1caa79.38 | top5acc93", {5: 93.0}, "top1caa79.38"),
        ("top1acc69.73 | top1acc89.35", {}, "top-1 is given 2 times (69.73, 89.35)"),
        ("top1acc69.73 | top1acc69.73", {}, "top-1 is given 2 times"),
        ("top1acc177.2", {}, "177.2"),
        ("top1acc7700", {}, "top1acc7700"),
        ("top1acc77.27.1", {}, "top1acc77.27.1"),
        ("top1acc-5", {}, "top1acc-5"),
        ("top1acc1e3", {}, "top1acc1e3"),
        ("top1acc77.27 top5acc93.56", {}, "top1acc77.27 top5acc93.56"),
        ("top1acc77.27, top5acc93.56", {}, "top1acc77.27, top5acc93.56"),
        ("top1acc77.27 (on cifar)", {}, "top1acc77.27 (on cifar)"),
        ("top1acc９９", {}, "top1acc９９"),
        ("top0acc5", {}, "top0acc5"),
        ("top1577.2", {}, "top1577.2"),
        ("top1acc99 | top5acc93", {}, "cannot exceed"),
    ],
)
def test_what_is_not_one_is_left_out_by_name(evaluation, ranked, named):
    found = figures.read(evaluation)
    assert found.ranked == ranked
    assert len(found.refused) == 1 and named in found.refused[0]
    card = f"# t\n\n---\nevaluation: {evaluation}\n---\n\nx\n"
    assert [fault.severity for fault in check(card) if fault.field == "evaluation"] == ["warning"]


@pytest.mark.parametrize("top1", [0.0, 0.1, 12.5, 77.27, 99.999, 100.0])
def test_what_is_written_is_read(top1):
    assert figures.read(figures.write(top1, None)).ranked == {1: top1}
    assert figures.read(figures.write(top1, 100.0)).ranked == {1: top1, 5: 100.0}


@pytest.mark.parametrize(
    ("metric", "rank"),
    [
        ("accuracy top-1 accuracy (%)", 1), ("top-5", 5), ("top 1", 1), ("top-15", 15), ("laptop-1", None),
        ("accuracy", None), ("top-1 and top-5", None), ("top-1.5", None),
    ],
)  # fmt: skip
def test_a_metrics_name_says_its_rank_or_none(metric, rank):
    assert figures.rank_of(metric) == rank


@pytest.mark.parametrize(
    ("cell", "value"),
    [("77.27", 77.27), ("**77.27**", 77.27), ("77 %", 77.0), ("77,27", None), ("~77", None), ("77.2 / 93.1", None),
     ("-", None), ("", None), ("top1", None), ("1.2e3", None)],
)  # fmt: skip
def test_a_tables_cell_is_a_number_or_is_none(cell, value):
    assert figures.number(cell) == value


def result(value: float, source: str = "me", metric: str = "top-1 accuracy") -> Result:
    return Result(
        task_type="image-classification", dataset_type="cifar10", dataset_name="cifar10", metric_type="accuracy",
        metric_value=value, metric_name=metric, source_name=source, source_url="https://a.b",
    )  # fmt: skip


def test_a_measurement_with_two_figures_of_one_rank_has_none():
    assert CardMetadata(results=[result(70.0), result(71.0)]).accuracy_of(1) is None
    assert CardMetadata(results=[result(70.0), result(70.0)]).accuracy_of(1) == 70.0
    assert CardMetadata(results=[result(70.0), result(71.0, "you")]).accuracy_of(1) == 70.0
    assert CardMetadata(results=[result(170.0)]).accuracy_of(1) is None
    assert CardMetadata(results=[result(70.0, metric="laptop-1")]).accuracy_of(1) is None
