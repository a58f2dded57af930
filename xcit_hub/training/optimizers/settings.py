"""What each parameter gets: its share of the learning rate and its weight decay."""

from __future__ import annotations

from dataclasses import dataclass

from mindspore import Parameter

from xcit_hub.errors import InputError, closest
from xcit_hub.models import XCiT
from xcit_hub.training.recipe import Recipe


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

    Raises:
        InputError: a part of ``no_weight_decay`` is in no name.
    """
    names = [parameter.name for parameter in network.get_parameters()]
    for part in recipe.no_weight_decay:
        if not part or not any(part in name for name in names):
            raise InputError(
                f"No parameter has {part!r} in its name.",
                where="no_weight_decay",
                fix=closest(part, names) or f"Names are like {names[0]}.",
            )
    layers = network.parameter_layers()
    top = max(layers.values())
    settings = []
    for parameter in network.trainable_params():
        exempt = _without_decay(parameter, recipe) or any(part in parameter.name for part in recipe.no_weight_decay)
        settings.append(
            ParameterSetting(
                parameter,
                rate=(recipe.layer_decay or 1.0) ** (top - layers[parameter.name]),
                decay=0.0 if exempt else recipe.weight_decay,
            )
        )
    return settings


def _without_decay(parameter: Parameter, recipe: Recipe) -> bool:
    name, decay_filter = parameter.name, recipe.decay_filter
    if recipe.library == "mindcv" and recipe.opt == "adan":
        return recipe.undecayed  # with the filter auto it decays all, gamma and beta, too
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
