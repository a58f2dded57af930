"""A scene as training sees it: scaled, cut and mirrored by chance, its classes with it.

Source: open-mmlab/mmsegmentation 0.11, ``Resize`` with ``ratio_range``, ``RandomCrop`` with ``cat_max_ratio`` 0.75,
``RandomFlip``, ``Normalize`` and ``Pad``, in that order; its ``PhotoMetricDistortion`` is not among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xcit_hub import resampling
from xcit_hub.data.scenes import Annotated, annotation, levels, rescaled, scaled_size
from xcit_hub.data.transforms import normalize, open_rgb
from xcit_hub.errors import InputError
from xcit_hub.segmenters import NO_CLASS
from xcit_hub.variants import Preprocessing

_CUTS = 10  # tries for a cut of which no class has more than this share
_LARGEST_SHARE = 0.75

Images = NDArray[np.float32]
Classes = NDArray[np.int32]


@dataclass(frozen=True)
class Views:
    """What chance may do to a scene.

    Args:
        preprocessing: the size that a scale of 1 stands for, and the normalisation.
        side: of the square that is cut, in pixels.
        scale: smallest and largest factor on the size.
        flip: probability of a mirror image.
        seed: decides everything.
    """

    preprocessing: Preprocessing
    side: int
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    seed: int = 42

    def view(self, image: Image.Image, classes: Classes, chance: np.random.Generator) -> tuple[Images, Classes]:
        """Map an RGB image and its classes (H, W) to pixels (3, side, side), 0 beyond the image, and classes."""
        shorter = max(round(self.preprocessing.image_size * chance.uniform(*self.scale)), 1)
        height, width = scaled_size(image.height, image.width, shorter)
        rows, columns = resampling.nearest(image.height, height), resampling.nearest(image.width, width)
        image, classes = rescaled(image, height, width), classes[rows][:, columns]
        top, left = self._cut(classes, chance)
        bottom, right = min(top + self.side, height), min(left + self.side, width)
        pixels = np.empty((3, bottom - top, right - left), np.float32)
        normalize(image.crop((left, top, right, bottom)), *levels(self.preprocessing, 3), pixels)
        classes = classes[top:bottom, left:right]
        if chance.random() < self.flip:
            pixels, classes = pixels[:, :, ::-1], classes[:, ::-1]
        missing = ((0, self.side - classes.shape[0]), (0, self.side - classes.shape[1]))
        return np.pad(pixels, ((0, 0), *missing)), np.pad(classes, missing, constant_values=NO_CLASS)

    def _cut(self, classes: Classes, chance: np.random.Generator) -> tuple[int, int]:
        slack = [max(length - self.side, 0) for length in classes.shape]
        for _ in range(_CUTS):
            top, left = (int(chance.integers(0, most + 1)) for most in slack)
            cut = classes[top : top + self.side, left : left + self.side]
            counts = np.bincount(cut[cut != NO_CLASS])
            if (counts > 0).sum() > 1 and counts.max() < _LARGEST_SHARE * counts.sum():
                break
        return top, left


def batches(
    pairs: Annotated, views: Views, num_classes: int, *, batch_size: int, epoch: int
) -> Iterator[tuple[Images, Classes]]:
    """Yield an epoch's batches, images (B, 3, side, side) and classes (B, side, side), in an order of its own.

    A last batch that is not full is left out. The next one is read while the caller computes.

    Raises:
        InputError: an image or annotation cannot be read, or the two have other sizes.
    """
    count = len(pairs.images)
    order = np.random.default_rng((views.seed, epoch)).permutation(count)
    groups = [order[first : first + batch_size].tolist() for first in range(0, count - batch_size + 1, batch_size)]

    def read(group: Sequence[int]) -> tuple[Images, Classes]:
        seen = [_view(pairs.images[i], pairs.annotations[i], views, num_classes, (views.seed, epoch, i)) for i in group]
        return np.stack([pixels for pixels, _ in seen]), np.stack([classes for _, classes in seen])

    with ThreadPoolExecutor(1) as second:
        coming = [second.submit(read, group) for group in groups[:1]]
        for index in range(len(groups)):
            ready = coming.pop()
            if index + 1 < len(groups):
                coming.append(second.submit(read, groups[index + 1]))
            yield ready.result()


def _view(image: Path, marks: Path, views: Views, num_classes: int, seed: Sequence[int]) -> tuple[Images, Classes]:
    opened, classes = open_rgb(image), annotation(marks, num_classes)
    if classes.shape != (opened.height, opened.width):
        raise InputError(
            f"The annotation has {classes.shape[0]}×{classes.shape[1]} pixels, "
            f"the image {opened.height}×{opened.width}.",
            where=marks,
            fix="Each pixel of an image has a class.",
        )
    return views.view(opened, classes, np.random.default_rng(tuple(seed)))
