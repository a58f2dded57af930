"""timm's names of what a recipe says, where the recipe is timm's: ``library: timm``, ``sched: step``, ``aa: original``.

Source: the options of timm's train.py (1.0.29.dev0 of August 2026, those of releases from 0.4.12 on that it no longer
has, and what the scheduler factory of 1.0.31 reads beside them), and what it makes of them. Each is read: under the
same name, under another (:data:`RENAMED`), as several keys (:data:`CHANGES`), or it stands in
:mod:`xcit_hub.training.timm_only`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from xcit_hub.errors import InputError
from xcit_hub.training import timm_only
from xcit_hub.training.recipe_keys import KEYS, RecipeKeys, may_be_null

# The same value under another name.
RENAMED = {
    "data": "data_dir",
    "opt_eps": "eps",
    "opt_betas": "betas",
    "decay_milestones": "multi_step_decay_milestones",
    "dr": "decay_rate",
    "lr_cycle_mul": "cycle_mul",
    "lr_cycle_decay": "cycle_decay",
    "lr_cycle_limit": "num_cycles",
    "lr_k_decay": "k_decay",
    "aa": "auto_augment",
    "reprob": "re_prob",
    "remode": "re_value",
    "recount": "re_count",
    "smoothing": "label_smoothing",
    "mixup_prob": "cutmix_prob",
    "mixup_switch_prob": "switch_prob",
    "img_size": "image_resize",
    "in_chans": "in_channels",
    "drop": "drop_rate",
    "drop_path": "drop_path_rate",
    "model_ema": "ema",
    "model_ema_decay": "ema_decay",
    "grad_accum_steps": "gradient_accumulation_steps",
    "grad_checkpointing": "recompute",
    "initial_checkpoint": "ckpt_path",
    "pretrained_path": "ckpt_path",
    "output": "ckpt_save_dir",
    "checkpoint_hist": "keep_checkpoint_max",
}
SHORT = {"-b": "--batch_size", "-vb": "--validation_batch_size", "-j": "--workers"}
LISTS = frozenset(
    {"input_size", "device_modules", "wandb_tags", "train_img_sizes", "train_batch_sizes"}
    | {"train_size_probs", "naflex_train_seq_lens", "naflex_patch_sizes", "naflex_patch_size_probs"}
    | {"model_kwargs", "opt_kwargs"}
)
"""Names that take several words, beside those of a recipe's lists."""
_SCHEDULES = {
    "cosine": "cosine_decay",
    "tanh": "tanh_decay",
    "step": "step_decay",
    "multistep": "multi_step_decay",
    "poly": "polynomial_decay",
    "constant": "constant",
}
_NO_SCHEDULES = {
    "plateau": "its rates follow the scores, and a run's are known before it begins",
    "wsd": "there is no schedule with a stable phase",
    "rsqrt": "there is no schedule with a stable phase",
}
_CYCLIC = ("cosine_decay", "polynomial_decay", "tanh_decay")
_WARMUP = RecipeKeys.model_fields["warmup_epochs"].default
_TIMMS_WARMUP = 5  # epochs, where its command says nothing
_FIRST_SCALE = 65536.0  # of torch.amp.GradScaler


# ---- one setting at a time: within what one file or command line says ----------------------------


def _input_size(said: dict[str, Any]) -> None:
    size = said.pop("input_size")
    if not (isinstance(size, list | tuple) and len(size) == 3):
        raise InputError(
            f"input_size is channels, height and width, not {_shown(size)}.", where="input_size", fix="Write 3 224 224."
        )
    channels, height, width = size
    put(said, "input_size", "in_channels", channels)
    put(said, "input_size", "image_resize", height if height == width else [height, width])


