"""ImageNet's reassessed labels (Beyer et al., arXiv:2006.07159): an image has several of them, or none.

The file is that of google-research/reassessed-imagenet, which timm's ``--real-labels`` reads, too: for each of the
validation images ILSVRC2012_val_00000001.JPEG … a list of classes. An answer is right that is one of them; an image
without any does not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xcit_hub.data.sources import ImageSource
from xcit_hub.errors import InputError
from xcit_hub.files import read_bounded

_LARGEST_FILE = 1 << 24
_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)


@dataclass
class RealLabels:
    """Counts right answers by them.

    Args:
        labels: classes of each image of the source, by its position.
    """

    labels: Sequence[frozenset[int]]
    correct1: int = 0
    correct5: int = 0
    samples: int = 0

    def add(self, places: NDArray[np.int64], ranked: NDArray[np.int64]) -> None:
        """Take note of the first answers (B, 5) to the images at ``places`` (B,)."""
        for place, answers in zip(places.tolist(), ranked.tolist(), strict=True):
            right = self.labels[place]
            if right:
                self.samples += 1
                self.correct1 += answers[0] in right
                self.correct5 += not right.isdisjoint(answers)


def read_real_labels(path: str, source: ImageSource, outputs: int) -> RealLabels:
    """Read the file for the images of ``source``, which it knows by their names.

    Raises:
        InputError: it is not such a file, has no list for an image, or a class is not one of ``outputs``.
    """
    try:
        table = json.loads(read_bounded(path, _LARGEST_FILE))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(
            "The real labels are not JSON.", where=path, fix="Take real.json of google-research/reassessed-imagenet."
        ) from error
    if not isinstance(table, list) or not all(
        isinstance(entry, list) and all(type(label) is int and 0 <= label < outputs for label in entry)
        for entry in table
    ):
        raise InputError(
            f"The real labels are not one list of classes, 0 to {outputs - 1}, for each image.",
            where=path,
            fix="Take real.json of google-research/reassessed-imagenet, and a network of ImageNet's classes.",
        )
    labels = []
    for place in range(len(source.labels)):
        found = _NAME.search(source.name(place))
        if found is None or not 1 <= int(found[1]) <= len(table):
            raise InputError(
                f"The real labels say nothing of {source.name(place)}.",
                where=path,
                fix="They are of ImageNet's validation images, named ILSVRC2012_val_00000001.JPEG and so on.",
            )
        labels.append(frozenset(table[int(found[1]) - 1]))
    return RealLabels(labels)
