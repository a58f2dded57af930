"""Evaluation: every image counts once, on any number of workers, and the result says how sure it is."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub.data.batches import EvalBatches, Worker
from xcit_hub.data.mixing import Images
from xcit_hub.data.sources import ImageSource
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.files import atomic_write, write_text
from xcit_hub.run_record import FEWEST_FOR_TOP5, Sample
from xcit_hub.training.device import gather, mean, total
from xcit_hub.training.meters import unreadable
from xcit_hub.training.real_labels import RealLabels

Answer = Callable[[Images], NDArray[np.float32]]

_NORMAL_95 = 1.959963984540054
_LARGEST_CONFUSION = 1000  # outputs beyond which nobody counts which class was answered as which
_THUMBNAIL = 128  # pixels of the longer side
_MOST_COUNTED = 30  # classes up to which each cell says its count
_LARGEST_DRAWING = 100  # classes beyond which that is not drawn


@dataclass(frozen=True)
class Evaluation:
    """What a network scored.

    Args:
        correct1, correct5: images whose class is the first, or among the first five answers.
        samples: images that counted.
        loss: mean cross-entropy of the images.
        classes: (outputs, 2) int64: images of each class, and how many of them were answered rightly.
        confusion: (outputs, outputs) int64, rows are the truth: how often a class was answered as which; None beyond
            1,000 outputs.
        unreadable: names of the images that could not be read and did not count.
        predictions: first answer for each image by its position in the source, of this worker.
        real: right first answers, images with one right among the first five, and images, by the real labels.
    """

    correct1: int
    correct5: int
    samples: int
    loss: float
    classes: NDArray[np.int64]
    confusion: NDArray[np.int64] | None
    unreadable: tuple[str, ...] = ()
    predictions: dict[int, int] = field(default_factory=dict)
    real: tuple[int, int, int] | None = None

    @property
    def top1(self) -> float:
        """Per cent of images whose class is the first answer."""
        return 100.0 * self.correct1 / self.samples

    @property
    def top5(self) -> float | None:
        """Per cent of images whose class is among the first five answers; None of too few classes."""
        return 100.0 * self.correct5 / self.samples if len(self.classes) >= FEWEST_FOR_TOP5 else None

    def unnamed(self, names: int) -> int:
        """Return how many images were answered with an output beyond the first ``names``; 0 where nobody counted."""
        return 0 if self.confusion is None else int(self.confusion[:, names:].sum())

    @property
    def interval1(self) -> tuple[float, float]:
        """The 95% interval of top-1, in per cent."""
        return wilson_interval(self.correct1, self.samples)

    @property
    def interval5(self) -> tuple[float, float] | None:
        """The 95% interval of top-5, in per cent; None where there is no top-5."""
        return None if self.top5 is None else wilson_interval(self.correct5, self.samples)

    @property
    def real_figures(self) -> dict[str, Any] | None:
        """``top1``, ``top5`` and ``samples`` by the real labels; None where nobody asked for them."""
        if self.real is None:
            return None
        right1, right5, counted = self.real
        top5 = None if self.top5 is None else 100 * right5 / counted
        return {"top1": 100 * right1 / counted, "top5": top5, "samples": counted}

    def __str__(self) -> str:
        low1, high1 = self.interval1
        top5 = ""
        if self.interval5 is not None:
            low5, high5 = self.interval5
            top5 = f"top-5 {self.top5:.3f}% ({low5:.2f}–{high5:.2f}), "
        real = ""
        if self.real is not None and (figures := self.real_figures) is not None:
            low, high = wilson_interval(self.real[0], self.real[2])
            real5 = "" if figures["top5"] is None else f"top-5 {figures['top5']:.3f}%, "
            real = (
                f"; by the real labels top-1 {figures['top1']:.3f}% ({low:.2f}–{high:.2f}), "
                f"{real5}{figures['samples']} images"
            )
        return (
            f"top-1 {self.top1:.3f}% (95%: {low1:.2f}–{high1:.2f}), {top5}loss {self.loss:.4f}, {self.samples} images"
            f"{real}"
        )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a proportion, in per cent (Wilson, JASA 22, 1927)."""
    share, spread = successes / trials, _NORMAL_95**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = _NORMAL_95 / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def evaluate(
    answer: Answer,
    batches: EvalBatches,
    *,
    outputs: int,
    worker: Worker | None = None,
    max_corrupt: int = 0,
    step: Callable[[], Any] = lambda: None,
    real: RealLabels | None = None,
) -> Evaluation:
    """Score ``answer``, which maps images (B, 3, H, W) to logits (B, outputs), on every image of ``batches``.

    Args:
        outputs: width of the logits.
        worker: this worker among those that share the images; counts are summed over all of them.
        max_corrupt: images that may be unreadable, on all workers together.
        step: called after each batch.
        real: counts by other labels, too.

    Raises:
        InputError: more images are unreadable, no image is left, or a label has no output.
        XcitHubError: answers are not finite.
    """
    labels = batches.source.labels
    if labels.max() >= outputs:
        raise InputError(
            f"The data set has {len(batches.source.classes)} classes, the network {outputs}.",
            where="num_classes",
            fix="Evaluate on the classes that the network was trained on.",
        )
    confusion = np.zeros((outputs, outputs), np.int64) if outputs <= _LARGEST_CONFUSION else None
    classes = np.zeros((outputs, 2), np.int64)
    correct1 = correct5 = samples = 0
    loss = 0.0
    predictions: dict[int, int] = {}
    found = list(batches.source.unreadable)
    for images, indices, counts in batches:
        logits = answer(images)[counts]
        truth = labels[indices[counts]]
        _check_readable([*found, *_names(batches, batches.unreadable)], max_corrupt)
        ranked = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        right = ranked[:, 0] == truth
        correct1 += int(right.sum())
        correct5 += int((ranked == truth[:, None]).any(1).sum())
        samples += len(truth)
        loss += _cross_entropy(logits, truth)
        np.add.at(classes, (truth, 0), 1)
        np.add.at(classes, (truth, 1), right)
        if confusion is not None:
            np.add.at(confusion, (truth, ranked[:, 0]), 1)
        predictions.update(zip(indices[counts].tolist(), ranked[:, 0].tolist(), strict=True))
        if real is not None:
            real.add(indices[counts], ranked)
        step()
    worker = worker or Worker()
    names = [*found, *_names(batches, gather(batches.unreadable, max_corrupt, worker))]
    _check_readable(names, max_corrupt)
    if worker.count > 1:
        sums = total(np.array([correct1, correct5, samples]), worker)
        correct1, correct5, samples = (int(value) for value in sums)
        loss = float(mean(np.array([loss], np.float32), worker)[0]) * worker.count
        classes = total(classes, worker)
        confusion = None if confusion is None else total(confusion, worker)
    by_real = None
    if real is not None:
        right1, right5, counted = total(np.array([real.correct1, real.correct5, real.samples]), worker).tolist()
        if not counted:
            raise InputError(
                "No evaluated image has a real label.",
                where="real_labels",
                fix="Take the file that is of these images, or leave it out.",
            )
        by_real = right1, right5, counted
    if not samples:
        raise InputError(
            "No image could be evaluated.", where="val_split", fix="See that the split holds images that can be read."
        )
    if not math.isfinite(loss):
        raise XcitHubError(
            f"The network's answers are not finite: the loss of the evaluation is {loss}.",
            where="the evaluation",
            fix="Evaluate in float32 (val_amp_level O0); of weights that are being trained, lower lr.",
        )
    return Evaluation(
        correct1, correct5, samples, loss / samples, classes, confusion, tuple(names), predictions, by_real
    )


