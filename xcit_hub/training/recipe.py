"""The recipe of a training run: one strict model of MindCV's recipe keys, and how YAML and flags become one.

Every key of the recipes that MindCV's ``config.py`` reads (both its 2022 and its 2024 form) keeps its name and its
meaning. A key with a value this library cannot honour is refused by name; a key that nobody knows is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from xcit_hub.errors import InputError, closest
from xcit_hub.variants import DialectName, Preprocessing, architecture

AmpLevel = Literal["O0", "O1", "O2", "O3"]
DecayFilter = Literal["disable", "norm_and_bias", "paper", "timm"]

_IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
_LARGEST_FILE = 1 << 20  # a recipe is a page of text

# Keys of MindCV's recipes that name machinery this library does not have: the only value each may take, and why.
_ONLY_VALUE: dict[str, tuple[Any, str]] = {
    "opt": ("adamw", "XCiT is trained with AdamW"),
    "momentum": (0.9, "AdamW has betas (0.9, 0.999) and no momentum"),
    "use_nesterov": (False, "AdamW has no Nesterov form"),
    "num_cycles": (1, "the cosine runs once"),
    "cycle_decay": (1.0, "the cosine runs once"),
    "aux_factor": (0.0, "XCiT has no auxiliary classifier"),
    "reduction": ("mean", "the loss is the mean over the batch"),
    "aug_splits": (0, "augmentation splits belong to AugMix, which is not implemented"),
    "dataset_download": (False, "data sets are not downloaded; point data_dir at one"),
    "amp_cast_list": (None, "each amp_level's own lists are used"),
    "enable_modelarts": (False, "the ModelArts copying step is not part of this library"),
}


class Recipe(BaseModel):
    """Everything that decides a training run. Keys and meanings are MindCV's, those below ``# xcit-hub`` are ours."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    # System
    mode: Literal[0, 1] = Field(0, description="0: graph mode, 1: PyNative")
    distribute: bool = Field(False, description="train on all workers that msrun or mpirun started")
    val_while_train: bool = Field(False, description="evaluate on val_split while training")
    val_interval: int = Field(1, ge=1, description="epochs between evaluations")
    log_interval: int = Field(100, ge=1, description="steps between lines of the log")
    pretrained: bool = Field(False, description="start from the published weights called `model`")
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
    num_samples: int | None = Field(None, ge=1, description="use only the first n training images")
    batch_size: int = Field(128, ge=1, description="images a step on each worker")
    drop_remainder: bool = Field(True, description="leave out an epoch's last, smaller batch")
    aug_repeats: int = Field(0, ge=0, description="views of an image in an epoch (repeated augmentation); 0, 1: off")

    # Augmentation
    image_resize: int = Field(224, ge=8, description="side of the square input in pixels")
    scale: tuple[float, float] = Field((0.08, 1.0), description="RandomResizedCrop: share of the area")
    ratio: tuple[float, float] = Field((0.75, 1.333), description="RandomResizedCrop: aspect ratio")
    hflip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    vflip: float = Field(0.0, ge=0, le=1, description="probability of a vertical flip")
    color_jitter: float | None = Field(
        0.4, ge=0, description="brightness, contrast, saturation; unused with auto_augment"
    )
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos"] = "bilinear"
    auto_augment: str | None = Field(None, description="RandAugment, e.g. randaug-m9-mstd0.5-inc1")
    aug_splits: int = 0
    re_prob: float = Field(0.0, ge=0, le=1, description="probability of random erasing")
    re_scale: tuple[float, float] = (0.02, 0.33)
    re_ratio: tuple[float, float] = (0.3, 3.3)
    re_value: Literal[0, "random"] = Field(0, description="0: the mean colour, random: noise for each pixel")
    re_max_attempts: int = Field(10, ge=1)
    mean: tuple[float, ...] = Field(_IMAGENET_MEAN, description="of each channel, in 0…255")
    std: tuple[float, ...] = Field(_IMAGENET_STD, description="of each channel, in 0…255")
    crop_pct: float = Field(0.875, gt=0, le=1, description="share of the resized image that evaluation sees")
    mixup: float = Field(0.0, ge=0, description="alpha of mixup; 0: off")
    cutmix: float = Field(0.0, ge=0, description="alpha of CutMix; 0: off")
    cutmix_prob: float = Field(1.0, ge=0, le=1, description="probability that a batch is mixed at all")

    # Model
    model: str = Field(..., description="architecture, by timm's name")
    num_classes: int | None = Field(None, ge=1, description="left out: as many as the data set has")
    in_channels: Literal[3] = 3
    drop_rate: float | None = Field(None, ge=0, lt=1)
    drop_path_rate: float | None = Field(None, ge=0, lt=1, description="stochastic depth")
    amp_level: AmpLevel = Field(
        "O0", description="in float16: nothing, dense and conv, all but norms, all but LayerNorm"
    )
    val_amp_level: AmpLevel = Field("O0", description="the same, for evaluation")
    amp_cast_list: str | None = None
    keep_checkpoint_max: int = Field(10, ge=1, description="checkpoints to keep")
    ckpt_save_dir: str = Field("./ckpt", description="where checkpoints and records go")
    ckpt_save_interval: int = Field(1, ge=1, description="epochs between checkpoints")
    ckpt_save_policy: Literal["top_k", "latest_k"] | None = "latest_k"
    epoch_size: int = Field(90, ge=1, description="epochs")
    dataset_sink_mode: bool = Field(True, description="feed through the device's own queue; the CPU has none")
    ema: bool = Field(False, description="keep an exponential moving average of the weights, and evaluate it")
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    clip_grad: bool = False
    clip_value: float = Field(15.0, gt=0, description="largest global L2 norm of the gradients")
    layer_decay: float | None = Field(None, gt=0, le=1, description="learning rate shrinks so each layer down")
    gradient_accumulation_steps: int = Field(1, ge=1, description="batches summed before an update")

    # Optimizer
    opt: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = Field(1e-6, ge=0)
    use_nesterov: bool = False
    filter_bias_and_bn: bool | None = Field(None, description="2022's name: true is norm_and_bias")
    weight_decay_filter: DecayFilter | None = Field(
        None, description="without decay: nothing; norms and biases; facebook's list; timm's"
    )
    eps: float = Field(1e-10, gt=0)
    loss_scale: float = Field(1.0, gt=0)
    loss_scale_type: Literal["fixed", "dynamic"] = "fixed"
    dynamic_loss_scale: bool | None = Field(None, description="2022's name: true is loss_scale_type dynamic")
    drop_overflow_update: bool = Field(True, description="skip an update whose gradients are not finite")

    # Schedule
    scheduler: Literal["cosine_decay", "constant"] = "cosine_decay"
    lr: float = Field(0.001, gt=0, description="highest learning rate, for the whole batch, not scaled")
    min_lr: float = Field(1e-6, ge=0)
    warmup_epochs: int = Field(3, ge=0)
    warmup_factor: float = Field(0.0, ge=0, le=1, description="warm-up starts at this share of lr")
    decay_epochs: int = Field(100, ge=1, description="epochs from lr to min_lr")
    decay_rate: float = Field(0.9, description="no effect on the cosine; step schedules are refused")
    multi_step_decay_milestones: tuple[int, ...] = Field((30, 60, 90), description="no effect on the cosine")
    lr_epoch_stair: bool = Field(False, description="change the learning rate at epochs only")
    num_cycles: int = 1
    cycle_decay: float = 1.0

    # Loss
    loss: Literal["CE", "BCE"] = "CE"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    aux_factor: float = 0.0
    reduction: str = "mean"
    eval_shuffle: bool = Field(False, description="no effect: every image counts once in any order")

    # ModelArts
    enable_modelarts: bool = False

    # xcit-hub
    dialect: DialectName = Field("paper", description="what the network computes: paper, or mindcv")
    switch_prob: float = Field(0.5, ge=0, le=1, description="with mixup and CutMix on: share of CutMix batches")
    warmup_prefix: bool = Field(True, description="decay_epochs begin after the warm-up; false: they contain it")
    no_weight_decay: tuple[str, ...] = Field((), description="further parameters without decay, by part of name")
    freeze_bn: bool = Field(False, description="BatchNorm keeps the statistics it was given")
    recompute: bool = Field(False, description="recompute activations backward: less memory, more time")
    jit_level: Literal["O0", "O1", "O2", ""] = Field("", description="graph compilation level; empty: MindSpore's")
    max_corrupt: int = Field(10, ge=0, description="unreadable images to skip before giving up")
    teacher: str = Field("", description="architecture of the distillation teacher")
    teacher_ckpt: str = Field("", description="its checkpoint")
    distillation_type: Literal["none", "soft", "hard"] = "none"
    distillation_alpha: float = Field(0.5, ge=0, le=1, description="weight of the teacher's loss")
    distillation_tau: float = Field(1.0, gt=0, description="temperature of soft distillation")

    @field_validator("scale", "ratio", "re_scale", "re_ratio")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("must be two positive numbers, the smaller first")
        return value

    @field_validator("drop_rate", "drop_path_rate", mode="after")
    @classmethod
    def _none_is_zero(cls, value: float | None) -> float:
        return value or 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for key, (only, reason) in _ONLY_VALUE.items():
            if getattr(self, key) != only:
                raise ValueError(f"{key} can only be {only!r}: {reason}")
        architecture(self.model)
        if len(self.mean) != self.in_channels or len(self.std) != self.in_channels:
            raise ValueError(f"mean and std need {self.in_channels} numbers")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        if self.ckpt_save_policy == "top_k" and not self.val_while_train:
            raise ValueError("ckpt_save_policy top_k needs val_while_train")
        if (self.distillation_type != "none") != bool(self.teacher and self.teacher_ckpt):
            raise ValueError("distillation needs all of distillation_type, teacher and teacher_ckpt, or none")
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ValueError("mixup and CutMix pair the images of a batch: batch_size must be even")
        old, new = self.filter_bias_and_bn, self.weight_decay_filter
        if old is not None and new is not None:
            raise ValueError("filter_bias_and_bn and weight_decay_filter say the same: give one of them")
        return self

    @property
    def decay_filter(self) -> DecayFilter:
        """Which parameters weight decay leaves out, by either of MindCV's two keys; its default is its 2022 form's."""
        if self.weight_decay_filter is not None:
            return self.weight_decay_filter
        return "disable" if self.filter_bias_and_bn is False else "norm_and_bias"

    @property
    def dynamic_scaling(self) -> bool:
        """Whether the loss scale adapts, by either of MindCV's two keys."""
        return self.loss_scale_type == "dynamic" or bool(self.dynamic_loss_scale)

    @property
    def preprocessing(self) -> Preprocessing:
        """How evaluation sees an image, in the variant table's terms (means and deviations in 0…1)."""
        red, green, blue = (value / 255 for value in self.mean)
        red_std, green_std, blue_std = (value / 255 for value in self.std)
        return Preprocessing(
            image_size=self.image_resize,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,
            mean=(red, green, blue),
            std=(red_std, green_std, blue_std),
        )


