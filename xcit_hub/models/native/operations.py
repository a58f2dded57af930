"""The compiled operations as MindSpore primitives, each with its derivative: float32, contiguous."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

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
def scaled_sum() -> ops.Custom:
    """x (…, C), branch (…, C), gamma (C) → x + gamma · branch."""
    slopes = _primitive("ScaledSumGrad", lambda branch, gamma, up: (branch, gamma), 2)

    def bprop(x: Tensor, branch: Tensor, gamma: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        dbranch, dgamma = slopes(branch, gamma, up)
        return up, dbranch, dgamma

    return _primitive("ScaledSum", lambda x, branch, gamma: x, bprop=bprop)


@cache
def batch_norm() -> ops.Custom:
    """x (…, C), gamma (C), beta (C), epsilon (1) → normalised (…, C), mean (C), biased variance (C) of the batch."""
    slopes = _primitive("BatchNormGrad", lambda x, gamma, mean, variance, epsilon, up: (x, gamma, gamma), 3)

    def bprop(
        x: Tensor, gamma: Tensor, beta: Tensor, epsilon: Tensor, out: tuple[Tensor, ...], ups: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        dx, dgamma, dbeta = slopes(x, gamma, out[1], out[2], epsilon, ups[0])
        return dx, dgamma, dbeta, ops.zeros_like(epsilon)

    return _primitive("BatchNorm", lambda x, gamma, beta, epsilon: (x, gamma, gamma), 3, bprop)


@cache
def depthwise() -> ops.Custom:
    """x (B, H, W, C), weight (C, 1, 3, 3), bias (C) → (B, H, W, C), zeros around the grid."""
    slopes = _primitive("DepthwiseGrad", lambda x, weight, up: (x, weight, [weight[0]]), 3)

    def bprop(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        dx, dweight, dbias = slopes(x, weight, up)
        return dx, dweight, dbias

    return _primitive("Depthwise", lambda x, weight, bias: x, bprop=bprop)


@cache
def linear() -> ops.Custom:
    """x (…, K), weight (N, K), bias (N) → x · weightᵀ + bias, (…, N)."""
    slopes = _primitive("LinearGrad", lambda x, weight, up: (x, weight, [weight[0]]), 3)

    def bprop(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        dx, dweight, dbias = slopes(x, weight, up)
        return dx, dweight, dbias

    return _primitive("Linear", lambda x, weight, bias: [*x[:-1], weight[0]], bprop=bprop)


@cache
def cross_covariance(normalize: bool) -> ops.Custom:
    """qkv (B, N, 3·C), temperature (h, 1, 1) → (B, N, C): channels attend to channels, head by head."""
    name = f"CrossCovariance{_NORMS[normalize]}"
    slopes = _primitive(f"{name}Grad", lambda qkv, temperature, up: (qkv, temperature), 2)

    def bprop(qkv: Tensor, temperature: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        dqkv, dtemperature = slopes(qkv, temperature, up)
        return dqkv, dtemperature

    return _primitive(name, lambda qkv, temperature: [*qkv[:2], qkv[2] // 3], bprop=bprop)


@cache
def pack_weight() -> ops.Custom:
    """weight (N, K) → its numbers in the order in which :func:`block` reads them, filled up with zeros, one axis."""
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
def block(gelu_form: str, normalize: bool) -> ops.Custom:
    """x (B, N, C) and 19 operands → (B, N, C): a cross-covariance block in evaluation, without a derivative.

    The operands: the grid's sides (2) int32; epsilon (1); weight and bias of qkv; temperature; weight and bias of proj;
    gamma and beta of norm3; weight and bias of conv1; scale and shift of the batch norm; weight and bias of conv2, fc1
    and fc2. Weights of products are packed; norm1, norm2 and the layer scales are folded into them.
    """
    return _primitive(f"Block{_GELU[gelu_form]}{_NORMS[normalize]}", lambda x, *operands: x)


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
