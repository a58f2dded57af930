"""What a proof found, as an object, as JSON and as a sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xcit_hub.junit import Case
from xcit_hub.parity.rule import (
    FLOOR,
    GRADIENT_FLOOR,
    LARGEST_FACTOR,
    RMS_FACTOR,
    UNIT_ROUNDOFF,
    Check,
    Distance,
    finite,
    worst,
)

FORMAT = 2
"""Version of :meth:`ParityResult.as_dict`. Reports before had none, and errors between two float32 networks."""

_NAMED = 3
_SCALE_FACTOR = 1 + 1e-6  # computed in double precision on every machine


@dataclass(frozen=True)
class Departure:
    """The first layer whose output leaves its tolerance, and the layers that ran just before it."""

    check: Check
    before: tuple[Check, ...]

    @property
    def layer(self) -> str:
        """The layer's name."""
        return self.check.what

    def __str__(self) -> str:
        before = ", ".join(f"{check.what} {check.of_tolerance:.2g}" for check in self.before) or "nothing"
        return f"first departs at {self.layer} ({self.check.of_tolerance:.2g} × its tolerance); before it: {before}"


@dataclass(frozen=True)
class ParityResult:
    """What a comparison of two networks found.

    Args:
        image_size: height and width of the images that both saw.
        dtype: in which both computed.
        checks: the logits first.
        departure: where they part, if they do and one layer can be blamed.
        pytorch_runs: how often PyTorch ran to measure its own rounding.
        instruction_set: what PyTorch used of the processor.
        weights: which weights both had: random ones and their seed, or a file's name and SHA-256; empty where who
            asked for the proof knows it alone.
        notes: what was assumed, chosen or left out while a file was read.
    """

    architecture: str
    dialect: str
    image_size: tuple[int, int]
    checks: tuple[Check, ...]
    departure: Departure | None = None
    dtype: str = "float32"
    pytorch_runs: int = 1
    instruction_set: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    weights: str = ""
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks beyond their tolerance, in the order in which the network computes."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def worst(self) -> Check:
        """The check furthest beyond its tolerance, or nearest to it."""
        return worst(self.checks)

    @property
    def logits(self) -> Check:
        """The check of the logits."""
        return self.checks[0]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values. ``max_error``, ``relative_error`` and ``bar`` are the logits'."""
        return {
            "format": FORMAT,
            "rule": {
                "truth": "float64",
                "rms": RMS_FACTOR,
                "largest": LARGEST_FACTOR,
                "floor": FLOOR,
                "gradient_floor": GRADIENT_FLOOR,
            },
            "architecture": self.architecture,
            "dialect": self.dialect,
            **({"weights": self.weights} if self.weights else {}),
            "image_size": list(self.image_size),
            "dtype": self.dtype,
            "passed": self.passed,
            "failed": [check.what for check in self.failed],
            "worst": self.worst.what,
            "max_error": finite(self.logits.ours.largest),
            "relative_error": finite(self.logits.error),
            "bar": finite(self.logits.bar),
            "pytorch_runs": self.pytorch_runs,
            "checks": [check.as_dict() for check in self.checks],
            "departure": str(self.departure) if self.departure else None,
            "instruction_set": self.instruction_set,
            "versions": dict(self.versions),
            # Of a file alone: a report without them is as those that are published already.
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    def cases(self, name: str) -> tuple[Case, ...]:
        """Return a case of a JUnit report for each check of the network of that name."""
        of, failed = f"{name} ({self._computed})", {check.what for check in self.failed}
        return tuple(Case(of, each.what, failure=str(self) if each.what in failed else "") for each in self.checks)

    def __str__(self) -> str:
        height, width = self.image_size
        text = f"{self.architecture} ({self._computed}) at {height}×{width}: {self.verdict}"
        return f"{text}; {self.departure}" if self.departure else text

    @property
    def _computed(self) -> str:
        return f"{self.dialect}, {self.dtype}" + (f"; weights: {self.weights}" if self.weights else "")

    @property
    def verdict(self) -> str:
        """Whether the networks are equal, and the figures of the check that says so."""
        return verdict(self.as_dict())


def tells_of_the_same_proof(held: Any, new: Mapping[str, Any]) -> bool:
    """Whether a report from elsewhere is of the proof that ``new`` tells of, but for how another machine rounded.

    Its distances may be as far from the new ones as the rule lets ours be from PyTorch's, and all else has to be what
    follows from them: nothing else of it is believed.

    Args:
        held: what was read as JSON, from whomever.
        new: a passed proof's :meth:`ParityResult.as_dict`, without gradients.
    """
    try:
        theirs, own = _distances(held), _distances(new)
    except (LookupError, TypeError):
        return False
    if len(theirs) != len(own) or not all(map(_are_near, theirs, own)):
        return False
    unit = UNIT_ROUNDOFF[new["dtype"]]
    checks = (
        Check(check["what"], Distance(*found[:2]), Distance(*found[2:4]), found[4], unit, check["remark"])
        for check, found in zip(new["checks"], theirs, strict=True)
    )
    same = ParityResult(
        new["architecture"],
        new["dialect"],
        new["image_size"],
        tuple(checks),
        dtype=new["dtype"],
        pytorch_runs=new["pytorch_runs"],
        instruction_set=new["instruction_set"],
        versions=new["versions"],
        weights=new.get("weights", ""),
    )
    return json.dumps(same.as_dict(), sort_keys=True) == json.dumps(held, sort_keys=True)


def _distances(figures: Any) -> list[list[float]]:
    """Return what was measured of each check: everything else in a report follows from it."""
    measured = [("ours", "rms"), ("ours", "largest"), ("pytorch", "rms"), ("pytorch", "largest")]
    return [[*(check[side][of] for side, of in measured), check["scale"]] for check in figures["checks"]]


def _are_near(theirs: list[float], own: list[float]) -> bool:
    factors = (RMS_FACTOR, LARGEST_FACTOR, RMS_FACTOR, LARGEST_FACTOR, _SCALE_FACTOR)
    return all(
        isinstance(a, float) and a >= 0.0 and max(a, b) <= factor * min(a, b)
        for a, b, factor in zip(theirs, own, factors, strict=True)
    )


def verdict(figures: Mapping[str, Any]) -> str:
    """Say in a sentence what :meth:`ParityResult.as_dict` holds; also of reports that older versions wrote."""
    checks = [check for check in figures.get("checks", ()) if isinstance(check, Mapping)]
    if figures.get("format") != FORMAT or not checks:
        beyond = [str(check.get("what")) for check in checks if not check.get("passed")]
        return ("equal" if figures.get("passed") else "NOT equal") + (f": {', '.join(beyond)}" if beyond else "")
    decisive = next(check for check in checks if check["what"] == figures["worst"])
    if figures["passed"]:
        return f"equal in {len(checks)} outputs; nearest to its tolerance is {_sentence(decisive)}"
    failed = figures["failed"]
    named = ", ".join(failed[:_NAMED]) + (f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else "")
    return f"NOT equal: {named} of {len(checks)} outputs; furthest {_sentence(decisive)}"


def _sentence(check: Mapping[str, Any]) -> str:
    if check["remark"]:
        return f"{check['what']}, which {check['remark']}"
    measure = check["measure"]
    scale, pytorch = check["scale"], check["pytorch"][measure]
    words = "root mean square" if measure == "rms" else "largest"
    return (
        f"{check['what']}: {words} distance from float64 {_figure(check['error'])}, PyTorch's own "
        f"{_figure(pytorch / scale if scale and pytorch is not None else pytorch)} "
        f"(ratio {_figure(check['ratio'], '.2g')}, tolerance {_figure(check['bar'])})"
    )


def _figure(value: float | None, form: str = ".1e") -> str:
    return "infinite" if value is None else format(value, form)
