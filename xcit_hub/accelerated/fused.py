"""The network's parts for inference alone: what evaluation leaves constant is folded into the neighbouring weights.

Exact but for rounding. What is folded: each batch norm of the patch embedding into its convolution; gain and offset of
the layer norms before attention and before the MLP into the affine map after them; the layer scales into the last
weights of their branch, the class token's too where its block is one operation; the position encoding's projection
into the last convolution where that is one. What stays: gain and offset of the layer norm before local patch
interaction, and the batch norm inside it, because zeros are padded around the image after them, and a shift does not
pass through those; those of class attention, which patch tokens pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.nn.utils import no_init_parameters
from numpy.typing import NDArray

from xcit_hub.models.kernels import kernels
from xcit_hub.models.layers import ClassAttentionBlock, ConvPatchEmbed, FourierPosition, Gelu, XCABlock, conv3x3
from xcit_hub.variants import Architecture, Dialect

Wide = NDArray[np.float64]


def fused_patch_embed(patch_embed: ConvPatchEmbed, position: FourierPosition, dialect: Dialect) -> nn.Cell:
    """Fold a patch embedding: images (B, in_chans, H, W) to tokens (B, N, C) as before, in evaluation.

    Where its ``positions`` says so, it takes the tokens' Fourier features, too, and adds the position encoding.
    """
    stages = []
    for stage in patch_embed.proj:
        if isinstance(stage, nn.SequentialCell):
            convolution, norm = stage
            scale, shift = _scale_and_shift(norm)
            stages.append((_wide(convolution.weight) * scale[:, None, None, None], shift))
    native = kernels().fused_patch_embed
    if native is None:
        return _FoldedPatchEmbed(stages, dialect.gelu)
    projection = position.token_projection
    return native(stages, (_wide(projection.weight)[:, :, 0, 0], _wide(projection.bias)), dialect.gelu)


def fused_blocks(blocks: nn.CellList, architecture: Architecture, dialect: Dialect) -> nn.Cell:
    """Fold the cross-covariance blocks: a list of cells, or one cell where one operation computes them all."""
    folded = (_folded(block) for block in blocks)  # in double precision: one at a time
    native = kernels().fused_blocks
    if native:
        return native(folded, dialect.gelu, dialect.normalize_qk, blocks[0].norm1.epsilon)
    return nn.CellList([_FoldedBlock(arrays, architecture, dialect) for arrays in folded])


def fused_class_blocks(blocks: nn.CellList, architecture: Architecture, dialect: Dialect) -> list[nn.Cell]:
    """Fold the class attention blocks; none are returned where no operation computes one as a whole."""
    native = kernels().fused_class_block
    if native is None:
        return []
    return [
        native(_folded_class_block(block), dialect.gelu, architecture.tokens_norm, block.norm1.epsilon)
        for block in blocks
    ]


def fused_head(head: nn.Cell) -> nn.Cell | None:
    """Prepare the classifier's product once; None where there is none, or no operation for it."""
    native = kernels().fused_dense
    return native(_wide(head.weight), _wide(head.bias)) if native and isinstance(head, nn.Dense) else None


def _folded_class_block(block: ClassAttentionBlock) -> dict[str, Wide]:
    attn = block.attn
    query, key, value = np.split(_wide(attn.qkv.weight), 3)
    query_bias, _, value_bias = np.split(_wide(attn.qkv.bias), 3)
    return {
        "norm1.gamma": _wide(block.norm1.gamma),
        "norm1.beta": _wide(block.norm1.beta),
        "query.weight": query * attn.scale,
        "query.bias": query_bias * attn.scale,
        "key.weight": key.reshape(attn.num_heads, -1, key.shape[1]),
        "value.weight": value.T,
        "value.bias": value_bias,
        **_scaled("attn.proj", attn.proj, block.gamma1),
        "norm2.gamma": _wide(block.norm2.gamma),
        "norm2.beta": _wide(block.norm2.beta),
        "mlp.fc1.weight": _wide(block.mlp.fc1.weight),
        "mlp.fc1.bias": _wide(block.mlp.fc1.bias),
        **_scaled("mlp.fc2", block.mlp.fc2, block.gamma2),
        "gamma1": _wide(block.gamma1),
    }


