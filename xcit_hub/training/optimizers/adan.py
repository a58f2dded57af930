"""Adan: Nesterov's momentum from the difference of two gradients (Xie et al., arXiv:2208.06677)."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, Tensor, ops

from xcit_hub.training.optimizers.base import Optimizer, Share, mapped, mean, one_minus_power
from xcit_hub.training.optimizers.settings import ParameterSetting

_KEPT = {"adan_m": "zeros", "adan_v": "zeros", "adan_n": "zeros", "previous": "zeros"}


class Adan(Optimizer):
    """Adan as timm computes it, with bias correction; the decay divides.

    Args:
        eps: added to the root of the mean square.
        betas: shares of the means of gradients, of their differences, and of squares.
    """

    def __init__(self, settings: Sequence[ParameterSetting], eps: float, betas: tuple[Share, ...]) -> None:
        super().__init__(settings, _KEPT)
        self.eps = eps
        self.betas = betas

    def _change(self, gradients: tuple[Tensor, ...], learning_rate: Tensor, updates: Tensor) -> None:
        later = (updates > 1.0).astype(learning_rate.dtype)
        corrections = (
            one_minus_power(self.betas[0][0], updates),
            one_minus_power(self.betas[1][0], updates),
            ops.sqrt(one_minus_power(self.betas[2][0], updates)),
        )
        one = ops.partial(_adan, learning_rate, self.betas, corrections, later, self.eps)
        moments = (self.adan_m, self.adan_v, self.adan_n, self.previous)
        mapped(one, self.weights, *moments, gradients, self.rates, self.decays)


def _adan(
    rate: Tensor,
    betas: tuple[Share, ...],
    corrections: tuple[Tensor, Tensor, Tensor],
    later: Tensor,
    eps: float,
    weight: Parameter,
    moment: Parameter,
    mean_difference: Parameter,
    mean_square: Parameter,
    previous: Parameter,
    gradient: Tensor,
    share: float,
    decay: float,
) -> bool:
    rate = rate * share
    difference = (gradient - previous) * later  # the first gradient has none before it
    first = mean(moment, gradient, betas[0])
    second = mean(mean_difference, difference, betas[1])
    ahead = gradient + difference * betas[1][0]
    square = mean(mean_square, ahead * ahead, betas[2])
    step = (first * (rate / corrections[0]) + second * (rate * betas[1][0] / corrections[1])) / (
        ops.sqrt(square) / corrections[2] + eps
    )
    ops.assign(moment, first)
    ops.assign(mean_difference, second)
    ops.assign(mean_square, square)
    ops.assign(previous, gradient)
    ops.assign(weight, (weight - step) / (rate * decay + 1.0))
    return True


class MindCVAdan(Optimizer):
    """Adan as MindCV 0.5 computes it: without bias correction; a previous gradient that sums to 0, as before the first
    step, counts as equal to the new one.

    Args:
        eps: added to the root of the mean square.
        betas: shares of the means of gradients, of their differences, and of squares.
    """

    def __init__(self, settings: Sequence[ParameterSetting], eps: float, betas: tuple[Share, ...]) -> None:
        super().__init__(settings, _KEPT)
        self.eps = eps
        self.betas = betas

    def _change(self, gradients: tuple[Tensor, ...], learning_rate: Tensor, updates: Tensor) -> None:  # noqa: ARG002
        one = ops.partial(_mindcv_adan, learning_rate, self.betas, self.eps)
        moments = (self.adan_m, self.adan_v, self.adan_n, self.previous)
        mapped(one, self.weights, *moments, gradients, self.rates, self.decays, self.stacked)


def _mindcv_adan(
    rate: Tensor,
    betas: tuple[Share, ...],
    eps: float,
    weight: Parameter,
    moment: Parameter,
    mean_difference: Parameter,
    mean_square: Parameter,
    previous: Parameter,
    gradient: Tensor,
    share: float,
    decay: float,
    stacked: bool,
) -> bool:
    axes = tuple(range(1 if stacked else 0, gradient.ndim))
    total = previous.sum(axes, keepdims=True) if axes else previous + 0.0
    difference = (gradient - previous) * (total != 0.0).astype(gradient.dtype)
    first = mean(moment, gradient, betas[0])
    second = mean(mean_difference, difference, betas[1])
    ahead = gradient + difference * betas[1][0]
    square = mean(mean_square, ahead * ahead, betas[2])
    rates = rate * share / (ops.sqrt(square) + eps)
    ops.assign(moment, first)
    ops.assign(mean_difference, second)
    ops.assign(mean_square, square)
    ops.assign(previous, gradient)
    ops.assign(weight, (weight - rates * (first + second * betas[1][0])) / (rates * decay + 1.0))
    return True
