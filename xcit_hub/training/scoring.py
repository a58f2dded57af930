"""A whole evaluation: any network on a data folder, alone or beside timm's network with the same weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xcit_hub.checkpoints import weights as stored_weights
from xcit_hub.data.batches import EvalBatches, Worker
from xcit_hub.data.mixing import Images
from xcit_hub.data.transforms import MODES
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.files import is_there, write_text
from xcit_hub.models import XCiT, load_weights
from xcit_hub.models.functions import device_target
from xcit_hub.parameters import parameter_count
from xcit_hub.parity import torch_network
from xcit_hub.run_record import RunRecord
from xcit_hub.training import device
from xcit_hub.training.evaluation import (
    Answer,
    Evaluation,
    confusion_of,
    evaluate,
    samples_of,
    write_confusion,
    write_per_class,
)
from xcit_hub.training.inputs import check_outputs, eval_data, left_out, match_classes, matched_by_order
from xcit_hub.training.journal import Journal
from xcit_hub.training.keeping import other_images, stored_classes, stored_images, stored_notes
from xcit_hub.training.precision import check_precision, mix_precision
from xcit_hub.training.real_labels import RealLabels, read_real_labels
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recording import RUN, conditions, versions
from xcit_hub.training.resume import STATE
from xcit_hub.training.scorer import answer_of, shown_views
from xcit_hub.training.start import dialect_of, evaluation_network
from xcit_hub.variants import Preprocessing

_LISTED = 20  # differing images printed; JSON holds all


@dataclass(frozen=True)
class Difference:
    """An image that two networks answer differently: its name, its class, and both first answers."""

    image: str
    truth: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Args:
        theirs: what timm's network scored on the same images, if it was asked.
        differences: the images on which the two differ.
        record: the same, as ``run.json`` holds it.
    """

    ours: Evaluation
    theirs: Evaluation | None
    differences: tuple[Difference, ...]
    record: RunRecord

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        plain = {
            "kind": "evaluation",
            "top1": self.ours.top1,
            "top1_interval": self.ours.interval1,
            "top5": self.ours.top5,
            "top5_interval": self.ours.interval5,
            "loss": self.ours.loss,
            "samples": self.ours.samples,
            "unreadable": list(self.ours.unreadable),
        }
        if self.ours.real is not None:
            plain["real"] = self.ours.real_figures
        if self.theirs is not None:
            plain["timm"] = {"top1": self.theirs.top1, "top5": self.theirs.top5}
            plain["differences"] = [vars(entry) for entry in self.differences]
        return plain

    def __str__(self) -> str:
        if self.theirs is None:
            return str(self.ours)
        lines = [f"MindSpore: {self.ours}", f"timm:      {self.theirs}"]
        lines.append(f"{len(self.differences)} images are answered differently")
        for entry in self.differences[:_LISTED]:
            lines.append(f"  {entry.image}: MindSpore {entry.ours}, timm {entry.theirs}, true {entry.truth}")
        if len(self.differences) > _LISTED:
            lines.append(f"  … and {len(self.differences) - _LISTED} more; --json lists all")
        return "\n".join(lines)


@dataclass(frozen=True)
class Stored:
    """A network from a checkpoint.

    Args:
        digest: SHA-256 of its file.
        classes: what its outputs are called, if the file says it.
        notes: what the user should know about it.
    """

    network: XCiT
    digest: str
    classes: list[str] | None
    notes: tuple[str, ...] = ()