def _folded(block: XCABlock) -> dict[str, Wide]:
    """The folded block's parameters by the names they have in a block; its batch norm as scale and shift."""
    arrays = {
        **_affine_after("attn.qkv", block.attn.qkv, block.norm1),
        "attn.temperature": _wide(block.attn.temperature),
        **_scaled("attn.proj", block.attn.proj, block.gamma1),
        "norm3.gamma": _wide(block.norm3.gamma),
        "norm3.beta": _wide(block.norm3.beta),
        "local_mp.conv1.weight": _wide(block.local_mp.conv1.weight),
        "local_mp.conv1.bias": _wide(block.local_mp.conv1.bias),
        **_scaled("local_mp.conv2", block.local_mp.conv2, block.gamma3),
        **_affine_after("mlp.fc1", block.mlp.fc1, block.norm2),
        **_scaled("mlp.fc2", block.mlp.fc2, block.gamma2),
    }
    arrays["local_mp.bn.scale"], arrays["local_mp.bn.shift"] = _scale_and_shift(block.local_mp.bn)
    return arrays


def _affine_after(name: str, dense: nn.Dense, norm: nn.LayerNorm) -> dict[str, Wide]:
    weight = _wide(dense.weight)
    return {
        f"{name}.weight": weight * _wide(norm.gamma),
        f"{name}.bias": _wide(dense.bias) + weight @ _wide(norm.beta),
    }


def _scaled(name: str, cell: nn.Cell, gamma: Parameter) -> dict[str, Wide]:
    weight, scale = _wide(cell.weight), _wide(gamma)
    return {
        f"{name}.weight": weight * scale.reshape(-1, *[1] * (weight.ndim - 1)),
        f"{name}.bias": _wide(cell.bias) * scale,
    }


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Wide, Wide]:
    """A batch norm in evaluation is x · scale + shift."""
    scale = _wide(norm.gamma) / np.sqrt(_wide(norm.moving_variance) + norm.eps)
    return scale, _wide(norm.beta) - _wide(norm.moving_mean) * scale


def _wide(parameter: Parameter) -> Wide:
    """Double precision: folding must not round twice."""
    return np.asarray(parameter.asnumpy(), np.float64)


def _fill(cell: nn.Cell, name: str, array: Any) -> None:
    for part in name.split("."):
        cell = getattr(cell, part)
    cell.set_data(Tensor(np.ascontiguousarray(array, np.float32)))


class _FoldedPatchEmbed(nn.Cell):
    """Convolutions and GELU."""

    positions = False

    def __init__(self, stages: list[tuple[Wide, Wide]], gelu: str) -> None:
        super().__init__()
        cells: list[nn.Cell] = []
        for weight, bias in stages:
            convolution = conv3x3(kernels().convolution, weight.shape[1], weight.shape[0], stride=2, bias=True)
            _fill(convolution, "weight", weight)
            _fill(convolution, "bias", bias)
            cells += [Gelu(gelu), convolution] if cells else [convolution]
        self.proj = nn.SequentialCell(cells)

    def construct(self, image: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to tokens (B, N, C)."""
        grid = self.proj(image)
        return grid.reshape(grid.shape[0], grid.shape[1], -1).transpose(0, 2, 1)


class _FoldedBlock(XCABlock):
    """A block whose norms 1 and 2 only normalise and whose layer scales are gone."""

    def __init__(self, arrays: dict[str, Wide], architecture: Architecture, dialect: Dialect) -> None:
        with no_init_parameters():
            super().__init__(architecture, dialect, proj_drop=0.0, attn_drop=0.0, drop_path=0.0)
        del self.gamma1, self.gamma2, self.gamma3
        scale, shift = arrays.pop("local_mp.bn.scale"), arrays.pop("local_mp.bn.shift")
        unit = {"gamma": np.ones_like(scale), "beta": np.zeros_like(scale)}
        norm = {
            "gamma": scale,
            "beta": shift,
            "moving_mean": unit["beta"],
            "moving_variance": unit["gamma"] - self.local_mp.bn.eps,
        }
        arrays |= {f"{name}.{part}": array for name in ("norm1", "norm2") for part, array in unit.items()}
        arrays |= {f"local_mp.bn.{part}": array for part, array in norm.items()}
        for name, array in arrays.items():
            _fill(self, name, array)

    def construct(self, x: Tensor, height: int, width: int) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        x = x + self.attn(self.norm1(x))
        x = x + self.local_mp(self.norm3(x), height, width)
        return x + self.mlp(self.norm2(x))
