"""The only room that knows which device and which MindSpore version it runs on.

Each operation has one meaning and one or more ways to compute it; :func:`kernels` picks a way for every operation from
a table, once, when a network is built. All ways agree to rounding and are differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import mindspore
from mindspore import Tensor, nn, ops

from xcit_hub.models.native import cells
from xcit_hub.models.native.build import library as native_library

_SQRT_HALF = math.sqrt(0.5)
_TANH_SCALE = math.sqrt(2.0 / math.pi)
_NORMALIZE_EPSILON = 1e-12  # as torch.nn.functional.normalize


def gelu_erf(x: Tensor) -> Tensor:
    """Gaussian error linear unit, exact form: x · Φ(x). Any shape, floating point."""
    return ops.gelu(x, approximate="none")


def gelu_erf_from_exp(x: Tensor) -> Tensor:
    """Compute :func:`gelu_erf` from one exponential, for devices whose erf is scalar code.

    The complementary error function is a polynomial in t = 1 / (1 + p·|z|) times exp(−z²), the form of Abramowitz and
    Stegun's 7.1.26, one degree higher and with coefficients fitted to the error this function makes of it, 3e-9: below
    float32's rounding, where theirs (1.5e-7) is not.
    """
    magnitude = ops.abs(x)
    t = 1.0 / (magnitude * (0.39723538 * _SQRT_HALF) + 1.0)
    polynomial = (((-0.2131433393 * t + 0.7778267886) * t - 0.4737805633) * t + 0.541479707) * t
    polynomial = ((polynomial + 0.1333510756) * t + 0.2342660044) * t
    tail = magnitude * polynomial * ops.exp(-0.5 * (x * x))
    # x + |x| instead of 2·relu(x): at zero its derivative is right.
    return 0.5 * ((x + magnitude) - tail)


def gelu_tanh(x: Tensor) -> Tensor:
    """Gaussian error linear unit, tanh approximation, as ``mindspore.nn.GELU()`` computes by default."""
    return ops.gelu(x, approximate="tanh")


def gelu_tanh_from_sigmoid(x: Tensor) -> Tensor:
    """Compute :func:`gelu_tanh` as x · sigmoid(2z): the CPU's own kernel is several times slower.

    The obvious way, through tanh, is closed: ``ops.tanh`` on CPU is off by up to 1e-4.
    """
    return x * ops.sigmoid(x * (x * x * (2.0 * _TANH_SCALE * 0.044715) + 2.0 * _TANH_SCALE))


class UnfoldedConv2d(nn.Conv2d):
    """``nn.Conv2d`` as a product of its matrix with unfolded windows, for devices whose convolution is broken.

    MindSpore 2.9 and 2.10 run every CPU convolution on a reference implementation, 150 times slower than this for the
    stem's. Square kernels, explicit padding, and either one group or one channel a group.
    """

    def construct(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H', W')."""
        batch, channels, height, width = x.shape
        side, stride, padding = self.kernel_size[0], self.stride[0], self.padding
        windows = ops.unfold(x, side, 1, padding, stride)  # (B, in · side², H' · W')
        if self.group == 1:
            out = ops.matmul(self.weight.reshape(self.out_channels, -1), windows)
        else:
            windows = windows.reshape(batch, channels, side * side, -1)
            out = (windows * self.weight.reshape(1, channels, side * side, 1)).sum(2)
        out_height = (height + 2 * padding - side) // stride + 1
        out = out.reshape(batch, self.out_channels, out_height, (width + 2 * padding - side) // stride + 1)
        return out + self.bias.reshape(1, -1, 1, 1) if self.has_bias else out


class ScaledSum(nn.Cell):
    """A residual branch with its layer scale: x + gamma · branch."""

    def construct(self, x: Tensor, branch: Tensor, gamma: Tensor) -> Tensor:
        """Map (…, C), (…, C) and (C) to (…, C)."""
        return x + gamma * branch


class CrossCovariance(nn.Cell):
    """Cross-covariance attention between its two affine maps (paper, section 3.2).

    Args:
        num_heads: heads h that divide the C channels.
        normalize: divide queries and keys by their L2 norms over the tokens.
        attn_drop: dropout of the attention weights, in training.
    """

    def __init__(self, num_heads: int, normalize: bool, attn_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.normalize = normalize
        self.attn_drop = nn.Dropout(p=attn_drop)
        self.project = ops.MatMul(transpose_b=True)
        self.covariance = ops.BatchMatMul(transpose_b=True)
        self.mix_channels = ops.BatchMatMul()

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor, temperature: Tensor) -> Tensor:
        """Map tokens (B, N, C), weight (3·C, C), bias (3·C) and temperature (h, 1, 1) to (B, N, C)."""
        batch, tokens, dim = x.shape
        # Three products and three small transposes: one product's 5-D permutation costs three times as much on CPU.
        query_weight, key_weight, value_weight = ops.split(weight, dim)
        query_bias, key_bias, value_bias = ops.split(bias, dim)
        query = self._heads(x, query_weight, query_bias)
        key = self._heads(x, key_weight, key_bias)
        value = self._heads(x, value_weight, value_bias)
        attention = self.covariance(query, key)  # (B, h, d, d)
        if self.normalize:
            # Dividing the d×d product by both norms is dividing N-long queries and keys, with far fewer divisions.
            key_norm = _l2_norm(key).reshape(batch, self.num_heads, 1, -1)
            attention = attention / (_l2_norm(query) * key_norm)
        attention = self.attn_drop(ops.softmax(attention * temperature, -1))
        return self.mix_channels(attention, value).reshape(batch, dim, tokens).transpose(0, 2, 1)

    def _heads(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Project tokens (B, N, C) and lay them out by head, (B, h, d, N)."""
        batch, tokens, dim = x.shape
        projected = self.project(x.reshape(-1, dim), weight) + bias
        projected = projected.reshape(batch, tokens, dim).transpose(0, 2, 1)
        return projected.reshape(batch, self.num_heads, -1, tokens)


def _l2_norm(x: Tensor) -> Tensor:
    """L2 norm over the last axis, kept, and bounded below as torch's ``normalize`` does."""
    return ops.maximum(ops.sqrt((x * x).sum(-1, keepdims=True)), _NORMALIZE_EPSILON)


@dataclass(frozen=True)
class Grid:
    """How tokens (B, N, C) lie while they are a grid: ``enter`` takes them, height and width; ``leave`` undoes it."""

    enter: Callable[[Tensor, int, int], Tensor]
    leave: Callable[[Tensor], Tensor]
    depthwise: type[nn.Conv2d]
    batch_norm: type[nn.BatchNorm2d]


def channels_first(x: Tensor, height: int, width: int) -> Tensor:
    """(B, N, C) to (B, C, H, W)."""
    return x.transpose(0, 2, 1).reshape(x.shape[0], x.shape[2], height, width)


def from_channels_first(grid: Tensor) -> Tensor:
    """(B, C, H, W) to (B, N, C)."""
    return grid.reshape(grid.shape[0], grid.shape[1], -1).transpose(0, 2, 1)


def channels_last(x: Tensor, height: int, width: int) -> Tensor:
    """(B, N, C) to (B, H, W, C), the same numbers in the same places."""
    return x.reshape(x.shape[0], height, width, x.shape[2])


def from_channels_last(grid: Tensor) -> Tensor:
    """(B, H, W, C) to (B, N, C)."""
    return grid.reshape(grid.shape[0], -1, grid.shape[3])


@dataclass(frozen=True)
class Kernels:
    """The way chosen for every operation."""

    gelu: Callable[[str], Callable[[Tensor], Tensor]]
    convolution: type[nn.Conv2d]
    dense: type[nn.Dense]
    layer_norm: type[nn.LayerNorm]
    scaled_sum: type[nn.Cell]
    cross_covariance: Callable[[int, bool, float], nn.Cell]
    grid: Grid
    # In inference, blocks and the patch embedding as operations of their own, where there are such.
    fused_block: type[nn.Cell] | None = None
    fused_patch_embed: type[nn.Cell] | None = None
    fused_class_block: type[nn.Cell] | None = None


_FAST_ON_CPU = {"erf": gelu_erf_from_exp, "tanh": gelu_tanh_from_sigmoid}
_OWN = {"erf": gelu_erf, "tanh": gelu_tanh}

_ACCELERATOR = Kernels(
    gelu=_OWN.__getitem__,
    convolution=nn.Conv2d,
    dense=nn.Dense,
    layer_norm=nn.LayerNorm,
    scaled_sum=ScaledSum,
    cross_covariance=CrossCovariance,
    grid=Grid(channels_first, from_channels_first, nn.Conv2d, nn.BatchNorm2d),
)
_CPU = replace(_ACCELERATOR, gelu=_FAST_ON_CPU.__getitem__)
_CPU_WITHOUT_CONVOLUTION = replace(
    _CPU,
    convolution=UnfoldedConv2d,
    grid=Grid(channels_first, from_channels_first, UnfoldedConv2d, nn.BatchNorm2d),
)


def _compiled_cross_covariance(num_heads: int, normalize: bool, attn_drop: float) -> nn.Cell:
    if attn_drop > 0.0:
        return CrossCovariance(num_heads, normalize, attn_drop)  # the compiled one never shows its attention
    return cells.NativeCrossCovariance(normalize)


_COMPILED = Kernels(
    gelu=cells.NativeGelu,
    convolution=nn.Conv2d,
    dense=cells.NativeDense,
    layer_norm=cells.NativeLayerNorm,
    scaled_sum=cells.NativeScaledSum,
    cross_covariance=_compiled_cross_covariance,
    grid=Grid(channels_last, from_channels_last, cells.NativeDepthwise, cells.NativeBatchNorm),
    fused_block=cells.NativeBlock,
    fused_patch_embed=cells.NativePatchEmbed,
    fused_class_block=cells.NativeClassBlock,
)

# (is MindSpore 2.9 or later, is there a compiled library) → the ways that are right and quick on a CPU.
_ON_CPU: dict[tuple[bool, bool], Kernels] = {
    (False, False): _CPU,
    (True, False): _CPU_WITHOUT_CONVOLUTION,
    (False, True): _COMPILED,
    (True, True): replace(_COMPILED, convolution=UnfoldedConv2d),
}


_portable = ContextVar("portable", default=False)


@contextmanager
def portable() -> Iterator[None]:
    """Build networks of MindSpore's own operations inside this context: graphs that other machines can read."""
    before = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(before)


def kernels() -> Kernels:
    """Return the ways to compute each operation on the current device target and MindSpore version."""
    if device_target() != "CPU":
        return _ACCELERATOR
    # PyNative's launching threads compete with the kernels for the same cores: waiting is ten times as fast.
    mindspore.runtime.launch_blocking()
    compiled = not _portable.get() and native_library() is not None
    return _ON_CPU[mindspore_version() >= (2, 9), compiled]


def forget_recomputation(block: nn.Cell) -> None:
    """Undo ``Cell.recompute``: MindSpore configures it once and offers no way back; its names differ by version."""
    prefix = "recompute_"
    for _, cell in block.cells_and_names():
        cell._recompute_cell = None
        cell._has_config_recompute = False
        if cell._scope is not None:
            cell._scope = cell._scope.removeprefix(prefix)


def device_target() -> str:
    """Return MindSpore's current device target: ``CPU``, ``Ascend`` or ``GPU``."""
    return str(mindspore.get_context("device_target"))


def mindspore_version() -> tuple[int, int]:
    """Return MindSpore's version as (major, minor)."""
    major, minor = mindspore.__version__.split(".")[:2]
    return int(major), int(minor)
