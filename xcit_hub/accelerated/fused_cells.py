"""The parts of a fused network as compiled operations, from what :mod:`xcit_hub.accelerated.fused` folds.

Images and tokens of other types than float32 are converted there and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn
from mindspore import dtype as mstype
from mindspore.ops import constexpr
from numpy.typing import NDArray

from xcit_hub.accelerated import operands, operations
from xcit_hub.accelerated.cells import as_float32, where
from xcit_hub.models.xcit import fourier_axis

Affine = tuple[NDArray[np.float64], NDArray[np.float64]]


# The parameters that operations.fused_blocks and operations.class_block read, and which are packed.
_BLOCK_OPERANDS = operands.layout(operands.FUSED_BLOCK)
_CLASS_BLOCK_OPERANDS = operands.layout(operands.CLASS_BLOCK)


def _laid_out(array: NDArray[Any], packed: bool, dtype: str = "float32") -> NDArray[Any]:
    """A weight as compiled operations read it: packed for a product, or a depth-wise convolution's as (9, C)."""
    array = np.ascontiguousarray(array.reshape(len(array), 9).T if array.ndim == 4 else array, np.float32)
    return operations.pack_weight(array, dtype) if packed else array


def _constant(name: str, array: NDArray[Any]) -> Parameter:
    return Parameter(Tensor(array), name=name, requires_grad=False)


class FusedBlocks(nn.Cell):
    """Cross-covariance blocks in evaluation as one operation.

    Args:
        blocks: the folded parameters of each; see :mod:`xcit_hub.accelerated.fused`.
        gelu: ``erf`` or ``tanh``.
        normalize: divide queries and keys by their norms.
        epsilon: of the layer norms.
        dtype: what the affine maps multiply; all else is float32.
    """

    def __init__(
        self,
        blocks: Iterable[Mapping[str, NDArray[np.float64]]],
        gelu: str,
        normalize: bool,
        epsilon: float,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        layers: dict[str, list[NDArray[Any]]] = {name: [] for name in _BLOCK_OPERANDS}
        for arrays in blocks:
            for name, packed in _BLOCK_OPERANDS.items():
                layers[name].append(_laid_out(arrays[name], packed, dtype))
        self.operands = ParameterTuple([_constant(name, np.stack(layers.pop(name))) for name in _BLOCK_OPERANDS])
        self.floor = Tensor([epsilon], mstype.float32)
        self.run = operations.fused_blocks(gelu, normalize, dtype)

    def construct(self, x: Tensor, height: int, width: int, first: int, last: int) -> Tensor:
        """Map (B, N, C) to (B, N, C) by the blocks [first, last)."""
        sides_and_layers = where(height, width, x.shape[1], (first, last))
        return self.run(as_float32(x), sides_and_layers, self.floor, *self.operands).astype(x.dtype)


class FusedClassBlock(nn.Cell):
    """A class attention block in evaluation as one operation.

    Args:
        arrays: the folded block's parameters; see :mod:`xcit_hub.accelerated.fused`.
        gelu: ``erf`` or ``tanh``.
        tokens_norm: norm2 is applied to patch tokens, too.
        epsilon: of the layer norms.
    """

    def __init__(self, arrays: Mapping[str, NDArray[np.float64]], gelu: str, tokens_norm: bool, epsilon: float) -> None:
        super().__init__()
        self.operands = ParameterTuple(
            [_constant(name, _laid_out(arrays[name], packed)) for name, packed in _CLASS_BLOCK_OPERANDS.items()]
        )
        self.floor = Tensor([epsilon], mstype.float32)
        self.run = operations.class_block(gelu, tokens_norm, last=False)
        self.run_last = operations.class_block(gelu, tokens_norm, last=True)

    def construct(self, cls_token: Tensor, tokens: Tensor, tokens_wanted: bool) -> tuple[Tensor, Tensor]:
        """Map a class token (B, 1, C), or (1, 1, C) for all images, and patch tokens (B, N, C) to new ones.

        The latter only if they are wanted.
        """
        operands = (as_float32(cls_token), as_float32(tokens), self.floor, *self.operands)
        if not tokens_wanted:
            return self.run_last(*operands).astype(cls_token.dtype), tokens
        new_tokens, new_cls_token = self.run(*operands)
        return new_cls_token.astype(cls_token.dtype), new_tokens.astype(tokens.dtype)


class FusedDense(nn.Cell):
    """``nn.Dense`` with a bias in evaluation, its weight packed once.

    Args:
        weight: (out, in).
        bias: (out).
    """

    def __init__(self, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
        super().__init__()
        self.weight = _constant("weight", _laid_out(weight, True))
        self.bias = _constant("bias", _laid_out(bias, False))
        self.run = operations.packed_linear()

    def construct(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out)."""
        return self.run(as_float32(x), self.weight, self.bias).astype(x.dtype)


@lru_cache(maxsize=64)
def _kept_lines(height: int, width: int) -> Tensor:
    return Tensor(np.concatenate([fourier_axis(height), fourier_axis(width)]))


@constexpr
def _lines(height: int, width: int) -> Tensor:
    """The position features of a grid's rows, then of its columns, (Hp + Wp, 32)."""
    return _kept_lines(height, width)


class FusedPatchEmbed(nn.Cell):
    """The convolutions of the patch embedding in evaluation, and the position encoding, as one operation.

    Args:
        stages: weight (out, in, 3, 3) and bias (out) of each convolution, its batch norm folded in.
        position: weight (out, F) and bias (out) of the encoding's projection.
        gelu: ``erf`` or ``tanh``.
    """

    def __init__(self, stages: Sequence[Affine], position: Affine, gelu: str) -> None:
        super().__init__()
        affine = [(weight.transpose(0, 2, 3, 1).reshape(len(weight), -1), bias) for weight, bias in stages]
        # To a product the features of the position are more of what a token's window shows.
        affine[-1] = np.hstack([affine[-1][0], position[0]]), affine[-1][1] + position[1]
        widths = tuple(len(bias) for _, bias in affine)
        self.widths = Tensor(widths, mstype.int32)
        self.weight = _constant("weight", np.concatenate([_laid_out(weight, True) for weight, _ in affine]))
        self.bias = _constant("bias", np.concatenate([_laid_out(bias, False) for _, bias in affine]))
        self.run = operations.fused_stem(gelu, widths)
        self.side = 2 ** len(widths)  # of a token in pixels

    def construct(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map (B, in_chans, H, W) to tokens with their positions (B, N, C), and their grid (Hp, Wp)."""
        height, width = (image.shape[2] + self.side - 1) // self.side, (image.shape[3] + self.side - 1) // self.side
        features = _lines(height, width)
        return self.run(as_float32(image), self.widths, self.weight, self.bias, features), (height, width)
