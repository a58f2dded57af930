"""What a device or a version of MindSpore computes by another way: the form of GELU, and convolution.

All ways of a function agree to rounding and are differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import mindspore
from mindspore import Tensor, nn, ops

_SQRT_HALF = math.sqrt(0.5)
_BELL = 1.0 / math.sqrt(2.0 * math.pi)
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
    tail = magnitude * _tail_over_bell(magnitude) * ops.exp(-0.5 * (x * x))
    # x + |x| instead of 2·relu(x): at zero its derivative is right.
    return 0.5 * ((x + magnitude) - tail)


def _tail_over_bell(magnitude: Tensor) -> Tensor:
    """2 · Φ(−|x|) · exp(x² / 2)."""
    t = 1.0 / (magnitude * (0.39723538 * _SQRT_HALF) + 1.0)
    polynomial = (((-0.2131433393 * t + 0.7778267886) * t - 0.4737805633) * t + 0.541479707) * t
    return ((polynomial + 0.1333510756) * t + 0.2342660044) * t


class GeluErfFromExp(nn.Cell):
    """:func:`gelu_erf_from_exp` with a derivative of its own.

    MindSpore keeps what lies between a formula's operations until its gradient is taken, here a dozen times the input;
    this keeps the input.
    """

    def construct(self, x: Tensor) -> Tensor:
        """Apply it to every element."""
        return gelu_erf_from_exp(x)

    def bprop(self, x: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor]:  # noqa: ARG002  # MindSpore gives it
        """Return ``up`` · (Φ(x) + x · φ(x))."""
        bell, sign = ops.exp(-0.5 * (x * x)), ops.sign(x)
        return (up * (0.5 * (1.0 + sign) - bell * (0.5 * sign * _tail_over_bell(ops.abs(x)) - _BELL * x)),)


def gelu_tanh(x: Tensor) -> Tensor:
    """Gaussian error linear unit, tanh approximation, as ``mindspore.nn.GELU()`` computes by default."""
    return ops.gelu(x, approximate="tanh")


def gelu_tanh_from_sigmoid(x: Tensor) -> Tensor:
    """Compute :func:`gelu_tanh` as x · sigmoid(2z): the CPU's own kernel is several times slower.

    The obvious way, through tanh, is closed: ``ops.tanh`` on CPU is off by up to 1e-4.
    """
    return x * ops.sigmoid(x * (x * x * (2.0 * _TANH_SCALE * 0.044715) + 2.0 * _TANH_SCALE))


class GeluTanhFromSigmoid(nn.Cell):
    """:func:`gelu_tanh_from_sigmoid` with a derivative of its own, as :class:`GeluErfFromExp`."""

    def construct(self, x: Tensor) -> Tensor:
        """Apply it to every element."""
        return gelu_tanh_from_sigmoid(x)

    def bprop(self, x: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor]:  # noqa: ARG002  # MindSpore gives it
        """Return ``up`` times the derivative of x · sigmoid(2z(x))."""
        square = x * x
        gate = ops.sigmoid(x * (square * (2.0 * _TANH_SCALE * 0.044715) + 2.0 * _TANH_SCALE))
        slope = x * (square * (6.0 * _TANH_SCALE * 0.044715) + 2.0 * _TANH_SCALE)
        return (up * gate * (1.0 + slope * (1.0 - gate)),)


class UnfoldedConv2d(nn.Conv2d):
    """``nn.Conv2d`` as a product of its matrix with unfolded windows, for devices whose convolution is slow.

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
class Functions:
    """The way chosen for each function; ``gelu`` by its form, a function or the class of a cell."""

    gelu: Mapping[str, Callable[[Tensor], Tensor] | type[nn.Cell]]
    convolution: type[nn.Conv2d]


_GELU = {"erf": gelu_erf, "tanh": gelu_tanh}
_GELU_ON_CPU = {"erf": GeluErfFromExp, "tanh": GeluTanhFromSigmoid}

# (is it a CPU, is MindSpore 2.9 or later)
_FUNCTIONS = {
    (False, False): Functions(_GELU, nn.Conv2d),
    (False, True): Functions(_GELU, nn.Conv2d),
    (True, False): Functions(_GELU_ON_CPU, nn.Conv2d),
    (True, True): Functions(_GELU_ON_CPU, UnfoldedConv2d),
}


def functions() -> Functions:
    """Return the ways that are right and quick on the current device target and MindSpore version."""
    wait_for_each_operation()
    return _FUNCTIONS[device_target() == "CPU", mindspore_version() >= (2, 9)]


def device_target() -> str:
    """Return MindSpore's current device target: ``CPU``, ``Ascend`` or ``GPU``."""
    return str(mindspore.get_context("device_target"))


def mindspore_version() -> tuple[int, int]:
    """Return MindSpore's version as (major, minor)."""
    major, minor = mindspore.__version__.split(".")[:2]
    return int(major), int(minor)


@cache
def wait_for_each_operation() -> None:
    """Have PyNative mode wait for each operation on a CPU, from a network's building on: later it changes nothing.

    MindSpore's launching threads compete with the operations for the same cores: to wait is up to ten times as fast.
    """
    if device_target() == "CPU":
        mindspore.runtime.launch_blocking()


@cache
def settle_threads() -> None:
    """Calm MindSpore's workers on a CPU in PyNative mode, once in the process.

    They go on spinning after every operation until a graph has run, on cores that the next one wants: at batch 1 that
    costs half as much time again. In graph mode the caller is about to run one.
    """
    if device_target() == "CPU" and mindspore.get_context("mode") == mindspore.PYNATIVE_MODE:
        mindspore.jit(_one_more)(Tensor(0.0, mindspore.float32))


def _one_more(x: Tensor) -> Tensor:
    return x + 1.0
