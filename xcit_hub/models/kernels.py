"""The only room that knows which device and which MindSpore version it runs on.

Each operation has one meaning and one or more ways to compute it; :func:`kernels` picks a way for every operation from
a table, once, when a network is built. All ways agree to rounding and are differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import mindspore
from mindspore import Tensor, ops

_SQRT_HALF = math.sqrt(0.5)
_TANH_SCALE = math.sqrt(2.0 / math.pi)


def gelu_erf(x: Tensor) -> Tensor:
    """Gaussian error linear unit, exact form: x · Φ(x). Any shape, floating point."""
    return ops.gelu(x, approximate="none")


def gelu_erf_from_exp(x: Tensor) -> Tensor:
    """Compute :func:`gelu_erf` from one exponential, for devices whose erf is scalar code.

    The complementary error function is a polynomial in t = 1 / (1 + p·|z|) times exp(−z²) (Abramowitz and Stegun,
    Handbook of Mathematical Functions, 7.1.26); the absolute error is below 1.5e-7, float32's own resolution.
    """
    magnitude = ops.abs(x)
    t = 1.0 / (magnitude * (0.3275911 * _SQRT_HALF) + 1.0)
    polynomial = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
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


@dataclass(frozen=True)
class Kernels:
    """The way chosen for every operation."""

    gelu: dict[str, Callable[[Tensor], Tensor]]


_ON_CPU = Kernels(gelu={"erf": gelu_erf_from_exp, "tanh": gelu_tanh_from_sigmoid})
_ON_ACCELERATOR = Kernels(gelu={"erf": gelu_erf, "tanh": gelu_tanh})


def kernels() -> Kernels:
    """Return the ways to compute each operation on the current device target and MindSpore version."""
    return _ON_CPU if device_target() == "CPU" else _ON_ACCELERATOR


def device_target() -> str:
    """Return MindSpore's current device target: ``CPU``, ``Ascend`` or ``GPU``."""
    return str(mindspore.get_context("device_target"))


def mindspore_version() -> tuple[int, int]:
    """Return MindSpore's version as (major, minor)."""
    major, minor = mindspore.__version__.split(".")[:2]
    return int(major), int(minor)
