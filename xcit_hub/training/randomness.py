"""Dropout that can be continued: every mask is a function of seed, worker, cell and step.

MindSpore's own dropout draws from a generator inside its kernel, which starts anew with the process and which nobody
can read or set on CPU.
"""

from __future__ import annotations

import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

_BITS = 31  # a sign bit would spoil the comparison


def _scrambled(x: Tensor) -> Tensor:
    """Map int32 to int32 one to one so that every input bit reaches every output bit (C. Wellons' ``lowbias32``)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - (1 << 32)), (16, 1)):
        # The shift is arithmetic; what it draws in from the sign is cut off.
        low = ops.bitwise_and(ops.bitwise_right_shift(x, shift), (1 << (32 - shift)) - 1)
        x = ops.bitwise_xor(x, low) * factor
    return x


class SeededDropout(nn.Cell):
    """Zero each element with probability ``p`` in training and scale the rest by 1 / (1 − p).

    Args:
        p: in (0, 1).
        key: what tells this cell's masks from others', int32.
        step: int32 scalar; the same step draws the same mask, also when it is recomputed backward.
    """

    def __init__(self, p: float, key: int, step: Parameter) -> None:
        super().__init__(auto_prefix=False)
        self.key = key
        object.__setattr__(self, "step", step)  # as an attribute of a Cell it would be one of the network's weights
        self.threshold = round(p * (1 << _BITS))
        self.scale = 1.0 / (1.0 - p)

    def construct(self, x: Tensor) -> Tensor:
        """Map any shape, floating point."""
        if not self.training:
            return x
        element = ops.arange(0, math.prod(x.shape), 1, dtype=mstype.int32)
        drawn = ops.bitwise_and(_scrambled(element + _scrambled(self.step + self.key)), (1 << _BITS) - 1)
        return x * (drawn >= self.threshold).astype(x.dtype).reshape(x.shape) * self.scale


def seed_dropout(network: nn.Cell, seed: int, rank: int) -> Parameter | None:
    """Put :class:`SeededDropout` in the place of every dropout of ``network`` that drops anything, in place.

    Returns:
        The step they read, to be raised by one after each; None where nothing is dropped.
    """
    places = [(cell, name, child.p) for cell, name, child in _dropouts(network) if child.p > 0.0]
    if not places:
        return None
    step = Parameter(Tensor(0, mstype.int32), name="dropout_step", requires_grad=False)
    keys = np.random.SeedSequence([seed, rank]).generate_state(len(places)).view(np.int32)
    for (cell, name, p), key in zip(places, keys.tolist(), strict=True):
        cell._cells[name] = SeededDropout(p, key, step)
    return step


def _dropouts(cell: nn.Cell) -> list[tuple[nn.Cell, str, nn.Dropout]]:
    found: list[tuple[nn.Cell, str, nn.Dropout]] = []
    for name, child in cell.name_cells().items():
        found += [(cell, name, child)] if isinstance(child, nn.Dropout) else _dropouts(child)
    return found
