"""What all optimizers share: the weights, how each is trained, what is kept of the steps so far, and their count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

from xcit_hub.accelerated.stacked import members
from xcit_hub.training.optimizers.settings import ParameterSetting

# MindSpore maps functions over lists of parameters only in this form; a plain loop over hundreds of parameters
# overflows the graph compiler's stack.
mapped = ops.HyperMap()


class Optimizer(nn.Cell):
    """Changes weights in place by their gradients. A subclass says how, in ``_change``.

    Args:
        settings: the parameters and how each is trained. One that holds all layers (``blocks.*``) is treated layer by
            layer where a norm is taken.
        kept: what is kept for each weight, by name, and the value it begins with: ``zeros`` or ``ones``.
    """

    def __init__(self, settings: Sequence[ParameterSetting], kept: Mapping[str, str]) -> None:
        super().__init__(auto_prefix=False)
        self.weights = ParameterTuple([setting.parameter for setting in settings])
        self.rates = tuple(setting.rate for setting in settings)
        self.decays = tuple(setting.decay for setting in settings)
        self.stacked = tuple(members(weight) != [weight.name] for weight in self.weights)
        self.updates = Parameter(Tensor(0.0, mstype.float32), name="updates", requires_grad=False)
        self._kept = list(kept)
        for name, first in kept.items():
            setattr(self, name, self.weights.clone(prefix=name, init=first))

    def kept(self) -> list[Parameter]:
        """Return everything a continued run needs: what is kept for each weight, and the count of updates."""
        return [*(parameter for name in self._kept for parameter in getattr(self, name)), self.updates]

    def construct(self, gradients: tuple[Tensor, ...], learning_rate: Tensor) -> Tensor:
        """Update every weight once. Gradients and the rate are float32.

        Returns the number of updates so far."""
        updates = self.updates + 1.0
        self._change(gradients, learning_rate, updates)
        ops.assign(self.updates, updates)
        return updates

    def _change(self, gradients: tuple[Tensor, ...], learning_rate: Tensor, updates: Tensor) -> None:
        """Change every weight, and what is kept for it; ``updates`` counts this one."""
        raise NotImplementedError


Share = tuple[float, float]


def shares(betas: Sequence[float], *, single: bool) -> tuple[Share, ...]:
    """Return what each running mean keeps of itself, and what it takes of the new.

    Args:
        single: take 1 − β in float32, as MindSpore's and MindCV's optimizers do: of 0.999 that is 1.3e-5 less.
    """
    return tuple((beta, float(np.float32(1) - np.float32(beta)) if single else 1.0 - beta) for beta in betas)


def mean(kept: Tensor, new: Tensor, share: Share) -> Tensor:
    """Return a running mean after its next value."""
    return kept * share[0] + new * share[1]


def one_minus_power(base: float, exponent: Tensor) -> Tensor:
    """Return 1 − baseᵗ by expm1: the plain difference loses five digits in float32 for the first steps."""
    return -ops.expm1(exponent * math.log(base))


def layer_norm(value: Tensor, stacked: bool) -> Tensor:
    """Return the L2 norm of a tensor, or of each layer of a stack of them, in a shape that multiplies the tensor."""
    axes = tuple(range(1 if stacked else 0, value.ndim))
    return ops.sqrt((value * value).sum(axes, keepdims=True)) if axes else ops.abs(value)


def decayed(gradient: Tensor, weight: Parameter, decay: float) -> Tensor:
    """Add a weight's decay to its gradient."""
    return gradient + weight * decay if decay > 0.0 else gradient