def load_recipe(path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a YAML recipe and lay ``overrides`` (typed values or a command line's words) over it.

    Args:
        path: the YAML file, the name of a recipe that ships with the library (``cpu_smoke``), or None for the
            defaults alone.
        overrides: key → value, as from ``--epoch_size 2``.

    Raises:
        InputError: the file is no recipe, or a key or value is unknown; the message names the nearest key.
    """
    settings = {} if path is None else _read_yaml(_find(Path(path)))
    settings.update(overrides or {})
    return _build(settings, where=path)


def parse_flags(words: Sequence[str]) -> dict[str, Any]:
    """Turn ``["--epoch_size", "2", "--distribute", "--lr=1e-3"]`` into recipe settings.

    A flag without a value means true, as in MindCV. Values are read as YAML, so lists and numbers work. Dashes in a
    key mean underscores.

    Raises:
        InputError: a word is no flag, or a flag is no key of a recipe.
    """
    settings: dict[str, Any] = {}
    position = 0
    while position < len(words):
        word = words[position]
        if not word.startswith("--"):
            raise InputError(f"{word!r} is not a flag.", fix="Write recipe keys as --key value.")
        key, equals, text = word[2:].partition("=")
        key = key.replace("-", "_")
        _check_known([key], where="the command line")
        position += 1
        if not equals:
            if position < len(words) and not words[position].startswith("--"):
                text = words[position]
                position += 1
            else:
                text = "true"
        settings[key] = _scalar(text)
    return settings


def _scalar(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        # YAML 1.1 reads 1e-3 as a word.
        try:
            return float(value)
        except ValueError:
            return text
    return text if value is None and text else value


def _find(path: Path) -> Path:
    # Installed, the recipes lie inside the package; in a checkout beside it.
    for folder in (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs"):
        shipped = folder / "xcit" / f"{path.name.removesuffix('.yaml')}.yaml"
        if not path.is_file() and shipped.is_file():
            return shipped
    return path


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError("The recipe is larger than a megabyte; this is not one.", where=path)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"Cannot read the recipe: {error.strerror}.",
            where=path,
            fix="See configs/xcit/ for the recipes there are.",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"The recipe is not YAML: {error}", where=path) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError("The recipe is not a list of `key: value` lines.", where=path)
    return {key: float(value) if _is_bare_exponent(value) else value for key, value in content.items()}


def _is_bare_exponent(value: Any) -> bool:
    # YAML 1.1 takes `1e-5` for a word where people mean a number.
    if not isinstance(value, str) or "e" not in value.lower():
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def _check_known(keys: Iterable[str], where: object) -> None:
    for key in keys:
        if key not in Recipe.model_fields:
            raise InputError(
                f"A recipe has no key {key!r}.",
                where=where,
                fix=closest(key, Recipe.model_fields) or "`xcit-hub train --help` lists all keys.",
            )


def _build(settings: Mapping[str, Any], where: object) -> Recipe:
    _check_known(settings, where)
    try:
        return Recipe(**settings)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"])
            message = fault["msg"].removeprefix("Value error, ")
            faults.append(f"{key}: {message}, not {fault['input']!r}" if key else message)
        raise InputError(f"The recipe does not hold: {'; '.join(faults)}.", where=where) from error
