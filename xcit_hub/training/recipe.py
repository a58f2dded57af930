"""The recipe of a training run: one strict model of MindCV's recipe keys.

Every key of the recipes that MindCV's ``config.py`` reads (both its 2022 and its 2024 form) keeps its name and its
meaning. A key with a value this library cannot honour is refused by name; a key that has no effect beside the others is
listed with its reason (:meth:`Recipe.without_effect`); a key that nobody knows is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from xcit_hub.data.mixing import MixingMode
from xcit_hub.deprecated import moved_names
from xcit_hub.errors import InputError
from xcit_hub.run_record import SeenImages
from xcit_hub.training.hyperparameters import OPTIMIZERS, Library, LossKind, Takes
from xcit_hub.variants import DialectName, Preprocessing, architecture

AmpLevel = Literal["O0", "O1", "O2", "O3"]
AmpDtype = Literal["float16", "bfloat16"]
DecayFilter = Literal["disable", "auto", "norm_and_bias", "paper", "timm"]
Scheduler = Literal[
    "cosine_decay",
    "warmup_cosine_decay",
    "constant",
    "exponential_decay",
    "polynomial_decay",
    "step_decay",
    "multi_step_decay",
    "one_cycle",
    "cyclic",
]

_IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
_NUMBER = re.compile(
    r"[-+]?(0|[1-9]\d{0,17})|[-+]?(\d{1,18}\.\d{0,30}|\.\d{1,30})([eE][-+]?\d{1,3})?|[-+]?\d{1,18}[eE][-+]?\d{1,3}"
)
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""A teacher that is made by calling ``module:function``; ``timm:NAME`` may look the same and is not."""
TIMM = "timm:"
_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_LONGEST_TEXT = 4096
_MANY_EPOCHS = 100_000

# Keys of MindCV's recipes that name machinery this library does not have: the only value each may take, and why.
ONLY_VALUE: dict[str, tuple[Any, str]] = {
    "dataset_download": (False, "data sets are not downloaded; point data_dir at one"),
    "amp_cast_list": (None, "each amp_level's own lists are used"),
    "enable_modelarts": (False, "the ModelArts copying step is not part of this library"),
}


