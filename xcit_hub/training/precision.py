"""Mixed precision: which parts of a network compute in float16. Weights stay float32 whatever the level."""

from __future__ import annotations

from typing import Any

import mindspore
from mindspore import dtype as mstype
from mindspore import nn

from xcit_hub.models import XCiT
from xcit_hub.training.recipe import AmpLevel

_FAST_IN_FLOAT16 = (nn.Dense, nn.Conv2d)


def mix_precision(network: XCiT, level: AmpLevel) -> None:
    """Let ``network`` compute in float16 where ``level`` says so, in place.

    O0: nowhere. O1: dense layers and convolutions. O2: everywhere but LayerNorm and BatchNorm. O3: everywhere
    but LayerNorm.
    The levels are ``mindspore.amp.auto_mixed_precision``'s; its O1 rewrites source code, which this network's
    annotations do not survive, so that level is applied here.
    """
    if level == "O0":
        return
    if level == "O1":
        _wrap(network)
        return
    mindspore.amp.auto_mixed_precision(network, level)
    if network.pos_embeder is not None:
        # It multiplies by a parameter of its child, which graph mode does not cast; a sliver of the work.
        network.pos_embeder.to_float(mstype.float32)
    for _, cell in network.cells_and_names():
        # LayerNorm's sums of squares, and epsilon 1e-6, leave float16's range; gradients would not be finite at O3.
        if isinstance(cell, nn.LayerNorm):
            cell.to_float(mstype.float32)


class _InFloat16(nn.Cell):
    """Computes in float16 between float32 inputs and outputs, and shows the weights of what it wraps."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell.to_float(mstype.float16)
        self.weight = cell.weight
        self.bias = cell.bias

    def construct(self, x: Any) -> Any:
        return self.cell(x).astype(mstype.float32)


def _wrap(cell: nn.Cell) -> None:
    for name, child in cell.name_cells().items():
        if isinstance(child, _FAST_IN_FLOAT16):
            cell._cells[name] = _InFloat16(child)  # attribute assignment would rename the parameters
        else:
            _wrap(child)
    if isinstance(cell, nn.SequentialCell):
        cell.cell_list = list(cell.cells())