def stored_network(recipe: Recipe) -> Stored:
    """Build the recipe's network from its ``ckpt_path``; the file's dialect where the recipe has none.

    Raises:
        InputError: there is no ckpt_path, its classes are not the recipe's, or nothing tells the dialect.
        CheckpointError, WeightsError: the file is not a checkpoint of this network.
    """
    if not recipe.ckpt_path:
        raise InputError(
            "Nothing says which weights to evaluate.", where="ckpt_path", fix="Give --ckpt_path FILE, or a model id."
        )
    loaded = stored_weights.load(recipe.ckpt_path, dialect=recipe.dialect)
    if recipe.num_classes not in (None, loaded.num_classes):
        raise InputError(
            f"The checkpoint knows {loaded.num_classes} classes, the recipe says {recipe.num_classes}.",
            where=recipe.ckpt_path,
            fix=f"Pass --num_classes {loaded.num_classes}.",
        )
    if loaded.in_chans != recipe.in_channels:
        raise InputError(
            f"The checkpoint sees {loaded.in_chans} channels, the recipe says {recipe.in_channels}.",
            where=recipe.ckpt_path,
            fix=f"Pass --in_channels {loaded.in_chans}, and mean and std of these.",
        )
    dialect = dialect_of(recipe, loaded.dialect)
    network = evaluation_network(
        recipe.model, loaded.num_classes, dialect, "O0", channels=loaded.in_chans, global_pool=loaded.global_pool
    )
    try:
        load_weights(network, loaded.arrays())
    except WeightsError as error:
        raise WeightsError(error.what, where=recipe.ckpt_path, fix=error.fix) from None
    other = other_images(stored_images(loaded.file), recipe)
    notes = (f"evaluated as the recipe says; the checkpoint says of its images: {other}",) if other else ()
    return Stored(network, loaded.file.sha256, stored_classes(loaded.file), (*stored_notes(loaded), *notes))


