"""What a run of training or evaluation measured, as its ``run.json`` holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from xcit_hub import strict_json
from xcit_hub.errors import InputError
from xcit_hub.files import read_bounded

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT = 2  # 1: xcit-hub 0.1.0, whose files do not say it
FEWEST_FOR_TOP5 = 6  # classes: of fewer every answer, or nearly so, is among the five best
_LARGEST_FILE = 8 << 20
_GIVE = "Give the run.json that training or evaluation wrote."
_Positive = Annotated[int, Field(ge=1)]


class Versions(BaseModel):
    """What the run ran on; Ascend's driver, firmware and CANN only where there is an Ascend."""

    model_config = ConfigDict(extra="allow")

    mindspore: str | None = None
    numpy: str | None = None
    xcit_hub: str | None = None
    python: str | None = None
    driver: str | None = None
    firmware: str | None = None
    cann: str | None = None


class SeenImages(BaseModel):
    """How evaluation prepared an image, in timm's words (``pretrained_cfg``).

    Args:
        input_size: (channels, height, width) in pixels.
        mean, std: of each channel, in 0…1.
        crop_pct: share of the resized image that is kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    input_size: tuple[_Positive, _Positive, _Positive]
    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[float, ...] = Field(min_length=1)
    interpolation: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
    crop_pct: float = Field(gt=0)
    crop_mode: Literal["center", "squash", "border"] = "center"


class Epoch(BaseModel):
    """One point of a training's curve.

    Args:
        epoch: counted from 1.
        loss: mean training loss.
        top1, eval_loss: of the validation images; ``average_…``: of the weights' moving average on them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epoch: int = Field(ge=1)
    loss: float | None = None
    top1: float | None = Field(default=None, ge=0, le=100)
    eval_loss: float | None = Field(default=None, ge=0)
    average_top1: float | None = Field(default=None, ge=0, le=100)
    average_eval_loss: float | None = Field(default=None, ge=0)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Epoch:
        """Take a point from all that was recorded of an epoch.

        Raises:
            ValidationError: a figure cannot be.
        """
        return cls.model_validate({name: record[name] for name in cls.model_fields if name in record})


