"""What evaluation leaves constant, folded into the neighbouring weights; pure numpy, exact but for one rounding.

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
    """Fold every parameter that evaluation allows; names are kept, what was folded away is gone, ``bias`` may be new.

    Args:
        arrays: every parameter and buffer by MindCV's names, floating point.

    Returns:
        float32 arrays: ``patch_embed.proj.<i>.0.bias`` stands for the stem's batch norms; ``norm1.gamma`` and the like
        of folded layer norms are absent, as are ``gamma1..3`` of the cross-covariance blocks.
    """
    left = dict(arrays)

    def take(name: str) -> Wide:
        return np.asarray(left.pop(name), np.float64)

    new: dict[str, Wide] = {}
    for index in range(len(stem_widths(architecture))):
        stage = f"patch_embed.proj.{2 * index}"
        scale, shift = scale_and_shift(take, f"{stage}.1")
        new[f"{stage}.0.weight"] = take(f"{stage}.0.weight") * scale[:, None, None, None]
        new[f"{stage}.0.bias"] = shift
    for index in range(architecture.depth):
        block = f"blocks.{index}"
        for norm, affine in (("norm1", "attn.qkv"), ("norm2", "mlp.fc1")):
            weight, bias = take(f"{block}.{affine}.weight"), take(f"{block}.{affine}.bias")
            new[f"{block}.{affine}.weight"] = weight * take(f"{block}.{norm}.gamma")
            new[f"{block}.{affine}.bias"] = bias + weight @ take(f"{block}.{norm}.beta")
        for scale_name, last in (("gamma1", "attn.proj"), ("gamma3", "local_mp.conv2"), ("gamma2", "mlp.fc2")):
            weight, scale = take(f"{block}.{last}.weight"), take(f"{block}.{scale_name}")
            new[f"{block}.{last}.weight"] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
            new[f"{block}.{last}.bias"] = take(f"{block}.{last}.bias") * scale
    return left | {name: array.astype(np.float32) for name, array in new.items()}


def scale_and_shift(take: Any, norm: str) -> tuple[Wide, Wide]:
    """A batch norm in evaluation is x · scale + shift."""
    scale = take(f"{norm}.gamma") / np.sqrt(take(f"{norm}.moving_variance") + BATCH_NORM_EPSILON)
    return scale, take(f"{norm}.beta") - take(f"{norm}.moving_mean") * scale
