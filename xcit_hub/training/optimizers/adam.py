"""Adam and what stands close to it: AdamW, NAdam."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, Tensor, ops
from mindspore import dtype as mstype

from xcit_hub.training.optimizers.base import Optimizer, Share, decayed, mapped, mean, one_minus_power
from xcit_hub.training.optimizers.settings import ParameterSetting

Betas = tuple[float, float]
Shares = tuple[Share, ...]
_MOMENTS = {"adam_m": "zeros", "adam_v": "zeros"}
_BETAS = (0.9, 0.999)
_SCHEDULE_DECAY = 4e-3  # of NAdam, in MindCV and torch

_adamw = ops.MultitypeFuncGraph("adamw")


@_adamw.register(
    *("Function", "Tensor", "Float", "Float", "Tensor", "Tensor"),
    *("Tensor", "Tensor", "Tensor", "Tensor", "Float", "Float"),
)
def _update_one(
    fused: ops.Primitive,
    rate: Tensor,
    beta1: float,
    beta2: float,
    eps: Tensor,
    decay_correction: Tensor,
    weight: Parameter,
    first_moment: Parameter,
    second_moment: Parameter,
    gradient: Tensor,
    rate_share: float,
    decay: float,
) -> bool:
    fused(
        *(weight, first_moment, second_moment),
        *(rate * rate_share, beta1, beta2, eps, decay_correction * decay),
        gradient,
    )
    return True


class AdamW(Optimizer):
    """Decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101) with bias correction, as ``torch.optim.AdamW``.

    MindCV 0.5's own AdamW computes the same. MindSpore's fused ``AdamWeightDecay`` leaves the bias correction out. Here
    it gets the rate, epsilon and decay that make up for it: with c₁ = 1 − β₁ᵗ and c₂ = √(1 − β₂ᵗ), rate·c₂/c₁, ε·c₂ and
    decay·c₁/c₂.

    Args:
        settings: the parameters and how each is trained.
        eps: added to the root of the second moment.
        betas: what the moments keep of themselves.
    """

    def __init__(self, settings: Sequence[ParameterSetting], eps: float, betas: Betas = _BETAS) -> None:
        super().__init__(settings, _MOMENTS)
        self.eps = eps
        self.betas = betas
        self.fused = ops.AdamWeightDecay()

    def _change(self, gradients: tuple[Tensor, ...], learning_rate: Tensor, updates: Tensor) -> None:
        correction1 = one_minus_power(self.betas[0], updates)
        correction2 = ops.sqrt(one_minus_power(self.betas[1], updates))
        ratio = correction2 / correction1
        rate, eps = learning_rate * ratio, correction2 * self.eps
        one = ops.partial(_adamw, self.fused, rate, self.betas[0], self.betas[1], eps, 1.0 / ratio)
        mapped(one, self.weights, self.adam_m, self.adam_v, gradients, self.rates, self.decays)


class Adam(Optimizer):
    """Adam (Kingma and Ba, arXiv:1412.6980); decay is added to the gradient.

    Args:
        eps: added to the root of the second moment.
        betas: shares of the first and the second moment.
        nesterov: MindSpore's ``use_nesterov``: the gradient's share of the first moment counts once more.
        torchs: ``torch.optim.Adam`` adds epsilon to the corrected moment's root, MindSpore's ``nn.Adam`` to the
            uncorrected one's.
    """

    def __init__(
        self, settings: Sequence[ParameterSetting], eps: float, betas: Shares, *, nesterov: bool, torchs: bool
    ) -> None:
        super().__init__(settings, _MOMENTS)
        self.eps = eps
        self.betas = betas
        self.nesterov = nesterov
        self.torchs = torchs

    def _change(self, gradients: tuple[Tensor, ...], learning_rate: Tensor, updates: Tensor) -> None:
        correction2 = ops.sqrt(one_minus_power(self.betas[1][0], updates))
        rate = learning_rate * correction2 / one_minus_power(self.betas[0][0], updates)
        eps = correction2 * self.eps if self.torchs else ops.ones_like(correction2) * self.eps
        one = ops.partial(_adam, rate, self.betas[0], self.betas[1], eps, self.nesterov)
        mapped(one, self.weights, self.adam_m, self.adam_v, gradients, self.rates, self.decays)


def _adam(
    rate: Tensor,
    beta1: Share,
    beta2: Share,
    eps: Tensor,
    nesterov: bool,
    weight: Parameter,
    first_moment: Parameter,
    second_moment: Parameter,
    gradient: Tensor,
    share: float,
    decay: float,
) -> bool:
    gradient = decayed(gradient, weight, decay)
    first = mean(first_moment, gradient, beta1)
    second = mean(second_moment, gradient * gradient, beta2)
    ahead = mean(first, gradient, beta1) if nesterov else first
    ops.assign(first_moment, first)
    ops.assign(second_moment, second)
    ops.assign(weight, weight - ahead / (ops.sqrt(second) + eps) * (rate * share))
    return True


class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat, 2016), whose β₁ grows with the steps; decay is added to the gradient.

    Args:
        eps: added to the root of the corrected second moment.
        betas: shares of the first and the second moment.
        ahead: steps by which the growth of β₁ is ahead of the count of updates. MindCV reads its count after it was
            raised, and adds 1: it is one ahead of ``torch.optim.NAdam``.
    """

    def __init__(self, settings: Sequence[ParameterSetting], eps: float, betas: Shares, *, ahead: int) -> None:
        super().__init__(settings, _MOMENTS)
        self.eps = eps
        self.betas = betas
        self.ahead = ahead
        self.mu_product = Parameter(Tensor(1.0, mstype.float32), name="mu_product", requires_grad=False)

    def kept(self) -> list[Parameter]:
        """Return the moments, the count of updates and the product of all β₁ so far."""
        return [*super().kept(), self.mu_product]

    def _change(self, gradients: tuple[Tensor, ...], learning_rate: Tensor, updates: Tensor) -> None:
        current, following = self._mu(updates + self.ahead), self._mu(updates + self.ahead + 1.0)
        product = self.mu_product * current
        of_gradient = learning_rate * (1.0 - current) / (1.0 - product)
        of_moment = learning_rate * following / (1.0 - product * following)
        correction2 = ops.sqrt(one_minus_power(self.betas[1][0], updates))
        one = ops.partial(_nadam, of_gradient, of_moment, self.betas[0], self.betas[1], correction2, self.eps)
        mapped(one, self.weights, self.adam_m, self.adam_v, gradients, self.rates, self.decays)
        ops.assign(self.mu_product, product)

    def _mu(self, step: Tensor) -> Tensor:
        return self.betas[0][0] * (1.0 - 0.5 * ops.pow(0.96, step * _SCHEDULE_DECAY))


def _nadam(
    of_gradient: Tensor,
    of_moment: Tensor,
    beta1: Share,
    beta2: Share,
    correction2: Tensor,
    eps: float,
    weight: Parameter,
    first_moment: Parameter,
    second_moment: Parameter,
    gradient: Tensor,
    share: float,
    decay: float,
) -> bool:
    gradient = decayed(gradient, weight, decay)
    first = mean(first_moment, gradient, beta1)
    second = mean(second_moment, gradient * gradient, beta2)
    step = (gradient * of_gradient + first * of_moment) / (ops.sqrt(second) / correction2 + eps)
    ops.assign(first_moment, first)
    ops.assign(second_moment, second)
    ops.assign(weight, weight - step * share)
    return True