class Recipe(BaseModel):
    """Everything that decides a training run. Keys and meanings are MindCV's, those below ``# xcit-hub`` are ours."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    # System
    mode: Literal[0, 1] = Field(0, description="0: graph mode, 1: PyNative")
    distribute: bool = Field(False, description="train on all workers that msrun or mpirun started")
    val_while_train: bool = Field(False, description="evaluate on val_split while training")
    val_interval: int = Field(1, ge=1, description="epochs between evaluations")
    log_interval: int = Field(100, ge=1, description="steps between lines of the log")
    pretrained: bool | str = Field(
        False, description="start from published weights: those called `model`, or what `xcit_hub.load` takes"
    )
    ckpt_path: str = Field("", description="start from this checkpoint, or evaluate it")
    resume_opt: bool = Field(False, description="continue the run in ckpt_save_dir: weights, optimizer, schedule")
    seed: int = Field(42, ge=0, lt=2**31, description="decides initial weights, data order and augmentation")
    device_target: Literal["auto", "CPU", "GPU", "Ascend"] = Field("auto", description="auto: the best there is")

    # Data set
    dataset: Literal["imagenet", "imagefolder", "", "cifar10", "cifar100", "tar", "mindrecord"] = Field(
        "imagenet", description="kind of data set; imagenet, imagefolder and '' are folders of classes"
    )
    data_dir: str = Field("./", description="where it lies")
    train_split: str = Field("train", description="folder (or file stem) of the training images")
    val_split: str = Field("val", description="folder (or file stem) of the evaluation images")
    dataset_download: bool = False
    num_parallel_workers: int = Field(8, ge=1, description="image decoding threads, at most one a core")
    shuffle: bool = Field(True, description="a new order each epoch")
    num_samples: int | None = Field(
        None, ge=1, description="train on so many images, of every class its share; without shuffle the first ones"
    )
    batch_size: int = Field(128, ge=1, description="images a step on each worker")
    drop_remainder: bool = Field(True, description="leave out an epoch's last, smaller batch")
    aug_repeats: int = Field(
        0, ge=0, le=100, description="views of an image in an epoch (repeated augmentation); 0, 1: off"
    )

    # Augmentation
    image_resize: int | tuple[int, int] = Field(224, description="side of the input in pixels, or height and width")
    scale: tuple[float, float] = Field((0.08, 1.0), description="RandomResizedCrop: share of the area")
    ratio: tuple[float, float] = Field((0.75, 1.333), description="RandomResizedCrop: aspect ratio")
    hflip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    vflip: float = Field(0.0, ge=0, le=1, description="probability of a vertical flip")
    color_jitter: float | tuple[float, float, float] | tuple[float, float, float, float] | None = Field(
        0.4, description="brightness, contrast, saturation, and hue if four numbers; one is for the first three"
    )
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos"] = Field(
        "bilinear", description="how training and evaluation resize"
    )
    auto_augment: str | None = Field(
        None,
        description="MindCV's randaug, autoaug, autoaugr, 3a, augmix, trivialaugwide; timm's rand, original, v0, …",
    )
    aug_splits: Literal[0, 2, 3, 4, 5] = Field(
        0, description="views of an image in a batch, the first without auto_augment; JSD's are three; 0: one view"
    )
    re_prob: float = Field(0.0, ge=0, le=1, description="probability of random erasing")
    re_scale: tuple[float, float] = Field((0.02, 0.33), description="random erasing: share of the area")
    re_ratio: tuple[float, float] = Field((0.3, 3.3), description="random erasing: aspect ratio")
    re_value: float | tuple[float, float, float] | Literal["const", "rand", "random", "pixel"] = Field(
        0.0,
        description="a number or three, of the normalised image, const: 0, the mean colour; rand: a random colour; "
        "random, pixel: noise for each pixel",
    )
    re_count: int = Field(1, ge=1, le=100, description="random erasing: at most so many rectangles share the area")
    re_max_attempts: int = Field(10, ge=1, le=1000, description="random erasing: draws before an image is left whole")
    mean: tuple[float, ...] = Field(_IMAGENET_MEAN, description="of each channel, in 0…255")
    std: tuple[float, ...] = Field(_IMAGENET_STD, description="of each channel, in 0…255")
    crop_pct: float = Field(0.875, gt=0, le=1, description="share of the resized image that evaluation sees")
    mixup: float = Field(0.0, ge=0, le=100, description="alpha of mixup; 0: off")
    cutmix: float = Field(0.0, ge=0, le=100, description="alpha of CutMix; 0: off")
    cutmix_prob: float = Field(1.0, ge=0, le=1, description="probability that a batch is mixed at all")

    # Model
    model: str = Field(..., description="architecture, by timm's name")
    num_classes: int | None = Field(None, ge=1, le=200_000, description="left out: as many as the data set has")
    in_channels: Literal[1, 3, 4] = Field(3, description="images are read as grey (1), RGB (3) or RGBA (4)")
    drop_rate: float | None = Field(None, ge=0, lt=1, description="dropout before the classifier")
    drop_path_rate: float | None = Field(None, ge=0, lt=1, description="stochastic depth")
    amp_level: AmpLevel = Field(
        "O0", description="in amp_dtype: nothing, dense and conv, all but norms, all but LayerNorm"
    )
    val_amp_level: AmpLevel = Field("O0", description="the same, for evaluation")
    amp_cast_list: str | None = None
    keep_checkpoint_max: int = Field(10, ge=1, description="checkpoints to keep")
    ckpt_save_dir: str = Field("./ckpt", description="where checkpoints and records go")
    ckpt_save_interval: int = Field(1, ge=1, description="epochs between checkpoints")
    ckpt_save_policy: Literal["top_k", "latest_k"] | None = Field("latest_k", description="which to keep; null: all")
    epoch_size: int = Field(90, ge=1, le=_MANY_EPOCHS, description="epochs")
    dataset_sink_mode: bool = Field(True, description="feed through the device's own queue; the CPU has none")
    ema: bool = Field(False, description="keep an exponential moving average of the weights beside them")
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="what the average keeps of itself at an update")
    clip_grad: bool = Field(False, description="bound the gradients by clip_value")
    clip_value: float = Field(15.0, gt=0, description="largest global L2 norm of the gradients")
    layer_decay: float | None = Field(None, gt=0, le=1, description="learning rate shrinks so each layer down")
    gradient_accumulation_steps: int = Field(1, ge=1, le=10_000, description="batches summed before an update")

    # Optimizer
    opt: str = Field("adamw", description="the optimizer, as library computes it; MindCV's default is adam")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd, momentum and rmsprop")
    betas: tuple[float, ...] | None = Field(None, description="of adam…, lamb, lion, adan; left out: its own")
    alpha: float = Field(0.9, ge=0, lt=1, description="rmsprop: what the mean square keeps of itself")
    weight_decay: float = Field(1e-6, ge=0, description="decoupled in adamw, lion, lamb, adan; else of the gradient")
    use_nesterov: bool = Field(False, description="Nesterov's form of momentum")
    filter_bias_and_bn: bool | None = Field(None, description="2022's name: true is norm_and_bias")
    weight_decay_filter: DecayFilter | None = Field(
        None,
        description="without decay: nothing (the default); gamma, beta; these and biases; facebook's list; timm's",
    )
    eps: float | None = Field(None, gt=0, description="left out: the optimizer's own, 1e-8 of adamw")
    loss_scale: float = Field(1.0, ge=1, le=3.4e38, description="factor on the loss before gradients are taken")
    loss_scale_type: Literal["fixed", "dynamic", "auto"] = Field(
        "fixed", description="auto: MindSpore's for the amp_level, dynamic from 2**24 in O2, else none"
    )
    dynamic_loss_scale: bool | None = Field(None, description="2022's name: true is loss_scale_type dynamic")
    drop_overflow_update: bool | None = Field(
        None, description="skip an update whose gradients are not finite; a dynamic scale always does"
    )

    # Schedule
    scheduler: Scheduler = Field("cosine_decay", description="how the learning rate changes after the warm-up")
    lr: float = Field(0.001, gt=0, description="highest learning rate, for the whole batch, not scaled")
    min_lr: float = Field(1e-6, ge=0, description="where the cosine, one_cycle, cyclic and timm's polynomial end")
    warmup_epochs: int = Field(3, ge=0, le=_MANY_EPOCHS, description="epochs from warmup_factor · lr to lr")
    warmup_factor: float = Field(0.0, ge=0, le=1, description="warm-up starts at this share of lr")
    decay_epochs: int = Field(100, ge=1, le=_MANY_EPOCHS, description="epochs from lr to min_lr, or of one step")
    decay_rate: float = Field(0.9, gt=0, le=10, description="factor of a step, or the polynomial's power")
    multi_step_decay_milestones: tuple[int, ...] = Field((30, 60, 90), description="epochs of multi_step_decay")
    lr_epoch_stair: bool = Field(False, description="change the learning rate at epochs only")
    cycle_mul: float = Field(1.0, ge=1, le=10, description="how much longer each cosine is than the one before")
    num_cycles: int = Field(1, ge=1, le=_MANY_EPOCHS, description="cosines, or cycles of cyclic")
    cycle_decay: float = Field(1.0, gt=0, le=10, description="what each cosine's height is of the one before")

    # Loss
    loss: LossKind = Field("CE", description="(binary) cross-entropy, JSD of AugMix's views, asymmetric losses")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a target that all classes get")
    aux_factor: float = Field(0.0, ge=0, description="no effect: XCiT has no auxiliary classifier")
    reduction: Literal["mean", "sum"] = Field("mean", description="of the loss over the batch")
    eval_shuffle: bool = Field(False, description="no effect: every image counts once in any order")

    # ModelArts
    enable_modelarts: bool = False

    # xcit-hub
    library: Library = Field(
        "mindcv", description="whose optimizers, schedules, erasing and augmix are meant, where MindCV and timm differ"
    )
    dialect: DialectName | None = Field(
        None, description="what the network computes: paper, or mindcv; left out: what the checkpoint says"
    )
    ema_warmup: int = Field(
        2000,
        ge=0,
        le=10**9,
        description="decay is ema_decay · (1 − exp(−updates / ema_warmup)), as in MindCV; 0: ema_decay from the start",
    )
    recovery_interval: int = Field(
        0, ge=0, description="steps between states within an epoch, from which --resume goes on; 0: none"
    )
    lr_epoch_lag: int = Field(
        0, ge=0, le=10, description="epochs by which the rate lags; facebook's main.py sets it after an epoch: 1"
    )
    lr_base: float | None = Field(None, gt=0, description="instead of lr: the rate of lr_base_size images a step")
    lr_base_size: int = Field(256, ge=1, description="images of a step that lr_base is of; facebook's main.py: 512")
    lr_base_scale: Literal["linear", "sqrt"] | None = Field(
        None, description="how the rate grows with the batch; left out, timm's: sqrt for Adam's family and LAMB"
    )
    amp_dtype: AmpDtype = Field("float16", description="of amp_level and val_amp_level; bfloat16 not on a CPU")
    ema_form: Literal["mindcv", "timm", "timm_warmup"] = Field(
        "mindcv", description="mindcv: by ema_warmup; timm's ModelEmaV3: first a copy, then ema_decay, or with warm-up"
    )
    switch_prob: float = Field(0.5, ge=0, le=1, description="with mixup and CutMix on: share of CutMix batches")
    mixup_mode: MixingMode = Field("batch", description="what one draw of mixup and CutMix is for, as in timm")
    mixup_off_epoch: int = Field(0, ge=0, le=_MANY_EPOCHS, description="epochs that are mixed; 0: all")
    cutmix_minmax: tuple[float, float] | None = Field(
        None, description="CutMix by boxes of sides in this range of shares, evenly drawn; its alpha is then 1"
    )
    warmup_prefix: bool = Field(True, description="decay_epochs begin after the warm-up; false: they contain it")
    no_weight_decay: tuple[str, ...] = Field((), description="further parameters without decay, by part of name")
    freeze: tuple[str, ...] = Field(
        (), description="parameters that are not trained, by name, part, or shell pattern: patch_embed, blocks.*.attn"
    )
    surgery: str = Field("", description="checkpoint whose patch projection is put in and frozen, as facebook's")
    sync_bn: bool = Field(False, description="BatchNorm by the statistics of all workers' batches together")
    tta: Literal[0, 2, 5, 10] = Field(
        0, description="views of an image in evaluation, logits averaged: mirrored, five crops, both; 0: one"
    )
    real_labels: str = Field("", description="of an evaluation: JSON of ImageNet's reassessed labels")
    loggers: tuple[str, ...] = Field((), description="who else is told of the run: names under xcit_hub.loggers")
    class_map: str = Field("", description="text file of class folders, one a line: which output is whose, as timm's")
    freeze_bn: bool = Field(False, description="BatchNorm keeps the statistics it was given")
    recompute: bool = Field(False, description="recompute activations backward: less memory, more time")
    jit_level: Literal["O0", "O1", "O2", ""] = Field("", description="graph compilation level; empty: MindSpore's")
    max_corrupt: int = Field(10, ge=0, le=10**6, description="unreadable images to skip before giving up")
    teacher: str = Field(
        "", description="to distil from: an architecture, what `xcit_hub.load` takes, module:function, or timm:NAME"
    )
    teacher_ckpt: str = Field("", description="weights of an architecture, or of timm's network")
    teacher_image_size: Literal["own", "student"] = Field(
        "own", description="student: a teacher of another image size is shown the student's"
    )
    distillation_type: Literal["none", "soft", "hard"] = Field("none", description="how the teacher is followed")
    distillation_alpha: float = Field(0.5, ge=0, le=1, description="weight of the teacher's loss")
    distillation_tau: float = Field(1.0, gt=0, description="temperature of soft distillation")

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """Take a switch from words alone and a number from numbers alone: pydantic makes True of 1.0, and 1 of True."""
        kind = kind_of(info.field_name or "")
        if kind == "switch":
            return _switch(value)
        if kind == "switch or text":
            if not isinstance(value, bool | str):
                raise ValueError("must be true, false or a name")
            return _SWITCHES.get(value.lower(), _checked_text(value)) if isinstance(value, str) else value
        if kind == "text":
            several = cls.model_fields[info.field_name or ""].annotation == tuple[str, ...]
            return _checked_text([value] if several and isinstance(value, str) else value)
        for entry in value if isinstance(value, list | tuple) else (value,):
            if isinstance(entry, bool):
                raise ValueError("must not be a truth value")
            if isinstance(entry, str):
                _checked_text(entry)
                if kind == "number" and not _NUMBER.fullmatch(entry):
                    raise ValueError("must be a number")
        return value

    @field_validator("image_resize")
    @classmethod
    def _sides(cls, value: int | tuple[int, int]) -> int | tuple[int, int]:
        if not all(8 <= side <= 4096 for side in (value if isinstance(value, tuple) else (value,))):
            raise ValueError("must be a side of 8 to 4096 pixels, or a height and a width of these")
        return value

    @field_validator("dataset", "opt", mode="after")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()

    @field_validator("loss", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("scale", "ratio", "re_scale", "re_ratio")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("must be two positive numbers, the smaller first")
        return value

    @field_validator("cutmix_minmax")
    @classmethod
    def _shares(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 1:
            raise ValueError("must be two shares in 0…1, the smaller first")
        return value

    @field_validator("multi_step_decay_milestones")
    @classmethod
    def _in_order(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(one < 0 for one in value) or list(value) != sorted(set(value)):
            raise ValueError("must be epochs, each later than the one before")
        return value

    @field_validator("std", mode="after")
    @classmethod
    def _of_bytes(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and max(value) < 1:
            raise ValueError("is of pixels in 0…255, as in MindCV's recipes: multiply timm's numbers by 255, mean too")
        return value

    @field_validator("color_jitter")
    @classmethod
    def _not_negative(cls, value: float | tuple[float, ...] | None) -> float | tuple[float, ...] | None:
        if value is not None and min(value if isinstance(value, tuple) else (value,)) < 0:
            raise ValueError("must not be negative")
        return value

    @field_validator("betas")
    @classmethod
    def _below_one(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and not all(0 < beta < 1 for beta in value):
            raise ValueError("must lie between 0 and 1")
        return value

    @field_validator("drop_rate", "drop_path_rate", mode="after")
    @classmethod
    def _none_is_zero(cls, value: float | None) -> float:
        return value or 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for key, (only, reason) in ONLY_VALUE.items():
            if getattr(self, key) != only:
                raise ValueError(f"{key} can only be {only!r}: {reason}")
        architecture(self.model)
        kinds = OPTIMIZERS[self.library]
        if self.opt not in kinds:
            raise ValueError(f"opt {self.opt[:60]!r} is not one of {self.library}'s optimizers {', '.join(kinds)}")
        if self.betas is not None and len(self.betas) != len(self.takes.betas) > 0:
            raise ValueError(f"betas of {self.opt} are {len(self.takes.betas)} numbers, not {len(self.betas)}")
        if self.auto_augment:
            from xcit_hub.data.policy_notation import read_policy

            try:
                read_policy(self.auto_augment, self.library)
            except InputError as error:
                said = f"auto_augment {self.auto_augment!r}: {error.what.rstrip('.')}: {error.fix}"
                raise ValueError(said.removesuffix(": None").rstrip(".")) from None
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            if count != self.in_channels and (self.in_channels, count) != (1, 3):
                raise ValueError(f"{name} needs {self.in_channels} numbers, one for each of in_channels")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        for refused, reason in _CONTRADICTIONS:
            if refused(self):
                raise ValueError(reason)
        return self

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
        """Whether the schedule may begin anew: the cosines, and timm's polynomial."""
        return self.scheduler in _COSINES or (self.library == "timm" and self.scheduler == "polynomial_decay")

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

    def without_effect(self) -> dict[str, str]:
        """Return the keys that were given another value than their default and change nothing here, with the reason."""
        idle = {}
        for keys, applies, reason in _WITHOUT_EFFECT:
            if applies(self):
                for key in keys:
                    if key in self.model_fields_set and getattr(self, key) != type(self).model_fields[key].default:
                        idle[key] = reason
        return idle