def _interpolations(said: dict[str, Any]) -> None:
    """timm has one for training and one for evaluation."""
    training, evaluation = said.pop("train_interpolation"), said.get("interpolation")
    if evaluation not in (None, training):
        raise InputError(
            f"train_interpolation {_shown(training)} and interpolation {_shown(evaluation)} differ.",
            where="train_interpolation",
            fix="Give one of them: training and evaluation resize alike here.",
        )
    said["interpolation"] = training


def _clip(said: dict[str, Any]) -> None:
    value = said.pop("clip_grad")
    said["clip_grad"] = bool(value)
    if not isinstance(value, bool):
        put(said, "clip_grad", "clip_value", value)


def _workers(said: dict[str, Any]) -> None:
    """torch's loader decodes in the training's own process where it has no others; here a thread does."""
    workers = said.pop("workers")
    put(said, "workers", "num_parallel_workers", 1 if workers == 0 and workers is not False else workers)


def _earlier(before: str, now: str) -> Callable[[dict[str, Any]], None]:
    """A switch of earlier releases: off it says nothing, beside which the one of today may be on."""

    def change(said: dict[str, Any]) -> None:
        if _switch(said, before):
            said[now] = True

    return change


_WITHIN: dict[str, Callable[[dict[str, Any]], None]] = {
    "input_size": _input_size,
    "train_interpolation": _interpolations,
    "clip_grad": _clip,
    "workers": _workers,
    "native_amp": _earlier("native_amp", "amp"),
    "jsd": _earlier("jsd", "jsd_loss"),
}


