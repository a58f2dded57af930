"""A whole run: from a recipe and a data folder to checkpoints and one ``run.json``."""

from __future__ import annotations

import math
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import mindspore
import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray
from PIL import Image

from xcit_hub import variants
from xcit_hub._version import __version__
from xcit_hub.accelerated import accelerate
from xcit_hub.checkpoints import weights as stored_weights
from xcit_hub.data.augment import RandAugment, RandomErasing, TrainTransform
from xcit_hub.data.batches import EvalBatches, TrainBatches, Worker
from xcit_hub.data.mixing import Images, Mixing
from xcit_hub.data.sources import ImageSource, open_source
from xcit_hub.data.transforms import EvalTransform
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.files import write_text
from xcit_hub.models import XCiT, create_model, load_weights
from xcit_hub.models.functions import device_target
from xcit_hub.parameters import parameter_count
from xcit_hub.run_record import RunRecord, Versions
from xcit_hub.training import checkpoints, device
from xcit_hub.training.checkpoints import Best, Progress
from xcit_hub.training.evaluation import Answer, Evaluation, evaluate
from xcit_hub.training.journal import Journal
from xcit_hub.training.precision import mix_precision
from xcit_hub.training.recipe import AmpLevel, Recipe
from xcit_hub.training.schedule import learning_rates
from xcit_hub.training.step import StepResult, TrainStep

RUN = "run.json"
_WARM_UP_STEPS = 2  # the first compiles, the second still allocates
_RECENT = 50  # steps whose time is averaged for display
_LISTED = 5  # unreadable pictures named in an error
_MOST_SKIPS = 100  # updates in a row that may overflow before a run is called broken

Weights = Mapping[str, NDArray[Any]]


