"""What an XCiT holds: every parameter's name and shape, in MindCV's naming, derived from the architecture alone.

This is the project's common tongue. The network is built to it, every converter goes through it, and a checkpoint is
held against it before a framework is imported.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from xcit_hub.variants import Architecture

Shape = tuple[int, ...]

FOURIER_CHANNELS = 64  # sine and cosine of 16 frequencies for each of the two axes
LAYER_NORM_EPSILON = 1e-6  # the paper's code; 1e-7 is MindSpore's default
BATCH_NORM_EPSILON = 1e-5


def parameter_shapes(architecture: Architecture, *, num_classes: int = 1000, in_chans: int = 3) -> dict[str, Shape]:
    """Map every parameter and buffer of ``architecture`` to its shape.

    Args:
        num_classes: rows of the classifier; 0 leaves it out.
        in_chans: channels of the input image.

    Returns:
        Names in MindSpore's order of registration. BatchNorm statistics (``moving_mean``, ``moving_variance``) are
        included; matrices are (out, in), convolutions (out, in / groups, height, width).
    """
    return dict(_listed(architecture, num_classes, in_chans))


def trainable(name: str) -> bool:
    """Tell whether a parameter receives gradients: everything but BatchNorm's running statistics."""
    return not name.endswith((".moving_mean", ".moving_variance"))


def parameter_count(architecture: Architecture, *, num_classes: int = 1000, in_chans: int = 3) -> int:
    """Count the trainable parameters of ``architecture``, as the published tables do."""
    total = 0
    for name, shape in _listed(architecture, num_classes, in_chans):
        size = 1
        for length in shape:
            size *= length
        total += size if trainable(name) else 0
    return total


@functools.lru_cache(64)  # a conversion asks for the same nine times
def _listed(architecture: Architecture, num_classes: int, in_chans: int) -> tuple[tuple[str, Shape], ...]:
    return tuple(_parameters(architecture, num_classes, in_chans))


def _parameters(architecture: Architecture, num_classes: int, in_chans: int) -> Iterator[tuple[str, Shape]]:
    dim = architecture.embed_dim
    hidden = architecture.mlp_hidden
    yield "cls_token", (1, 1, dim)
    channels = in_chans
    for index, out_channels in enumerate(stem_widths(architecture)):
        # Odd places of the sequence hold the activation, which has no parameters.
        yield f"patch_embed.proj.{2 * index}.0.weight", (out_channels, channels, 3, 3)
        yield from _batch_norm(f"patch_embed.proj.{2 * index}.1", out_channels)
        channels = out_channels
    for index in range(architecture.depth):
        block = f"blocks.{index}"
        yield f"{block}.gamma1", (dim,)
        yield f"{block}.gamma2", (dim,)
        yield f"{block}.gamma3", (dim,)
        yield from _layer_norm(f"{block}.norm1", dim)
        yield f"{block}.attn.temperature", (architecture.num_heads, 1, 1)
        yield from _dense(f"{block}.attn.qkv", 3 * dim, dim)
        yield from _dense(f"{block}.attn.proj", dim, dim)
        yield from _layer_norm(f"{block}.norm2", dim)
        yield from _dense(f"{block}.mlp.fc1", hidden, dim)
        yield from _dense(f"{block}.mlp.fc2", dim, hidden)
        yield from _layer_norm(f"{block}.norm3", dim)
        yield from _depthwise(f"{block}.local_mp.conv1", dim)
        yield from _batch_norm(f"{block}.local_mp.bn", dim)
        yield from _depthwise(f"{block}.local_mp.conv2", dim)
    for index in range(architecture.cls_attn_layers):
        block = f"cls_attn_blocks.{index}"
        yield f"{block}.gamma1", (dim,)
        yield f"{block}.gamma2", (dim,)
        yield from _layer_norm(f"{block}.norm1", dim)
        yield from _dense(f"{block}.attn.qkv", 3 * dim, dim)
        yield from _dense(f"{block}.attn.proj", dim, dim)
        yield from _layer_norm(f"{block}.norm2", dim)
        yield from _dense(f"{block}.mlp.fc1", hidden, dim)
        yield from _dense(f"{block}.mlp.fc2", dim, hidden)
    yield from _layer_norm("norm", dim)
    if num_classes:
        yield from _dense("head", num_classes, dim)
    if architecture.use_pos_embed:
        yield "pos_embeder.token_projection.weight", (dim, FOURIER_CHANNELS, 1, 1)
        yield "pos_embeder.token_projection.bias", (dim,)


def stem_widths(architecture: Architecture) -> list[int]:
    """Channels after each of the stem's convolutions: they double from one to the next."""
    last = len(architecture.stem_strides) - 1
    return [architecture.embed_dim >> (last - step) for step in range(last + 1)]


def _layer_norm(name: str, dim: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.gamma", (dim,)
    yield f"{name}.beta", (dim,)


def _batch_norm(name: str, dim: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.moving_mean", (dim,)
    yield f"{name}.moving_variance", (dim,)
    yield f"{name}.gamma", (dim,)
    yield f"{name}.beta", (dim,)


def _dense(name: str, out_channels: int, in_channels: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out_channels, in_channels)
    yield f"{name}.bias", (out_channels,)


def _depthwise(name: str, dim: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (dim, 1, 3, 3)
    yield f"{name}.bias", (dim,)
