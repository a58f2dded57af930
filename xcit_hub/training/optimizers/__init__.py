"""The optimizers that a recipe may name, each as the recipe's library computes it.

Sources: MindCV 0.5 (``mindcv/optim``) and the optimizers of ``mindspore.nn`` that it builds; timm 1.0.31
(``timm/optim``) and the optimizers of ``torch.optim`` that it builds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xcit_hub.training.optimizers.adam import Adam, AdamW, NAdam
from xcit_hub.training.optimizers.adan import Adan, MindCVAdan
from xcit_hub.training.optimizers.base import Optimizer, Share, shares
from xcit_hub.training.optimizers.lamb import Lamb
from xcit_hub.training.optimizers.momentum import SGD, Lion, RMSProp
from xcit_hub.training.optimizers.settings import ParameterSetting, parameter_settings
from xcit_hub.training.recipe import Recipe

__all__ = ["AdamW", "Optimizer", "ParameterSetting", "create_optimizer", "parameter_settings"]

_Settings = Sequence[ParameterSetting]


def create_optimizer(settings: _Settings, recipe: Recipe) -> Optimizer:
    """Return the optimizer that a recipe names."""
    return _KINDS[recipe.opt](settings, recipe)


def _timms(recipe: Recipe) -> bool:
    return recipe.library == "timm"


def _sgd(settings: _Settings, recipe: Recipe) -> Optimizer:
    # timm's sgd is Nesterov's, its momentum is not; in MindCV use_nesterov decides for both.
    nesterov = recipe.opt == "sgd" if _timms(recipe) else recipe.use_nesterov
    return SGD(settings, recipe.momentum, nesterov)


def _adamw(settings: _Settings, recipe: Recipe) -> Optimizer:
    first, second = recipe.optimizer_betas
    return AdamW(settings, recipe.epsilon, (first, second))


def _adam(settings: _Settings, recipe: Recipe) -> Optimizer:
    timms = _timms(recipe)
    return Adam(settings, recipe.epsilon, _shares(recipe), nesterov=recipe.use_nesterov and not timms, torchs=timms)


def _nadam(settings: _Settings, recipe: Recipe) -> Optimizer:
    return NAdam(settings, recipe.epsilon, _shares(recipe), ahead=0 if _timms(recipe) else 1)


def _lamb(settings: _Settings, recipe: Recipe) -> Optimizer:
    return Lamb(settings, recipe.epsilon, _shares(recipe), timms=_timms(recipe))


def _lion(settings: _Settings, recipe: Recipe) -> Optimizer:
    return Lion(settings, _shares(recipe))


def _rmsprop(settings: _Settings, recipe: Recipe) -> Optimizer:
    torchs = _timms(recipe) and recipe.opt == "rmsprop"
    return RMSProp(settings, recipe.alpha, recipe.momentum, recipe.epsilon, torchs=torchs)


def _adan(settings: _Settings, recipe: Recipe) -> Optimizer:
    if _timms(recipe):
        return Adan(settings, recipe.epsilon, _shares(recipe))
    # MindCV's betas are what is taken of the new.
    turned = tuple((rest, beta) for beta, rest in _shares(recipe))
    return MindCVAdan(settings, recipe.epsilon, turned)


def _shares(recipe: Recipe) -> tuple[Share, ...]:
    return shares(recipe.optimizer_betas, single=not _timms(recipe))


_KINDS: dict[str, Callable[[_Settings, Recipe], Optimizer]] = {
    "sgd": _sgd,
    "momentum": _sgd,
    "nesterov": _sgd,
    "adamw": _adamw,
    "adam": _adam,
    "nadam": _nadam,
    "lamb": _lamb,
    "lion": _lion,
    "rmsprop": _rmsprop,
    "rmsproptf": _rmsprop,
    "adan": _adan,
}
