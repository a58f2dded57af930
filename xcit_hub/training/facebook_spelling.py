"""A training in the words of XCiT's authors, ``library: facebook``: facebookresearch/xcit, main.py, and its defaults.

main.py builds on timm: what it says becomes timm's words here, and those become a recipe. Each of its options is read,
or stands in :data:`REFUSED` or :data:`DROPPED`. What is left out is what main.py does without it, above which
``configs/xcit/xcit_<size>_224.yaml`` name their sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xcit_hub.errors import InputError
from xcit_hub.training import timm_only
from xcit_hub.training.timm_spelling import put
from xcit_hub.variants import ARCHITECTURES

# main.py's defaults in its own words, then what it does without asking, in a recipe's.
DEFAULTS: dict[str, Any] = {
    "batch_size": 64,
    "epochs": 400,
    "input_size": 224,
    "drop": 0.0,
    "drop_path": 0.1,
    "model_ema": True,
    "model_ema_decay": 0.99996,
    "opt": "adamw",
    "opt_eps": 1e-8,
    "weight_decay": 0.05,
    "sched": "cosine",
    "lr": 5e-4,
    "warmup_lr": 1e-6,
    "min_lr": 1e-5,
    "warmup_epochs": 5,
    "color_jitter": 0.4,
    "aa": "rand-m9-mstd0.5-inc1",
    "smoothing": 0.1,
    "train_interpolation": "bicubic",
    "repeated_aug": True,
    "reprob": 0.25,
    "remode": "pixel",
    "mixup": 0.8,
    "cutmix": 1.0,
    "data_set": "IMNET",
    "seed": 0,
    "num_workers": 10,
    "test_freq": 1,
    "full_crop": False,
    "distillation_type": "none",
    "dialect": "paper",
    "val_while_train": True,
    "scale": [0.08, 1.0],
    "ratio": [3 / 4, 4 / 3],
    "re_scale": [0.02, 1 / 3],
    "re_ratio": [0.3, 10 / 3],
    "amp": True,
    "ema_form": "mindcv",
    "ema_warmup": 0,  # the average of timm then: its decay from the first update on
    "warmup_prefix": False,
    "lr_epoch_lag": 1,
    "weight_decay_filter": "paper",
}
RENAMED = {
    "data_path": "data_dir",
    "output_dir": "output",
    "num_workers": "workers",
    "test_freq": "val_interval",
    "teacher_path": "teacher_ckpt",
}
_SETS = {"IMNET": "imagenet", "CIFAR10": "cifar10", "CIFAR100": "cifar100"}
_STEPS = {"decay_epochs": 30, "decay_rate": 0.1}  # of --sched step alone
_BATCH = 512  # images that --lr is of
_TEACHER = "timm:regnety_160"
_RESIZED = 224 / 256  # share of the resized image that is seen without --full_crop

REFUSED: timm_only.Aside = {
    "resume": ("", "--resume goes on with the run in ckpt_save_dir"),
    "start_epoch": (0, "--resume knows where a run stopped"),
    "eval": (False, "xcit-hub eval evaluates"),
    "lr_noise": (None, "its timm is another than the one whose noise is drawn here"),
    "resplit": (False, "main.py has no aug_splits"),
}
_WORKERS = "msrun says it"
DROPPED: timm_only.Aside = {
    "model_ema_force_cpu": (False, "the average is where the weights are"),
    "lr_noise_pct": (0.67, "of lr_noise, which is not here"),
    "lr_noise_std": (1.0, "of lr_noise, which is not here"),
    "cooldown_epochs": (10, "main.py ends after epochs, before they begin"),
    "patience_epochs": (10, "of sched plateau, which is not here"),
    "inat_category": ("name", "of data sets that are not here"),
    "device": ("cuda", "device_target says where it runs"),
    "dist_eval": (False, "all workers evaluate, and every image counts once"),
    "pin_mem": (True, "it says how torch's loader feeds"),
    "no_pin_mem": (False, "it says how torch's loader feeds"),
    "world_size": (1, _WORKERS),
    "dist_url": ("env://", _WORKERS),
}
_NEGATED = {"no_model_ema": "model_ema", "no_repeated_aug": "repeated_aug"}
_TRANSLATED = ("lr", "input_size", "data_set", "repeated_aug", "full_crop", "teacher_model")
NAMES = frozenset({*RENAMED, *REFUSED, *DROPPED, *_NEGATED, *_TRANSLATED} - {"lr"})
SWITCHES = frozenset({"repeated_aug", "full_crop", "eval", "dist_eval", "pin_mem", "no_pin_mem", *_NEGATED})


def in_timms_words(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what one file or command line says in timm's words, and what of it was dropped, with the reason.

    Raises:
        InputError: a value cannot be read, asks for what is not here, or is said under two names.
    """
    given, dropped = timm_only.set_aside(settings, REFUSED, DROPPED)
    said = {name: value for name, value in given.items() if name not in RENAMED}
    for name, ours in RENAMED.items():
        if name in given:
            put(said, name, ours, given[name])
    for negated, name in _NEGATED.items():
        if negated in said and _switch(said, negated):
            put(said, negated, name, False)
    if "lr" in said:
        rate = said.pop("lr")
        for name, value in (("lr_base", rate), ("lr_base_size", _BATCH), ("lr_base_scale", "linear")):
            put(said, "lr", name, value)
    if "input_size" in said and not isinstance(said["input_size"], list):
        put(said, "input_size", "img_size", said.pop("input_size"))
    if "data_set" in said:
        put(said, "data_set", "dataset", _one_of(_SETS, said, "data_set"))
    if "repeated_aug" in said:
        put(said, "repeated_aug", "aug_repeats", 3 if _switch(said, "repeated_aug") else 0)
    if "full_crop" in said:
        put(said, "full_crop", "crop_pct", 1.0 if _switch(said, "full_crop") else _RESIZED)
    if "teacher_model" in said:
        name = said.pop("teacher_model")
        if not isinstance(name, str):
            raise InputError(
                f"teacher_model must be a name of timm's, not {str(name)[:60]!r}.",
                where="teacher_model",
                fix="Write one, as main.py's regnety_160.",
            )
        put(said, "teacher_model", "teacher", f"timm:{name}")
    return said, dropped


