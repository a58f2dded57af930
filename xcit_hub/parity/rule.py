"""The rule of the proof: computed once in double precision, every output says how far float32 may be from the truth.

Two float32 networks cannot judge each other: which of them is wrong, and how much of what lies between them is mere
rounding, depends on the weights and on the processor. So the truth is what PyTorch's network computes in double
precision on the very same weights and images, and the yardstick is how far PyTorch's own float32 is from that truth in
the same run. Over all elements of an output (:class:`Distance`), ours passes where

- its root-mean-square distance is at most :data:`RMS_FACTOR` times PyTorch's, and
- its largest distance is at most :data:`LARGEST_FACTOR` times PyTorch's;

neither has to be smaller than the floor ``FLOOR · u · RMS(output)``, ``u`` being the unit roundoff (2⁻²⁴ for float32).

One run of PyTorch's may be near the truth by luck, above all where an output has few elements or where one direction
carries all of its error. Before anything is refused PyTorch therefore runs again, up to :data:`PYTORCH_RUNS` times, on
images whose values differ in their last bit: each run rounds differently, and the largest distance counts. A wrong
network gains nothing by it: rounding stays rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Outputs = Callable[[Any, Any], Mapping[str, Any]]
"""A PyTorch network and its images → the network's outputs by name, PyTorch tensors."""
Stage = Callable[[str], None]
"""Told in a few words what is going on."""

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Half the distance from 1 to the next number, by dtype."""

RMS_FACTOR = 2.0
"""How many times PyTorch's own root-mean-square distance ours may reach."""

LARGEST_FACTOR = 4.0
"""How many times PyTorch's own largest distance ours may reach: an extreme scatters more than a mean."""

FLOOR = 16.0
"""Distances below this many unit roundoffs of the output's root mean square always pass.

It is there for outputs that PyTorch gives nearly exactly: of 500 badly conditioned networks 4 had outputs beyond
the factors, 4.3 to 7.5 unit roundoffs away (``tests/parity/test_parity_conditioning.py``). It asks for little more
than PyTorch gives: of 648 outputs the nearest hundredth was 4.4 away, the median 9.

Well conditioned networks need none: timm's 28 architectures and RobustBench's 5, both dialects, five seeds, on AVX2
(``tests/parity/floor-avx2.csv``, a row a network, which ``floor.py`` beside it measures; 64 × 64 pixels, gradients at
4 × 4 patches, batch 2). The largest ratios are those after one run of PyTorch's:

                                          largest ratio,    median      floor without which     runs of
                                          rms / largest     network's   something was refused   PyTorch's
                                          element           ratios      after one run / more    at most
    6,540 outputs of 330 networks         1.6 / 3.0         1.2 / 1.3     0 / 0                  1
    55,810 gradients and statistics, 112  7.2 / 8.6         1.5 / 2.4   578 / 0                 13
"""

GRADIENT_FLOOR = 128.0
"""The floor of gradients: some have four elements, and PyTorch's sixteen runs of them may all be near the truth.

The largest that a right network needed, of all that were met beside that table, is 87
(``blocks.1.attn.temperature`` of xcit_nano_12_p16_224, mindcv, MindSpore 2.10's own operations, at 2.0 times
PyTorch's); one of 61 was met on MindSpore 2.8.
"""

PYTORCH_RUNS = 16
"""How often PyTorch may run before a network is refused."""

HOPELESS = 1000.0
"""What is further than this many tolerances is refused at once: no run of PyTorch's is so near the truth by luck."""


@dataclass(frozen=True)
class Distance:
    """How far values are from the true ones over all elements of an output: root mean square, and the largest."""

    rms: float
    largest: float

    @classmethod
    def between(cls, found: Array, truth: Array) -> Distance:
        """Measure in double precision."""
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.subtract(found, truth, dtype=np.float64).ravel()
            return cls(float(np.linalg.norm(apart)) / math.sqrt(apart.size), float(np.abs(apart).max()))

    def or_further(self, other: Distance) -> Distance:
        """Return the larger of both distances, measure by measure; NaN stays."""
        return Distance(float(np.maximum(self.rms, other.rms)), float(np.maximum(self.largest, other.largest)))


_NOWHERE = Distance(math.inf, math.inf)
_NOT_FINITE = "is not finite"
_NEVER_FINITE = "is not finite, in double precision either"