class Sample(BaseModel):
    """One evaluated image.

    Args:
        label, answer: its class, and what the network answered first.
        thumbnail: a JPEG of it, in base64.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    answer: str
    thumbnail: str = Field(max_length=32_768, pattern=r"^/9j/[A-Za-z0-9+/]+=*$")


class RunRecord(BaseModel):
    """Figures of one run. A field that was not measured is None, never a guess.

    Args:
        format: version of this description.
        recipe: the configuration file the run was started with.
        flags: keys of it that the command line changed, and to what.
        configuration: every key of the recipe with the value that was used.
        started_from: the checkpoint or model id whose weights the run began with.
        device: ``CPU``, ``GPU`` or ``Ascend``, or the machine's own name.
        cards: devices that worked together.
        batch_size: images a step on each device.
        image_size: (height, width) in pixels.
        mode: ``graph`` or ``pynative``.
        graph_compile_seconds: time until the first step's graph was ready.
        ms_per_step: steady-state time of one step in milliseconds, the first steps left out.
        params: trainable parameters.
        num_classes: outputs of the network.
        classes: what its outputs are called, in their order.
        train_split, eval_split: which parts of the data were trained on and evaluated, by a recipe's names of them.
        train_samples: images that were trained on.
        final_loss: mean training loss of the last epoch.
        top1, top5, eval_loss: per cent of ``eval_samples`` images, and their mean cross-entropy.
        preprocessing: how evaluation prepared each image.
        tta: views of each image whose logits evaluation averaged: mirrored, five crops, both; 0 is the centre alone.
        val_amp_level: precision level of evaluation; ``amp_dtype``: the type of less than float32, where there is one.
        class_map: file name of the list that says which output is whose.
        real_labels: file name of ImageNet's reassessed labels; ``real_top1``, ``real_top5``: per cent by them.
        weights: which of a run's weights ``checkpoint`` holds: those that were trained, or their moving average.
        checkpoint: file name of the evaluated weights; ``checkpoint_sha256``: 64 hex digits of that file.
        curve: what was measured after each epoch.
        confusion: of an evaluation of at most 100 classes: rows are the truth, columns what was answered first.
        samples: a few evaluated images. They stay in ``run.json``: no card and no hub gets them.
        skipped_updates: updates left out because gradients were not finite.
        unreadable: images that could not be read.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: int = Field(default=FORMAT, ge=1, le=FORMAT)
    recipe: str | None = None
    flags: dict[str, Any] = {}
    configuration: dict[str, Any] | None = None
    started_from: str | None = None
    versions: Versions = Versions()
    device: str | None = None
    cards: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    image_size: tuple[int, int] | None = None
    mode: str | None = None
    jit_level: str | None = None
    graph_compile_seconds: float | None = Field(default=None, ge=0)
    ms_per_step: float | None = Field(default=None, ge=0)
    images_per_second: float | None = Field(default=None, ge=0)
    params: int | None = Field(default=None, ge=0)
    model: str | None = None
    dialect: str | None = None
    num_classes: int | None = Field(default=None, ge=1)
    classes: list[str] | None = None
    dataset: str | None = None
    train_split: str | None = None
    eval_split: str | None = None
    train_samples: int | None = Field(default=None, ge=0)
    seed: int | None = None
    epochs: int | None = Field(default=None, ge=0)
    final_loss: float | None = None
    top1: float | None = Field(default=None, ge=0, le=100)
    top5: float | None = Field(default=None, ge=0, le=100)
    eval_loss: float | None = Field(default=None, ge=0)
    eval_samples: int | None = Field(default=None, ge=0)
    eval_seconds: float | None = Field(default=None, ge=0)
    preprocessing: SeenImages | None = None
    tta: Literal[0, 2, 5, 10] | None = None
    val_amp_level: Literal["O0", "O1", "O2", "O3"] | None = None
    amp_dtype: Literal["float16", "bfloat16"] | None = None
    class_map: str | None = None
    real_labels: str | None = None
    real_top1: float | None = Field(default=None, ge=0, le=100)
    real_top5: float | None = Field(default=None, ge=0, le=100)
    weights: Literal["trained", "average"] | None = None
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    curve: list[Epoch] = Field(default=[], max_length=100_000)
    confusion: list[list[Annotated[int, Field(ge=0)]]] | None = Field(default=None, max_length=100)
    samples: list[Sample] = Field(default=[], max_length=8)
    skipped_updates: int | None = Field(default=None, ge=0)
    unreadable: list[str] = []

    @model_validator(mode="after")
    def _square(self) -> Self:
        size = len(self.confusion or [])
        if any(len(row) != size for row in self.confusion or []):
            raise ValueError("the confusion matrix is not square")
        return self

    @classmethod
    def read(cls, path: str | Path) -> RunRecord:
        """Read a ``run.json``; those of xcit-hub 0.1.0 are of format 1 and read alike.

        Raises:
            InputError: the file is missing, larger than 8 MiB, not JSON, of a later format, or a field of it is
                unknown or cannot be; all such fields are named.
        """
        try:
            values = strict_json.parsed(read_bounded(path, _LARGEST_FILE).decode("utf-8-sig"))
        except InputError:
            raise
        except (ValueError, RecursionError) as error:
            raise InputError(f"The run record is not JSON: {error}.", where=path, fix=_GIVE) from error
        if not isinstance(values, dict):
            raise InputError("The run record is not a JSON object.", where=path, fix=_GIVE)
        try:
            # Strictly: a truth value is not a number, and neither is a text.
            return cls.model_validate_json(json.dumps({"format": 1, **values}), strict=True)
        except ValidationError as error:
            if not values.keys() & cls.model_fields.keys() - {"format"}:
                raise InputError(
                    f"This is not a run record: of its fields it has none, but {', '.join(values)[:200]}.",
                    where=path,
                    fix=_GIVE,
                ) from error
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise InputError(
                f"The run record does not hold: {faults}.",
                where=path,
                fix="Give the run.json as xcit-hub wrote it; a later format needs a later xcit-hub.",
            ) from error
