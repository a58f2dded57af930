"""Options of timm's train.py that no key of a recipe stands for: what asks for nothing may stand, and why not the rest.

timm writes all of its options into ``args.yaml``, most of them at their defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xcit_hub.errors import InputError

Aside = Mapping[str, tuple[Any, str]]
"""Name → the value that asks for nothing, and the reason."""

_LOADER, _KEYS = "the data sets here are files", "give the recipe's own keys"
_LAYERS = "the network computes as XCiT's authors' does"

# Any other value is refused.
REFUSED: Aside = {
    "train_num_samples": (None, "num_samples takes a part of the training images"),
    "val_num_samples": (None, "every image is evaluated"),
    "input_img_mode": (None, "in_chans says how images are read: 1, 3 or 4"),
    "input_key": (None, _LOADER),
    "target_key": (None, _LOADER),
    "dataset_trust_remote_code": (False, "no code of a data set's is run"),
    "resume": ("", "--resume goes on with the run in ckpt_save_dir"),
    "no_resume_opt": (False, "a run is gone on with whole; start from weights with ckpt_path"),
    "start_epoch": (None, "--resume knows where a run stopped"),
    "gp": (None, "XCiT classifies by its class token"),
    "fast_norm": (False, "norms are computed in float32"),
    "model_kwargs": ({}, _KEYS),
    "head_init_scale": (None, "the classifier begins as timm's network has it"),
    "head_init_bias": (None, "the classifier begins as timm's network has it"),
    "model_dtype": (None, "weights are float32; amp_level and amp_dtype say what is computed in less"),
    "layer_decay_min_scale": (0.0, "layer_decay has no least rate"),
    "layer_decay_no_opt_scale": (None, "every layer is trained; freeze says which are not"),
    "opt_kwargs": ({}, _KEYS),
    "lr_decay_fn": (None, "of sched wsd and rsqrt, which are not here"),
    "lr_stable_timescale": (None, "of sched rsqrt, which is not here"),
    "epoch_repeats": (0.0, "an epoch is once through the images; aug_repeats takes several views of each"),
    "no_aug": (False, "switch off what it does: scale [1, 1], ratio [1, 1], hflip 0, color_jitter null"),
    "train_crop_mode": ("rrc", "training crops by RandomResizedCrop"),
    "color_jitter_prob": (None, "color_jitter changes every image"),
    "grayscale_prob": (0.0, "of timm's policies 3a alone: auto_augment"),
    "gaussian_blur_prob": (0.0, "of timm's policies 3a alone: auto_augment"),
    "bce_sum": (False, "the loss is a mean over the classes"),
    "bce_target_thresh": (None, "targets are taken as they are"),
    "bce_pos_weight": (None, "all classes weigh the same"),
    "drop_connect": (0.0, "it is timm's old name of drop_path"),
    "drop_block": (0.0, "XCiT has none"),
    "bn_momentum": (None, _LAYERS),
    "bn_eps": (None, _LAYERS),
    "dist_bn": ("reduce", "the mean of all workers' statistics is taken"),
    "split_bn": (False, _LAYERS),
    "eval_metric": ("top1", "the best checkpoint is that of the best top-1"),
    "log_wandb": (False, "loggers names who is told of a run"),
    "train_img_sizes": (None, "a training has one image size"),
    "train_batches_per_epoch": (None, "an epoch is once through the images"),
    "train_steps_per_epoch": (None, "an epoch is once through the images"),
    "naflex_loader": (False, "a batch has one image size"),
    "kd_model_name": (None, "give teacher and distillation_type: timm:NAME"),
    # Of earlier releases.
    "bn_tf": (False, _LAYERS),
    "apex_amp": (False, "amp is torch's own"),
}
_TORCH, _HOST = "it says how torch computes", "it says how torch's loader feeds"
_SIZES, _NAFLEX, _KD, _WANDB = (
    f"of {name}, which is not here" for name in ("train_img_sizes", "naflex_loader", "kd_model_name", "log_wandb")
)

# Any other value is dropped, and said to have no effect.
DROPPED: Aside = {
    "validation_batch_size": (None, "an evaluation takes batch_size, and counts every image once"),
    "channels_last": (False, _TORCH),
    "fuser": ("", _TORCH),
    "torchscript": (False, _TORCH),
    "torchcompile": (None, _TORCH),
    "torchcompile_mode": (None, _TORCH),
    "device": ("cuda", "device_target says where it runs"),
    "device_modules": (None, _TORCH),
    "no_ddp_bb": (False, _TORCH),
    "synchronize_step": (False, _TORCH),
    "local_rank": (0, "msrun says it"),
    "patience_epochs": (10, "of sched plateau, which is not here"),
    "model_ema_force_cpu": (False, "the average is where the weights are"),
    "worker_seeding": ("all", "every random number is a function of seed, epoch and position"),
    "save_images": (False, "no images of batches are kept"),
    "pin_mem": (False, _HOST),
    "no_prefetcher": (False, _HOST),
    "use_multi_epochs_loader": (False, _HOST),
    "experiment": ("", "output is the run's folder itself"),
    "wandb_project": (None, _WANDB),
    "wandb_tags": ([], _WANDB),
    "wandb_resume_id": ("", _WANDB),
    "train_batch_sizes": (None, _SIZES),
    "train_size_probs": (None, _SIZES),
    "train_size_schedule": ("constant", _SIZES),
    "train_size_schedule_spread": (0.65, _SIZES),
    "train_size_random_mix": (0.1, _SIZES),
    "variable_batch_loss_scale": ("none", _SIZES),
    "naflex_train_seq_lens": ([128, 256, 576, 784, 1024], _NAFLEX),
    "naflex_max_seq_len": (576, _NAFLEX),
    "naflex_patch_sizes": (None, _NAFLEX),
    "naflex_patch_size_probs": (None, _NAFLEX),
    "naflex_loss_scale": ("linear", _NAFLEX),
    "naflex_patchify_channels_first": (False, _NAFLEX),
    "kd_distill_type": ("logit", _KD),
    "kd_loss_type": ("kl", _KD),
    "distill_loss_weight": (None, _KD),
    "task_loss_weight": (None, _KD),
    "kd_temperature": (4.0, _KD),
    "kd_student_feature_dim": (None, _KD),
    "kd_teacher_feature_dim": (None, _KD),
    "kd_token_distill_type": ("soft", _KD),
    # Of earlier releases.
    "validation_batch_size_multiplier": (1, "an evaluation takes batch_size, and counts every image once"),
    "aot_autograd": (False, _TORCH),
    "amp_impl": ("native", _TORCH),
}
NAMES = frozenset({*REFUSED, *DROPPED})
SWITCHES = frozenset(name for name, (quiet, _) in {**REFUSED, **DROPPED}.items() if quiet is False)


def set_aside(
    settings: Mapping[str, Any], refused: Aside = REFUSED, dropped: Aside = DROPPED
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings without those of the two tables, and the reasons of those that are dropped.

    Raises:
        InputError: one asks for what is not here.
    """
    said, reasons = dict(settings), {}
    for name in [*refused, *dropped]:
        quiet, reason = (refused if name in refused else dropped)[name]
        if name not in said:
            continue
        value = said.pop(name)
        if value is None or value == quiet:
            continue
        if name in refused:
            raise InputError(
                f"{name} {str(value)[:60]!r} is not taken: {reason}.", where=name, fix=f"Leave {name} out."
            )
        reasons[name] = reason
    return said, reasons