@dataclass(frozen=True)
class Check:
    """One output, judged.

    Args:
        what: its name.
        ours, pytorch: distances from the truth, in the output's own unit.
        scale: root mean square of the true output.
        unit: unit roundoff of the dtype in which both computed.
        floor: unit roundoffs of ``scale`` that always pass.
        remark: why there is nothing to measure, where that is so.
    """

    what: str
    ours: Distance
    pytorch: Distance
    scale: float
    unit: float = UNIT_ROUNDOFF["float32"]
    remark: str = ""
    floor: float = FLOOR

    @property
    def tolerance(self) -> Distance:
        """How far ours may be."""
        floor = self.floor * self.unit * self.scale
        return Distance(
            float(np.maximum(RMS_FACTOR * self.pytorch.rms, floor)),
            float(np.maximum(LARGEST_FACTOR * self.pytorch.largest, floor)),
        )

    @property
    def passed(self) -> bool:
        """Whether both distances are numbers within the tolerance."""
        tolerance = self.tolerance
        return not self.remark and self.ours.rms <= tolerance.rms and self.ours.largest <= tolerance.largest

    @property
    def is_finite(self) -> bool:
        """Whether no side has an infinity or a NaN, as far as they were compared."""
        return self.remark not in (_NOT_FINITE, _NEVER_FINITE)

    @property
    def measure(self) -> str:
        """Which of the two distances is nearer to its tolerance, or further beyond it: ``rms`` or ``largest``."""
        return "largest" if self._of_tolerance("largest") > self._of_tolerance("rms") else "rms"

    @property
    def of_tolerance(self) -> float:
        """Distance by :attr:`measure` as a fraction of its tolerance; above 1 the check fails."""
        return self._of_tolerance(self.measure)

    @property
    def ratio(self) -> float:
        """Our distance over PyTorch's, by :attr:`measure`."""
        return _ratio(getattr(self.ours, self.measure), getattr(self.pytorch, self.measure))

    @property
    def error(self) -> float:
        """Our distance by :attr:`measure`, as a fraction of the output's root mean square; NaN where it is none."""
        return _ratio(getattr(self.ours, self.measure), self.scale)

    @property
    def pytorch_error(self) -> float:
        """PyTorch's distance, in the unit of :attr:`error`."""
        return _ratio(getattr(self.pytorch, self.measure), self.scale)

    @property
    def bar(self) -> float:
        """The tolerance, in the unit of :attr:`error`."""
        return _ratio(getattr(self.tolerance, self.measure), self.scale)

    def _of_tolerance(self, measure: str) -> float:
        if self.remark:
            return math.inf
        share = _ratio(getattr(self.ours, measure), getattr(self.tolerance, measure))
        return math.inf if math.isnan(share) else share

    def as_dict(self) -> dict[str, Any]:
        """Return the check as plain JSON values, null where they are not finite; ``error`` and ``bar`` are relative."""
        return {
            "what": self.what,
            "passed": self.passed,
            "error": finite(self.error),
            "bar": finite(self.bar),
            "measure": self.measure,
            "ratio": finite(self.ratio),
            "scale": finite(self.scale),
            **{
                side: {"rms": finite(distance.rms), "largest": finite(distance.largest)}
                for side, distance in (("ours", self.ours), ("pytorch", self.pytorch), ("tolerance", self.tolerance))
            },
            "remark": self.remark,
        }


