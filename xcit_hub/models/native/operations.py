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


_BRANCH = 6  # operands that every branch begins with: x, keep, epsilon, gamma, beta, scale


def _branch_slopes(name: str, trained: int) -> ops.Custom:
    """The gradients of a branch: of x, gamma, beta, scale, and of the first ``trained`` operands of its own."""
    own = slice(_BRANCH, _BRANCH + trained)
    return _primitive(f"{name}Grad", lambda *shapes: (shapes[0], *shapes[3:6], *shapes[own]), 4 + trained)


@cache
def attention_branch(normalize: bool) -> ops.Custom:
    """x + keep · scale · attention(norm(x)), qkv (B, N, 3·C), attended (B, N, C).

    Operands: x (B, N, C); keep (B or 1); epsilon (1), gamma and beta (C) of the norm; scale (C); weight and bias of
    qkv; temperature (h, 1, 1); weight and bias of proj.
    """
    name = f"AttentionBranch{_NORMS[normalize]}"
    slopes = _branch_slopes(name, 5)

    def bprop(
        x: Tensor,
        keep: Tensor,
        epsilon: Tensor,
        gamma: Tensor,
        beta: Tensor,
        scale: Tensor,
        qkv: Tensor,
        qkv_bias: Tensor,
        temperature: Tensor,
        proj: Tensor,
        proj_bias: Tensor,
        out: tuple[Tensor, ...],
        ups: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        operands = (x, keep, epsilon, gamma, beta, scale, qkv, qkv_bias, temperature, proj, proj_bias)
        dx, *trained = slopes(*operands, *out[1:], ups[0])
        return dx, ops.zeros_like(keep), ops.zeros_like(epsilon), *trained

    return _primitive(name, lambda x, *operands: (x, [*x[:2], 3 * x[2]], x), 3, bprop)


@cache
def local_branch(gelu_form: str, moving: bool) -> ops.Custom:
    """x + keep · scale · LPI(norm(x)), its first convolution (B, N, C), mean (C), biased variance (C).

    ``moving`` normalises by the batch's own statistics, else by the ones given. Operands: those every branch begins
    with, see :func:`attention_branch`; weight (C, 1, 3, 3) and bias of conv1; gamma and beta of the batch norm; weight
    and bias of conv2; without gradients mean, variance and epsilon (1) of the batch norm, the grid's sides (2) int32.
    """
    name = f"LocalBranch{'Moving' if moving else ''}{_GELU[gelu_form]}"
    slopes = _branch_slopes(name, 6)

    def bprop(
        x: Tensor,
        keep: Tensor,
        epsilon: Tensor,
        gamma: Tensor,
        beta: Tensor,
        scale: Tensor,
        conv1: Tensor,
        conv1_bias: Tensor,
        bn_gamma: Tensor,
        bn_beta: Tensor,
        conv2: Tensor,
        conv2_bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        bn_epsilon: Tensor,
        sides: Tensor,
        out: tuple[Tensor, ...],
        ups: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        operands = (x, keep, epsilon, gamma, beta, scale, conv1, conv1_bias, bn_gamma, bn_beta, conv2, conv2_bias)
        constants = (mean, variance, bn_epsilon, sides)
        dx, *trained = slopes(*operands, *constants, *out[1:], ups[0])
        none = ops.zeros_like
        return (
            *(dx, none(keep), none(epsilon), *trained),
            *(none(mean), none(variance), none(bn_epsilon), none(sides)),
        )

    return _primitive(name, lambda x, *operands: (x, x, x[2:], x[2:]), 4, bprop)


@cache
def mlp_branch(gelu_form: str) -> ops.Custom:
    """x + keep · scale · MLP(norm(x)), and what its activation reads (B, N, hidden).

    Operands: those every branch begins with, see :func:`attention_branch`; weight and bias of fc1 and fc2.
    """
    name = f"MlpBranch{_GELU[gelu_form]}"
    slopes = _branch_slopes(name, 4)

    def bprop(
        x: Tensor,
        keep: Tensor,
        epsilon: Tensor,
        gamma: Tensor,
        beta: Tensor,
        scale: Tensor,
        fc1: Tensor,
        fc1_bias: Tensor,
        fc2: Tensor,
        fc2_bias: Tensor,
        out: tuple[Tensor, ...],
        ups: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        operands = (x, keep, epsilon, gamma, beta, scale, fc1, fc1_bias, fc2, fc2_bias)
        dx, *trained = slopes(*operands, *out[1:], ups[0])
        return dx, ops.zeros_like(keep), ops.zeros_like(epsilon), *trained

    return _primitive(name, lambda x, *operands: (x, [*x[:2], operands[_BRANCH - 1][0]]), 2, bprop)


class Branches(NamedTuple):
    """The residual branches of a cross-covariance block; ``local_moving`` is ``local`` in training."""

    attention: ops.Custom
    local: ops.Custom
    local_moving: ops.Custom
    mlp: ops.Custom


def branches(gelu_form: str, normalize: bool) -> Branches:
    """Return the operations of a block; see :func:`attention_branch`, :func:`local_branch`, :func:`mlp_branch`."""
    return Branches(
        attention_branch(normalize),
        local_branch(gelu_form, moving=False),
        local_branch(gelu_form, moving=True),
        mlp_branch(gelu_form),
    )


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
