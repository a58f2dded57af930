"""Dropout that can be continued: every mask is a function of seed, worker, cell and step.

MindSpore's own dropout draws from a generator inside its kernel, which starts anew with the process and which nobody
can read or set on CPU.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

_LAYER = "*"
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
        keys: what tells this cell's masks from others', int32; several where the cell drops for several layers in one:
            the input's elements are shared out among them in turn.
        step: int32 scalar; the same step draws the same mask, also when it is recomputed backward.
    """

    def __init__(self, p: float, keys: Sequence[int], step: Parameter) -> None:
        super().__init__(auto_prefix=False)
        self.p = p
        self.keys = Tensor(np.array(keys, np.int32).reshape(-1, 1))
        self.layers = len(keys)
        object.__setattr__(self, "step", step)  # as an attribute of a Cell it would be one of the network's weights
        self.threshold = round(p * (1 << _BITS))
        self.scale = 1.0 / (1.0 - p)

    def construct(self, x: Tensor) -> Tensor:
        """Map any shape, floating point."""
        if not self.training:
            return x
        element = ops.arange(0, math.prod(x.shape) // self.layers, 1, dtype=mstype.int32)
        drawn = ops.bitwise_and(_scrambled(element + _scrambled(self.step + self.keys)), (1 << _BITS) - 1)
        return x * (drawn >= self.threshold).astype(x.dtype).reshape(x.shape) * self.scale


def seed_dropout(network: nn.Cell, seed: int, rank: int) -> Parameter | None:
    """Put :class:`SeededDropout` in the place of every dropout of ``network`` that drops anything, in place.

    Returns:
        The step they read, to be raised by one after each; None where nothing is dropped.
    """
    places = [place for place in _dropouts(network, (), 1) if place.p > 0.0]
    if not places:
        return None
    step = Parameter(Tensor(0, mstype.int32), name="dropout_step", requires_grad=False)
    for place in places:
        keys = [_key(seed, rank, place.path, layer) for layer in range(place.layers)]
        place.cell._cells[place.path[-1]] = SeededDropout(place.p, keys, step)
    return step


def _key(seed: int, rank: int, path: tuple[str, ...], layer: int) -> int:
    """Draw a cell's key from its name, so that a layer has the same whether or not it is one of a stack."""
    own = [str(layer) if part == _LAYER else part for part in path]
    name = int.from_bytes(hashlib.sha256(".".join(own).encode()).digest()[:8], "big")
    return int(np.random.SeedSequence([seed, rank, name]).generate_state(1).view(np.int32)[0])


class _Place(NamedTuple):
    cell: nn.Cell
    path: tuple[str, ...]  # names from the network down; one that stands for several layers is _LAYER
    p: float
    layers: int


def _dropouts(cell: nn.Cell, path: tuple[str, ...], layers: int) -> Iterator[_Place]:
    for name, child in cell.name_cells().items():
        if isinstance(child, nn.Dropout | SeededDropout):
            yield _Place(cell, (*path, name), child.p, layers)
        elif getattr(child, "layers", 1) > 1:  # a stack of blocks
            yield from _dropouts(child, (*path, _LAYER), child.layers)
        else:
            yield from _dropouts(child, (*path, name), layers)
