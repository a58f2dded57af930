"""The compiled operations as MindSpore primitives, each with its derivative: float32, contiguous."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from mindspore import Tensor, ops
from mindspore import dtype as mstype

from xcit_hub.models.native.build import library

Shapes = Callable[..., Any]


def _primitive(name: str, outputs: Shapes, count: int = 1, bprop: Callable[..., Any] | None = None) -> ops.Custom:
    """Wrap a function of the library; ``outputs`` maps the shapes of the inputs to those of the ``count`` outputs."""
    kind = mstype.float32 if count == 1 else (mstype.float32,) * count
    return ops.Custom(f"{library()}:{name}", outputs, kind, func_type="aot", bprop=bprop)


_GELU = {"erf": "Erf", "tanh": "Tanh"}
_NORMS = {True: "", False: "Raw"}
_PANEL = 48  # columns of a packed weight are filled up to a multiple of this, whatever the register's width


@cache
def gelu(form: str) -> ops.Custom:
    """x · Φ(x), or its tanh approximation; any shape."""
    name = f"Gelu{_GELU[form]}"
    slope = _primitive(f"{name}Grad", lambda x, up: x)

    def bprop(x: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor]:
        return (slope(x, up),)

    return _primitive(name, lambda x: x, bprop=bprop)


@cache
def layer_norm() -> ops.Custom:
    """x (…, C), gamma (C), beta (C), epsilon (1) → (…, C)."""
    slopes = _primitive("LayerNormGrad", lambda x, gamma, epsilon, up: (x, gamma, gamma), 3)

    def bprop(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        dx, dgamma, dbeta = slopes(x, gamma, epsilon, up)
        return dx, dgamma, dbeta, ops.zeros_like(epsilon)

    return _primitive("LayerNorm", lambda x, gamma, beta, epsilon: x, bprop=bprop)


@cache
def linear() -> ops.Custom:
    """x (…, K), weight (N, K), bias (N) → x · weightᵀ + bias, (…, N)."""
    slopes = _primitive("LinearGrad", lambda x, weight, up: (x, weight, [weight[0]]), 3)

    def bprop(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        dx, dweight, dbias = slopes(x, weight, up)
        return dx, dweight, dbias

    return _primitive("Linear", lambda x, weight, bias: [*x[:-1], weight[0]], bprop=bprop)


# Where the operands of blocks stand: what is trained, among it the layer scale gamma1 and the bias of fc1.
_TRAINED = slice(4, 28)
_GAMMA1, _FC1_BIAS = 11, 24


def _layers(shapes: tuple[list[int], ...]) -> list[int]:
    """Return [layers, C]: a layer scale has one axis in a block and two in a stack of blocks."""
    scale = shapes[_GAMMA1]
    return [*([1] if len(scale) == 1 else []), *scale]


class Blocks(NamedTuple):
    """Cross-covariance blocks as one operation each way: x (B, N, C) and the same 29 operands → (B, N, C).

    The operands: keep, stochastic depth's factor of each layer, branch and image (layers · 3 · B), or 1 number for all;
    the grid's sides (2) int32; epsilon of the layer norms and of the batch norm (2); gamma and beta of norm1, weight
    and bias of qkv, temperature, weight and bias of proj, gamma1; gamma and beta of norm3, weight and bias of conv1,
    gamma and beta of the batch norm, weight and bias of conv2, gamma3; gamma and beta of norm2, weight and bias of fc1
    and fc2, gamma2; moving mean and variance. From norm1 on they are one block's, or have the layers as one more axis
    in front.

    Args:
        evaluate: keeps nothing for its gradient, which therefore computes again; drops nothing.
        train: normalises by the batch's statistics. Also puts out what its gradient needs, and those: mean and biased
            variance, (layers, C).
        train_frozen: the same by the running statistics.
    """

    evaluate: ops.Custom
    train: ops.Custom
    train_frozen: ops.Custom


@cache
def blocks(gelu_form: str, normalize: bool) -> Blocks:
    """Return the operations for blocks of one dialect."""
    form = f"{_GELU[gelu_form]}{_NORMS[normalize]}"
    train, train_frozen = _trained_blocks(f"BlocksMoving{form}"), _trained_blocks(f"BlocksFrozen{form}")
    evaluate = _primitive(
        f"Blocks{form}", lambda x, *operands: x, bprop=_blocks_bprop(f"BlocksFrozen{form}", train_frozen)
    )
    return Blocks(evaluate, train, train_frozen)


def _trained_blocks(name: str) -> ops.Custom:
    def outputs(*shapes: list[int]) -> tuple[list[int], ...]:
        x, scale, hidden = shapes[0], _layers(shapes), shapes[_FC1_BIAS][-1]
        kept = scale[0] * (8 * scale[1] + hidden) - scale[1]  # the last layer's result is the operation's own
        return x, [x[0] * x[1], kept], scale, scale

    return _primitive(name, outputs, 4, _blocks_bprop(name))


def _blocks_bprop(name: str, again: ops.Custom | None = None) -> Callable[..., Any]:
    """The derivative of an operation on blocks; ``again`` computes what it needs where it was not kept."""

    def outputs(*shapes: list[int]) -> tuple[list[int], ...]:
        return shapes[0], *shapes[_TRAINED]

    slopes = _primitive(f"{name}Grad", outputs, 1 + _TRAINED.stop - _TRAINED.start)
    none = ops.ZerosLike()

    # The graph compiler takes no *args here.
    def bprop(
        x: Tensor,
        keep: Tensor,
        sides: Tensor,
        epsilons: Tensor,
        norm1: Tensor,
        norm1_beta: Tensor,
        qkv: Tensor,
        qkv_bias: Tensor,
        temperature: Tensor,
        proj: Tensor,
        proj_bias: Tensor,
        gamma1: Tensor,
        norm3: Tensor,
        norm3_beta: Tensor,
        conv1: Tensor,
        conv1_bias: Tensor,
        bn: Tensor,
        bn_beta: Tensor,
        conv2: Tensor,
        conv2_bias: Tensor,
        gamma3: Tensor,
        norm2: Tensor,
        norm2_beta: Tensor,
        fc1: Tensor,
        fc1_bias: Tensor,
        fc2: Tensor,
        fc2_bias: Tensor,
        gamma2: Tensor,
        mean: Tensor,
        variance: Tensor,
        out: Any,
        up: Any,
    ) -> tuple[Tensor, ...]:
        operands = (
            *(x, keep, sides, epsilons),
            *(norm1, norm1_beta, qkv, qkv_bias, temperature, proj, proj_bias, gamma1),
            *(norm3, norm3_beta, conv1, conv1_bias, bn, bn_beta, conv2, conv2_bias, gamma3),
            *(norm2, norm2_beta, fc1, fc1_bias, fc2, fc2_bias, gamma2),
            *(mean, variance),
        )
        if again is None:
            kept, dy = out, up[0]
        else:
            kept, dy = again(*operands), up
        dx, *trained = slopes(*operands, kept[1], kept[2], kept[3], dy)
        return dx, none(keep), none(sides), none(epsilons), *trained, none(mean), none(variance)

    return bprop


@cache
def pack_weight() -> ops.Custom:
    """weight (N, K) → its numbers in the order of products, which :func:`fused_blocks` wants, and zeros; one axis."""
    return _primitive("PackWeight", lambda weight: [-(-weight[0] // _PANEL) * _PANEL * weight[1]])


@cache
def downsample(gelu_form: str, first: bool, last: bool) -> ops.Custom:
    """x, packed weight, bias (N) → (B, H / 2, W / 2, N): 3×3 convolution of stride 2, then GELU unless it is the last.

    x is (B, K, H, W) at the first stage and (B, H, W, K) after it; the weight is that of (N, 9 · K), its window's rows,
    columns and channels in this order. Without a derivative.
    """
    name = "DownsampleLast" if last else f"Downsample{'Image' if first else ''}{_GELU[gelu_form]}"
    side = 2 if first else 1

    def outputs(x: list[int], weight: list[int], bias: list[int]) -> list[int]:
        return [x[0], -(-x[side] // 2), -(-x[side + 1] // 2), bias[0]]

    return _primitive(name, outputs)


@cache
def fused_blocks(gelu_form: str, normalize: bool) -> ops.Custom:
    """x (B, N, C) and 19 operands → (B, N, C): cross-covariance blocks in evaluation, without a derivative.

    The operands: the grid's sides, the first layer and the one after the last (4) int32; epsilon (1); then, each with
    the layers as one more axis in front, weight and bias of qkv; temperature; weight and bias of proj; gamma and beta
    of norm3; weight (9, C) and bias of conv1; scale and shift of the batch norm; weight (9, C) and bias of conv2;
    weight and bias of fc1 and fc2. Weights of products are packed; norm1, norm2 and the layer scales are folded into
    them.
    """
    return _primitive(f"FusedBlocks{_GELU[gelu_form]}{_NORMS[normalize]}", lambda x, *operands: x)


@cache
def class_block(gelu_form: str, tokens_norm: bool, last: bool) -> ops.Custom:
    """Class token (B, 1, C), tokens (B, N, C) and 17 operands → new ones, the class token alone if it is the ``last``.

    A class attention block in evaluation, without a derivative. The operands: epsilon (1); gamma and beta of norm1;
    weight and bias of queries, scaled; weight of keys (h, d, C); of values transposed, and bias; weight and bias of
    proj; gamma and beta of norm2; weight and bias of fc1 and fc2; gamma1. Weights of queries, proj, fc1 and fc2 are
    packed; the class token's layer scales are folded into them.
    """
    name = f"ClassBlock{_GELU[gelu_form]}{'Last' if last else _NORMS[tokens_norm]}"
    if last:
        return _primitive(name, lambda cls_token, tokens, *operands: cls_token)
    return _primitive(name, lambda cls_token, tokens, *operands: (cls_token, tokens), 2)