def settled(said: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return all settings together, in timm's words, as timm's recipe, and what of them is dropped, with the reason.

    Raises:
        InputError: a distillation lacks its teacher's weights.
    """
    dropped = {}
    # null says nothing, and main.py has a word of its own then.
    said = {**{key: DEFAULTS[key] for key in ("sched", "distillation_type")}, **said}
    model, side = said.get("model"), said.get("image_resize")
    for size in (side, 224):
        if isinstance(model, str) and model not in ARCHITECTURES and f"{model}_{size}" in ARCHITECTURES:
            said["model"] = f"{model}_{size}"
            break
    if said["distillation_type"] == "none":
        if said.pop("teacher", _TEACHER) != _TEACHER:  # main.py has a name for it always
            dropped["teacher"] = "distillation_type is none"
    elif not said.get("teacher_ckpt"):
        raise InputError(
            "A distillation needs the teacher's weights.",
            where="teacher_path",
            fix="Give teacher_path, as main.py asks.",
        )
    else:
        said.setdefault("teacher", _TEACHER)
    if said["sched"] == "step":
        said = {**_STEPS, **said}
    if said["sched"] == "none" and said.get("lr_epoch_lag") == DEFAULTS["lr_epoch_lag"]:
        del said["lr_epoch_lag"]  # of the rates of a schedule
    return {**said, "library": "timm"}, dropped


def _switch(said: dict[str, Any], key: str) -> bool:
    value = said.pop(key)
    if not isinstance(value, bool):
        raise InputError(
            f"{key} must be true or false, not {str(value)[:60]!r}.", where=key, fix="Write true or false."
        )
    return value


def _one_of(words: Mapping[str, str], said: dict[str, Any], key: str) -> str:
    word = said.pop(key)
    if not isinstance(word, str) or word not in words:
        raise InputError(
            f"{key} {str(word)[:60]!r} is not a data set that is known here.",
            where=key,
            fix=f"Of main.py's there are {', '.join(words)}; other folders of classes are dataset imagefolder.",
        )
    return words[word]