class Reference:
    """PyTorch's side of a proof: the truth in double precision, and how far PyTorch's own rounding takes it.

    The network is left as it came.

    Args:
        network: a PyTorch network in float32, float16 or bfloat16, in the mode that ``outputs`` needs.
        images: (B, in_chans, H, W) float32; rounded to the network's dtype.
        outputs: what to compare; by default the network's output alone, called ``logits``.
        stage: told what is going on.
        floor: see :class:`Check`.
    """

    def __init__(
        self,
        network: Any,
        images: Array,
        outputs: Outputs | None = None,
        stage: Stage = lambda _: None,
        floor: float = FLOOR,
    ) -> None:
        import torch

        from xcit_hub.timm import in_double

        dtype = next(network.parameters()).dtype
        self.floor = floor
        self.unit = UNIT_ROUNDOFF[str(dtype).removeprefix("torch.")]
        self.runs = 0
        self._network, self._outputs, self._stage = network, outputs or _logits, stage
        self._images = torch.from_numpy(images).to(dtype)
        stage("PyTorch's network in double precision")
        with in_double(network):
            self.truth: dict[str, Array] = _arrays(self._outputs(network, self._images.double()))
        self.pytorch: dict[str, Distance] = {}
        self._run_again()

    def check(self, found: Mapping[str, Array], *, varying: bool = True) -> tuple[Check, ...]:
        """Judge our values of all outputs; one that either side lacks fails.

        Args:
            found: our values by the outputs' names.
            varying: whether an output whose true values are all the same fails, as it proves nothing.
        """
        remarks = {what: self._remark(what, found.get(what), varying) for what in {**self.truth, **found}}
        ours = {what: Distance.between(found[what], self.truth[what]) for what, text in remarks.items() if not text}
        while True:
            checks = tuple(self._judged(what, ours.get(what, _NOWHERE), text) for what, text in remarks.items())
            furthest = max((check.of_tolerance for check in checks if not check.remark), default=0.0)
            # More of PyTorch's rounding widens a tolerance, but never so much.
            if self.runs >= PYTORCH_RUNS or not 1.0 < furthest <= HOPELESS:
                return checks
            self._run_again()

    def _remark(self, what: str, found: Array | None, varying: bool) -> str:
        truth = self.truth.get(what)
        if truth is None or found is None:
            return "is ours alone" if truth is None else "is PyTorch's alone"
        if found.shape != truth.shape:
            return f"has shape {found.shape}, and PyTorch's {truth.shape}"
        if not np.isfinite(truth).all():
            return _NEVER_FINITE
        if not np.isfinite(found).all():
            return _NOT_FINITE
        if varying and float(np.ptp(truth)) == 0.0:
            return "has one value everywhere and proves nothing"
        return ""

    def _judged(self, what: str, ours: Distance, remark: str) -> Check:
        truth, pytorch = self.truth.get(what, np.zeros(1)), self.pytorch.get(what, _NOWHERE)
        scale = float(np.linalg.norm(truth.ravel())) / math.sqrt(truth.size)
        return Check(what, ours, pytorch, scale, self.unit, remark, self.floor)

    def _run_again(self) -> None:
        self._stage(f"PyTorch's own rounding, run {self.runs + 1}")
        images = _other_last_bits(self._images, self.runs) if self.runs else self._images
        for what, values in self._outputs(self._network, images).items():
            distance = Distance.between(_array(values), self.truth[what])
            self.pytorch[what] = distance.or_further(self.pytorch.get(what, distance))
        self.runs += 1


def failed_checks(
    found: Array | Sequence[Array], network: Any, images: Array, run: Callable[[Any, Any], Any] | None = None
) -> tuple[Check, ...]:
    """Judge one array of ours, or several, beside what a PyTorch network gives; return the checks that fail.

    Args:
        run: what to ask the network for, called with it and its images; by default its output. What it returns must
            have the form of ``found``: a tensor, or a sequence of them.
    """
    import torch

    def outputs(network: Any, images: Any) -> dict[str, Any]:
        with torch.no_grad():
            return _numbered(run(network, images) if run else network(images))

    checks = Reference(network, images, outputs).check(_numbered(found))
    return tuple(check for check in checks if not check.passed)


def finite(value: float) -> float | None:
    """Return a value as JSON has it: None where it is not finite."""
    return value if math.isfinite(value) else None


def worst(checks: Iterable[Check]) -> Check:
    """Return the check that is furthest beyond its tolerance, or nearest to it."""
    return max(checks, key=lambda check: check.of_tolerance)


def _numbered(values: Any) -> dict[str, Any]:
    several = isinstance(values, (list, tuple))
    return {f"output {index}": value for index, value in enumerate(values if several else [values])}


def _logits(network: Any, images: Any) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        return {"logits": network(images)}


def _arrays(values: Mapping[str, Any]) -> dict[str, Array]:
    return {what: _array(value) for what, value in values.items()}


def _array(value: Any) -> Array:
    import torch

    value = value.detach()
    # numpy has no bfloat16; float32 holds its values exactly.
    return np.asarray((value.float() if value.dtype == torch.bfloat16 else value).numpy())


def _other_last_bits(images: Any, seed: int) -> Any:
    """Move about half of the values to the next one away from zero."""
    import torch

    bits = images.view(torch.int32 if images.itemsize == 4 else torch.int16)
    steps = torch.randint(0, 2, bits.shape, generator=torch.Generator().manual_seed(seed), dtype=bits.dtype)
    return (bits + steps).view(images.dtype)


def _ratio(value: float, of: float) -> float:
    if of == 0.0:
        return 0.0 if value == 0.0 else math.inf if value > 0.0 else math.nan
    return value / of
