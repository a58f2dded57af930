"""Growth is measured one quantity at a time, and fitted beside what it is on paper."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from benchmarks import plot, tables
from benchmarks.case import Case
from benchmarks.flops import numbers
from benchmarks.growth import ON_PAPER, QUANTITIES, cases_around, on_paper
from benchmarks.networks import FUSED, OURS, TIMM
from benchmarks.result import Comparison, Result, Row
from benchmarks.rounds import Process
from benchmarks.suites import SUITES, Wanted
from xcit_hub.parameters import parameter_count
from xcit_hub.variants import architecture

_NANO = "xcit_nano_12_p16_224"
_BASE = Case(_NANO, depth=12, cores=2)
_CASES = [
    *(replace(_BASE, height=side, width=side) for side in (224, 448, 672)),
    *(replace(_BASE, batch=batch) for batch in (2, 8)),
    *(replace(_BASE, depth=depth) for depth in (6, 24)),
    *(replace(_BASE, model=model) for model in ("xcit_tiny_12_p16_224", "xcit_medium_24_p16_224")),
    replace(_BASE, cores=1),
]


def _quantities(case: Case) -> dict[str, int]:
    return {name: of(case) for name, of in QUANTITIES.items()}


def _grown(case: Case) -> float:
    """A law of its own for each quantity."""
    of = _quantities(case)
    return 1e-9 * of["tokens"] ** 1.5 * of["batch"] * of["depth"] ** 0.5 * of["width"] ** 2 / of["cores"] ** 0.75


def _result() -> Result:
    comparisons = []
    for case in _CASES:
        memory = 300.0 + of_memory(case)
        rows = [Row(name, turns=[_grown(case) / case.batch] * 3, running_mb=memory) for name in (TIMM, OURS)]
        comparisons.append(Comparison(case, rows))
    return Result("growth", {"processor": "a processor", "cores": 2}, comparisons)


def of_memory(case: Case) -> float:
    return on_paper(case).memory_mb


@pytest.mark.parametrize(
    ("quantity", "exponent"), [("tokens", 1.5), ("batch", 1.0), ("depth", 0.5), ("width", 2.0), ("cores", -0.75)]
)
def test_each_quantity_is_fitted_where_the_others_stand_still(quantity: str, exponent: float) -> None:
    fitted = _result().exponents()[quantity]
    assert list(fitted) == [ON_PAPER, TIMM, OURS]
    assert fitted[OURS]["time"] == pytest.approx(exponent)
    assert fitted[OURS]["memory"] == (
        None if quantity == "cores" else pytest.approx(fitted[ON_PAPER]["memory"], abs=0.01)
    )


def test_on_paper_time_is_linear_in_tokens_and_batch_and_inverse_in_cores() -> None:
    fitted = {quantity: each[ON_PAPER]["time"] for quantity, each in _result().exponents().items()}
    assert fitted["tokens"] == pytest.approx(1.0, abs=0.01)
    assert fitted["batch"] == pytest.approx(1.0, abs=0.01)
    assert fitted["cores"] == pytest.approx(-1.0)
    assert 0.5 < fitted["depth"] < 1.0  # the stem and class attention do not grow with it
    assert 1.5 < fitted["width"] < 2.0


def test_on_paper_memory_is_the_parameters_and_one_steps_activations() -> None:
    nano = architecture(_NANO)
    parameters = parameter_count(nano)
    one, four = (numbers(nano, 224, 224, batch=batch) for batch in (1, 4))
    assert four - parameters == 4 * (one - parameters) > 0
    # The first convolution makes 16 channels of half the sides, and the second reads them.
    assert one - parameters == 112 * 112 * 16 + max(3 * 224 * 224, 56 * 56 * 32)


def test_the_suite_varies_one_quantity_at_a_time(tmp_path) -> None:
    cases = SUITES["growth"].cases(Wanted(), tmp_path)
    base, *others = cases
    assert len(set(cases)) == len(cases)
    assert (base.model, base.depth, base.cores) == (_NANO, 12, len(os.sched_getaffinity(0)))
    middle = _quantities(base)
    changed = [[name for name, value in _quantities(case).items() if value != middle[name]] for case in others]
    assert all(len(names) == 1 for names in changed)
    expected = set(QUANTITIES) - ({"cores"} if middle["cores"] == 1 else set())
    assert {names[0] for names in changed} == expected
    widths = [_quantities(case)["width"] for case in others if _quantities(case)["width"] != middle["width"]]
    assert sorted(widths) == [192, 384, 512, 768]


def test_sizes_and_batches_can_be_chosen() -> None:
    cases = cases_around(Case("xcit_nano_12_p8_224"), [(64, 32)], [5])
    assert {(case.height, case.width) for case in cases} == {(224, 224), (64, 32)}
    assert {case.batch for case in cases} == {1, 5}


def test_the_table_has_a_section_for_each_quantity_and_what_is_on_paper_first() -> None:
    lines = tables.markdown(_result()).splitlines()
    for quantity, values in (("tokens", "196, 784, 1764"), ("depth", "6, 12, 24"), ("cores", "1, 2")):
        place = lines.index(f"| **{quantity}: {values}** |  |  |  |  |")
        assert lines[place + 1].startswith(f"| {ON_PAPER} |")
        assert lines[place + 3].startswith(f"| {OURS} |")
    assert "| -0.75 |" in "".join(lines)


def test_growth_is_drawn(tmp_path) -> None:
    path = tmp_path / "growth.svg"
    plot.draw(_result(), path)
    text = path.read_text()
    assert all(quantity in text for quantity in QUANTITIES)


def test_a_result_with_depths_and_cores_survives_its_file() -> None:
    result = _result()
    again = Result.from_dict(result.as_dict())
    assert again == result


def test_a_contender_has_the_cores_and_the_depth_of_its_case() -> None:
    case = Case(_NANO, height=32, width=32, depth=3, cores=1)
    with Process("growth", FUSED, case) as process:
        flops = process.ready["flops"]
        assert process.turn(1)["images"] == 1
    assert flops == pytest.approx(1e9 * on_paper(case).seconds)
    assert flops < SUITES["growth"].contenders[FUSED].flops(replace(case, depth=0)) / 2
