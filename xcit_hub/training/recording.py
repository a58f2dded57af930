"""What a training leaves for cards and publication: its ``run.json``."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindspore
import numpy as np

from xcit_hub import variants
from xcit_hub._version import __version__
from xcit_hub.data.batches import Worker
from xcit_hub.models.functions import device_target
from xcit_hub.parameters import parameter_count
from xcit_hub.run_record import Epoch, RunRecord, Versions
from xcit_hub.training import device
from xcit_hub.training.keeping import output_names
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.resume import Progress, checkpoint_name

RUN = "run.json"


def versions() -> Versions:
    """Return what this process runs on."""
    return Versions(
        mindspore=mindspore.__version__,
        numpy=np.__version__,
        xcit_hub=__version__,
        python=platform.python_version(),
    )


_OF_SPEED = ("num_parallel_workers", "dataset_sink_mode", "recompute")


def timed_on(recipe: Recipe) -> dict[str, str]:
    """Return what the time of a step depends on, of what a continued run may change."""
    keys = {key: str(getattr(recipe, key)) for key in _OF_SPEED}
    compiled = device.compile_level(recipe)
    told = versions().model_dump(mode="json", exclude_none=True)
    return {**told, "device": device_target(), "jit_level": compiled, **keys}


def split_of(recipe: Recipe, *, train: bool) -> str:
    """Return what to call the images that are trained on, or evaluated: CIFAR's files have names of their own."""
    if recipe.dataset.startswith("cifar"):
        return "train" if train else "test"
    return recipe.train_split if train else recipe.val_split


def conditions(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a record that say what decides an evaluation's figures, beside how images are prepared."""
    return {
        "eval_split": split_of(recipe, train=False),
        "tta": recipe.tta,
        "val_amp_level": recipe.val_amp_level,
        "amp_dtype": None if recipe.val_amp_level == "O0" else recipe.amp_dtype,
        "class_map": Path(recipe.class_map).name or None,
    }


def is_of(record: RunRecord, recipe: Recipe, progress: Progress) -> bool:
    """Return whether a record is what :func:`record_of` said of this run at its end, or of another."""
    digest = progress.last_sha256 if progress.best is None else progress.best.sha256
    told = (record.model, record.epochs, record.checkpoint_sha256)
    return told == (recipe.model, progress.epochs_done, digest)


def record_of(
    recipe: Recipe,
    progress: Progress,
    worker: Worker,
    configuration: Mapping[str, Any],
    *,
    recipe_name: str | None,
    flags: Mapping[str, Any],
    images: int,
    outputs: int,
) -> RunRecord:
    """Return what a run measured; steady-state figures leave the first steps out.

    Args:
        configuration: every key of the recipe with the value that was used.
        recipe_name, flags: the file it was read from, and the keys that the command line changed.
        images: how many were trained on.
        outputs: of the network.
    """
    best = progress.best
    per_step = progress.timed_seconds / progress.timed_steps if progress.timed_steps else None
    last = progress.history[-1] if progress.history else {}
    graph = recipe.mode == mindspore.GRAPH_MODE
    name = checkpoint_name(recipe.model, progress.epochs_done, progress.steps) if best is None else best.name
    return RunRecord(
        recipe=recipe_name,
        flags=dict(flags),
        configuration=dict(configuration),
        started_from=progress.started_from,
        versions=versions(),
        device=device_target(),
        cards=worker.count,
        batch_size=recipe.batch_size,
        image_size=recipe.input_size,
        mode="graph" if graph else "pynative",
        jit_level=device.compile_level(recipe) or None,
        graph_compile_seconds=progress.first_step if graph else None,
        ms_per_step=None if per_step is None else round(1000 * per_step, 3),
        images_per_second=None if per_step is None else round(recipe.batch_size * worker.count / per_step, 3),
        params=parameter_count(variants.architecture(recipe.model), num_classes=outputs, in_chans=recipe.in_channels),
        model=recipe.model,
        dialect=progress.dialect,
        num_classes=outputs,
        classes=output_names(progress.classes, outputs),
        dataset=recipe.dataset,
        train_split=split_of(recipe, train=True),
        train_samples=images,
        seed=recipe.seed,
        epochs=progress.epochs_done,
        final_loss=last.get("loss"),
        curve=[Epoch.of(each) for each in progress.history],
        top1=None if best is None else best.top1,
        top5=None if best is None else best.top5,
        eval_loss=None if best is None else best.loss,
        eval_samples=None if best is None else best.samples,
        preprocessing=recipe.seen_images,
        **({} if best is None else conditions(recipe)),
        weights="average" if best is not None and best.weights == "average" else "trained",
        checkpoint=name,
        checkpoint_sha256=progress.last_sha256 if best is None else best.sha256,
        skipped_updates=progress.skipped_updates,
        unreadable=progress.unreadable,
    )