def _cross_entropy(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """Return the sum over images, in double precision."""
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    return float((np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(len(truth)), truth]).sum())


def _names(batches: EvalBatches, indices: Sequence[int]) -> list[str]:
    return [batches.source.name(index) for index in indices]


def _check_readable(names: Sequence[str], max_corrupt: int) -> None:
    if len(names) > max_corrupt:
        raise unreadable(names)


def write_per_class(path: Path, evaluation: Evaluation, classes: Sequence[str]) -> None:
    """Write one line a class as CSV: name, images, correct, top-1 in per cent."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["class", "samples", "correct", "top1"])
    for label, name in enumerate(classes):
        samples, correct = evaluation.classes[label].tolist()
        writer.writerow([name, samples, correct, f"{100 * correct / samples:.3f}" if samples else ""])
    write_text(path, text.getvalue())


def confusion_of(evaluation: Evaluation, classes: Sequence[str]) -> list[list[int]] | None:
    """Return the confusion matrix for the record; None beyond 100 classes, or where an answer is none of these."""
    counted = _shown(evaluation, classes)
    return None if counted is None else counted.tolist()


def _shown(evaluation: Evaluation, classes: Sequence[str]) -> NDArray[np.int64] | None:
    if evaluation.confusion is None or len(classes) > _LARGEST_DRAWING or evaluation.unnamed(len(classes)):
        return None  # without the answers that have no name, what is wrong would look as if it were not
    return evaluation.confusion[: len(classes), : len(classes)]


def samples_of(evaluation: Evaluation, source: ImageSource, count: int = 3) -> list[Sample]:
    """Return a few images with their class and answer: one at the middle of each equal part of the evaluated ones."""
    places = sorted(evaluation.predictions)
    chosen = [places[(2 * part + 1) * len(places) // (2 * count)] for part in range(min(count, len(places)))]
    found = []
    for place in chosen:
        try:
            image = source.open(place)
        except InputError:  # it was readable a moment ago
            continue
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        jpeg = io.BytesIO()
        image.convert("RGB").save(jpeg, "JPEG", quality=80)
        label, answer = (
            source.classes[index] if index < len(source.classes) else str(index)
            for index in (int(source.labels[place]), evaluation.predictions[place])
        )
        found.append(Sample(label=label, answer=answer, thumbnail=base64.b64encode(jpeg.getvalue()).decode()))
    return found


def write_confusion(path: Path, evaluation: Evaluation, classes: Sequence[str]) -> bool:
    """Draw the confusion matrix as PNG; says False, and draws nothing, where there is none or without matplotlib."""
    counts = _shown(evaluation, classes)
    if counts is None or find_spec("matplotlib") is None:
        return False
    count = len(classes)
    side = min(max(4.5, 0.42 * count + 2), 14) if count <= _MOST_COUNTED else 8.0
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side, side))
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1)[:, None], 1)
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("answered")
    axes.set_ylabel("true")
    axes.set_title(f"confusion: top-1 {evaluation.top1:.2f} % of {evaluation.samples} images")
    if count <= _MOST_COUNTED:
        for (row, column), share in np.ndenumerate(shares):
            if counted := int(counts[row, column]):
                colour = "white" if share > 0.5 else "black"
                axes.text(column, row, str(counted), ha="center", va="center", color=colour, fontsize=7)
        axes.set_xticks(range(count), classes, rotation=90, fontsize=7)
        axes.set_yticks(range(count), classes, fontsize=7)
    figure.colorbar(drawn, ax=axes, label="share of the class", shrink=0.8)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=120, bbox_inches="tight")
    return True
