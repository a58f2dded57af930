"""Optimizers that follow a running mean of the gradients: SGD, Lion, RMSProp."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, Tensor, ops

from xcit_hub.training.optimizers.base import Optimizer, Share, decayed, mapped, mean
from xcit_hub.training.optimizers.settings import ParameterSetting


class SGD(Optimizer):
    """Momentum; decay is added to the gradient. MindSpore's ``nn.SGD`` and ``nn.Momentum``, and ``torch.optim.SGD``.

    Args:
        momentum: what the running sum keeps of itself.
        nesterov: look one step ahead (Sutskever et al., 2013).
    """

    def __init__(self, settings: Sequence[ParameterSetting], momentum: float, nesterov: bool) -> None:
        super().__init__(settings, {"velocity": "zeros"})
        self.momentum = momentum
        self.nesterov = nesterov

    def _change(self, gradients: tuple[Tensor, ...], learning_rate: Tensor, updates: Tensor) -> None:  # noqa: ARG002
        one = ops.partial(_sgd, learning_rate, self.momentum, self.nesterov)
        mapped(one, self.weights, self.velocity, gradients, self.rates, self.decays)


def _sgd(
    rate: Tensor,
    momentum: float,
    nesterov: bool,
    weight: Parameter,
    velocity: Parameter,
    gradient: Tensor,
    share: float,
    decay: float,
) -> bool:
    gradient = decayed(gradient, weight, decay)
    moved = velocity * momentum + gradient
    step = gradient + moved * momentum if nesterov else moved
    ops.assign(velocity, moved)
    ops.assign(weight, weight - step * (rate * share))
    return True


class Lion(Optimizer):
    """The sign of a mean of gradients, with decoupled decay (Chen et al., arXiv:2302.06675); MindCV's and timm's.

    Args:
        betas: shares of the mean that is followed, and of the one that is kept.
    """

    def __init__(self, settings: Sequence[ParameterSetting], betas: tuple[Share, ...]) -> None:
        super().__init__(settings, {"lion_m": "zeros"})
        self.betas = betas

    def _change(self, gradients: tuple[Tensor, ...], learning_rate: Tensor, updates: Tensor) -> None:  # noqa: ARG002
        one = ops.partial(_lion, learning_rate, self.betas[0], self.betas[1])
        mapped(one, self.weights, self.lion_m, gradients, self.rates, self.decays)


def _lion(
    rate: Tensor,
    followed: Share,
    kept: Share,
    weight: Parameter,
    moment: Parameter,
    gradient: Tensor,
    share: float,
    decay: float,
) -> bool:
    direction = ops.sign(mean(moment, gradient, followed))
    ops.assign(moment, mean(moment, gradient, kept))
    ops.assign(weight, weight - (direction + weight * decay) * (rate * share))
    return True


class RMSProp(Optimizer):
    """The gradient over the root of its mean square, with momentum; decay is added to the gradient.

    Args:
        alpha: what the mean square keeps of itself.
        momentum: what the running sum of steps keeps of itself.
        eps: added to the mean square, or to its root.
        torchs: ``torch.optim.RMSprop``: the mean square begins at 0, epsilon is added to the root, and the rate
            multiplies the running sum. Else TensorFlow's form, which is MindSpore's ``nn.RMSProp`` and timm's
            ``rmsproptf``: the mean square begins at 1, epsilon stands under the root, and each step enters the sum with
            the rate of its time.
    """

    def __init__(
        self, settings: Sequence[ParameterSetting], alpha: float, momentum: float, eps: float, *, torchs: bool
    ) -> None:
        super().__init__(settings, {"mean_square": "zeros" if torchs else "ones", "velocity": "zeros"})
        self.alpha = alpha
        self.momentum = momentum
        self.eps = eps
        self.torchs = torchs

    def _change(self, gradients: tuple[Tensor, ...], learning_rate: Tensor, updates: Tensor) -> None:  # noqa: ARG002
        one = ops.partial(_rmsprop, learning_rate, self.alpha, self.momentum, self.eps, self.torchs)
        mapped(one, self.weights, self.mean_square, self.velocity, gradients, self.rates, self.decays)


def _rmsprop(
    rate: Tensor,
    alpha: float,
    momentum: float,
    eps: float,
    torchs: bool,
    weight: Parameter,
    mean_square: Parameter,
    velocity: Parameter,
    gradient: Tensor,
    share: float,
    decay: float,
) -> bool:
    gradient = decayed(gradient, weight, decay)
    square = mean_square * alpha + gradient * gradient * (1.0 - alpha)
    rate = rate * share
    if torchs:
        moved = velocity * momentum + gradient / (ops.sqrt(square) + eps)
        step = moved * rate
    else:
        moved = velocity * momentum + gradient * rate / ops.sqrt(square + eps)
        step = moved
    ops.assign(mean_square, square)
    ops.assign(velocity, moved)
    ops.assign(weight, weight - step)
    return True
