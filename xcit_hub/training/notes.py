"""What the user should know of a run before it trains."""

from __future__ import annotations

import math

import mindspore

from xcit_hub.data.batches import Worker
from xcit_hub.data.sources import ImageSource
from xcit_hub.errors import some
from xcit_hub.models import XCiT
from xcit_hub.models.functions import device_target
from xcit_hub.training import device
from xcit_hub.training.inputs import left_out
from xcit_hub.training.recipe import Recipe

_RULES = {"linear": "linear", "sqrt": "square-root"}


def notes_of(recipe: Recipe, source: ImageSource, network: XCiT, worker: Worker) -> list[str]:
    """Return the sentences that a run begins with: keys without effect, classes, what is computed how."""
    notes = [f"{key} has no effect: {reason}" for key, reason in recipe.without_effect().items()]
    if others := recipe.unlike_timm():
        listed = ", ".join(f"{key} {getattr(recipe, key)} (there {default})" for key, default in others.items())
        notes.append(f"left out, and other than timm's train.py has it: {listed}")
    if not recipe.distribute and (launcher := device.started_by()) in ("rank table", "dry run"):
        notes.append(f"distribute is off: this process trains alone, though the variables of a {launcher} are set")
    if recipe.lr_base is not None:
        images = recipe.batch_size * worker.count * recipe.gradient_accumulation_steps
        notes.append(
            f"lr is {recipe.highest_rate(images):.6g}: lr_base {recipe.lr_base:g} of {recipe.lr_base_size} images, "
            f"scaled to {images} by the {_RULES[recipe.rate_rule]} rule"
        )
    if len(source.classes) != network.num_classes:
        notes.append(f"the data set has {len(source.classes)} classes, the network {network.num_classes}")
    idle = [name for label, name in enumerate(source.classes) if not (source.labels == label).any()]
    if idle:
        notes.append(f"not trained, as there is no image of them: {some(idle)}")
    notes += left_out(source, recipe.train_split)
    if recipe.sync_bn and not recipe.freeze_bn:
        notes.append(
            f"BatchNorm takes the statistics of all {worker.count} workers; blocks are computed one by one for it"
            if worker.count > 1
            else "sync_bn has no effect: there is one worker"
        )
    if recipe.dataset_sink_mode and not device.has_queue():
        notes.append(f"dataset_sink_mode: {device_target()} has no queue of its own, batches are fed from the host")
    if recipe.mode == mindspore.GRAPH_MODE:
        notes.append("the first step compiles its graph and takes longer")
        if recipe.jit_level and not device.compile_level(recipe):
            notes.append(f"jit_level: {recipe.jit_level} is Ascend's, the graph is compiled at MindSpore's own level")
        if not recipe.drop_remainder and math.ceil(len(source.labels) / worker.count) % recipe.batch_size:
            notes.append("so does the last step of the first epoch: drop_remainder: False leaves it a smaller batch")
    return notes


def left_over(recipe: Recipe, steps: int) -> list[str]:
    """Return a sentence where the batches of a run, ``steps`` an epoch, are not a whole number of updates."""
    together, batches = recipe.gradient_accumulation_steps, recipe.epoch_size * steps
    count = batches % together
    if not count:
        return []
    last = "the last batch changes" if count == 1 else f"the last {count} batches change"
    return [f"{last} nothing: an update takes {together} batches, and the run has {batches:,}"]
