"""The rule itself: what passes, what does not, and that luck on PyTorch's side refuses nobody."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from xcit_hub import parity
from xcit_hub.parity import Check, Distance, ParityResult, Reference, tells_of_the_same_proof, verdict

torch = pytest.importorskip("torch")

_UNIT = 2.0**-24


def _check(ours: tuple[float, float], pytorch: tuple[float, float], scale: float = 1.0, remark: str = "") -> Check:
    return Check("logits", Distance(*ours), Distance(*pytorch), scale, remark=remark)


@pytest.mark.parametrize(
    ("ours", "passed"),
    [
        ((2e-6, 1e-6), True),
        ((2.1e-6, 1e-6), False),
        ((1e-6, 2e-5), True),
        ((1e-6, 2.1e-5), False),
        ((math.nan, 0.0), False),
        ((0.0, math.nan), False),
        ((math.inf, math.inf), False),
    ],
)
def test_twice_pytorchs_root_mean_square_and_four_times_its_largest_distance_pass(
    ours: tuple[float, float], passed: bool
) -> None:
    assert _check(ours, (1e-6, 5e-6)).passed is passed


def test_the_floor_is_in_roundoffs_of_the_outputs_root_mean_square() -> None:
    floor = parity.FLOOR * _UNIT
    assert _check((3 * floor, 3 * floor), (0.0, 0.0), scale=3.0).passed
    assert not _check((3.1 * floor, 3 * floor), (0.0, 0.0), scale=3.0).passed
    assert not _check((floor, 3.1 * floor), (0.0, 0.0), scale=3.0).passed


def test_a_distance_of_pytorchs_that_is_no_number_lets_nothing_pass() -> None:
    assert not _check((0.0, 0.0), (math.nan, math.nan)).passed


def test_error_and_bar_are_those_of_the_measure_that_decides() -> None:
    check = _check((1e-6, 9e-6), (1e-6, 2e-6), scale=2.0)
    assert check.measure == "largest" and not check.passed
    assert (check.error, check.bar, check.ratio) == pytest.approx((4.5e-6, 4e-6, 4.5))
    assert check.of_tolerance == pytest.approx(9 / 8)


class _Lucky(torch.nn.Module):
    """Its rounding: in float32 each new input gives another error of one and the same direction, the first tiny."""

    def __init__(self, errors: tuple[float, ...]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.errors = list(errors)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype == torch.float64:
            return self.weight * images.mean(dim=(1, 2, 3), keepdim=True).round() + torch.arange(4.0).double()
        return (self.weight + self.errors.pop(0)) * torch.arange(4.0).expand(len(images), 1, 1, 4)


def _reference(*errors: float) -> Reference:
    return Reference(_Lucky(errors), np.zeros((2, 3, 4, 4), np.float32))


def test_pytorch_runs_again_before_anything_is_refused() -> None:
    reference = _reference(1e-6, 1e-6, 1e-5)
    found = {"logits": np.broadcast_to(np.arange(4.0) * (1 + 1.5e-5), (2, 1, 1, 4)).astype(np.float32)}
    assert reference.runs == 1
    (check,) = reference.check(found)
    assert check.passed and reference.runs == 3
    assert check.ratio == pytest.approx(1.5, rel=0.1)


def test_it_runs_no_more_than_it_may_and_a_wrong_value_stays_wrong() -> None:
    reference = _reference(*[1e-6] * parity.PYTORCH_RUNS)
    for error, runs in ((0.1, 1), (1e-4, parity.PYTORCH_RUNS)):
        (check,) = reference.check({"logits": np.broadcast_to(np.arange(4.0) + error, (2, 1, 1, 4))})
        assert not check.passed and reference.runs == runs


@pytest.mark.parametrize(
    ("found", "remark"),
    [
        ({}, "PyTorch's alone"),
        ({"logits": np.zeros((2, 1, 1, 4)), "more": np.zeros(2)}, "ours alone"),
        ({"logits": np.zeros((2, 4))}, "has shape (2, 4)"),
        ({"logits": np.full((2, 1, 1, 4), np.inf)}, "not finite"),
        ({"logits": np.full((2, 1, 1, 4), np.nan)}, "not finite"),
    ],
)
def test_what_cannot_be_measured_fails_with_its_reason(found: dict[str, np.ndarray], remark: str) -> None:
    checks = _reference(*[1e-6] * parity.PYTORCH_RUNS).check(found)
    failed = [check for check in checks if check.remark]
    assert len(failed) == 1 and remark in failed[0].remark and not failed[0].passed


def _result(*checks: Check) -> ParityResult:
    return ParityResult("xcit_nano_12_p16_224", "paper", (64, 64), checks)


def test_the_sentence_names_what_failed_with_both_distances_ratio_and_tolerance() -> None:
    fine = _check((1e-6, 2e-6), (1e-6, 2e-6))
    block = Check("blocks.7", Distance(5e-6, 6e-6), Distance(1e-6, 6e-6), 1.0)
    text = str(_result(fine, block))
    assert "NOT equal: blocks.7 of 2 outputs" in text
    for figure in ("5.0e-06", "PyTorch's own 1.0e-06", "ratio 5", "tolerance 2.0e-06"):
        assert figure in text
    assert "NOT" not in str(_result(fine)) and "logits" in str(_result(fine))


def test_json_gives_the_same_sentence_and_says_its_format() -> None:
    result = _result(_check((1e-6, 2e-6), (1e-6, 2e-6)), _check((5e-6, 6e-6), (1e-6, 6e-6)))
    figures = json.loads(json.dumps(result.as_dict()))
    assert figures["format"] == parity.FORMAT
    assert verdict(figures) == result.verdict
    assert figures["passed"] is False and figures["failed"] == ["logits"]
    assert [set(check) >= {"what", "error", "bar", "passed"} for check in figures["checks"]] == [True, True]


def test_json_is_json_also_where_pytorch_was_exact_or_nothing_is_finite() -> None:
    exact = _check((1e-8, 1e-8), (0.0, 0.0))
    broken = Check("blocks.1", Distance(math.inf, math.nan), Distance(0.0, 0.0), 1.0, remark="is not finite")
    figures = json.loads(json.dumps(_result(exact, broken).as_dict(), allow_nan=False))
    assert figures["checks"][0]["ratio"] is None and figures["checks"][1]["ours"] == {"rms": None, "largest": None}
    assert "ratio infinite" in verdict(_result(exact).as_dict())
    assert "which is not finite" in verdict(figures)


def _report(**changed: Any) -> dict[str, Any]:
    checks = tuple(Check(name, Distance(2e-7, 9e-7), Distance(2e-7, 8e-7), 1.0) for name in ("logits", "stem"))
    made = {"checks": checks, "versions": {"torch": "2.8"}, "instruction_set": "AVX2", **changed}
    return json.loads(json.dumps(ParityResult("xcit_custom", "paper", (64, 64), **made).as_dict()))


def test_a_report_that_another_machine_made_of_the_same_proof_is_known_again() -> None:
    elsewhere = (
        Check("logits", Distance(2.6e-7, 1.9e-6), Distance(1.6e-7, 6e-7), 1.0),
        Check("stem", Distance(2e-7, 9e-7), Distance(2e-7, 8e-7), 1.0 + 1e-9),
    )
    assert tells_of_the_same_proof(_report(), _report())
    assert tells_of_the_same_proof(_report(checks=elsewhere), _report())


@pytest.mark.parametrize(
    "changed",
    [
        {"versions": {"torch": "99.9"}}, {"architecture": "xcit_other"}, {"max_error": 0.0}, {"bar": 1.0},
        {"instruction_set": "**the best**"}, {"more": 1}, {"checks": []}, {"checks": None}, {"worst": "nothing"},
        {"passed": 1}, {"checks": [{"what": "logits"}] * 2}, {"checks": _report()["checks"][:1]},
        {"checks": _report()["checks"][::-1]},
    ],
    ids=str,
)  # fmt: skip
def test_a_report_that_was_changed_by_hand_is_not_of_the_same_proof(changed: dict[str, Any]) -> None:
    assert not tells_of_the_same_proof({**_report(), **changed}, _report())


@pytest.mark.parametrize("far", [0.0, -2e-7, 5e-7, float("nan"), float("inf"), "2e-7", None, 10**400], ids=repr)
def test_a_distance_that_no_other_machine_would_measure_is_not_of_the_same_proof(far: Any) -> None:
    held = _report()
    held["checks"][0]["ours"]["rms"] = far
    assert not tells_of_the_same_proof(held, _report())


@pytest.mark.parametrize("held", [None, [], "passed", 1, {}, {"passed": True}, {"checks": "logits"}], ids=repr)
def test_what_is_no_report_is_not_of_the_same_proof(held: Any) -> None:
    assert not tells_of_the_same_proof(held, _report())


def test_reports_of_older_versions_are_still_read() -> None:
    old = {"passed": False, "max_error": 1e-6, "relative_error": 2e-6, "bar": 1e-5}
    old["checks"] = [
        {"what": "logits", "error": 2e-6, "bar": 1e-5, "passed": True},
        {"what": "blocks.3", "error": 2e-5, "bar": 1e-5, "passed": False},
    ]
    assert verdict(old) == "NOT equal: blocks.3"
    assert verdict({"passed": True}) == "equal"
