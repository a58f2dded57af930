"""A whole run: from a recipe and a data folder to checkpoints and one ``run.json``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import mindspore
import numpy as np
from mindspore import Tensor
from numpy.typing import NDArray

from xcit_hub.accelerated import portable
from xcit_hub.data.batches import TrainBatches, Worker
from xcit_hub.deprecated import moved_names
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.files import check_folders, remove_unfinished, write_text
from xcit_hub.models import XCiT
from xcit_hub.run_record import RunRecord
from xcit_hub.training import device
from xcit_hub.training.evaluation import Evaluation
from xcit_hub.training.inputs import train_data
from xcit_hub.training.journal import Journal
from xcit_hub.training.keeping import output_names, retire, save_checkpoint
from xcit_hub.training.loggers import LoggedRun, Loggers, find
from xcit_hub.training.meters import Clock, Overflows, Unreadable
from xcit_hub.training.notes import left_over, notes_of
from xcit_hub.training.precision import check_precision, mix_precision
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recording import RUN as RUN
from xcit_hub.training.recording import is_of, record_of, timed_on
from xcit_hub.training.resume import (
    STATE,
    Best,
    Kept,
    Part,
    Progress,
    as_begun,
    average_name,
    best_name,
    checkpoint_name,
    load_state,
    save_state,
    stored_progress,
    timed_otherwise,
    told_of,
)
from xcit_hub.training.schedule import learning_rates
from xcit_hub.training.scorer import Scorer
from xcit_hub.training.start import Initial, Weights, copy_of, start
from xcit_hub.training.step import StepResult, TrainStep
from xcit_hub.training.sync_batch_norm import synchronise
from xcit_hub.training.teachers import digest_of
from xcit_hub.training.teachers import find as find_teacher

_Outcome = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # loss, norm, applied, indices, unreadable


def train(
    recipe: Recipe,
    *,
    recipe_name: str | None = None,
    flags: Mapping[str, Any] | None = None,
    resume: bool = False,
    as_json: bool = False,
    initial: Initial | None = None,
    teacher: XCiT | None = None,
    on_epoch: Callable[[Progress], None] = lambda _: None,
) -> RunRecord:
    """Train as the recipe says, and leave everything in its ``ckpt_save_dir``.

    Args:
        recipe_name, flags: the file it was read from, and the keys that the command line changed, for the record.
        resume: continue the run in ``ckpt_save_dir`` instead of starting one.
        as_json: print JSON lines instead of a progress bar.
        initial: start from these weights instead of ``ckpt_path``.
        teacher: the recipe's teacher, where it is what ``xcit_hub.load`` takes; its parameters are renamed.
        on_epoch: called after each epoch, when its files are on the disk.

    Returns:
        What was measured; the same is in ``ckpt_save_dir/run.json``.

    Raises:
        InputError: the recipe, the data and the checkpoint do not fit together, or too many images are unreadable.
        XcitHubError: the loss is not finite, or a file cannot be written.
    """
    find(recipe.loggers)
    worker = device.prepare(recipe, distribute=recipe.distribute)
    check_precision(recipe.amp_dtype, recipe.amp_level, *[recipe.val_amp_level] * recipe.val_while_train)
    continued = resume or recipe.resume_opt
    folder = _folder(recipe, continued)
    source, batches = train_data(recipe, worker)
    if recipe.epoch_size * batches.steps < recipe.gradient_accumulation_steps:
        raise InputError(
            f"Nothing would be trained: the run has {recipe.epoch_size * batches.steps} batches, and an update takes "
            f"{recipe.gradient_accumulation_steps}.",
            where="gradient_accumulation_steps",
            fix="Lower it, or train longer.",
        )
    highest = recipe.highest_rate(recipe.batch_size * worker.count * recipe.gradient_accumulation_steps)
    rates = learning_rates(recipe.model_copy(update={"lr": highest}), batches.steps)
    told, changes = None, list[str]()
    if continued:
        stored = stored_progress(folder, recipe)
        told = stored.dialect
        recipe, changes = as_begun(folder, recipe)
        if stored.epochs_done < recipe.epoch_size:
            changes += timed_otherwise(stored, timed_on(recipe))
    begun = start(recipe, source.classes, initial, continued=told)
    network = begun.network
    progress = Progress(
        workers=worker.count,
        steps=batches.steps,
        dialect=network.dialect.name,
        classes=source.classes,
        images=told_of(source.labels),
        started_from=begun.started_from,
        timed_on=timed_on(recipe),
    )
    scorer = None
    if recipe.val_while_train:
        scorer = Scorer(recipe, network, worker, source.classes)
        progress.validation = told_of(scorer.batches.source.labels)
    average = copy_of(network) if recipe.ema else None
    if recipe.synchronises(worker.count):
        network = synchronise(portable(network), worker.count)  # before other precisions wrap its cells
    mix_precision(network, recipe.amp_level, recipe.amp_dtype)
    if recipe.recompute:
        network.set_grad_checkpointing()
    taught = find_teacher(recipe, network.num_classes, teacher, names=source.classes)
    progress.teacher = digest_of(recipe, teacher)
    told_by_host = taught is not None and taught.answer is not None
    batches.tell = None if taught is None else taught.answer
    step = TrainStep(network, recipe, ema=average, teacher=taught and taught.cell, told=told_by_host, worker=worker)
    if continued:
        state, progress = load_state(folder, step.state(), recipe, progress)
        step.restore(state)
    finished = folder / RUN
    if continued and progress.epochs_done == recipe.epoch_size and finished.is_file():
        recorded = RunRecord.read(finished)
        if is_of(recorded, recipe, progress):
            told_once = Journal(None, as_json=as_json, silent=worker.rank > 0)
            for note in [*changes, "the run is at its end: nothing was trained, and its run.json is as it was"]:
                told_once.say(note)
            return recorded  # as it was measured; there is nothing to add
        changes.append("the run.json that was here is another run's, and is replaced")  # this one ended before its own
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder, as_json=as_json, silent=worker.rank > 0, from_step=progress.steps_done)
    for note in [
        *changes,
        *begun.notes,
        *(taught.notes if taught else []),
        *notes_of(recipe, source, network, worker),
        *left_over(recipe, batches.steps),
        *(scorer.notes if scorer else []),
    ]:
        journal.say(note)
    run = _Run(recipe, folder, worker, batches, highest, rates, step, network.num_classes, progress, journal, scorer)
    if worker.rank == 0:
        about = LoggedRun(run.configuration, folder, progress.steps_done)
        journal.loggers = Loggers(recipe.loggers, about, journal.say)
    with closing(run.results):  # the threads behind it end here, whatever happens
        while progress.epochs_done < recipe.epoch_size:
            run.epoch()
            on_epoch(progress)
    record = record_of(
        recipe,
        progress,
        worker,
        run.configuration,
        recipe_name=recipe_name,
        flags=flags or {},
        images=len(source.labels),
        outputs=network.num_classes,
    )
    if worker.rank == 0:
        write_text(finished, record.model_dump_json(indent=2) + "\n")
        journal.end(record.model_dump(mode="json"))
    journal.close()
    return record


def _folder(recipe: Recipe, continued: bool) -> Path:
    """Return the folder of the run, which is made when there is something to write."""
    folder = Path(recipe.ckpt_save_dir)
    check_folders({"--ckpt_save_dir": folder})
    remove_unfinished(folder)
    if not continued and (folder / STATE).exists():
        raise InputError(
            "Another run is kept here.",
            where=folder,
            fix="Continue it with --resume, or choose another --ckpt_save_dir.",
        )
    return folder


@dataclass
class _Run:
    """One run between its epochs.

    Args:
        lr: the highest learning rate.
        rates: of every step, (epoch_size · steps,) float64.
    """

    recipe: Recipe
    folder: Path
    worker: Worker
    batches: TrainBatches
    lr: float
    rates: NDArray[np.float64]
    step: TrainStep
    num_classes: int
    progress: Progress
    journal: Journal
    scorer: Scorer | None

    def __post_init__(self) -> None:
        self.images_a_step = self.recipe.batch_size * self.worker.count
        shown = math.ceil(len(self.batches.source.labels) / self.worker.count) * self.worker.count
        self.images_an_epoch = min(self.images_a_step * self.batches.steps, shown)  # the last batch may be smaller
        self.clock = Clock(self.progress)
        self.overflows = Overflows(self.progress)
        self.unreadable = Unreadable(self.batches.source, self.progress, self.recipe.max_corrupt, self.worker)
        stream = self.batches.epochs(
            self.progress.epochs_done, self.recipe.epoch_size, self.rates.tolist(), taken=self.progress.part.steps
        )
        self.results = device.fed(
            self._train,
            stream,
            sink=self.recipe.dataset_sink_mode,
            graph=self._in_graph(),
            jit_level=device.compile_level(self.recipe),
        )

    @property
    def configuration(self) -> dict[str, Any]:
        """Every key of the recipe with the value that is used."""
        return {**self.recipe.model_dump(mode="json"), "lr": self.lr}

    def _train(self, images: Tensor, targets: Tensor, indices: Tensor, unreadable: Tensor, rate: Tensor) -> _Outcome:
        result = self.step(images, targets, rate)
        return result.loss, result.norm, result.applied, indices, unreadable

    def _in_graph(self) -> Callable[..., _Outcome] | None:
        """The same as a function that one graph can hold; None where a step is more than a graph."""
        step = self.step.in_graph
        if step is None or self.recipe.mode != mindspore.GRAPH_MODE:
            return None

        def train(images: Tensor, targets: Tensor, indices: Tensor, unreadable: Tensor, rate: Tensor) -> _Outcome:
            loss, norm, applied = step(images, targets, rate)
            return loss, norm, applied, indices, unreadable

        return train

    def epoch(self) -> None:
        """Train one epoch, or what is left of it, evaluate it, and put its files on the disk."""
        epoch, steps, done = self.progress.epochs_done, self.batches.steps, self.progress.part
        began = time.perf_counter() - done.seconds
        self.step.set_train()
        loss_sum = done.loss
        title = f"epoch {epoch + 1}/{self.recipe.epoch_size}"
        started = time.perf_counter()
        grouped = device.in_groups(
            islice(self.results, steps - done.steps), lambda place: device.reads_after(self.recipe, done.steps + place)
        )
        left = self.journal.bar(grouped, steps - done.steps, title)
        for taken, (outcome, complete) in enumerate(left, done.steps + 1):
            *figures, indices, unreadable = outcome
            result = StepResult(*figures)
            number = epoch * steps + taken - 1
            loss = self._checked(result, indices, epoch, number)
            now = time.perf_counter()
            self.clock.step(now - started, complete=complete)
            started = now
            loss_sum += loss
            self.unreadable.add(unreadable.asnumpy())
            record = {
                "step": number,
                "epoch": epoch + 1,
                "loss": loss,
                "lr": float(self.rates[number]),
                "norm": float(result.norm),
                "images_per_second": round(self.clock.rate(self.images_a_step), 2),
            }
            self.journal.step(record, write=taken == steps or not number % self.recipe.log_interval)
            if self.recipe.recovery_interval and not taken % self.recipe.recovery_interval and taken < steps:
                loss_sum = self._recoverable(Part(steps=taken, loss=loss_sum, seconds=now - began))
                started = time.perf_counter()  # a state is no part of a step
        self.progress.part = Part()
        seconds = time.perf_counter() - began
        history = {
            "epoch": epoch + 1,
            "loss": self._mean(loss_sum / steps),
            "lr": float(self.rates[(epoch + 1) * steps - 1]),
            "images_per_second": round(self.images_an_epoch / seconds, 2),
            "seconds": round(seconds, 3),
        }
        self._finish(epoch + 1, history)

    def _recoverable(self, done: Part) -> float:
        """Write a state within the epoch; returns the sum of losses that all workers go on with."""
        self._agree()
        shared = done.loss if self.worker.count == 1 else self._mean(done.loss)
        self.progress.part = done.model_copy(update={"loss": shared})
        state = self.step.state()
        self._check_finite(state, f"After {done.steps} steps of epoch {self.progress.epochs_done + 1}")
        # Sums of gradients that overflowed are skipped with their update; a state with them could not be continued.
        if self.worker.rank == 0 and _not_finite(state) is None:
            save_state(self.folder, state, self.recipe, self.progress)
        return shared

    def _check_finite(self, state: Mapping[str, NDArray[Any]], when: str) -> None:
        """Break the run off before a state that could not be continued replaces the one that can."""
        kept = {name: array for name, array in state.items() if not name.startswith("gradient_sum")}
        if wrong := _not_finite(kept):
            self._break_off(f"{when} the state of the run is not finite: {wrong}.")

    def _mean(self, value: float) -> float:
        return float(device.mean(np.array([value], np.float32), self.worker)[0])

    def _agree(self) -> None:
        """Let all workers go on with the mean of what each has of its own, as timm's ``dist_bn="reduce"`` does."""
        for name in self.unreadable.share():
            self.journal.say(f"cannot be read, replaced by another: {name}")
        device.average(self.step.own(), self.worker)

    def _checked(self, result: StepResult, indices: Tensor, epoch: int, number: int) -> float:
        """Return the loss of a step, or stop the run where it is not a number or updates keep overflowing."""
        loss = float(result.loss)
        if not math.isfinite(loss):
            self._stop(f"The loss is {loss}", indices, epoch, number)
        if not (number + 1) % self.step.accumulation:
            wrong = self.overflows.update(float(result.applied) != 0.0)
            if wrong is not None:
                self._stop(wrong, indices, epoch, number)
        return loss

    def _stop(self, what: str, indices: Tensor, epoch: int, number: int) -> NoReturn:
        files = [self.batches.source.name(int(index)) for index in indices.asnumpy()]
        self._break_off(f"{what} at step {number} (epoch {epoch + 1}).\n  batch: {', '.join(files)}")

    def _break_off(self, what: str) -> NoReturn:
        good = self.folder / STATE
        raise XcitHubError(
            what,
            where=f"last good state: {good}" if good.exists() else "no epoch was finished",
            fix="Lower lr, lengthen the warm-up, clip gradients, or use amp_level O0; look at the batch's images.",
        )

    def _finish(self, epoch: int, history: dict[str, float]) -> None:
        recipe, progress = self.recipe, self.progress
        self._agree()
        last = epoch == recipe.epoch_size
        held = {"trained": _arrays(self.step.network)}
        if self.step.ema is not None:
            held["average"] = _arrays(self.step.ema)
        for whose, arrays in held.items():
            if wrong := _not_finite(arrays):
                self._break_off(f"After epoch {epoch} weights are not finite: {wrong} ({whose}).")
        self._check_finite(self.step.state(), f"After epoch {epoch}")
        scores: dict[str, Evaluation] = {}
        if self.scorer is not None and (last or not epoch % recipe.val_interval):
            scores = {weights: self.scorer(arrays, self.journal) for weights, arrays in held.items()}
            for weights, score in scores.items():
                prefix = "" if weights == "trained" else f"{weights}_"
                measured = {"top1": score.top1, "top5": score.top5, "eval_loss": score.loss}
                told = {name: value for name, value in measured.items() if value is not None}
                history |= {f"{prefix}{name}": round(value, 6) for name, value in told.items()}
        progress.epochs_done = epoch
        progress.history.append(history)
        if self.worker.rank == 0:
            self._keep(epoch, held, scores, history, due=last or not epoch % recipe.ckpt_save_interval)
            save_state(self.folder, self.step.state(), recipe, progress)
        self.journal.epoch(progress.history, epoch * self.batches.steps, last=last)

    def _keep(
        self,
        epoch: int,
        held: Mapping[str, Weights],
        scores: Mapping[str, Evaluation],
        history: Mapping[str, float],
        *,
        due: bool,
    ) -> None:
        """Write the epoch's checkpoints, and the best one, and delete those that are no longer kept."""
        recipe, progress = self.recipe, self.progress
        best = max(scores, key=lambda weights: scores[weights].top1) if scores else None
        if due:
            name = checkpoint_name(recipe.model, epoch, self.batches.steps)
            progress.last_sha256 = self._save(name, held, "trained", history)
            if "average" in held:
                self._save(average_name(name), held, "average", history)
            progress.kept.append(Kept(name=name, top1=None if best is None else scores[best].top1))
        if best is not None and (progress.best is None or scores[best].top1 > progress.best.top1):
            score, name = scores[best], best_name(recipe.model)
            progress.best = Best(
                name=name,
                weights=best,
                top1=score.top1,
                top5=score.top5,
                loss=score.loss,
                samples=score.samples,
                sha256=self._save(name, held, best, history),
            )
        progress.kept = retire(self.folder, progress.kept, recipe.ckpt_save_policy, recipe.keep_checkpoint_max)

    def _save(self, name: str, held: Mapping[str, Weights], weights: str, history: Mapping[str, float]) -> str:
        prefix = "" if weights == "trained" else f"{weights}_"
        metrics = {
            key: history[f"{prefix}{key}"] for key in ("top1", "top5", "eval_loss") if f"{prefix}{key}" in history
        }
        return save_checkpoint(
            self.folder / name,
            held[weights],
            self.recipe,
            dialect=self.progress.dialect,
            classes=output_names(self.progress.classes, self.num_classes),
            weights=weights,
            metrics={"epoch": history["epoch"], **metrics},
        )


def _not_finite(arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """Return the name of an array that is not finite; None where all are."""
    return next((name for name, array in arrays.items() if not np.isfinite(array).all()), None)


def _arrays(network: XCiT) -> dict[str, NDArray[Any]]:
    return {entry.name.removeprefix("ema."): entry.asnumpy() for entry in network.get_parameters()}


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
