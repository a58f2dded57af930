"""How well a segmenter segments: intersections over unions, counted over all pixels of a data set.

Source: open-mmlab/mmsegmentation 0.11, ``mmseg/core/evaluation/metrics.py``: counts are summed over all images before
anything is divided; a class that neither is there nor is answered has no figure, and the means leave it out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub.data.folders import readable
from xcit_hub.data.scenes import Annotated, annotation, scene
from xcit_hub.errors import InputError
from xcit_hub.files import write_text
from xcit_hub.models import windows
from xcit_hub.models.segmenter import XCiTSegmenter
from xcit_hub.segmenters import NO_CLASS, Window
from xcit_hub.variants import Preprocessing

_LISTED = 20


class Counts:
    """Pixels by their true class and the answered one.

    Args:
        num_classes: of the network.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.right = np.zeros(num_classes, np.int64)
        self.answered = np.zeros(num_classes, np.int64)
        self.true = np.zeros(num_classes, np.int64)

    def add(self, answer: NDArray[np.int32], truth: NDArray[np.int32]) -> None:
        """Count an image's pixels; those of no class (:data:`xcit_hub.segmenters.NO_CLASS`) do not count.

        Raises:
            InputError: the two have other sizes.
        """
        if answer.shape != truth.shape:
            raise InputError(
                f"The annotation has {_by(truth.shape)} pixels, the image {_by(answer.shape)}.",
                where="the annotation",
                fix="Give every pixel of an image a class.",
            )
        counts = truth != NO_CLASS
        answer, truth = answer[counts], truth[counts]
        for found, values in ((self.answered, answer), (self.true, truth), (self.right, truth[answer == truth])):
            found += np.bincount(values, minlength=self.num_classes)


@dataclass(frozen=True)
class Segmentation:
    """What a segmenter scored.

    Args:
        iou: of each class, 0 to 1; NaN where the class neither is there nor is answered.
        recall: of each class the share of its pixels that is answered; NaN where there is none.
        accuracy: share of all pixels.
        pixels: true pixels of each class.
        images: how many counted.
        unreadable: what could not be read and did not count.
        image_size: pixels of an image's shorter side when it is resized.
        window: what slid over it; None where it went through whole.
    """

    iou: NDArray[np.float64]
    recall: NDArray[np.float64]
    accuracy: float
    pixels: NDArray[np.int64]
    images: int
    unreadable: tuple[str, ...] = ()
    image_size: int | None = None
    window: Window | None = None

    @classmethod
    def of(cls, counts: Counts, images: int, unreadable: Sequence[str] = ()) -> Segmentation:
        """Divide what was counted.

        Raises:
            InputError: no pixel counted.
        """
        if not counts.true.sum():
            raise InputError(
                "No pixel of a class could be evaluated.", where="the annotations", fix="Check them: 0 is not a class."
            )
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = counts.right / (counts.answered + counts.true - counts.right)
            recall = counts.right / counts.true
        return cls(iou, recall, float(counts.right.sum() / counts.true.sum()), counts.true, images, tuple(unreadable))

    @property
    def miou(self) -> float:
        """Mean intersection over union, in per cent."""
        return 100 * float(np.nanmean(self.iou))

    @property
    def mean_accuracy(self) -> float:
        """Mean share of a class's pixels that is answered, in per cent."""
        return 100 * float(np.nanmean(self.recall))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; a class without a figure has null."""
        return {
            "kind": "segmentation",
            "miou": self.miou,
            "mean_accuracy": self.mean_accuracy,
            "pixel_accuracy": 100 * self.accuracy,
            "images": self.images,
            "image_size": self.image_size,
            "window": None if self.window is None else list(self.window.size),
            "stride": None if self.window is None else list(self.window.stride),
            "iou": [None if np.isnan(value) else 100 * float(value) for value in self.iou],
            "unreadable": list(self.unreadable),
        }

    def __str__(self) -> str:
        counted = int((~np.isnan(self.iou)).sum())
        return (
            f"mIoU {self.miou:.2f}% of {counted} classes, mean accuracy {self.mean_accuracy:.2f}%, pixels "
            f"{100 * self.accuracy:.2f}%, {self.images} images"
        )


def evaluate(
    network: XCiTSegmenter,
    pairs: Annotated,
    preprocessing: Preprocessing,
    *,
    window: Window | None = None,
    max_corrupt: int = 0,
    step: Callable[[int], Any] = lambda _: None,
) -> Segmentation:
    """Segment every image at its own size and hold it against its annotation.

    Args:
        preprocessing: how an image is resized and normalised.
        window: None lets images through whole.
        max_corrupt: images that may be unreadable, or have an unreadable annotation.
        step: told how many images are done.

    Raises:
        InputError: more are unreadable, an annotation does not fit its image, or no pixel is left.
    """
    counts = Counts(network.num_classes)
    unreadable, images = list(pairs.unreadable), 0
    for done, (image, marks) in enumerate(zip(pairs.images, pairs.annotations, strict=True), 1):
        try:
            opened = scene(image, preprocessing, in_chans=network.in_chans)
            truth = annotation(marks, network.num_classes)
        except InputError as error:
            unreadable.append(f"{readable(image)} ({error.what.rstrip('.')})")
        else:
            try:
                found = windows.logits(network, opened.pixels, window)
                counts.add(windows.classes(found, opened.image.height, opened.image.width), truth)
            except InputError as error:
                raise InputError(error.what, where=readable(image), fix=error.fix) from None
            images += 1
        check_usable(unreadable, max_corrupt)
        step(done)
    figures = Segmentation.of(counts, images, unreadable)
    return replace(figures, image_size=preprocessing.image_size, window=window)


def check_usable(unreadable: Sequence[str], max_corrupt: int) -> None:
    """Make sure that no more images or annotations are unusable than may be.

    Raises:
        InputError: more are.
    """
    if len(unreadable) > max_corrupt:
        more = f" and {len(unreadable) - _LISTED} more" if len(unreadable) > _LISTED else ""
        raise InputError(
            f"{len(unreadable)} images or annotations cannot be used: {'; '.join(unreadable[:_LISTED])}{more}.",
            where="max_corrupt",
            fix="Repair or remove them, or allow as many with --max_corrupt.",
        )


def write_per_class(path: Path, found: Segmentation, labels: Sequence[str]) -> None:
    """Write one line a class as CSV: name, true pixels, IoU and recall in per cent, empty where there is none."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("class", "pixels", "iou", "recall"))
    for index in range(len(found.iou)):
        shares = ("" if np.isnan(each) else f"{100 * each:.3f}" for each in (found.iou[index], found.recall[index]))
        rows.writerow((labels[index] if labels else index, found.pixels[index], *shares))
    write_text(path, text.getvalue())


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
