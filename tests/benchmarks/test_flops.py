"""The arithmetic is counted exactly."""

from __future__ import annotations

import dataclasses
import math

import pytest

from benchmarks.flops import multiply_adds, tokens
from xcit_hub.variants import architecture


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("name", "height", "width", "batch"),
    [("xcit_nano_12_p16_224", 32, 64, 1), ("xcit_tiny_12_p8_224", 24, 16, 3)],
)
def test_multiply_adds_equal_torchs_count_of_timms_network(
    name: str, height: int, width: int, batch: int, training: bool, unfused_attention
) -> None:
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = timm.create_model(name).train(training)
    # torch counts the backward pass of a depth-wise convolution as if every channel saw all channels.
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter, torch.set_grad_enabled(training):
        logits = network(torch.zeros(batch, 3, height, width))
        if training:
            logits.sum().backward()
    ours = multiply_adds(architecture(name), height, width, batch=batch, training=training)
    assert 2 * ours == counter.get_total_flops()


def _convolution_backward(gradient_shape, _image_shape, weight_shape, *others, out_shape, **_options) -> int:
    wanted = others[-1]  # gradients of image, weight, bias
    return 2 * math.prod(gradient_shape) * math.prod(weight_shape[1:]) * sum(wanted[:2])


def test_multiply_adds_grow_linearly_with_tokens() -> None:
    # Nothing but the class token and the classifier is the same for every image.
    nano = architecture("xcit_nano_12_p16_224")
    sizes = [224, 448, 896]
    counts = [multiply_adds(nano, side, side) for side in sizes]
    grown = [multiply_adds(nano, side, side) / tokens(nano, side, side) for side in sizes]
    assert counts == sorted(counts)
    assert max(grown) / min(grown) < 1.01


def test_a_deeper_network_needs_more_by_its_blocks_alone() -> None:
    nano = architecture("xcit_nano_12_p16_224")
    depths = [multiply_adds(dataclasses.replace(nano, depth=depth), 224, 224) for depth in (12, 13, 14)]
    assert depths[2] - depths[1] == depths[1] - depths[0] > 0


@pytest.fixture
def unfused_attention():
    """Let timm write class attention as the products that it is: torch counts its fused form otherwise."""
    from timm.layers import set_fused_attn, use_fused_attn

    before = use_fused_attn()
    set_fused_attn(False)
    yield
    set_fused_attn(bool(before))
