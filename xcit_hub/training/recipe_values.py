"""What follows from a recipe's keys: the values that a training computes with."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from xcit_hub.run_record import SeenImages
from xcit_hub.training.hyperparameters import OPTIMIZERS, Takes
from xcit_hub.training.recipe_keys import DecayFilter, RecipeKeys
from xcit_hub.variants import Preprocessing

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""A teacher that is made by calling ``module:function``; ``timm:NAME`` may look the same and is not."""
TIMM = "timm:"
COSINES = ("cosine_decay", "warmup_cosine_decay")


class RecipeValues(RecipeKeys):
    """The keys of a recipe, and what follows from them."""

    def highest_rate(self, images: int) -> float:
        """Return the learning rate of a step of ``images``, of all workers and accumulated batches together.

        ``lr`` as it is, or ``lr_base`` scaled by the linear or the square-root rule (timm's train.py; facebook's
        main.py scales linearly from 512).
        """
        if self.lr_base is None:
            return self.lr
        ratio = images / self.lr_base_size
        return self.lr_base * (ratio if self.rate_rule == "linear" else math.sqrt(ratio))

    @property
    def rate_rule(self) -> Literal["linear", "sqrt"]:
        """How ``lr_base`` grows with the batch."""
        adaptive = any(word in self.opt for word in ("ada", "lamb"))
        return self.lr_base_scale or ("sqrt" if adaptive else "linear")

    @property
    def teacher_is_function(self) -> bool:
        """Whether the teacher is made by calling a function that ``teacher`` names."""
        return bool(FUNCTION.fullmatch(self.teacher)) and not self.teacher.startswith(TIMM)

    def synchronises(self, workers: int) -> bool:
        """Whether BatchNorm takes the statistics of all of so many workers' batches."""
        return self.sync_bn and not self.freeze_bn and workers > 1

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed by mixup or CutMix."""
        return bool(self.mixup or self.cutmix or self.cutmix_minmax)

    @property
    def decay_filter(self) -> DecayFilter:
        """Which parameters weight decay leaves out, by either of MindCV's two keys; the default is the library's."""
        if self.weight_decay_filter is not None:
            return self.weight_decay_filter
        if self.filter_bias_and_bn is None and self.library == "timm":
            return "timm"
        return "norm_and_bias" if self.filter_bias_and_bn else "disable"

    @property
    def epsilon(self) -> float:
        """What keeps the optimizer from dividing by 0; it says where it is added."""
        return self.takes.eps if self.eps is None else self.eps

    @property
    def takes(self) -> Takes:
        """What the optimizer takes."""
        return OPTIMIZERS[self.library][self.opt]

    @property
    def optimizer_betas(self) -> tuple[float, ...]:
        """What the optimizer's means keep of themselves (MindCV's adan: take of the new)."""
        return self.takes.betas if self.betas is None else self.betas

    @property
    def smoothing(self) -> float:
        """Share of a target that all classes get; MindCV gives none to the multi-label asymmetric loss."""
        return 0.0 if self.loss == "ASL_MULTI_LABEL" else self.label_smoothing

    @property
    def views(self) -> int:
        """Views of an image in a batch."""
        return self.aug_splits or 1

    @property
    def dynamic_scaling(self) -> bool:
        """Whether the loss scale adapts, by either of MindCV's two keys."""
        if self.loss_scale_type == "auto":
            return self.amp_level == "O2"
        return self.loss_scale_type == "dynamic" or bool(self.dynamic_loss_scale)

    @property
    def first_loss_scale(self) -> float:
        """The loss scale of the first step; of ``auto`` it is that of MindSpore's ``_config_level``."""
        if self.loss_scale_type == "auto":
            return 2.0**24 if self.amp_level == "O2" else 1.0
        return self.loss_scale

    @property
    def guarded(self) -> bool:
        """Whether an update is skipped whose gradients are not finite."""
        return self.dynamic_scaling or bool(self.drop_overflow_update)

    @property
    def jitter(self) -> tuple[float, ...]:
        """Strength of the change of brightness, contrast and saturation, and of hue if there are four."""
        if isinstance(self.color_jitter, tuple):
            return self.color_jitter
        return (self.color_jitter or 0.0,) * 3

    @property
    def filling(self) -> float | tuple[float, ...] | Literal["color", "pixel"]:
        """What random erasing fills with: a number, one for each channel, or noise."""
        words: dict[Any, Any] = {"const": 0.0, "rand": "color", "random": "pixel", "pixel": "pixel"}
        return words.get(self.re_value, self.re_value)

    @property
    def jitters(self) -> bool:
        """Whether colours are jittered: beside auto_augment only in timm's 3-Augment."""
        return not self.auto_augment or (self.library == "timm" and "3a" in self.auto_augment)

    @property
    def undecayed(self) -> bool:
        """Whether weight decay does nothing, whatever it is: MindCV's adan overwrites that of parameter groups."""
        return self.library == "mindcv" and self.opt == "adan" and self.decay_filter != "auto"

    @property
    def repeats_cycles(self) -> bool:
        """Whether the schedule may begin anew: the cosines, the hyperbolic tangent, and timm's polynomial."""
        if self.scheduler == "polynomial_decay":
            return self.library == "timm"
        return self.scheduler in (*COSINES, "tanh_decay")

    @property
    def schedule_epochs(self) -> float:
        """How long timm's schedule is, in epochs: a cycle of those that have cycles, else all but the warm-up's."""
        if self.repeats_cycles:
            return self.decay_epochs
        return self.epoch_size - (self.warmup_epochs if self.warmup_prefix else 0)

    @property
    def ends_at_min_lr(self) -> bool:
        """Whether the schedule goes down to ``min_lr``."""
        return self.repeats_cycles or self.scheduler in ("one_cycle", "cyclic")

    @property
    def preprocessing(self) -> Preprocessing:
        """How evaluation sees an image, in the variant table's terms (means and deviations in 0…1)."""
        height, width = self.input_size
        return Preprocessing(
            image_size=height,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,
            mean=self._of_each_channel(self.mean),
            std=self._of_each_channel(self.std),
            image_width=None if width == height else width,
        )

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input in pixels."""
        size = self.image_resize
        return size if isinstance(size, tuple) else (size, size)

    def _of_each_channel(self, levels: tuple[float, ...]) -> tuple[float, ...]:
        """Return levels in 0…1, one for each channel; three become their mean for grey images, as in timm."""
        shares = tuple(level / 255 for level in levels)
        return shares if len(shares) == self.in_channels else (sum(shares) / len(shares),)

    @property
    def seen_images(self) -> SeenImages:
        """The same as it travels with checkpoints and records."""
        seen = self.preprocessing
        return SeenImages(
            input_size=(self.in_channels, *self.input_size),
            mean=seen.mean,
            std=seen.std,
            interpolation=self.interpolation,
            crop_pct=seen.crop_pct,
        )
