"""Mixed precision: which parts of a network compute in 16 bits. Weights stay float32 whatever the level."""

from __future__ import annotations

from typing import Any

import mindspore
from mindspore import dtype as mstype
from mindspore import nn

from xcit_hub.errors import InputError
from xcit_hub.models import XCiT
from xcit_hub.models.functions import device_target
from xcit_hub.training.recipe import AmpDtype, AmpLevel
from xcit_hub.training.sync_batch_norm import SyncBatchNorm

_FAST = (nn.Dense, nn.Conv2d)
_DTYPES = {"float16": mstype.float16, "bfloat16": mstype.bfloat16}


def check_precision(dtype: AmpDtype, *levels: AmpLevel) -> None:
    """Make sure, before any work, that the device computes in ``dtype`` where one of the levels asks for it.

    Raises:
        InputError: it does not.
    """
    if dtype == "bfloat16" and device_target() == "CPU" and set(levels) != {"O0"}:
        raise InputError(
            "MindSpore has no kernels for bfloat16 on a CPU.",
            where="amp_dtype",
            fix="Take float16, or amp_level O0 (val_amp_level for evaluation), which is float32.",
        )


def mix_precision(network: XCiT, level: AmpLevel, dtype: AmpDtype = "float16") -> None:
    """Let ``network`` compute in ``dtype`` where ``level`` says so, in place.

    O0: nowhere. O1: dense layers and convolutions. O2: everywhere but LayerNorm and BatchNorm. O3: everywhere
    but LayerNorm.
    The levels are ``mindspore.amp.auto_mixed_precision``'s; its O1 rewrites source code, which this network's
    annotations do not survive, so that level is applied here.

    Raises:
        InputError: the device does not compute in ``dtype``.
    """
    if level == "O0":
        return
    check_precision(dtype, level)
    if level == "O1":
        _wrap(network, _DTYPES[dtype])
        return
    mindspore.amp.auto_mixed_precision(network, level, _DTYPES[dtype])
    if network.pos_embeder is not None:
        # It multiplies by a parameter of its child, which graph mode does not cast; a sliver of the work.
        network.pos_embeder.to_float(mstype.float32)
    for _, cell in network.cells_and_names():
        # LayerNorm's sums of squares, and epsilon 1e-6, leave float16's range; gradients would not be finite at O3.
        if isinstance(cell, nn.LayerNorm | SyncBatchNorm):
            cell.to_float(mstype.float32)


class _InHalf(nn.Cell):
    """Computes in 16 bits between float32 inputs and outputs, and shows the weights of what it wraps."""

    def __init__(self, cell: nn.Cell, dtype: Any) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell.to_float(dtype)
        self.weight = cell.weight
        self.bias = cell.bias

    def construct(self, x: Any) -> Any:
        return self.cell(x).astype(mstype.float32)


def _wrap(cell: nn.Cell, dtype: Any) -> None:
    for name, child in cell.name_cells().items():
        if isinstance(child, _FAST):
            cell._cells[name] = _InHalf(child, dtype)  # attribute assignment would rename the parameters
        else:
            _wrap(child, dtype)
    if isinstance(cell, nn.SequentialCell):
        cell.cell_list = list(cell.cells())
