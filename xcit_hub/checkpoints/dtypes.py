"""What happens to numbers on their way where it is asked for: they are rounded, or summed over channels."""

from __future__ import annotations

import math

import numpy as np

from xcit_hub.checkpoints.check import Doubts, all_finite, vanished
from xcit_hub.checkpoints.tensor import DTYPES, Array, StoredTensor, widen_bfloat16
from xcit_hub.errors import InputError, WeightsError

CAST_DTYPES = ("float32", "float16", "bfloat16")


def cast(
    tensor: StoredTensor,
    dtype: str | None,
    names: tuple[str, ...],
    *,
    where: object = None,
    doubts: Doubts | None = None,
) -> StoredTensor:
    """Return the tensor rounded to ``dtype``, to nearest, ties to even; ``None`` leaves it as it is.

    ``doubts`` is told of numbers that become zero.

    When it is read it raises ``WeightsError`` if a number is too large for ``dtype``.

    Raises:
        InputError: ``dtype`` is not one of :data:`CAST_DTYPES`.
    """
    if dtype is None or dtype == tensor.dtype:
        return tensor
    if dtype not in CAST_DTYPES:
        raise InputError(
            f"Weights cannot be written as {dtype!r}.",
            where="dtype=… (--dtype)",
            fix=f"Use one of {', '.join(CAST_DTYPES)}.",
        )

    def rounded(stored: Array) -> Array:
        values = widen_bfloat16(stored) if tensor.dtype == "bfloat16" else stored
        with np.errstate(over="ignore"):
            out = _to_bfloat16(values) if dtype == "bfloat16" else values.astype(DTYPES[dtype].storage)
        if not all_finite(out, dtype):
            raise WeightsError(
                f"{' + '.join(names)} holds {float(np.abs(values).max()):g}, which is too large for {dtype}.",
                where=where,
                fix="Use --dtype bfloat16 or float32." if dtype == "float16" else "Keep the file's own dtype.",
            )
        if doubts is not None and dtype != "float32":  # of float64 the check says what float32 has no room for
            doubts.vanish(" + ".join(names), dtype, vanished(values, out, dtype))
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
    return fresh(adapted, weight.dtype, "the adapted first convolution")


def fresh(values: Array, dtype: str, name: str) -> StoredTensor:
    """Return numbers that were computed in float32 in a file's own dtype, which may be float64."""
    if dtype == "float64":
        return StoredTensor.of(values.astype(DTYPES[dtype].storage))
    return cast(StoredTensor.of(values), dtype, (name,))


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
