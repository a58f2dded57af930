"""timm's names of what a recipe says, where the recipe is timm's: ``library: timm``, ``sched: step``, ``aa: original``.

Source: the options of timm 1.0.31's train.py, and what it makes of them. A name that both have keeps its meaning here;
what is not in these tables is a recipe's own key, or refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from xcit_hub.errors import InputError

# The same value under another name.
RENAMED = {
    "opt_eps": "eps",
    "opt_betas": "betas",
    "decay_milestones": "multi_step_decay_milestones",
    "lr_cycle_mul": "cycle_mul",
    "lr_cycle_decay": "cycle_decay",
    "lr_cycle_limit": "num_cycles",
    "aa": "auto_augment",
    "reprob": "re_prob",
    "remode": "re_value",
    "recount": "re_count",
    "smoothing": "label_smoothing",
    "mixup_prob": "cutmix_prob",
    "mixup_switch_prob": "switch_prob",
    "img_size": "image_resize",
    "train_interpolation": "interpolation",
    "drop": "drop_rate",
    "drop_path": "drop_path_rate",
    "model_ema": "ema",
    "model_ema_decay": "ema_decay",
    "workers": "num_parallel_workers",
    "grad_accum_steps": "gradient_accumulation_steps",
    "initial_checkpoint": "ckpt_path",
    "output": "ckpt_save_dir",
    "checkpoint_hist": "keep_checkpoint_max",
}
_SCHEDULES = {
    "cosine": "cosine_decay",
    "step": "step_decay",
    "multistep": "multi_step_decay",
    "poly": "polynomial_decay",
    "constant": "constant",
}
_CYCLIC = ("cosine_decay", "polynomial_decay")


def _scheduler(said: dict[str, Any]) -> None:
    word = said.pop("sched")
    if word not in _SCHEDULES:
        raise InputError(
            f"sched {str(word)[:60]!r} is not a schedule that is known here.",
            where="sched",
            fix=f"Of timm's there are {', '.join(_SCHEDULES)}.",
        )
    said.setdefault("scheduler", _SCHEDULES[word])
    said.setdefault("sched_on_updates", False)


def _epochs(said: dict[str, Any]) -> None:
    """timm's epochs are one cycle of cosine and polynomial; a warm-up may come before, a rest at min_lr after."""
    epochs = _number(said, "epochs")
    prefix = _number(said, "warmup_epochs", 5) if said.setdefault("warmup_prefix", False) else 0
    whole = epochs
    if said.get("scheduler", "cosine_decay") in _CYCLIC:
        factor, cycles = _number(said, "cycle_mul", 1), max(1, _number(said, "num_cycles", 1))
        whole = epochs * cycles if factor == 1 else math.floor(-epochs * (factor**cycles - 1) / (1 - factor))
        said["decay_epochs"] = epochs  # timm's own key is not of these
        whole += _number(said, "cooldown_epochs", 0)
    said.pop("cooldown_epochs", None)
    del said["epochs"]
    said.setdefault("epoch_size", int(whole + prefix))


def _number(said: Mapping[str, Any], key: str, default: float | None = None) -> Any:
    value = said.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise InputError(f"{key} must be a number that is not negative, not {str(value)[:60]!r}.", where=key)
    return value


def _warmup_rate(said: dict[str, Any]) -> None:
    rate, highest = _number(said, "warmup_lr"), said.get("lr")
    if not isinstance(highest, int | float) or not highest > 0:
        raise InputError("warmup_lr is a learning rate, and lr does not say which share of it.", fix="Give lr, too.")
    del said["warmup_lr"]
    said["warmup_factor"] = rate / highest


def _by_updates(said: dict[str, Any]) -> None:
    said.setdefault("lr_epoch_stair", not _switch(said, "sched_on_updates"))


def _switch(said: dict[str, Any], key: str) -> bool:
    value = said.pop(key)
    if not isinstance(value, bool):
        raise InputError(f"{key} must be true or false, not {str(value)[:60]!r}.", where=key)
    return value


def _clip(said: dict[str, Any]) -> None:
    value = said.pop("clip_grad")
    if value is None or isinstance(value, bool):
        said["clip_grad"] = bool(value)
    else:
        said |= {"clip_grad": True, "clip_value": value}


def _clip_mode(said: dict[str, Any]) -> None:
    if said.pop("clip_mode") != "norm":
        raise InputError("clip_mode can only be norm: the global norm of the gradients is bounded.", where="clip_mode")


def _bce(said: dict[str, Any]) -> None:
    if _switch(said, "bce_loss"):
        said["loss"] = "BCE"


def _jsd(said: dict[str, Any]) -> None:
    if _switch(said, "jsd_loss"):
        said["loss"] = "JSD"


def _bytes(key: str) -> Callable[[dict[str, Any]], None]:
    def change(said: dict[str, Any]) -> None:
        if isinstance(said[key], list):
            # A number that is not one is the recipe's matter.
            said[key] = [255 * one if isinstance(one, float | int) and 0 <= one <= 1 else one for one in said[key]]

    return change


# What becomes of a name, in this order; the recipe's own names stand already where timm has another.
_CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "sched": _scheduler,
    "epochs": _epochs,
    "warmup_lr": _warmup_rate,
    "sched_on_updates": _by_updates,
    "clip_grad": _clip,
    "clip_mode": _clip_mode,
    "bce_loss": _bce,
    "jsd_loss": _jsd,
    "mean": _bytes("mean"),
    "std": _bytes("std"),
}
NAMES = frozenset({*RENAMED, *_CHANGES, "cooldown_epochs"})


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give settings a recipe's own names where only the name differs.

    Raises:
        InputError: two names of one setting are given.
    """
    said: dict[str, Any] = {}
    for key, value in settings.items():
        ours = RENAMED.get(key, key)
        if ours in said:
            raise InputError(f"{key} and {ours} say the same.", where=key, fix="Give one of them.")
        said[ours] = value
    if "model_ema" in settings:
        said.setdefault("ema_warmup", 0)  # timm's average has its decay from the start
    return said


def computed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return renamed settings as a recipe has them. What is given under a recipe's own name stays.

    Raises:
        InputError: a value cannot be read.
    """
    said = dict(settings)
    for key, change in _CHANGES.items():
        if key in said:
            change(said)
    if "cooldown_epochs" in said:
        raise InputError("cooldown_epochs is of the epochs that timm's key epochs counts.", fix="Give epochs, too.")
    return said