def settings_of(network: XCiT, preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the recipe settings that a loaded network brings along: what it is, and how it wants its images.

    Raises:
        InputError: it wants them in a way that no recipe says: of other channels, or not cut from the centre.
    """
    height, width = preprocessing.size
    if preprocessing.crop_mode != "center" or network.in_chans not in MODES:
        raise InputError(
            f"The network takes {network.in_chans}×{height}×{width} images, crop mode {preprocessing.crop_mode}: "
            "a recipe cannot say that.",
            where="the network's description",
            fix="Evaluate it with `xcit_hub.preprocess` and a loop of your own.",
        )
    return {
        "model": network.architecture.name,
        "dialect": network.dialect.name,
        "num_classes": network.num_classes,
        "image_resize": height if height == width else (height, width),
        "in_channels": network.in_chans,
        "crop_pct": preprocessing.crop_pct,
        "interpolation": preprocessing.interpolation,
        "mean": _each_channel(preprocessing.mean, network.in_chans),
        "std": _each_channel(preprocessing.std, network.in_chans),
    }


def _each_channel(values: tuple[float, ...], channels: int) -> list[float]:
    """Return values in 0…1 as a recipe's in 0…255; one number stands for all channels."""
    return [255 * value for value in (values if len(values) > 1 else values[:1] * channels)]


def score(
    recipe: Recipe,
    network: XCiT,
    *,
    recipe_name: str | None = None,
    flags: Mapping[str, Any] | None = None,
    checkpoint: str | None = None,
    digest: str | None = None,
    classes: Sequence[str] | None = None,
    certain: bool = True,
    against_timm: bool = False,
    output: Path | None = None,
    as_json: bool = False,
) -> Report | None:
    """Evaluate a network on the recipe's evaluation split, every image once.

    Images are shared among the workers of msrun or mpirun, if it started this process.

    Args:
        recipe_name, flags: the file the recipe was read from, and the keys that the command line changed, for the
            record.
        checkpoint, digest: file name of the weights and their SHA-256, for the record.
        classes: what the network's outputs are called; None where nobody knows.
        certain: whether class folders must go by these names.
        against_timm: evaluate timm's network with the same weights on the same images, too.
        output: write ``run.json``, ``per_class.csv`` and, for up to 100 classes, ``confusion.png`` there.

    Returns:
        What was found; None on every worker but the first.

    Raises:
        InputError: the data does not fit the network, too many images are unreadable, or ``output`` is a training's.
    """
    if output is not None and is_there(output / STATE):
        raise InputError(
            "A training is kept here, whose run.json would be replaced.",
            where=output,
            fix="Name another folder.",
        )
    distribute = device.started_by() is not None
    if distribute and against_timm:
        raise InputError(
            "The comparison with timm runs in one process.", where="--compare", fix="Start it without msrun."
        )
    worker = device.prepare(recipe, distribute=distribute)
    check_precision(recipe.amp_dtype, recipe.val_amp_level)
    batches = eval_data(recipe, worker)
    source = batches.source
    if recipe.class_map:
        check_outputs(source.classes, network.num_classes, whose="the class map")
        missing = [name for label, name in enumerate(source.classes) if not (source.labels == label).any()]
    else:
        missing = match_classes(source, network.num_classes, classes, whose="the network", certain=certain)
    real = read_real_labels(recipe.real_labels, source, network.num_classes) if recipe.real_labels else None
    arrays = {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()}
    network.set_train(False)
    mix_precision(network, recipe.val_amp_level, recipe.amp_dtype)
    device.compile_at(network, recipe)
    journal = Journal(None, as_json=as_json, silent=worker.rank > 0)
    if missing:
        journal.say(f"{len(missing)} of the network's classes have no image in {recipe.val_split}")
    for note in [*([] if recipe.class_map else matched_by_order(source, classes)), *left_out(source, recipe.val_split)]:
        journal.say(note)
    began = time.perf_counter()
    if recipe.class_map:
        journal.say("which output is whose is as class_map says; what the weights call them was not asked")
    ours = _shown(answer_of(network), batches, network.num_classes, worker, recipe, journal, "evaluating", real)
    seconds = time.perf_counter() - began
    theirs: Evaluation | None = None
    differences: tuple[Difference, ...] = ()
    if against_timm:
        twin = torch_network(
            arrays,
            network.architecture,
            network.dialect.name,
            num_classes=network.num_classes,
            in_chans=network.in_chans,
            global_pool=network.global_pool,
        )
        theirs = _shown(_torch_answer(twin), batches, network.num_classes, worker, recipe, journal, "timm")
        differences = _differences(ours, theirs, batches)
    for name in ours.unreadable:
        journal.say(f"cannot be read, not evaluated: {name}")
    if outside := ours.unnamed(len(source.classes)):
        journal.say(f"no confusion matrix: {outside} images were answered with an output that has no name")
    if worker.rank:
        return None
    real_figures = ours.real_figures or {}
    record = RunRecord(
        recipe=recipe_name,
        flags=dict(flags or {}),
        versions=versions(),
        device=device_target(),
        cards=worker.count,
        batch_size=recipe.batch_size,
        image_size=recipe.input_size,
        params=parameter_count(network.architecture, num_classes=network.num_classes, in_chans=network.in_chans),
        model=network.architecture.name,
        dialect=network.dialect.name,
        num_classes=network.num_classes,
        classes=None if classes is None else list(classes),
        dataset=recipe.dataset,
        top1=ours.top1,
        top5=ours.top5,
        eval_loss=ours.loss,
        eval_samples=ours.samples,
        eval_seconds=round(seconds, 3),
        preprocessing=recipe.seen_images,
        **conditions(recipe),
        real_labels=Path(recipe.real_labels).name or None,
        real_top1=real_figures.get("top1"),
        real_top5=real_figures.get("top5"),
        confusion=confusion_of(ours, batches.source.classes),
        samples=[] if output is None else samples_of(ours, batches.source),
        checkpoint=checkpoint,
        checkpoint_sha256=digest,
        unreadable=list(ours.unreadable),
    )
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / RUN, record.model_dump_json(indent=2) + "\n")
        write_per_class(output / "per_class.csv", ours, batches.source.classes)
        drawn = write_confusion(output / "confusion.png", ours, batches.source.classes)
        if not drawn and record.confusion is not None:
            journal.say("confusion.png is not drawn without matplotlib: pip install 'xcit-hub[train]'")
    return Report(ours, theirs, differences, record)


def _shown(
    answer: Answer,
    batches: EvalBatches,
    outputs: int,
    worker: Worker,
    recipe: Recipe,
    journal: Journal,
    title: str,
    real: RealLabels | None = None,
) -> Evaluation:
    ticks = journal.bar(range(batches.steps), batches.steps, title)
    step: Callable[[], Any] = lambda: next(ticks, None)  # noqa: E731
    found = evaluate(
        shown_views(answer, recipe),
        batches,
        outputs=outputs,
        worker=worker,
        max_corrupt=recipe.max_corrupt,
        step=step,
        real=real,
    )
    step()
    return found


def _torch_answer(twin: Any) -> Answer:
    import torch

    def answer(images: Images) -> Any:
        with torch.inference_mode():
            return twin(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    return answer


def _differences(ours: Evaluation, theirs: Evaluation, batches: EvalBatches) -> tuple[Difference, ...]:
    source = batches.source

    def called(label: int) -> str:
        return source.classes[label] if label < len(source.classes) else str(label)

    return tuple(
        Difference(
            source.name(index), called(int(source.labels[index])), called(mine), called(theirs.predictions[index])
        )
        for index, mine in ours.predictions.items()
        if theirs.predictions[index] != mine
    )