def train(
    recipe: Recipe,
    *,
    recipe_name: str | None = None,
    resume: bool = False,
    as_json: bool = False,
    initial: Weights | None = None,
    on_epoch: Callable[[Progress], None] = lambda _: None,
) -> RunRecord:
    """Train as the recipe says, and leave everything in its ``ckpt_save_dir``.

    Args:
        recipe_name: the file it was read from, for the record.
        resume: continue the run in ``ckpt_save_dir`` instead of starting one.
        as_json: print JSON lines instead of a progress bar.
        initial: start from these weights instead of ``ckpt_path``.
        on_epoch: called after each epoch, when its files are on the disk.

    Returns:
        What was measured; the same is in ``ckpt_save_dir/run.json``.

    Raises:
        InputError: the recipe, the data and the checkpoint do not fit together, or too many pictures are unreadable.
        XcitHubError: the loss is not finite, or a file cannot be written.
    """
    worker = device.prepare(recipe, distribute=recipe.distribute)
    resume = resume or recipe.resume_opt
    folder = Path(recipe.ckpt_save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if not resume and (folder / checkpoints.STATE).exists():
        raise InputError(
            "Another run is kept here.",
            where=folder,
            fix="Continue it with --resume, or choose another --ckpt_save_dir.",
        )
    source, batches = train_data(recipe, worker)
    network = student(recipe, len(source.classes), initial)
    ema = _copy_of(network, recipe) if recipe.ema else None
    mix_precision(network, recipe.amp_level)
    if recipe.recompute:
        network.set_grad_checkpointing()
    step = TrainStep(network, recipe, ema=ema, teacher=_teacher(recipe, network), worker=worker)
    progress = Progress()
    if resume:
        state, progress = checkpoints.load_state(folder, step.state(), recipe)
        step.restore(state)
    journal = Journal(folder, as_json=as_json, silent=worker.rank > 0, from_step=progress.epochs_done * batches.steps)
    for note in _notes(recipe, source, network):
        journal.say(note)
    scorer = _Scorer(recipe, network, worker) if recipe.val_while_train else None
    run = _Run(recipe, folder, worker, batches, step, network.num_classes, progress, journal, scorer, source.classes)
    with closing(run.results):  # the threads behind it end here, whatever happens
        while progress.epochs_done < recipe.epoch_size:
            run.epoch()
            on_epoch(progress)
    record = run.record(recipe_name)
    if worker.rank == 0:
        write_text(folder / RUN, record.model_dump_json(indent=2) + "\n")
    journal.close()
    return record


def train_data(recipe: Recipe, worker: Worker) -> tuple[ImageSource, TrainBatches]:
    """Find the training split and make its batches as the recipe says."""
    source = open_source(recipe.dataset, recipe.data_dir, recipe.train_split, train=True)
    if recipe.num_samples is not None:
        source = _First(source, recipe.num_samples)
    preprocessing = recipe.preprocessing
    erasing = RandomErasing(
        recipe.re_prob, recipe.re_scale, recipe.re_ratio, recipe.re_value == "random", recipe.re_max_attempts
    )
    view = TrainTransform(
        size=recipe.image_resize,
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        vflip=recipe.vflip,
        jitter=recipe.color_jitter or 0.0,
        policy=RandAugment.parse(recipe.auto_augment) if recipe.auto_augment else None,
        interpolation=recipe.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        erasing=erasing if recipe.re_prob else None,
    )
    return source, TrainBatches(
        source,
        view,
        classes=recipe.num_classes or len(source.classes),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        mixing=Mixing(recipe.mixup, recipe.cutmix, recipe.cutmix_prob, recipe.switch_prob),
        smoothing=recipe.label_smoothing,
        shuffle=recipe.shuffle,
        repeats=recipe.aug_repeats,
        drop_remainder=recipe.drop_remainder,
        threads=recipe.num_parallel_workers,
        worker=worker,
    )


def eval_data(recipe: Recipe, worker: Worker) -> EvalBatches:
    """Find the evaluation split; each worker sees its share of the pictures once."""
    source = open_source(recipe.dataset, recipe.data_dir, recipe.val_split, train=False)
    view = EvalTransform(recipe.preprocessing)
    return EvalBatches(source, view, batch_size=recipe.batch_size, threads=recipe.num_parallel_workers, worker=worker)


def student(recipe: Recipe, classes: int, initial: Weights | None = None) -> XCiT:
    """Build the network to train: fresh from the recipe's seed, then ``initial`` or ``ckpt_path`` laid into it.

    A classifier for another number of classes is left fresh; everything else has to fit.

    Raises:
        InputError: ``pretrained`` without weights.
        WeightsError: the checkpoint is another network's.
    """
    network = create_model(
        recipe.model,
        num_classes=recipe.num_classes or classes,
        in_chans=recipe.in_channels,
        drop_rate=recipe.drop_rate or 0.0,
        drop_path_rate=recipe.drop_path_rate or 0.0,
        dialect=recipe.dialect,
        seed=recipe.seed,
    )
    arrays = initial
    if arrays is None and recipe.ckpt_path:
        arrays = stored_weights.load(recipe.ckpt_path, dialect=recipe.dialect).arrays()
    if arrays is None:
        if recipe.pretrained:
            raise InputError("pretrained needs the published weights.", where="pretrained")
        return network
    fresh = {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()}
    other_head = {
        name
        for name in ("head.weight", "head.bias")
        if name not in arrays or tuple(arrays[name].shape) != fresh[name].shape
    }
    load_weights(
        network,
        {
            **{name: array for name, array in arrays.items() if name not in other_head},
            **{name: fresh[name] for name in other_head},
        },
    )
    return network


def answer_of(network: nn.Cell) -> Answer:
    """Return the function that maps images to a network's logits, float32."""

    def answer(images: Images) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = network(Tensor(images)).asnumpy().astype(np.float32)
        return logits

    return answer


def versions() -> Versions:
    """Return what this process runs on."""
    return Versions.model_validate(
        {
            "mindspore": mindspore.__version__,
            "numpy": np.__version__,
            "xcit_hub": __version__,
            "python": platform.python_version(),
        }
    )


@dataclass
class _Run:
    recipe: Recipe
    folder: Path
    worker: Worker
    batches: TrainBatches
    step: TrainStep
    num_classes: int
    progress: Progress
    journal: Journal
    scorer: _Scorer | None
    classes: list[str]

    def __post_init__(self) -> None:
        self.rates = learning_rates(self.recipe, self.batches.steps)
        self.images_a_step = self.recipe.batch_size * self.worker.count
        self.durations: list[float] = []
        self.first_step: float | None = None
        self._skips_in_a_row = 0
        self._new_unreadable: set[int] = set()
        stream = self.batches.epochs(self.progress.epochs_done, self.recipe.epoch_size, self.rates.tolist())
        self.results = device.fed(self._train, stream, sink=self.recipe.dataset_sink_mode)

    def _train(
        self, images: Tensor, targets: Tensor, indices: Tensor, unreadable: Tensor, rate: Tensor
    ) -> tuple[StepResult, Tensor, Tensor]:
        return self.step(images, targets, rate), indices, unreadable

    def epoch(self) -> None:
        """Train one epoch, evaluate it, and put its files on the disk."""
        epoch, began = self.progress.epochs_done, time.perf_counter()
        self.step.set_train()
        losses: list[float] = []
        recent: deque[float] = deque(maxlen=_RECENT)
        title = f"epoch {epoch + 1}/{self.recipe.epoch_size}"
        started = time.perf_counter()
        steps = islice(self.results, self.batches.steps)
        for index, (result, indices, unreadable) in enumerate(self.journal.bar(steps, self.batches.steps, title)):
            number = epoch * self.batches.steps + index
            rate = float(self.rates[number])
            loss = self._checked(result, indices, epoch, number)
            now = time.perf_counter()
            self._timed(now - started)
            recent.append(now - started)
            started = now
            losses.append(loss)
            self._count_unreadable(unreadable.asnumpy())
            record = {
                "step": number,
                "epoch": epoch + 1,
                "loss": loss,
                "lr": rate,
                "norm": float(result.norm),
                "images_per_second": round(self.images_a_step / (sum(recent) / len(recent)), 2),
            }
            last = index == self.batches.steps - 1
            self.journal.step(record, write=last or not number % self.recipe.log_interval)
        seconds = time.perf_counter() - began
        history = {
            "epoch": epoch + 1,
            "loss": float(device.mean(np.array([np.mean(losses)], np.float32), self.worker)[0]),
            "lr": float(self.rates[(epoch + 1) * self.batches.steps - 1]),
            "images_per_second": round(self.images_a_step * len(losses) / seconds, 2),
            "seconds": round(seconds, 3),
        }
        self._finish(epoch + 1, history)

    def record(self, recipe_name: str | None) -> RunRecord:
        """Return what the run measured; steady-state figures leave the first steps out."""
        recipe, best = self.recipe, self.progress.best
        steady = self.durations
        per_step = float(np.mean(steady)) if steady else None
        last = self.progress.history[-1] if self.progress.history else {}
        graph = recipe.mode == mindspore.GRAPH_MODE
        return RunRecord.model_validate(
            {
                "recipe": recipe_name,
                "versions": versions(),
                "device": device_target(),
                "cards": self.worker.count,
                "batch_size": recipe.batch_size,
                "image_size": (recipe.image_resize, recipe.image_resize),
                "jit_level": (recipe.jit_level or None) if graph else None,
                "graph_compile_seconds": self.first_step if graph else None,
                "ms_per_step": None if per_step is None else round(1000 * per_step, 3),
                "images_per_second": None if per_step is None else round(self.images_a_step / per_step, 3),
                "params": parameter_count(variants.architecture(recipe.model), num_classes=self.num_classes),
                "top1": None if best is None else best.top1,
                "top5": None if best is None else best.top5,
                "eval_samples": None if best is None else best.samples,
                "checkpoint_sha256": self.progress.last_sha256 if best is None else best.sha256,
                "seed": recipe.seed,
                "dataset": recipe.dataset,
                "epochs": self.progress.epochs_done,
                # Beyond the card's fields:
                "checkpoint": self._name(self.progress.epochs_done) if best is None else best.name,
                "mode": "graph" if graph else "pynative",
                "dialect": recipe.dialect,
                "model": recipe.model,
                "num_classes": self.num_classes,
                "final_loss": last.get("loss"),
                "skipped_updates": self.progress.skipped_updates,
                "unreadable": self.progress.unreadable,
                "configuration": recipe.model_dump(mode="json"),
            }
        )

    def _checked(self, result: StepResult, indices: Tensor, epoch: int, number: int) -> float:
        loss = float(result.loss)
        if not math.isfinite(loss):
            self._stop(f"The loss is {loss}", indices, epoch, number)
        due = (self.step.accumulation == 1) or not (number + 1) % self.step.accumulation
        if due and float(result.applied) == 0.0:
            self.progress.skipped_updates += 1
            self._skips_in_a_row += 1
            if self._skips_in_a_row > _MOST_SKIPS:
                self._stop(f"{_MOST_SKIPS} updates in a row overflowed", indices, epoch, number)
        elif due:
            self._skips_in_a_row = 0
        return loss

    def _stop(self, what: str, indices: Tensor, epoch: int, number: int) -> NoReturn:
        files = [self.batches.source.name(int(index)) for index in indices.asnumpy()]
        good = self.folder / checkpoints.STATE
        raise XcitHubError(
            f"{what} at step {number} (epoch {epoch + 1}).\n  batch: {', '.join(files)}",
            where=f"last good state: {good}" if good.exists() else "no epoch was finished",
            fix="Lower lr, lengthen the warm-up, clip gradients, or use amp_level O0; look at the batch's pictures.",
        )

    def _timed(self, seconds: float) -> None:
        if self.first_step is None:
            self.first_step = round(seconds, 3)
            self._timed_steps = 1
            return
        self._timed_steps += 1
        if self._timed_steps > _WARM_UP_STEPS:
            self.durations.append(seconds)

    def _count_unreadable(self, indices: NDArray[np.int64]) -> None:
        for index in indices[indices >= 0].tolist():
            if self.batches.source.name(index) not in self.progress.unreadable:
                self._new_unreadable.add(index)
        if self._new_unreadable:
            self._check_readable(len(self.progress.unreadable) + len(self._new_unreadable))

    def _share_unreadable(self) -> None:
        """Add what any worker could not read in this epoch to the record; no worker had more than max_corrupt."""
        for index in device.gather(sorted(self._new_unreadable), self.recipe.max_corrupt, self.worker):
            name = self.batches.source.name(index)
            if name not in self.progress.unreadable:
                self.progress.unreadable.append(name)
                self.journal.say(f"cannot be read, replaced by another: {name}")
        self._new_unreadable.clear()
        self._check_readable(len(self.progress.unreadable))

    def _check_readable(self, unreadable: int) -> None:
        if unreadable > self.recipe.max_corrupt:
            here = [self.batches.source.name(index) for index in sorted(self._new_unreadable)]
            raise InputError(
                f"{unreadable} pictures cannot be read: {', '.join([*self.progress.unreadable, *here][:_LISTED])}.",
                fix="Repair or remove them, or raise max_corrupt.",
            )

    def _finish(self, epoch: int, history: dict[str, Any]) -> None:
        recipe, progress = self.recipe, self.progress
        self._share_unreadable()
        if not recipe.freeze_bn:
            device.average(self.step.statistics(), self.worker)  # as timm's dist_bn="reduce"
        arrays = self._weights()
        due = epoch == recipe.epoch_size
        score: Evaluation | None = None
        if self.scorer is not None and (due or not epoch % recipe.val_interval):
            score = self.scorer(arrays, self.journal)
            history |= {"top1": round(score.top1, 4), "top5": round(score.top5, 4)}
        progress.epochs_done = epoch
        progress.history.append(history)
        if self.worker.rank == 0:
            if due or not epoch % recipe.ckpt_save_interval:
                progress.last_sha256 = self._save(self._name(epoch), arrays, history)
                progress.kept.append((self._name(epoch), None if score is None else score.top1))
            if score is not None and (progress.best is None or score.top1 > progress.best.top1):
                name = f"{recipe.model}_best.ckpt"
                digest = self._save(name, arrays, history)
                progress.best = Best(name, score.top1, score.top5, score.samples, digest)
            retired = checkpoints.retire(
                self.folder, progress.kept, recipe.ckpt_save_policy, recipe.keep_checkpoint_max
            )
            progress.kept = retired
            checkpoints.save_state(self.folder, self.step.state(), recipe, progress)
        self.journal.epoch(progress.history, epoch * self.batches.steps)

    def _weights(self) -> dict[str, NDArray[Any]]:
        """Return the weights that are evaluated and published: the average where there is one."""
        chosen = self.step.network if self.step.ema is None else self.step.ema
        return {entry.name.removeprefix("ema."): entry.asnumpy() for entry in chosen.get_parameters()}

    def _save(self, name: str, arrays: Weights, history: Mapping[str, Any]) -> str:
        metrics = {key: float(history[key]) for key in ("epoch", "top1", "top5") if key in history}
        return checkpoints.save_checkpoint(self.folder / name, arrays, self.recipe, self.classes, metrics)

    def _name(self, epoch: int) -> str:
        return f"{self.recipe.model}-{epoch}_{self.batches.steps}.ckpt"  # MindCV's form


class _Scorer:
    """Evaluates weights in a network of their own, whose graph is compiled once."""

    def __init__(self, recipe: Recipe, like: XCiT, worker: Worker) -> None:
        self.recipe = recipe
        self.worker = worker
        self.batches = eval_data(recipe, worker)
        self.network = evaluation_network(recipe, like.num_classes, recipe.val_amp_level)

    def __call__(self, arrays: Weights, journal: Journal) -> Evaluation:
        load_weights(self.network, arrays)
        scored = evaluate(
            answer_of(self.network),
            self.batches,
            outputs=self.network.num_classes,
            worker=self.worker,
            max_corrupt=self.recipe.max_corrupt,
        )
        for name in scored.unreadable:
            journal.say(f"cannot be read, not evaluated: {name}")
        return scored


def evaluation_network(recipe: Recipe, classes: int, level: AmpLevel) -> XCiT:
    """Build the recipe's network without weights, in evaluation mode and at a precision level."""
    network = accelerate(create_model(recipe.model, num_classes=classes, dialect=recipe.dialect, init=False))
    network.set_train(False)
    mix_precision(network, level)
    return network


class _First:
    """The first pictures of a source."""

    def __init__(self, source: ImageSource, count: int) -> None:
        self._source = source
        self.labels = source.labels[:count]
        self.classes = source.classes

    def name(self, index: int) -> str:
        return self._source.name(index)

    def open(self, index: int) -> Image.Image:
        return self._source.open(index)

    def in_turn(self, indices: Sequence[int]) -> Iterator[Callable[[], Image.Image]]:
        return self._source.in_turn(indices)


def _copy_of(network: XCiT, recipe: Recipe) -> XCiT:
    copy = create_model(recipe.model, num_classes=network.num_classes, dialect=recipe.dialect, init=False)
    load_weights(copy, {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()})
    return copy


def _teacher(recipe: Recipe, network: XCiT) -> XCiT | None:
    if recipe.distillation_type == "none":
        return None
    loaded = stored_weights.load(recipe.teacher_ckpt, model=recipe.teacher)
    if loaded.num_classes != network.num_classes:
        raise InputError(
            f"The teacher knows {loaded.num_classes} classes, the student {network.num_classes}.", where="teacher_ckpt"
        )
    teacher = create_model(
        recipe.teacher,
        num_classes=loaded.num_classes,
        dialect="mindcv" if loaded.dialect == "mindcv" else "paper",
        init=False,
    )
    load_weights(teacher, loaded.arrays())
    return teacher


def _notes(recipe: Recipe, source: ImageSource, network: XCiT) -> list[str]:
    notes = []
    if len(source.classes) != network.num_classes:
        notes.append(f"the data set has {len(source.classes)} classes, the network {network.num_classes}")
    if recipe.dataset_sink_mode and not device.has_queue():
        notes.append(f"dataset_sink_mode: {device_target()} has no queue of its own, batches are fed from the host")
    return notes
