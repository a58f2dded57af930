"""What a recipe may name beside the keys: the optimizers of MindCV and of timm, and what each of them takes.

A table without MindSpore, so that a recipe is checked before anything is loaded. Sources: MindCV 0.5
(``mindcv/optim/optim_factory.py``) with the defaults of ``mindspore.nn``'s optimizers, timm 1.0.31
(``timm/optim/_optim_factory.py``) with those of ``torch.optim``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Library = Literal["mindcv", "timm"]
LossKind = Literal["CE", "BCE", "JSD", "ASL_SINGLE_LABEL", "ASL_MULTI_LABEL"]


@dataclass(frozen=True)
class Takes:
    """What an optimizer takes.

    Args:
        betas: their default values; none: it takes no betas.
        eps: its default; 0: it takes none.
        keys: of a recipe that it reads further.
    """

    betas: tuple[float, ...] = ()
    eps: float = 0.0
    keys: tuple[str, ...] = ()


_ADAM, _LION, _ADAN = (0.9, 0.999), (0.9, 0.99), (0.98, 0.92, 0.99)

OPTIMIZERS: dict[Library, dict[str, Takes]] = {
    "mindcv": {
        "sgd": Takes(keys=("momentum", "use_nesterov")),
        "momentum": Takes(keys=("momentum", "use_nesterov")),
        "nesterov": Takes(keys=("momentum", "use_nesterov")),  # MindCV's other name of momentum: use_nesterov decides
        "adam": Takes(_ADAM, 1e-8, ("use_nesterov",)),
        "adamw": Takes(_ADAM, 1e-8),
        "nadam": Takes(_ADAM, 1e-8),
        "lamb": Takes(_ADAM, 1e-6),
        "lion": Takes(_LION),
        "rmsprop": Takes((), 1e-10, ("momentum", "alpha")),
        "adan": Takes(_ADAN, 1e-8),
    },
    "timm": {
        "sgd": Takes(keys=("momentum",)),
        "momentum": Takes(keys=("momentum",)),
        "adam": Takes(_ADAM, 1e-8),
        "adamw": Takes(_ADAM, 1e-8),
        "nadam": Takes(_ADAM, 1e-8),
        "lamb": Takes(_ADAM, 1e-6),
        "lion": Takes(_LION),
        "rmsprop": Takes((), 1e-8, ("momentum", "alpha")),
        "rmsproptf": Takes((), 1e-10, ("momentum", "alpha")),
        "adan": Takes(_ADAN, 1e-8),
    },
}
