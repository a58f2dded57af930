"""What evaluation leaves constant, folded into the neighbouring weights: numpy in double precision, rounded once.

Folded: each batch norm of the patch embedding into its convolution; gain and offset of the layer norms before XCA and
before the MLP into the affine map after them; the layer scales into the last weights of their branch. Not folded: the
layer norm and the batch norm of local patch interaction, because zeros are padded around the grid after them, and a
shift does not pass through those; the layer norms of class attention, which patch tokens pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub.parameters import BATCH_NORM_EPSILON, stem_widths
from xcit_hub.variants import Architecture

Array = NDArray[Any]
Wide = NDArray[np.float64]


def folded(arrays: Mapping[str, Array], architecture: Architecture) -> dict[str, Array]:
    """Fold every parameter that evaluation allows.

    Args:
        arrays: every parameter and buffer by MindCV's names, floating point.

    Returns:
        float32 arrays by the same names. ``patch_embed.proj.<i>.0.bias`` stands for the stem's batch norms; gain and
        offset of folded layer norms and ``gamma1..3`` of the cross-covariance blocks are absent.
    """
    left = dict(arrays)

    def take(name: str) -> Wide:
        return np.asarray(left.pop(name), np.float64)

    new: dict[str, Wide] = {}
    for index in range(len(stem_widths(architecture))):
        convolution, norm = f"patch_embed.proj.{2 * index}.0", f"patch_embed.proj.{2 * index}.1"
        leaves = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (take(f"{norm}.{leaf}") for leaf in leaves)
        scale, new[f"{convolution}.bias"] = scale_and_shift(gamma, beta, mean, variance)
        new[f"{convolution}.weight"] = take(f"{convolution}.weight") * scale[:, None, None, None]
    for index in range(architecture.depth):
        block = f"blocks.{index}"
        for norm, cell in (("norm1", "attn.qkv"), ("norm2", "mlp.fc1")):
            new[f"{block}.{cell}.weight"], new[f"{block}.{cell}.bias"] = affine_after(
                *(
                    take(f"{block}.{name}")
                    for name in (f"{cell}.weight", f"{cell}.bias", f"{norm}.gamma", f"{norm}.beta")
                )
            )
        for layer_scale, cell in (("gamma1", "attn.proj"), ("gamma3", "local_mp.conv2"), ("gamma2", "mlp.fc2")):
            new[f"{block}.{cell}.weight"], new[f"{block}.{cell}.bias"] = scaled(
                *(take(f"{block}.{name}") for name in (f"{cell}.weight", f"{cell}.bias", layer_scale))
            )
    return left | {name: array.astype(np.float32) for name, array in new.items()}


def affine_after(weight: Wide, bias: Wide, gamma: Wide, beta: Wide) -> tuple[Wide, Wide]:
    """Weight (out, in) and bias of an affine map that takes in the gain and offset (in) of the norm before it."""
    return weight * gamma, bias + weight @ beta


def scaled(weight: Wide, bias: Wide, gamma: Wide) -> tuple[Wide, Wide]:
    """Weight (out, …) and bias of a map that takes in the layer scale (out) after it."""
    return weight * gamma.reshape(-1, *[1] * (weight.ndim - 1)), bias * gamma


def scale_and_shift(
    gamma: Wide, beta: Wide, mean: Wide, variance: Wide, epsilon: float = BATCH_NORM_EPSILON
) -> tuple[Wide, Wide]:
    """A batch norm on running statistics is x · scale + shift."""
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale
