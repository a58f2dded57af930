"""The compiled operations as MindSpore primitives, each with its derivative: float32, contiguous."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype
from numpy.typing import NDArray

from xcit_hub.accelerated import operands
from xcit_hub.accelerated.build import extension, library
from xcit_hub.errors import InputError

Shapes = Callable[..., Any]


class Operation(ops.Custom):
    """A function of the library as a primitive. It holds nothing that two copies of a network could not share."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Operation:
        return self


def _primitive(
    name: str,
    outputs: Shapes,
    count: int = 1,
    bprop: Callable[..., Any] | None = None,
    library: Callable[[], Path | None] = library,
) -> Operation:
    """Wrap a function of a library; ``outputs`` maps the shapes of the inputs to those of the ``count`` outputs."""
    kind = mstype.float32 if count == 1 else (mstype.float32,) * count
    return Operation(f"{library()}:{name}", outputs, kind, func_type="aot", bprop=bprop)


def _expect(what: str, shapes: Iterable[list[int]], expected: Iterable[list[int]]) -> None:
    """Refuse operands of other shapes: the library would read beyond them. A negative size is one not yet known."""
    for place, (shape, wanted) in enumerate(zip(shapes, expected, strict=True)):
        fits = len(shape) == len(wanted) and all(a == b or min(a, b) < 0 for a, b in zip(shape, wanted, strict=True))
        if not fits:
            raise InputError(
                f"Operand {place + 1} of {what} has shape {tuple(shape)}; {tuple(wanted)} fits the others.",
                where="xcit_hub.accelerated.operations",
                fix="Give operands of one network: its parameters, and tokens of its own width.",
            )


_GELU = {"erf": "Erf", "tanh": "Tanh"}
_NORMS = {True: "", False: "Raw"}


@cache
def gelu(form: str) -> Operation:
    """x · Φ(x), or its tanh approximation; any shape."""
    name = f"Gelu{_GELU[form]}"
    slope = _primitive(f"{name}Grad", lambda x, up: x)

    def bprop(x: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor]:
        return (slope(x, up),)

    return _primitive(name, lambda x: x, bprop=bprop)


@cache
def layer_norm() -> Operation:
    """x (…, C), gamma (C), beta (C), epsilon (1) → (…, C)."""
    slopes = _primitive("LayerNormGrad", lambda x, gamma, epsilon, up: (x, gamma, gamma), 3)

    def bprop(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        dx, dgamma, dbeta = slopes(x, gamma, epsilon, up)
        return dx, dgamma, dbeta, ops.zeros_like(epsilon)

    def outputs(*shapes: list[int]) -> list[int]:
        _expect("layer norm", shapes[1:], [shapes[0][-1:], shapes[0][-1:], [1]])
        return shapes[0]

    return _primitive("LayerNorm", outputs, bprop=bprop)


@cache
def linear() -> Operation:
    """x (…, K), weight (N, K), bias (N) → x · weightᵀ + bias, (…, N)."""
    slopes = _primitive("LinearGrad", lambda x, weight, up: (x, weight, [weight[0]]), 3)

    def bprop(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        dx, dweight, dbias = slopes(x, weight, up)
        return dx, dweight, dbias

    def outputs(x: list[int], weight: list[int], bias: list[int]) -> list[int]:
        _expect("an affine map", [weight, bias], [[weight[0], x[-1]], weight[:1]])
        return [*x[:-1], weight[0]]

    return _primitive("Linear", outputs, bprop=bprop)


@cache
def class_attention() -> Operation:
    """x (B, T, C), heads (1) int32, weight (3·C, C), bias (3·C) → (B, 1, C): what the first token gathers from all.

    The matrices are those of queries, keys and values, one above the other.
    """
    slopes = _primitive("ClassAttentionGrad", lambda x, heads, weight, bias, up: (x, weight, bias), 3)
    none = ops.ZerosLike()

    def bprop(x: Tensor, heads: Tensor, weight: Tensor, bias: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        dx, dweight, dbias = slopes(x, heads, weight, bias, up)
        return dx, none(heads), dweight, dbias

    def outputs(x: list[int], *others: list[int]) -> list[int]:
        _expect("class attention", others, [[1], [3 * x[-1], x[-1]], [3 * x[-1]]])
        return [x[0], 1, x[2]]

    return _primitive("ClassAttention", outputs, bprop=bprop)


@cache
def squared_sum() -> Operation:
    """x, any shape → the sum of its squares, (1). It has no derivative."""
    return _primitive("SquaredSum", lambda x: [1])


class Modes(NamedTuple):
    """A part of the network that has a batch norm as one operation each way, with the same operands in every mode.

    Args:
        evaluate: normalises by the running statistics. Keeps nothing for its gradient, which therefore computes again.
        train: normalises by the batch's statistics. Puts out the result, what its gradient needs, and the batch's mean
            and biased variance.
        train_frozen: the same by the running statistics.
    """

    evaluate: Operation
    train: Operation
    train_frozen: Operation


# From the name of a gradient, and the operation that computes what it needs where the operation itself has not kept it.
Derivation = Callable[[str, Operation | None], Callable[..., Any]]


def _modes(part: str, form: str, result: Shapes, kept: Shapes, derive: Derivation) -> Modes:
    """Build a part's operations; ``result`` and ``kept`` map the operands' shapes to those of what is put out."""

    def outputs(*shapes: list[int]) -> tuple[list[int], ...]:
        return result(*shapes), *kept(*shapes)

    names = f"{part}Moving{form}", f"{part}Frozen{form}"
    train, frozen = (_primitive(name, outputs, 4, derive(f"{name}Grad", None)) for name in names)
    return Modes(_primitive(f"{part}{form}", result, bprop=derive(f"{names[1]}Grad", frozen)), train, frozen)


@cache
def stage(gelu_form: str, first: bool, last: bool) -> Modes:
    """A stage of the patch embedding: 3×3 convolution of stride 2, batch norm, and GELU unless it is the ``last``.

    Operands: x, (B, K, H, W) at the first stage and (B, H, W, K) after it; the convolution's weight (N, K, 3, 3);
    epsilon (1) of the batch norm, its gamma and beta (N), moving mean and variance (N). The result is
    (B, H / 2, W / 2, N), rounded up.
    """

    def result(x: list[int], weight: list[int], *others: list[int]) -> list[int]:
        side, channels = (2, x[1]) if first else (1, x[3])
        _expect("a stage", [weight, *others], [[weight[0], channels, 3, 3], [1], *[weight[:1]] * 4])
        return [x[0], (x[side] + 1) // 2, (x[side + 1] + 1) // 2, weight[0]]

    def kept(x: list[int], weight: list[int], *others: list[int]) -> tuple[list[int], ...]:
        return result(x, weight, *others), weight[:1], weight[:1]

    derivation = _first_stage_gradients if first else _stage_gradients
    return _modes("Stage", _stage_form(gelu_form, first, last), result, kept, partial(_stage_derivation, derivation))


def _stage_form(gelu_form: str, first: bool, last: bool) -> str:
    return "Last" if last else f"{'Image' if first else ''}{_GELU[gelu_form]}"


def _stage_gradients(name: str) -> Callable[..., Any]:
    return _primitive(name, lambda x, weight, epsilon, gamma, *others: (x, weight, gamma, gamma), 4)


def _first_stage_gradients(name: str) -> Callable[..., Any]:
    """Two operations: a graph leaves the one out whose result, the image's gradient, nobody asks for."""
    of_image = _primitive(f"{name}OfImage", lambda x, *others: x)
    of_parameters = _primitive(name, lambda x, weight, epsilon, gamma, *others: (weight, gamma, gamma), 3)

    def both(*operands: Tensor) -> tuple[Tensor, ...]:
        dweight, dgamma, dbeta = of_parameters(*operands)
        return of_image(*operands), dweight, dgamma, dbeta

    return both


def _stage_derivation(
    gradients: Callable[[str], Callable[..., Any]], name: str, again: Operation | None
) -> Callable[..., Any]:
    slopes = gradients(name)
    none = ops.ZerosLike()

    def bprop(
        x: Tensor,
        weight: Tensor,
        epsilon: Tensor,
        gamma: Tensor,
        beta: Tensor,
        mean: Tensor,
        variance: Tensor,
        out: Any,
        up: Any,
    ) -> tuple[Tensor, ...]:
        operands = (x, weight, epsilon, gamma, beta, mean, variance)
        if again is None:
            kept, dy = out, up[0]
        else:
            kept, dy = again(*operands), up
        dx, dweight, dgamma, dbeta = slopes(*operands, kept[1], kept[2], kept[3], dy)
        return dx, dweight, none(epsilon), dgamma, dbeta, none(mean), none(variance)

    return bprop


def _place(name: str) -> int:
    return operands.BLOCKS.index(name)


_FIRST_PARAMETER = _place(operands.BLOCK[0].name)


@cache
def blocks(gelu_form: str, normalize: bool) -> Modes:
    """Cross-covariance blocks: x (B, N, C) and the other operands of :data:`operands.BLOCKS` → (B, N, C).

    keep is stochastic depth's factor of each layer, branch and image (layers · 3 · B), or 1 number for all, not read in
    evaluation; sides the grid's (2) int32; epsilons those of the layer norms and of the batch norm (2). The parameters
    are one block's, or have the layers as one more axis in front.
    """

    def kept(*shapes: list[int]) -> tuple[list[int], ...]:
        (images, tokens, channels), hidden = shapes[0], shapes[_place("fc1_bias")][-1]
        layers = math.prod(shapes[_place("gamma1")][:-1])
        # The last layer's result is the operation's own.
        numbers = layers * (8 * channels + hidden) - channels
        return [images * tokens, numbers], [layers, channels], [layers, channels]

    form = f"{_GELU[gelu_form]}{_NORMS[normalize]}"
    return _modes("Blocks", form, _blocks_result, kept, _blocks_derivation)


def _blocks_result(x: list[int], *others: list[int]) -> list[int]:
    shapes = [x, *others]
    layers = shapes[_place("gamma1")][:-1]
    sizes = {"C": x[2], "M": shapes[_place("fc1_bias")][-1], "h": shapes[_place("temperature")][-3]}
    parameters = [[*layers, *operand.sizes(sizes)] for operand in operands.BLOCK]
    _expect("blocks", others, [others[0], [2], [2], *parameters])
    if x[2] % sizes["h"]:
        raise InputError(
            f"{x[2]} channels do not divide among {sizes['h']} heads.",
            where="xcit_hub.accelerated.operations",
            fix="Give operands of one network: its parameters, and tokens of its own width.",
        )
    return x


def _blocks_derivation(name: str, again: Operation | None) -> Callable[..., Any]:
    trained = slice(_FIRST_PARAMETER, _FIRST_PARAMETER + len(operands.TRAINED))
    slopes = _primitive(name, lambda *shapes: (shapes[0], *shapes[trained]), 1 + len(operands.TRAINED))
    none = ops.ZerosLike()

    # The graph compiler reads this function's text and takes no *args of a derivative, so the operands are listed once
    # more; a test holds the list against operands.BLOCKS.
    def bprop(
        x: Tensor,
        keep: Tensor,
        sides: Tensor,
        epsilons: Tensor,
        norm1_gamma: Tensor,
        norm1_beta: Tensor,
        qkv: Tensor,
        qkv_bias: Tensor,
        temperature: Tensor,
        proj: Tensor,
        proj_bias: Tensor,
        gamma1: Tensor,
        norm3_gamma: Tensor,
        norm3_beta: Tensor,
        conv1: Tensor,
        conv1_bias: Tensor,
        bn_gamma: Tensor,
        bn_beta: Tensor,
        conv2: Tensor,
        conv2_bias: Tensor,
        gamma3: Tensor,
        norm2_gamma: Tensor,
        norm2_beta: Tensor,
        fc1: Tensor,
        fc1_bias: Tensor,
        fc2: Tensor,
        fc2_bias: Tensor,
        gamma2: Tensor,
        moving_mean: Tensor,
        moving_variance: Tensor,
        out: Any,
        up: Any,
    ) -> tuple[Tensor, ...]:
        inputs = (
            *(x, keep, sides, epsilons),
            *(norm1_gamma, norm1_beta, qkv, qkv_bias, temperature, proj, proj_bias, gamma1),
            *(norm3_gamma, norm3_beta, conv1, conv1_bias, bn_gamma, bn_beta, conv2, conv2_bias, gamma3),
            *(norm2_gamma, norm2_beta, fc1, fc1_bias, fc2, fc2_bias, gamma2),
            *(moving_mean, moving_variance),
        )
        if again is None:
            kept, dy = out, up[0]
        else:
            kept, dy = again(*inputs), up
        dx, *slopes_of_trained = slopes(*inputs, kept[1], kept[2], kept[3], dy)
        nothing = none(keep), none(sides), none(epsilons)
        return dx, *nothing, *slopes_of_trained, none(moving_mean), none(moving_variance)

    return bprop


class Factors(NamedTuple):
    """The numbers that the products of fused blocks multiply; sums are float32.

    Args:
        suffix: of the names of what computes with them.
        library: where that is.
        packed: the dtype of a packed weight.
        steps: of a product's sum in each number of a packed weight.
        more: numbers that it has of every column beside.
    """

    suffix: str
    library: Callable[[], Path | None]
    packed: type[np.generic]
    steps: int = 1
    more: int = 0


FACTORS = {
    "float32": Factors("", library, np.float32),
    "bfloat16": Factors("Bfloat16", partial(extension, "bfloat16"), np.int32, steps=2),
    "int8": Factors("Int8", partial(extension, "int8"), np.int32, steps=4, more=2),
}


def pack_weight(weight: NDArray[np.float32], dtype: str = "float32") -> NDArray[Any]:
    """weight (N, K) → its numbers in the order of products, which :func:`fused_blocks` wants, and zeros; one axis.

    In bfloat16 and int8 they are rounded, to the nearest, and as many as fill an int32 are one.
    Outside MindSpore, whose memory pool would keep what it lent to an operation.
    """
    factors = FACTORS[dtype]
    weight = np.ascontiguousarray(weight, np.float32)
    width, depth = weight.shape
    packed = np.zeros(_packed([width, -(-depth // factors.steps) + factors.more]), factors.packed)
    number, address = ctypes.c_int64, ctypes.c_void_p
    pack = getattr(ctypes.CDLL(str(factors.library())), f"PackWeight{factors.suffix}")
    pack(address(weight.ctypes.data), number(width), number(depth), address(packed.ctypes.data))
    return packed


def _packed(weight: list[int]) -> list[int]:
    return [-(-weight[0] // operands.PANEL) * operands.PANEL * weight[1]]


@cache
def packed_linear() -> Operation:
    """x (…, K), packed weight of (N, K), bias (N) → what :func:`linear` computes, without a derivative."""

    def outputs(x: list[int], weight: list[int], bias: list[int]) -> list[int]:
        _expect("a packed affine map", [weight], [_packed([bias[0], x[-1]])])
        return [*x[:-1], bias[0]]

    return _primitive("PackedLinear", outputs)


@cache
def fused_stem(gelu_form: str, widths: tuple[int, ...]) -> Operation:
    """Image (B, K, H, W), widths (S) int32, packed weights, biases, features (H' + W', F / 2) → tokens (B, H' · W', C).

    The patch embedding in evaluation, without a derivative: S convolutions of stride 2 and ``widths`` channels, each
    batch norm folded into weight and bias; weights one after another, and biases. A weight is that of (N, 9 · K), its
    window's rows, columns and channels in this order; the last has F more columns, for features of a token's position:
    those of its row and of its column.
    """

    def outputs(x: list[int], *others: list[int]) -> list[int]:
        half = others[-1][-1]
        depths = [9 * width for width in (x[1], *widths[:-1])]
        depths[-1] += 2 * half
        packed = sum(_packed([width, depth])[0] for width, depth in zip(widths, depths, strict=True))
        height, width = (-(-side // 2 ** len(widths)) for side in x[2:])
        _expect("the stem", others, [[len(widths)], [packed], [sum(widths)], [height + width, half]])
        return [x[0], height * width, widths[-1]]

    return _primitive(f"FusedStem{_GELU[gelu_form]}", outputs)


@cache
def fused_blocks(gelu_form: str, normalize: bool, dtype: str = "float32") -> Operation:
    """x (B, N, C), where, epsilon and :data:`operands.FUSED_BLOCK` → (B, N, C): blocks in evaluation.

    Without a derivative. where: the grid's sides, the first layer and the one after the last (4) int32; epsilon (1).
    The other operands have the layers as one more axis in front; weights of products are packed, in the dtype in which
    they are multiplied.
    """
    factors = FACTORS[dtype]
    name = f"FusedBlocks{_GELU[gelu_form]}{_NORMS[normalize]}{factors.suffix}"
    return _primitive(name, lambda x, *operands: x, library=factors.library)


@cache
def class_block(gelu_form: str, tokens_norm: bool, last: bool) -> Operation:
    """Class token (B or 1, 1, C), tokens (B, N, C), epsilon (1) and :data:`operands.CLASS_BLOCK` → new ones.

    A class attention block in evaluation, without a derivative; tokens and then the class token, which is alone if the
    ``last``. The weight of queries is scaled, that of values transposed.
    """
    name = f"ClassBlock{_GELU[gelu_form]}{'Last' if last else _NORMS[tokens_norm]}"
    if last:
        return _primitive(name, lambda cls_token, tokens, *operands: [tokens[0], *cls_token[1:]])
    # The tokens first: MindSpore would put the small one at the start of the memory that just has room for them.
    return _primitive(name, lambda cls_token, tokens, *operands: (tokens, [tokens[0], *cls_token[1:]]), 2)
