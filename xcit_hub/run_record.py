"""What a run of training or evaluation measured, as its ``run.json`` holds it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cards.inputs import read_json


class Versions(BaseModel):
    """What the run ran on; Ascend's driver, firmware and CANN only where there is an Ascend."""

    model_config = ConfigDict(extra="allow")

    mindspore: str | None = None
    numpy: str | None = None
    xcit_hub: str | None = None
    driver: str | None = None
    firmware: str | None = None
    cann: str | None = None


class RunRecord(BaseModel):
    """Figures of one run. A field that was not measured is None, never a guess.

    Args:
        recipe: the configuration file the run was started with.
        device: ``CPU``, ``GPU`` or ``Ascend``, or the machine's own name.
        cards: devices that worked together.
        batch_size: images a step on each device.
        image_size: (height, width) in pixels.
        graph_compile_seconds: time until the first step's graph was ready.
        ms_per_step: steady-state time of one step in milliseconds, the first step left out.
        params: trainable numbers.
        top1, top5: per cent of ``eval_samples`` images.
        checkpoint_sha256: 64 hex digits of the evaluated file.
    """

    model_config = ConfigDict(extra="allow")

    recipe: str | None = None
    versions: Versions = Versions()
    device: str | None = None
    cards: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    image_size: tuple[int, int] | None = None
    jit_level: str | None = None
    graph_compile_seconds: float | None = Field(None, ge=0)
    ms_per_step: float | None = Field(None, ge=0)
    images_per_second: float | None = Field(None, ge=0)
    params: int | None = Field(None, ge=0)
    top1: float | None = Field(None, ge=0, le=100)
    top5: float | None = Field(None, ge=0, le=100)
    eval_samples: int | None = Field(None, ge=0)
    checkpoint_sha256: str | None = None
    seed: int | None = None
    dataset: str | None = None
    epochs: int | None = Field(None, ge=0)

    @classmethod
    def read(cls, path: str | Path) -> RunRecord:
        """Read a ``run.json``.

        Raises:
            InputError: the file is missing, is not JSON, or holds figures that cannot be.
        """
        return read_json(path, cls)