def renamed(settings: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Give what one file or command line says a recipe's own names, where that needs nothing else to be known.

    Where a recipe's key does not take what timm writes for nothing, ``null`` and the empty word, its name is returned
    apart: what was said of it before does not count any more.

    Raises:
        InputError: two names of one setting are given, or a value cannot be read.
    """
    said: dict[str, Any] = {}
    taken_back = set()
    # timm's own names last: of two that say the same, that one is named beside the recipe's.
    for key, value in sorted(settings.items(), key=lambda setting: setting[0] in RENAMED):
        ours = RENAMED.get(key, key)
        if _says_nothing(key, ours, value):
            taken_back.add(ours)
        else:
            put(said, key, ours, value)
    if "model_ema" in settings:
        said["model_ema"] = True  # whose average it is, is settled with all settings together
    for key, change in _WITHIN.items():
        if key in said:
            change(said)
    for key, ours in DECIDES.items():
        if key in said and ours in said and said[key] is not False and key != "epochs":  # a part of a schedule
            raise _twice(key, ours)
    return said, taken_back - said.keys()


def put(said: dict[str, Any], key: str, ours: str, value: Any) -> None:
    """Say under the name ``ours`` what was given as ``key``.

    Raises:
        InputError: something was given under that name, too.
    """
    if ours in said:
        raise _twice(key, ours)
    said[ours] = value


def _twice(key: str, ours: str) -> InputError:
    return InputError(f"{key} and {ours} say the same.", where=key, fix="Give one of them.")


def _says_nothing(key: str, ours: str, value: Any) -> bool:
    if key in timm_only.NAMES:
        return False  # judged there
    if value is None:
        return key in NAMES - KEYS or (ours in KEYS and not may_be_null(ours))
    return value == "" and key in _MAY_BE_EMPTY


# ---- all settings together -----------------------------------------------------------------------


def _scheduler(said: dict[str, Any]) -> None:
    word = said.pop("sched")
    if word == "none":
        if said.get("lr_noise") is not None:
            raise InputError("lr_noise is of a schedule, and sched is none.", where="lr_noise", fix="Leave it out.")
        said.setdefault("scheduler", "constant")
        return
    if not isinstance(word, str) or word not in _SCHEDULES:
        reason = _NO_SCHEDULES.get(str(word), "")
        raise InputError(
            f"sched {_shown(word)} is not a schedule that is known here{reason and f': {reason}'}.",
            where="sched",
            fix=f"Of timm's there are {', '.join(_SCHEDULES)}.",
        )
    said.setdefault("scheduler", _SCHEDULES[word])
    said.setdefault("sched_on_updates", False)


def _epochs(said: dict[str, Any]) -> None:
    """timm's epochs are one cycle of cosine and polynomial; a warm-up may come before, a rest at min_lr after."""
    epochs = _number(said, "epochs")
    if epochs % 1:
        raise InputError(f"epochs are whole, not {_shown(epochs)}.", where="epochs", fix="Give a whole number.")
    warmup = _number(said, "warmup_epochs", _WARMUP)
    if warmup and said.get("scheduler") != "constant":
        said.setdefault("warmup_prefix", False)
    prefix = warmup if said.get("warmup_prefix") else 0
    whole = epochs
    if said.get("scheduler", "cosine_decay") in _CYCLIC:
        factor, cycles = _number(said, "cycle_mul", 1), max(1, _number(said, "num_cycles", 1))
        whole = epochs * cycles if factor == 1 else _grown(epochs, float(factor), cycles)
        said["decay_epochs"] = epochs  # timm's own key is not of these
        whole += _number(said, "cooldown_epochs", 0)
        said.pop("cooldown_epochs", None)
    del said["epochs"]
    said.setdefault("epoch_size", int(whole + prefix))


def _unscheduled(said: dict[str, Any]) -> dict[str, str]:
    """Take out the warm-up that timm does not make without a schedule; return it with the reason, if nothing reads it.

    Its epochs are trained all the same where they come before the others.
    """
    given = _number(said, "warmup_epochs", _TIMMS_WARMUP)
    is_longer = "epochs" in said and said.get("warmup_prefix") is True
    if is_longer:
        said["epochs"] = _number(said, "epochs") + given
        del said["warmup_prefix"]
    is_idle = said.get("warmup_epochs") and not is_longer
    said["warmup_epochs"] = 0
    return {"warmup_epochs": "sched none has no warm-up, as in timm"} if is_idle else {}


def _unread(said: dict[str, Any]) -> dict[str, str]:
    """Take out what is not read beside timm's epochs in this schedule; return it with the reason."""
    unread = [("cooldown_epochs", 0, "of the schedules with cycles, as in timm")]
    if said.get("scheduler", "cosine_decay") in _CYCLIC:
        unread = [("decay_epochs", 90, "a cycle is as long as epochs says, as in timm")]
        if "epoch_size" in said:
            unread.append(("cooldown_epochs", 0, "epoch_size says how long the run is"))
    given = {key: (said.pop(key, quiet), quiet, reason) for key, quiet, reason in unread}
    return {key: reason for key, (value, quiet, reason) in given.items() if value not in (None, quiet)}


def _grown(epochs: float, factor: float, cycles: float) -> float:
    """Return the epochs of cycles each of which is ``factor`` times as long as the one before."""
    try:
        return math.floor(-epochs * (factor**cycles - 1) / (1 - factor))
    except OverflowError:
        raise InputError("The cycles grow beyond all bounds.", where="cycle_mul", fix="Give fewer cycles.") from None


def _number(said: Mapping[str, Any], key: str, default: float | None = None) -> Any:
    value = said.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise InputError(
            f"{key} must be a number of at least 0 and below 1e9, not {_shown(value)}.", where=key, fix="Give one."
        )
    return value


def _by_updates(said: dict[str, Any]) -> None:
    said.setdefault("lr_epoch_stair", not _switch(said, "sched_on_updates"))


def _switch(said: dict[str, Any], key: str) -> bool:
    value = said.pop(key)
    if not isinstance(value, bool):
        raise InputError(f"{key} must be true or false, not {_shown(value)}.", where=key, fix="Write true or false.")
    return value


def _clip_mode(said: dict[str, Any]) -> None:
    if said.pop("clip_mode") != "norm":
        raise InputError(
            "clip_mode can only be norm: the global norm of the gradients is bounded.",
            where="clip_mode",
            fix="Leave it out.",
        )


def _loss(kind: str) -> Callable[[dict[str, Any]], None]:
    def change(said: dict[str, Any]) -> None:
        if _switch(said, f"{kind.lower()}_loss"):
            said["loss"] = kind  # of the two, jsd_loss counts, as in timm

    return change


def _mixed_precision(said: dict[str, Any]) -> None:
    """torch's automatic casting leaves the norms in float32; its scaler is for float16 alone."""
    if _switch(said, "amp"):
        is_on = str(said.setdefault("amp_level", "O2")).upper() != "O0"
        if is_on and said.get("amp_dtype", "float16") == "float16" and "dynamic_loss_scale" not in said:
            kind = said.setdefault("loss_scale_type", "dynamic")
            if str(kind).lower() == "dynamic":  # a fixed scale is the recipe's own
                said.setdefault("loss_scale", _FIRST_SCALE)


def _average(said: dict[str, Any]) -> None:
    said.setdefault("ema_form", "timm_warmup" if _switch(said, "model_ema_warmup") else "timm")


def _bytes(key: str) -> Callable[[dict[str, Any]], None]:
    def change(said: dict[str, Any]) -> None:
        if isinstance(said[key], list):
            # A number that is not one is the recipe's matter.
            levels = [255 * one if isinstance(one, float | int) and 0 <= one <= 1 else one for one in said[key]]
            channels = said.get("in_channels", 3)
            said[key] = levels * channels if len(levels) == 1 and channels in (1, 3, 4) else levels  # one for all

    return change


# What becomes of a name, in this order; the recipe's own names stand already where timm has another.
CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "sched": _scheduler,
    "epochs": _epochs,
    "sched_on_updates": _by_updates,
    "clip_mode": _clip_mode,
    "bce_loss": _loss("BCE"),
    "jsd_loss": _loss("JSD"),
    "amp": _mixed_precision,
    "model_ema_warmup": _average,
    "mean": _bytes("mean"),
    "std": _bytes("std"),
}
# The recipe's own key that a name decides: of a file and a flag, which says another of the two, the flag counts.
DECIDES = {
    "sched": "scheduler",
    "epochs": "epoch_size",
    "sched_on_updates": "lr_epoch_stair",
    "bce_loss": "loss",
    "jsd_loss": "loss",
    "amp": "amp_level",
    "model_ema_warmup": "ema_form",
}
_MAY_BE_EMPTY = ("initial_checkpoint", "output", "interpolation", "lr_base_scale")
NAMES = frozenset({*RENAMED, *_WITHIN, *CHANGES, "cooldown_epochs", *timm_only.NAMES})
SWITCHES = frozenset(
    {"sched_on_updates", "bce_loss", "jsd_loss", "amp", "native_amp", "jsd", "model_ema_warmup", "torchcompile"}
    | timm_only.SWITCHES
)
"""Names that mean true where a flag gives them no value."""


def computed(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return renamed settings as a recipe has them, and what was dropped, with the reason.

    What is given under a recipe's own name stays.

    Raises:
        InputError: a value cannot be read, or asks for what is not here.
    """
    said, dropped = timm_only.set_aside(settings)
    if "lr" in said and said.pop("lr_base", None) is not None:
        dropped["lr_base"] = "lr overrides it, as in timm"
    if said.pop("model_ema", None) is not None:
        said.setdefault("model_ema_warmup", False)
    if said.get("sched") == "none":
        dropped |= _unscheduled(said)
    for key, change in CHANGES.items():
        if key == "epochs" and key in said:
            dropped |= _unread(said)
        if key in said:
            change(said)
    if "cooldown_epochs" in said:
        raise InputError(
            "cooldown_epochs is of the epochs that timm's key epochs counts.",
            where="cooldown_epochs",
            fix="Give epochs, too.",
        )
    return said, dropped


def _shown(value: object) -> str:
    return repr(str(value)[:60])
