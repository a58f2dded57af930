"""MindCV's train.py with the one network of ours that its registry lacks: ``… CHECKOUT FLAGS``."""

from __future__ import annotations

import os
import runpy
import sys
from functools import partial
from typing import Any


def register() -> None:
    """Give MindCV the nano network: its own class with timm's widths."""
    from mindcv.models import registry
    from mindcv.models.xcit import XCiT
    from mindspore import nn

    def xcit_nano_12_p16_224(*, num_classes: int, pretrained: bool, in_channels: int, **kwargs: Any) -> Any:
        assert not pretrained and in_channels == 3
        widths = {"patch_size": 16, "embed_dim": 128, "depth": 12, "num_heads": 4, "mlp_ratio": 4, "tokens_norm": False}
        norm = partial(nn.LayerNorm, epsilon=1e-6)
        return XCiT(num_classes=num_classes, qkv_bias=True, norm_layer=norm, eta=1.0, **widths, **kwargs)

    xcit_nano_12_p16_224.__module__ = "mindcv.models.xcit"
    registry.register_model(xcit_nano_12_p16_224)


def let_children_wait() -> None:
    """Give processes that are begun from here only what is left of a core.

    MindSpore's writer of summaries asks its queue without a pause, a whole core for as long as the training lasts.
    """
    os.register_at_fork(after_in_child=lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)))


if __name__ == "__main__":
    let_children_wait()
    checkout = sys.argv[1]
    sys.path.insert(0, checkout)
    register()
    sys.argv = [f"{checkout}/train.py", *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
