"""AdamW equal to torch's, and what each parameter gets: its share of the learning rate and its weight decay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

from xcit_hub.models import XCiT
from xcit_hub.training.recipe import DecayFilter, Recipe

_BETA1, _BETA2 = 0.9, 0.999

# MindSpore maps functions over lists of parameters only in this form; a plain loop over hundreds of parameters
# overflows the graph compiler's stack.
_map = ops.HyperMap()
_adamw = ops.MultitypeFuncGraph("adamw")


@_adamw.register("Function", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Float", "Float")
def _update_one(
    fused: ops.Primitive,
    rate: Tensor,
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
        *(rate * rate_share, _BETA1, _BETA2, eps, decay_correction * decay),
        gradient,
    )
    return True


@dataclass(frozen=True)
class ParameterSetting:
    """How one parameter is trained.

    Args:
        rate: factor on the schedule's learning rate (layer decay), in (0, 1].
        decay: weight decay; 0 for parameters that are left out.
    """

    parameter: Parameter
    rate: float
    decay: float


def parameter_settings(network: XCiT, recipe: Recipe) -> list[ParameterSetting]:
    """Return the setting of every trainable parameter, in the network's order.

    Layer decay multiplies the rate by ``layer_decay`` for each layer below the classifier (timm,
    ``param_groups_layer_decay``).
    """
    layers = network.parameter_layers()
    top = max(layers.values())
    settings = []
    for parameter in network.trainable_params():
        exempt = _without_decay(parameter, recipe.decay_filter) or any(
            part in parameter.name for part in recipe.no_weight_decay
        )
        settings.append(
            ParameterSetting(
                parameter,
                rate=(recipe.layer_decay or 1.0) ** (top - layers[parameter.name]),
                decay=0.0 if exempt else recipe.weight_decay,
            )
        )
    return settings


def _without_decay(parameter: Parameter, decay_filter: DecayFilter) -> bool:
    name = parameter.name
    if decay_filter == "norm_and_bias":
        # MindCV's rule; it takes the layer scales gamma1…3 with it.
        return any(word in name for word in ("gamma", "beta", "bias"))
    if decay_filter == "auto":
        return "gamma" in name or "beta" in name  # what MindSpore's own optimizers leave out
    if decay_filter == "disable":
        return False
    # timm 0.4.8, which the paper's code runs on: vectors, biases, cls_token; timm 1.0 adds the position.
    position = decay_filter == "timm" and name.startswith("pos_embeder.")
    return parameter.ndim <= 1 or name.endswith(".bias") or name == "cls_token" or position


class AdamW(nn.Cell):
    """Decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101) with bias correction, as ``torch.optim.AdamW``.

    MindSpore's fused ``AdamWeightDecay`` leaves the bias correction out. Here it gets the rate, epsilon and decay that
    make up for it: with c₁ = 1 − β₁ᵗ and c₂ = √(1 − β₂ᵗ), rate·c₂/c₁, ε·c₂ and decay·c₁/c₂. Betas are 0.9 and 0.999.

    Args:
        settings: the parameters and how each is trained.
        eps: added to the root of the second moment.
    """

    def __init__(self, settings: list[ParameterSetting], eps: float) -> None:
        super().__init__(auto_prefix=False)
        self.weights = ParameterTuple([setting.parameter for setting in settings])
        self.rates = tuple(setting.rate for setting in settings)
        self.decays = tuple(setting.decay for setting in settings)
        self.adam_m = self.weights.clone(prefix="adam_m", init="zeros")
        self.adam_v = self.weights.clone(prefix="adam_v", init="zeros")
        self.updates = Parameter(Tensor(0.0, mstype.float32), name="updates", requires_grad=False)
        self.eps = eps
        self.fused = ops.AdamWeightDecay()

    def construct(self, gradients: tuple[Tensor, ...], learning_rate: Tensor) -> Tensor:
        """Update every parameter once. Gradients and the rate are float32.

        Returns the number of updates so far."""
        updates = self.updates + 1.0
        # 1 − βᵗ by expm1: the plain difference loses five digits in float32 for the first steps.
        correction1 = -ops.expm1(updates * math.log(_BETA1))
        correction2 = ops.sqrt(-ops.expm1(updates * math.log(_BETA2)))
        ratio = correction2 / correction1
        update = ops.partial(_adamw, self.fused, learning_rate * ratio, correction2 * self.eps, 1.0 / ratio)
        _map(update, self.weights, self.adam_m, self.adam_v, gradients, self.rates, self.decays)
        ops.assign(self.updates, updates)
        return updates
