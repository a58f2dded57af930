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
from functools import cache
from typing import Any, TypeVar

import mindspore
from mindspore import Tensor, nn, ops
from mindspore.common.api import _real_phase
from mindspore.common.hook_handle import _hook_version

from xcit_hub.accelerated import cells
from xcit_hub.accelerated.build import library as native_library
from xcit_hub.accelerated.operations import Modes, blocks, stage

CellT = TypeVar("CellT", bound=nn.Cell)

_SQRT_HALF = math.sqrt(0.5)
_TANH_SCALE = math.sqrt(2.0 / math.pi)


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


@dataclass(frozen=True)
class Kernels:
    """The way chosen for every operation."""

    gelu: Callable[[str], Callable[[Tensor], Tensor]]
    convolution: type[nn.Conv2d]
    dense: type[nn.Dense]
    layer_norm: type[nn.LayerNorm]
    # Stages of the patch embedding and whole blocks in one piece, and what fuse() makes of them, where there are such.
    stage: Callable[[str, bool, bool], Modes] | None = None
    blocks: Callable[[str, bool], Modes] | None = None
    fused_blocks: type[nn.Cell] | None = None
    fused_patch_embed: type[nn.Cell] | None = None
    fused_class_block: type[nn.Cell] | None = None
    fused_dense: type[nn.Cell] | None = None


_FAST_ON_CPU = {"erf": gelu_erf_from_exp, "tanh": gelu_tanh_from_sigmoid}
_OWN = {"erf": gelu_erf, "tanh": gelu_tanh}

_ACCELERATOR = Kernels(gelu=_OWN.__getitem__, convolution=nn.Conv2d, dense=nn.Dense, layer_norm=nn.LayerNorm)
_CPU = replace(_ACCELERATOR, gelu=_FAST_ON_CPU.__getitem__)
_COMPILED = Kernels(
    gelu=cells.NativeGelu,
    convolution=nn.Conv2d,
    dense=cells.NativeDense,
    layer_norm=cells.NativeLayerNorm,
    stage=stage,
    blocks=blocks,
    fused_blocks=cells.NativeBlocks,
    fused_patch_embed=cells.NativePatchEmbed,
    fused_class_block=cells.NativeClassBlock,
    fused_dense=cells.NativeAffine,
)

# (is MindSpore 2.9 or later, is there a compiled library) → the ways that are right and quick on a CPU.
_ON_CPU: dict[tuple[bool, bool], Kernels] = {
    (False, False): _CPU,
    (True, False): replace(_CPU, convolution=UnfoldedConv2d),
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


def _one_more(x: Tensor) -> Tensor:
    return x + 1.0


@cache
def settle_threads() -> None:
    """Let MindSpore's CPU threads sleep between operations in PyNative mode, by running a graph once in the process.

    Until a graph has run they go on spinning after every operation that uses them, on cores that the next one wants:
    at batch 1 that costs half as much time again. In graph mode the caller is about to run one.
    """
    if device_target() == "CPU" and mindspore.get_context("mode") == mindspore.PYNATIVE_MODE:
        mindspore.jit(_one_more)(Tensor(0.0, mindspore.float32))


def compiled_once(kind: type[CellT]) -> type[CellT]:
    """Let a network of one image ask MindSpore only once for the graph of a shape, as a decorator of its class.

    MindSpore asks at every call, counts ``construct``'s parameters, and from 2.8 on tells each of 300 cells the graph's
    name: 1.5 ms. A plain tensor's graph is known again by all that MindSpore knows it by.
    """
    compile_graph, count_arguments = nn.Cell.compile, nn.Cell._check_construct_args

    def compile_once(self: CellT, *args: Any, **kwargs: Any) -> None:
        plain = len(args) == 1 and not kwargs and type(args[0]) is Tensor and not args[0].const_arg
        if not plain or hasattr(args[0], "__ms_mutable__"):
            return compile_graph(self, *args, **kwargs)
        graphs = self.__dict__.setdefault("_graphs_known", {})
        seen = (args[0].shape, args[0].dtype, self.phase, _hook_version())
        if seen in graphs:
            self.arguments_key = graphs[seen]
            if _real_phase(self.phase, self) in self.compile_cache:
                return None
        compile_graph(self, *args)
        graphs[seen] = self.arguments_key
        return None

    def check_arguments(self: CellT, *args: Any) -> None:
        if len(args) != 1:
            count_arguments(self, *args)

    kind.compile, kind._check_construct_args = compile_once, check_arguments
    return kind


def recomputes(block: nn.Cell) -> bool:
    """Tell whether a block's activations are computed again in the backward pass."""
    return any(cell._has_config_recompute for _, cell in block.cells_and_names())


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
