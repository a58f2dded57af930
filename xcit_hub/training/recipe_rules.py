"""What of a recipe cannot be together, and what then has no effect: two tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xcit_hub.training.recipe_keys import KEYS
from xcit_hub.training.recipe_values import RecipeValues

# Keys of MindCV's recipes that name machinery this library does not have: the only value each may take, and why.
ONLY_VALUE: dict[str, tuple[Any, str]] = {
    "dataset_download": (False, "data sets are not downloaded; point data_dir at one"),
    "amp_cast_list": (None, "each amp_level's own lists are used"),
    "enable_modelarts": (False, "the ModelArts copying step is not part of this library"),
}

_STEPWISE = ("exponential_decay", "polynomial_decay", "step_decay", "multi_step_decay")

# What cannot be together: when, and the sentence that refuses it.
CONTRADICTIONS: Sequence[tuple[Callable[[RecipeValues], bool], str]] = (
    (
        lambda r: r.ckpt_save_policy == "top_k" and not r.val_while_train,
        "ckpt_save_policy top_k needs val_while_train",
    ),
    (
        lambda r: (r.distillation_type != "none") != bool(r.teacher) or bool(r.teacher_ckpt) > bool(r.teacher),
        "distillation needs both of distillation_type and teacher, or neither, and teacher_ckpt only with them",
    ),
    (
        lambda r: r.teacher_is_function and bool(r.teacher_ckpt),
        "teacher_ckpt is of an architecture or of timm's network: a function that teacher names loads its own weights",
    ),
    (
        lambda r: bool(r.auto_augment) and r.in_channels != 3,
        "auto_augment is of images of 3 channels: leave it out",
    ),
    (
        lambda r: r.mixes and bool(r.batch_size % 2),
        "mixup and CutMix pair the images of a batch: batch_size must be even",
    ),
    (
        lambda r: r.filter_bias_and_bn is not None and r.weight_decay_filter is not None,
        "filter_bias_and_bn and weight_decay_filter say the same: give one of them",
    ),
    (
        lambda r: r.dynamic_loss_scale is not None and "loss_scale_type" in r.model_fields_set,
        "dynamic_loss_scale and loss_scale_type say the same: give one of them",
    ),
    (
        lambda r: r.dynamic_scaling and r.drop_overflow_update is False,
        "drop_overflow_update cannot be false: a dynamic loss scale always skips an update that overflowed",
    ),
    (
        lambda r: r.scheduler in ("one_cycle", "cyclic") and (r.warmup_epochs > 0 or r.lr_epoch_stair),
        "scheduler one_cycle and cyclic take no warm-up and change at every step: set warmup_epochs 0 and "
        "lr_epoch_stair false",
    ),
    (
        lambda r: r.scheduler == "one_cycle" and r.min_lr == 0,
        "scheduler one_cycle ends at min_lr, which must not be 0",
    ),
    (
        lambda r: r.lr_epoch_lag > 0 and not r.lr_epoch_stair,
        "lr_epoch_lag counts epochs: set lr_epoch_stair",
    ),
    (
        lambda r: r.lr_base is not None and "lr" in r.model_fields_set,
        "lr and lr_base say the same: give one of them",
    ),
    (
        lambda r: r.warmup_lr is not None and "warmup_factor" in r.model_fields_set,
        "warmup_lr and warmup_factor say the same: give one of them",
    ),
    (
        lambda r: r.cutmix_minmax is not None
        and any(int(side * r.cutmix_minmax[0]) == int(side * r.cutmix_minmax[1]) for side in r.input_size),
        "cutmix_minmax leaves no side of a box between its two shares of the image: widen it",
    ),
    (
        lambda r: r.library == "mindcv" and (r.cycle_mul, r.k_decay) != (1, 1),
        "cycle_mul and k_decay are timm's: set library to timm, or leave them out",
    ),
    (
        lambda r: r.library == "mindcv" and r.lr_noise is not None,
        "lr_noise is timm's: set library to timm, or leave it out",
    ),
    (
        lambda r: r.lr_noise is not None and r.lr_noise_std > 1000 * r.lr_noise_pct,
        "lr_noise_std is more than 1000 times lr_noise_pct: noise would be drawn anew for too long",
    ),
    (
        lambda r: r.resplit and r.re_prob > 0 and not r.aug_splits,
        "resplit needs aug_splits, of whose views it leaves the first whole; timm's half of a batch is not here",
    ),
    (
        lambda r: r.decay_epochs % 1 != 0 and (r.library == "mindcv" or r.repeats_cycles),
        "decay_epochs are whole epochs; a step of timm's step_decay alone may take a fraction",
    ),
    (
        lambda r: r.library == "timm" and r.scheduler in ("exponential_decay", "one_cycle", "cyclic"),
        "scheduler exponential_decay, one_cycle and cyclic are MindCV's: timm has none of them",
    ),
    (
        lambda r: r.aug_splits > 0 and not r.auto_augment,
        "aug_splits needs auto_augment: the views of an image would be the same",
    ),
    (
        lambda r: r.aug_splits > 0 and r.mixes,
        "aug_splits and mixup or CutMix cannot be together: an image's views would be mixed with others'",
    ),
    (
        lambda r: r.library == "mindcv" and r.aug_splits not in (0, 3),
        "aug_splits of MindCV's recipes is 0 or 3",
    ),
    (
        lambda r: r.loss == "JSD" and not r.aug_splits,
        "loss JSD compares an image's views: set aug_splits to 3",
    ),
    (
        lambda r: r.loss == "ASL_SINGLE_LABEL" and r.mixes,
        "loss asl_single_label takes one class an image: set mixup and cutmix to 0",
    ),
    (
        lambda r: r.loss == "ASL_MULTI_LABEL" and r.library == "timm",
        "loss asl_multi_label is MindCV's, a sum over the batch: set library to mindcv",
    ),
    (
        lambda r: r.library == "mindcv" and r.opt == "adan" and r.layer_decay is not None,
        "layer_decay cannot be with MindCV's adan, which takes one rate for all",
    ),
    (
        lambda r: len(r.jitter) == 4 and r.jitter[3] > 0.5,
        "color_jitter turns the hue by at most 0.5",
    ),
)  # fmt: skip

# What timm's train.py has for what is left out, where a recipe has another default; of keys that say the same the
# first is timm's. A run in timm's words says what it has in their place.
TIMMS_DEFAULTS: Sequence[tuple[Sequence[str], Any]] = (
    (["opt"], "sgd"),
    (["lr_base", "lr"], 0.1),
    (["weight_decay"], 2e-5),
    (["epoch_size"], 300),
    (["warmup_epochs"], 5),
    (["warmup_lr", "warmup_factor"], 1e-5),
    (["warmup_prefix"], False),
    (["min_lr"], 0.0),
    (["lr_epoch_stair"], True),
    (["decay_epochs"], 90),
    (["decay_rate"], 0.1),
    (["multi_step_decay_milestones"], (90, 180, 270)),
    (["cycle_decay"], 0.5),
    (["ratio"], (3 / 4, 4 / 3)),
    (["re_value"], "pixel"),
    (["re_scale"], (0.02, 1 / 3)),
    (["re_ratio"], (0.3, 1 / 0.3)),
    (["interpolation"], "random"),
    (["label_smoothing"], 0.1),
    (["ema_decay"], 0.9998),
)

Idle = Sequence[tuple[Sequence[str], Callable[[RecipeValues], bool], str]]
"""Keys that change nothing: which, when, and why."""

_ANYWHERE: Idle = (
    (["eval_shuffle"], lambda _: True, "every image counts once in any order"),
    (["train_split", "val_split"], lambda r: r.dataset.startswith("cifar"), "CIFAR's files have names of their own"),
    (["jit_level"], lambda r: r.mode == 1, "PyNative mode compiles nothing"),
)  # fmt: skip

# A training says those that its recipe set.
WITHOUT_EFFECT: Idle = (
    *_ANYWHERE,
    (["aux_factor"], lambda _: True, "XCiT has no auxiliary classifier"),
    (["color_jitter"], lambda r: not r.jitters, "not applied beside auto_augment, as in timm and MindCV"),
    (["re_scale", "re_ratio", "re_value", "re_count"], lambda r: not r.re_prob, "re_prob is 0"),
    (["re_max_attempts", "resplit"], lambda r: not r.re_prob, "re_prob is 0"),
    (["cutmix_prob", "mixup_mode", "mixup_off_epoch"], lambda r: not r.mixes, "mixup and cutmix are off"),
    (["switch_prob"], lambda r: not (r.mixup and (r.cutmix or r.cutmix_minmax)), "mixup and cutmix are not both on"),
    (["cutmix"], lambda r: r.cutmix_minmax is not None, "cutmix_minmax takes 1 for alpha, as timm does"),
    (["ema_decay", "ema_warmup", "ema_form"], lambda r: not r.ema, "ema is off"),
    (["ema_warmup"], lambda r: r.ema_form != "mindcv", "of ema_form mindcv"),
    (["lr_base_size", "lr_base_scale"], lambda r: r.lr_base is None, "lr_base is not given"),
    (["clip_value"], lambda r: not r.clip_grad, "clip_grad is off"),
    (["keep_checkpoint_max"], lambda r: r.ckpt_save_policy is None, "ckpt_save_policy null keeps all"),
    (["val_interval", "val_split"], lambda r: not r.val_while_train, "val_while_train is off"),
    (["val_amp_level"], lambda r: not r.val_while_train, "val_while_train is off"),
    (["momentum"], lambda r: "momentum" not in r.takes.keys, "opt takes betas, or none"),
    (["use_nesterov"], lambda r: "use_nesterov" not in r.takes.keys, "opt does not ask for it"),
    (["alpha"], lambda r: "alpha" not in r.takes.keys, "of rmsprop"),
    (["betas"], lambda r: not r.takes.betas, "opt takes none"),
    (["eps"], lambda r: not r.takes.eps, "opt takes none"),
    (["weight_decay"], lambda r: r.undecayed, "MindCV's adan decays with weight_decay_filter auto alone"),
    (["reduction"], lambda r: r.loss.startswith("ASL"), "MindCV's asymmetric losses have their own"),
    (["label_smoothing"], lambda r: r.loss == "ASL_MULTI_LABEL", "not of asl_multi_label, as in MindCV"),
    (["loss_scale"], lambda r: r.loss_scale_type == "auto", "loss_scale_type auto takes MindSpore's"),
    (["min_lr"], lambda r: not r.ends_at_min_lr, "not of this scheduler"),
    (["decay_epochs"], lambda r: not (r.repeats_cycles or r.scheduler == "step_decay"), "of cycles and step_decay"),
    (["decay_rate"], lambda r: r.scheduler not in _STEPWISE, "of the schedules that decay by a rate"),
    (["multi_step_decay_milestones"], lambda r: r.scheduler != "multi_step_decay", "of multi_step_decay"),
    (["num_cycles"], lambda r: not (r.repeats_cycles or r.scheduler == "cyclic"), "of the schedules with cycles"),
    (["cycle_decay", "cycle_mul"], lambda r: not r.repeats_cycles or r.num_cycles == 1, "of several cycles"),
    (["lr_noise_pct", "lr_noise_std"], lambda r: r.lr_noise is None, "lr_noise is not given"),
    (["k_decay"], lambda r: r.scheduler == "tanh_decay" or not r.repeats_cycles, "of the cosine and timm's polynomial"),
    (["warmup_factor", "warmup_lr", "warmup_prefix"], lambda r: not r.warmup_epochs, "warmup_epochs is 0"),
    (["warmup_prefix"], lambda r: r.scheduler == "constant", "a constant rate has no decay that it could contain"),
    (["lr_epoch_stair"], lambda r: r.scheduler == "constant" and not r.warmup_epochs, "the rate is constant"),
    (["amp_dtype"], lambda r: r.amp_level == r.val_amp_level == "O0", "amp_level and val_amp_level are O0"),
    (["pretrained"], lambda r: bool(r.ckpt_path), "the weights are those of ckpt_path"),
    (["sync_bn"], lambda r: r.freeze_bn, "freeze_bn keeps the statistics as they are"),
    (["real_labels"], lambda _: True, "of an evaluation (xcit-hub eval) alone"),
    (["tta"], lambda r: not r.val_while_train, "val_while_train is off"),
    (["teacher_image_size"], lambda r: r.distillation_type == "none", "distillation_type is none"),
    (["distillation_alpha"], lambda r: r.distillation_type == "none", "distillation_type is none"),
    (["distillation_tau"], lambda r: r.distillation_type != "soft", "of soft distillation"),
)  # fmt: skip

# What an evaluation reads; `library` says whose names are meant.
_OF_EVALUATIONS = frozenset(
    {"mode", "device_target", "jit_level", "dataset", "data_dir", "val_split", "class_map", "real_labels"}
    | {"max_corrupt", "num_parallel_workers", "batch_size"}
    | {"image_resize", "interpolation", "crop_pct", "mean", "std", "tta"}
    | {"model", "dialect", "num_classes", "in_channels", "ckpt_path", "val_amp_level", "amp_dtype", "library"}
)

# An evaluation says those that its command line set; a recipe's file is of a training. What stands later counts.
WITHOUT_EFFECT_IN_EVALUATIONS: Idle = (
    (sorted(KEYS - _OF_EVALUATIONS), lambda _: True, "of a training"),
    *_ANYWHERE,
    (["amp_dtype"], lambda r: r.val_amp_level == "O0", "val_amp_level is O0"),
    (["amp_level"], lambda _: True, "of a training; an evaluation's is val_amp_level"),
    (["num_samples"], lambda _: True, "of a training; every image is evaluated"),
    (["pretrained", "ema"], lambda _: True, "the weights are those of ckpt_path"),
    (["distribute"], lambda _: True, "an evaluation takes the workers that started it"),
)  # fmt: skip