_STEPWISE = ("exponential_decay", "polynomial_decay", "step_decay", "multi_step_decay")
_COSINES = ("cosine_decay", "warmup_cosine_decay")

# What cannot be together: when, and the sentence that refuses it.
_CONTRADICTIONS: Sequence[tuple[Callable[[Recipe], bool], str]] = (
    (
        lambda r: r.ckpt_save_policy == "top_k" and not r.val_while_train,
        "ckpt_save_policy top_k needs val_while_train",
    ),
    (
        lambda r: (r.distillation_type != "none") != bool(r.teacher) or bool(r.teacher_ckpt) > bool(r.teacher),
        "distillation needs both of distillation_type and teacher, or neither, and teacher_ckpt only with them",
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
        lambda r: r.cutmix_minmax is not None
        and any(int(side * r.cutmix_minmax[0]) == int(side * r.cutmix_minmax[1]) for side in r.input_size),
        "cutmix_minmax leaves no side of a box between its two shares of the image: widen it",
    ),
    (
        lambda r: r.library == "mindcv" and r.cycle_mul != 1,
        "cycle_mul is timm's: set library to timm, or leave it out",
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

# Keys that change nothing: which, when, and why. A run says those that its recipe set.
_WITHOUT_EFFECT: Sequence[tuple[Sequence[str], Callable[[Recipe], bool], str]] = (
    (["eval_shuffle"], lambda _: True, "every image counts once in any order"),
    (["aux_factor"], lambda _: True, "XCiT has no auxiliary classifier"),
    (["color_jitter"], lambda r: not r.jitters, "not applied beside auto_augment, as in timm and MindCV"),
    (["re_scale", "re_ratio", "re_value", "re_count", "re_max_attempts"], lambda r: not r.re_prob, "re_prob is 0"),
    (["cutmix_prob", "mixup_mode", "mixup_off_epoch"], lambda r: not r.mixes, "mixup and cutmix are off"),
    (["switch_prob"], lambda r: not (r.mixup and (r.cutmix or r.cutmix_minmax)), "mixup and cutmix are not both on"),
    (["cutmix"], lambda r: r.cutmix_minmax is not None, "cutmix_minmax takes 1 for alpha, as timm does"),
    (["ema_decay", "ema_warmup", "ema_form"], lambda r: not r.ema, "ema is off"),
    (["ema_warmup"], lambda r: r.ema_form != "mindcv", "of ema_form mindcv"),
    (["lr_base_size", "lr_base_scale"], lambda r: r.lr_base is None, "lr_base is not given"),
    (["clip_value"], lambda r: not r.clip_grad, "clip_grad is off"),
    (["keep_checkpoint_max"], lambda r: r.ckpt_save_policy is None, "ckpt_save_policy null keeps all"),
    (["val_interval"], lambda r: not r.val_while_train, "val_while_train is off"),
    (["momentum"], lambda r: "momentum" not in r.takes.keys, "opt takes betas, or none"),
    (["use_nesterov"], lambda r: "use_nesterov" not in r.takes.keys, "opt does not ask for it"),
    (["alpha"], lambda r: "alpha" not in r.takes.keys, "of rmsprop"),
    (["betas"], lambda r: not r.takes.betas, "opt takes none"),
    (["eps"], lambda r: not r.takes.eps, "opt takes none"),
    (["weight_decay"], lambda r: r.undecayed, "MindCV's adan decays with weight_decay_filter auto alone"),
    (["reduction"], lambda r: r.loss.startswith("ASL"), "MindCV's asymmetric losses have their own"),
    (["label_smoothing"], lambda r: r.loss == "ASL_MULTI_LABEL", "not of asl_multi_label, as in MindCV"),
    (["loss_scale"], lambda r: r.loss_scale_type == "auto", "loss_scale_type auto takes MindSpore's"),
    (["min_lr"], lambda r: not r.ends_at_min_lr, "only the cosines, one_cycle, cyclic and timm's polynomial use it"),
    (["decay_epochs"], lambda r: not (r.repeats_cycles or r.scheduler == "step_decay"), "of cosine and step_decay"),
    (["decay_rate"], lambda r: r.scheduler not in _STEPWISE, "of the schedules that decay by a rate"),
    (["multi_step_decay_milestones"], lambda r: r.scheduler != "multi_step_decay", "of multi_step_decay"),
    (["num_cycles"], lambda r: not (r.repeats_cycles or r.scheduler == "cyclic"), "of cosine_decay and cyclic"),
    (["cycle_decay", "cycle_mul"], lambda r: not r.repeats_cycles or r.num_cycles == 1, "of several cosines"),
    (["warmup_factor", "warmup_prefix"], lambda r: not r.warmup_epochs, "warmup_epochs is 0"),
    (["amp_dtype"], lambda r: r.amp_level == r.val_amp_level == "O0", "amp_level and val_amp_level are O0"),
    (["pretrained"], lambda r: bool(r.ckpt_path), "the weights are those of ckpt_path"),
    (["sync_bn"], lambda r: r.freeze_bn, "freeze_bn keeps the statistics as they are"),
    (["real_labels"], lambda _: True, "of an evaluation (xcit-hub eval) alone"),
    (["tta"], lambda r: not r.val_while_train, "val_while_train is off"),
    (["teacher_image_size"], lambda r: r.distillation_type == "none", "distillation_type is none"),
    (["jit_level"], lambda r: r.mode == 1, "PyNative mode compiles nothing"),
    (["distillation_alpha"], lambda r: r.distillation_type == "none", "distillation_type is none"),
    (["distillation_tau"], lambda r: r.distillation_type != "soft", "of soft distillation"),
)  # fmt: skip


def kind_of(key: str) -> Literal["switch", "text", "number", "switch or text", "other"]:
    """Say what a key takes: a truth value, words, either of the two, a number or numbers, or something of its own."""
    annotation = _annotation(key)
    kinds = {_kind(part) for part in _parts(annotation)} - {"nothing"}
    if kinds == {"switch", "text"}:
        return "switch or text"
    found = kinds.pop() if len(kinds) == 1 else "other"
    return found if found in ("switch", "text", "number") else "other"  # type: ignore[return-value]


def words_of(key: str) -> list[str]:
    """Return the words that a key takes, where it takes certain ones only."""
    return [word for word in _literals(_annotation(key)) if isinstance(word, str)]


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for entry in get_args(annotation) for word in _literals(entry)]


def _annotation(key: str) -> Any:
    return Recipe.model_fields[key].annotation


def _parts(annotation: Any) -> list[Any]:
    """Flatten unions and tuples into the types that stand in them."""
    origin = get_origin(annotation)
    if origin is Literal:
        return [type(value) for value in get_args(annotation)]
    if origin is None:
        return [annotation]
    return [part for entry in get_args(annotation) if entry is not ... for part in _parts(entry)]


def _kind(part: Any) -> str:
    if part is bool:
        return "switch"
    if part in (int, float):
        return "number"
    return "text" if part is str else "nothing"


def _switch(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _SWITCHES:
        return _SWITCHES[value.lower()]
    raise ValueError("must be true or false")


def _checked_text(value: Any) -> Any:
    """Let a text through that can be a name in a file, a path and a line of a log."""
    for entry in value if isinstance(value, list | tuple) else (value,):
        if isinstance(entry, str):
            if len(entry) > _LONGEST_TEXT:
                raise ValueError(f"must not be longer than {_LONGEST_TEXT} characters")
            if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in entry):
                raise ValueError("must be plain text in UTF-8")
    return value


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
