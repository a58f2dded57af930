"""What happens to numbers on their way: checked for what no network can use, rounded, summed over channels."""

from __future__ import annotations

import math

import numpy as np

from xcit_hub.checkpoints.tensor import DTYPES, Array, StoredTensor, widen_bfloat16
from xcit_hub.errors import InputError, WeightsError

CAST_DTYPES = ("float32", "float16", "bfloat16")


def sound(
    tensor: StoredTensor, names: tuple[str, ...], *, variance: bool = False, where: object = None
) -> StoredTensor:
    """Return the tensor, which raises ``WeightsError`` when it is read and holds what a network can only fail with.

    That is a NaN, an infinity, a number that is an infinity in float32, and of a variance a negative one.

    Args:
        names: what it is called in the file.
        variance: whether it is a BatchNorm's variance, whose root is taken.
        where: the file.
    """

    def check(stored: Array) -> Array:
        fault = None
        if not _all_finite(stored, tensor.dtype):
            fault = "NaN or infinity"
        elif tensor.dtype == "float64" and _beyond_float32(stored).any():
            fault = f"{float(np.abs(stored).max()):g}, which is too large for float32"
        elif variance and (_values(stored, tensor.dtype) < 0).any():
            fault = f"the negative variance {float(_values(stored, tensor.dtype).min()):g}"
        if fault is not None:
            raise WeightsError(f"{' + '.join(names)} holds {fault}.", where=where, fix="Take an earlier checkpoint.")
        return stored

    return tensor.through(check)


def flaws(tensor: StoredTensor, *, variance: bool = False) -> dict[str, int]:
    """Count the numbers that :func:`sound` refuses: fault → how many; empty where there are none."""
    if not DTYPES[tensor.dtype].is_floating:
        return {}
    found = {"non_finite": 0, "beyond_float32": 0, "negative_variances": 0}
    for piece in tensor.pieces():
        stored = np.frombuffer(piece, DTYPES[tensor.dtype].storage)
        if not _all_finite(stored, tensor.dtype):
            found["non_finite"] += int((~np.isfinite(_values(stored, tensor.dtype))).sum())
        if tensor.dtype == "float64":
            found["beyond_float32"] += int((_beyond_float32(stored) & np.isfinite(stored)).sum())
        if variance:
            found["negative_variances"] += int((_values(stored, tensor.dtype) < 0).sum())
    return {fault: count for fault, count in found.items() if count}


def _beyond_float32(values: Array) -> Array:
    with np.errstate(over="ignore"):
        beyond: Array = np.isinf(values.astype("<f4"))
    return beyond


def _values(stored: Array, dtype: str) -> Array:
    return widen_bfloat16(stored) if dtype == "bfloat16" else stored


def cast(tensor: StoredTensor, dtype: str | None, names: tuple[str, ...], *, where: object = None) -> StoredTensor:
    """Return the tensor rounded to ``dtype``, to nearest, ties to even; ``None`` leaves it as it is.

    When it is read it raises ``WeightsError`` if a number is too large for ``dtype``.

    Raises:
        InputError: ``dtype`` is none of :data:`CAST_DTYPES`.
    """
    if dtype is None or dtype == tensor.dtype:
        return tensor
    if dtype not in CAST_DTYPES:
        raise InputError(f"Weights cannot be written as {dtype!r}.", fix=f"Use one of {', '.join(CAST_DTYPES)}.")

    def rounded(stored: Array) -> Array:
        values = _values(stored, tensor.dtype)
        with np.errstate(over="ignore"):
            out = _to_bfloat16(values) if dtype == "bfloat16" else values.astype(DTYPES[dtype].storage)
        if not _all_finite(out, dtype):
            raise WeightsError(
                f"{' + '.join(names)} holds {float(np.abs(values).max()):g}, which is too large for {dtype}.",
                where=where,
                fix="Use --dtype bfloat16 or float32." if dtype == "float16" else "Keep the file's own dtype.",
            )
        return out

    return tensor.through(rounded, dtype)


def adapt_input_conv(weight: StoredTensor, in_chans: int) -> StoredTensor:
    """Return a first convolution (out, in, height, width) for another number of input channels.

    Source: ``adapt_input_conv`` in timm's ``models/_manipulate.py``, whose numbers these are: one channel is the sum of
    all, more are the old ones repeated and scaled by old / new. Computed in float32 and rounded to the weight's dtype.
    """
    base = weight.shape[1]
    values = weight.numpy().astype(np.float32)
    if in_chans == 1:
        adapted = values.sum(axis=1, keepdims=True)
    else:
        repeated = np.tile(values, (1, math.ceil(in_chans / base), 1, 1))[:, :in_chans]
        adapted = repeated * np.float32(base / in_chans)
    return cast(StoredTensor.of(adapted), weight.dtype, ("the adapted first convolution",))


def _all_finite(stored: Array, dtype: str) -> bool:
    if dtype == "bfloat16":
        return bool(((stored & np.uint16(0x7F80)) != 0x7F80).all())
    return bool(np.isfinite(stored).all())


def _to_bfloat16(values: Array) -> Array:
    single = _to_float32_odd(values) if values.dtype == np.float64 else values.astype("<f4")
    bits = single.view("<u4").astype(np.uint64)
    # Half a unit of the kept 16 bits, less one where the kept part is even: ties go to even.
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _to_float32_odd(values: Array) -> Array:
    """Round float64 to float32 so that rounding once more gives what rounding at once would (round to odd)."""
    single = values.astype("<f4")
    bits = single.view("<u4")
    too_far = np.abs(single.astype("<f8")) > np.abs(values)
    inexact = single.astype("<f8") != values
    truncated = bits - too_far.astype("<u4")
    return (truncated | inexact.astype("<u4")).view("<f4")
