"""The step *check*: numbers that no network can use are refused, numbers that no training leaves are named."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

import numpy as np

from xcit_hub.checkpoints.tensor import DTYPES, Array, StoredTensor, widen_bfloat16
from xcit_hub.errors import WeightsError

# Parameters that training begins at zero, and may leave there.
_MAY_BE_ZERO = ("bias", "beta", "moving_mean", "running_mean", "_mean")
_VARIANCES = (".moving_variance", ".running_var", "._variance")
_LISTED = 8


class Doubts:
    """What is odd about the numbers that have passed, though a network can compute with them: tensor → what."""

    def __init__(self) -> None:
        self._zeros: dict[str, bool] = {}
        self._denormal: dict[str, bool] = {}
        self._variances: dict[str, int] = {}
        self._vanished: dict[str, dict[str, int]] = {}

    def concern(self, name: str, *, variance: bool) -> bool:
        """Whether more of a tensor's numbers could still tell something: one ordinary number settles most."""
        return variance or self._zeros.get(name, True) or self._denormal.get(name, True)

    def look(self, name: str, values: Array, *, variance: bool, smallest: float) -> None:
        """See some of a tensor's numbers; ``smallest`` is its dtype's smallest normal one."""
        if values.size and abs(values.flat[0]) >= smallest:  # one ordinary number is enough
            self._zeros[name] = self._denormal[name] = False
        if self._zeros.get(name, True):
            self._zeros[name] = not values.any()
        if self._denormal.get(name, True):
            self._denormal[name] = bool((np.abs(values) < smallest).all())
        if variance:
            self._variances[name] = self._variances.get(name, 0) + int((values == 0).sum())

    def vanish(self, name: str, dtype: str, count: int) -> None:
        """Learn that so many more of a tensor's numbers are not zero, and are in ``dtype``."""
        if count:
            counts = self._vanished.setdefault(dtype, {})
            counts[name] = counts.get(name, 0) + count

    def notes(self) -> list[str]:
        """Return a sentence for each kind of doubt, which names the tensors."""
        zero = [name for name, only in self._zeros.items() if only and not name.endswith(_MAY_BE_ZERO)]
        denormal = [name for name, only in self._denormal.items() if only and not self._zeros.get(name, False)]
        variances = [name for name, count in self._variances.items() if count and name not in zero]
        kinds = (
            (zero, "nothing but zeros"),
            (denormal, "nothing but denormal numbers, which processors round to zero"),
            (variances, "variances of zero: a channel that was always the same"),
        )
        odd = [f"Untrained or damaged? {_listed(names)}: {words}." for names, words in kinds if names]
        return odd + [
            f"Too small for {dtype}, and zero in it: {sum(counts.values()):,} numbers of {_listed(list(counts))}."
            for dtype, counts in self._vanished.items()
        ]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def checked(
    tensors: Mapping[str, StoredTensor],
    sources: Mapping[str, tuple[str, ...]],
    path: str | os.PathLike[str],
    doubts: Doubts | None = None,
) -> dict[str, StoredTensor]:
    """Return the tensors, which raise ``WeightsError`` when they are read and hold what no network can use.

    Args:
        sources: what each is called in the file.
        path: the file they come from.
        doubts: told of what is odd.
    """
    return {
        name: sound(tensor, sources[name] or (name,), variance=is_variance(name), where=path, doubts=doubts)
        for name, tensor in tensors.items()
    }


def is_variance(name: str) -> bool:
    """Whether a tensor of that name, in any family, is a BatchNorm's variance."""
    return name.endswith(_VARIANCES)


def sound(
    tensor: StoredTensor,
    names: tuple[str, ...],
    *,
    variance: bool = False,
    where: object = None,
    doubts: Doubts | None = None,
) -> StoredTensor:
    """Return the tensor, which raises ``WeightsError`` when it is read and holds what a network can only fail with.

    That is a NaN, an infinity, a number that is an infinity in float32, and of a variance a negative one.

    Args:
        names: what it is called in the file.
        variance: whether it is a BatchNorm's variance, whose root is taken.
        where: the file.
        doubts: told of what is odd.
    """
    called = " + ".join(names)
    smallest = _smallest_normal(tensor.dtype)

    def check(stored: Array) -> Array:
        fault = None
        if not all_finite(stored, tensor.dtype):
            fault = "NaN or infinity"
        elif tensor.dtype == "float64" and _beyond_float32(stored).any():
            fault = f"{float(np.abs(stored).max()):g}, which is too large for float32"
        elif variance and (_values(stored, tensor.dtype) < 0).any():
            fault = f"the negative variance {float(_values(stored, tensor.dtype).min()):g}"
        if fault is not None:
            raise WeightsError(f"{called} holds {fault}.", where=where, fix="Take an earlier checkpoint.")
        if doubts is not None and doubts.concern(called, variance=variance):
            doubts.look(called, _values(stored, tensor.dtype), variance=variance, smallest=smallest)
        if doubts is not None and tensor.dtype == "float64":  # networks compute in float32
            doubts.vanish(called, "float32", vanished(stored, stored.astype("<f4"), "float32"))
        return stored

    return tensor.through(check)


def flaws(tensor: StoredTensor, *, variance: bool = False) -> dict[str, int]:
    """Count the numbers that :func:`sound` refuses: fault → how many; empty where there are none."""
    if not DTYPES[tensor.dtype].weights:
        return {}
    found = {"non_finite": 0, "beyond_float32": 0, "negative_variances": 0}
    for piece in tensor.pieces():
        stored = np.frombuffer(piece, DTYPES[tensor.dtype].storage)
        if not all_finite(stored, tensor.dtype):
            found["non_finite"] += int((~np.isfinite(_values(stored, tensor.dtype))).sum())
        if tensor.dtype == "float64":
            found["beyond_float32"] += int((_beyond_float32(stored) & np.isfinite(stored)).sum())
        if variance:
            found["negative_variances"] += int((_values(stored, tensor.dtype) < 0).sum())
    return {fault: count for fault, count in found.items() if count}


def vanished(values: Array, rounded: Array, dtype: str) -> int:
    """Count the numbers that are not zero and became zero where they were stored as ``dtype``."""
    zeros = (rounded & np.uint16(0x7FFF)) == 0 if dtype == "bfloat16" else rounded == 0
    return int((zeros & (values != 0)).sum())


# Where all of these bits are set, 16 bits are no number. To look at them takes a sixth of what NumPy's isfinite does.
_HALF_EXPONENTS = {"float16": np.uint16(0x7C00), "bfloat16": np.uint16(0x7F80)}


def all_finite(stored: Array, dtype: str) -> bool:
    """Whether stored numbers are neither NaN nor infinite."""
    exponent = _HALF_EXPONENTS.get(dtype)
    if exponent is None:
        return bool(np.isfinite(stored).all())
    return bool(((stored.view("<u2") & exponent) != exponent).all())


@functools.cache
def _smallest_normal(dtype: str) -> float:
    return float(np.finfo(np.float32 if dtype == "bfloat16" or not DTYPES[dtype].weights else dtype).tiny)


def _beyond_float32(values: Array) -> Array:
    with np.errstate(over="ignore"):
        beyond: Array = np.isinf(values.astype("<f4"))
    return beyond


def _values(stored: Array, dtype: str) -> Array:
    return widen_bfloat16(stored) if dtype == "bfloat16" else stored
