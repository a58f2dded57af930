"""The keys of a recipe: each with its type, default and meaning, and what one alone may be.

Every key of the recipes that MindCV's ``config.py`` reads (both its 2022 and its 2024 form) keeps its name and its
meaning.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from xcit_hub.data.mixing import MixingMode
from xcit_hub.training import key_types
from xcit_hub.training.hyperparameters import Library, LossKind
from xcit_hub.training.key_types import NUMBER, SWITCHES, checked_text, switched
from xcit_hub.variants import DialectName

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
    "tanh_decay",
]

_IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
_MANY_EPOCHS = 100_000


class RecipeKeys(BaseModel):
    """The keys of a recipe. Keys and meanings are MindCV's, those below ``# xcit-hub`` are ours."""

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
    batch_size: int = Field(128, ge=1, le=1 << 20, description="images a step on each worker")
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
    resplit: bool = Field(False, description="random erasing leaves the first of aug_splits' views whole")
    re_max_attempts: int = Field(10, ge=1, le=1000, description="random erasing: draws before an image is left whole")
    mean: tuple[float, ...] = Field(_IMAGENET_MEAN, description="a number of each channel, in 0…255")
    std: tuple[float, ...] = Field(_IMAGENET_STD, description="a number of each channel, in 0…255")
    crop_pct: float = Field(0.875, ge=0.05, le=4, description="share of the resized image that evaluation sees")
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
    min_lr: float = Field(
        1e-6, ge=0, description="where the cosine, one_cycle, cyclic, tanh_decay and timm's polynomial end"
    )
    warmup_epochs: int = Field(3, ge=0, le=_MANY_EPOCHS, description="epochs from warmup_factor · lr to lr")
    warmup_factor: float = Field(0.0, ge=0, le=1, description="warm-up starts at this share of lr")
    decay_epochs: int | float = Field(
        100, gt=0, le=_MANY_EPOCHS, description="epochs from lr to min_lr, or of one step; whole but for timm's step"
    )
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
        "mindcv",
        description="whose optimizers, schedules and augmentation are meant, where MindCV and timm differ, and whose "
        "names are read; facebook: those of XCiT's main.py, with its defaults",
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
    warmup_lr: float | None = Field(None, ge=0, description="warm-up starts at this rate, instead of warmup_factor")
    lr_noise: tuple[float, ...] | None = Field(None, description="timm's: share of the schedule with noise: from, to")
    lr_noise_pct: float = Field(0.67, gt=0, le=1, description="noise changes a rate by less than this share")
    lr_noise_std: float = Field(1.0, ge=0, le=100, description="standard deviation of that share")
    k_decay: float = Field(1.0, gt=0, le=10, description="timm's: power of the share of a cosine or polynomial passed")
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
            return switched(value)
        if kind == "switch or text":
            if value == "" or not isinstance(value, bool | str):
                raise ValueError("must be true, false or a name")
            return SWITCHES.get(value.lower(), checked_text(value)) if isinstance(value, str) else value
        if kind == "text":
            several = cls.model_fields[info.field_name or ""].annotation == tuple[str, ...]
            return checked_text([value] if several and isinstance(value, str) else value)
        for entry in value if isinstance(value, list | tuple) else (value,):
            if isinstance(entry, bool):
                raise ValueError("must not be a truth value")
            if isinstance(entry, str):
                checked_text(entry)
                if kind == "number" and not NUMBER.fullmatch(entry):
                    raise ValueError("must be a number of at most 18 digits")
        return value

    @field_validator("image_resize")
    @classmethod
    def _sides(cls, value: int | tuple[int, int]) -> int | tuple[int, int]:
        if not all(8 <= side <= 4096 for side in (value if isinstance(value, tuple) else (value,))):
            raise ValueError("must be a side of 8 to 4096 pixels, or a height and a width of these")
        return value

    @field_validator("dataset", "opt", "interpolation", "loss_scale_type", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value  # MindCV takes them in any case

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

    @field_validator("lr_noise")
    @classmethod
    def _from_to(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and not (len(value) in (1, 2) and 0 <= value[0] <= value[-1]):
            raise ValueError("must be one or two shares of the schedule, the smaller first")
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

    @field_validator("mean", "std", mode="after")
    @classmethod
    def _levels(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        least = 0.0 if info.field_name == "mean" else 1e-3
        if not all(least <= level <= 255 for level in value):
            raise ValueError(f"must lie in {least:g}…255")
        return value

    @field_validator("re_value", mode="after")
    @classmethod
    def _of_normalised(cls, value: Any) -> Any:
        if any(abs(one) > 1e4 for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, float)):
            raise ValueError("must lie in -10,000…10,000")
        return value

    @field_validator("ckpt_save_dir", "data_dir")
    @classmethod
    def _folder(cls, value: str) -> str:
        if not value:
            raise ValueError("must name a folder; ./ is this one")
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


KEYS = frozenset(RecipeKeys.model_fields)


def kind_of(key: str) -> key_types.Kind:
    """Say what a key takes: a truth value, words, either of the two, a number or numbers, or something of its own."""
    return key_types.kind(_annotation(key))


def words_of(key: str) -> list[str]:
    """Return the words that a key takes, where it takes certain ones only."""
    return [word for word in key_types.literals(_annotation(key)) if isinstance(word, str)]


def takes_list(key: str) -> Literal["any", "fixed", ""]:
    """Say whether a key takes a list: of any length, of certain lengths, or none."""
    return key_types.lists(_annotation(key))


def may_be_null(key: str) -> bool:
    """Tell whether a key takes null."""
    return type(None) in get_args(_annotation(key))


def _annotation(key: str) -> Any:
    return RecipeKeys.model_fields[key].annotation
