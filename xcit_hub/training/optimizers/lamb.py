"""LAMB: Adam's step, as long as the weight it changes times the rate (You et al., arXiv:1904.00962)."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, Tensor, ops

from xcit_hub.training.optimizers.base import Optimizer, Share, layer_norm, mapped, mean, one_minus_power
from xcit_hub.training.optimizers.settings import ParameterSetting

_LARGEST_NORM = 1.0  # timm's max_grad_norm

_squared_sum = ops.MultitypeFuncGraph("squared_sum_of_gradient")


@_squared_sum.register("Tensor")
def _square_one(gradient: Tensor) -> Tensor:
    return (gradient * gradient).sum()


class Lamb(Optimizer):
    """LAMB of MindSpore (``nn.Lamb``) or timm (``timm.optim.Lamb``). Norms are those of each layer's parameter.

    Args:
        eps: added to the root of the second moment.
        betas: shares of the first and the second moment.
        timms: all gradients together are bounded by a norm of 1, and what is not decayed takes Adam's step.
    """

    def __init__(
        self, settings: Sequence[ParameterSetting], eps: float, betas: tuple[Share, ...], *, timms: bool
    ) -> None:
        super().__init__(settings, {"adam_m": "zeros", "adam_v": "zeros"})
        self.eps = eps
        self.betas = betas
        self.timms = timms

    def _change(self, gradients: tuple[Tensor, ...], learning_rate: Tensor, updates: Tensor) -> None:
        correction1 = one_minus_power(self.betas[0][0], updates)
        correction2 = ops.sqrt(one_minus_power(self.betas[1][0], updates))
        bound = ops.ones_like(correction1)
        if self.timms:
            norm = ops.sqrt(ops.addn(mapped(_squared_sum, gradients)))
            bound = ops.maximum(norm / _LARGEST_NORM, bound)
        corrections = (correction1, correction2)
        one = ops.partial(_lamb, learning_rate, self.betas, corrections, self.eps, bound, self.timms)
        mapped(one, self.weights, self.adam_m, self.adam_v, gradients, self.rates, self.decays, self.stacked)


def _lamb(
    rate: Tensor,
    betas: tuple[Share, ...],
    corrections: tuple[Tensor, Tensor],
    eps: float,
    bound: Tensor,
    timms: bool,
    weight: Parameter,
    first_moment: Parameter,
    second_moment: Parameter,
    gradient: Tensor,
    share: float,
    decay: float,
    stacked: bool,
) -> bool:
    gradient = gradient / bound
    first = mean(first_moment, gradient, betas[0])
    second = mean(second_moment, gradient * gradient, betas[1])
    step = first / corrections[0] / (ops.sqrt(second) / corrections[1] + eps) + weight * decay
    if not timms or decay > 0.0:
        of_weight, of_step = layer_norm(weight, stacked), layer_norm(step, stacked)
        some = ops.logical_and(of_weight > 0.0, of_step > 0.0)
        step = step * ops.select(
            some, of_weight / ops.select(some, of_step, ops.ones_like(of_step)), ops.ones_like(of_step)
        )
    ops.assign(first_moment, first)
    ops.assign(second_moment, second)
    ops.assign(weight, weight - step * (rate * share))
    return True
