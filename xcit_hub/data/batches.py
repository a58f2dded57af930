"""Epochs of batches through ``mindspore.dataset``, the same for any number of workers and threads.

Which image stands where in an epoch, and every random number of its view, is a function of (seed, epoch, position)
alone. A run can therefore stop and continue at any batch, and two workers see what one worker with twice the batch
sees.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import mindspore.dataset as ds
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xcit_hub.data.augment import Rng
from xcit_hub.data.mixing import Images, Mixing, Targets, dense_targets
from xcit_hub.data.sources import ImageSource
from xcit_hub.errors import InputError, XcitHubError

Opener = Callable[[], Image.Image]
_Finish = Callable[[Images], None]  # writes an image into its place in the batch
_Row = tuple[_Finish, int, int]
_Columns = tuple[Images, NDArray[np.int64], NDArray[np.int64]]

_COLUMNS = ("images", "targets", "indices", "unreadable")
_REPLACEMENTS = 20  # images tried in place of an unreadable one
_MIXING = 1 << 40  # keys of batches, apart from those of positions
_ORDER = 1 << 41


class TrainView(Protocol):
    """How a photograph becomes ``shape``: cut in any thread, then finished in its batch's memory.

    The shape is (3, H, W), or (views, 3, H, W) where an image has several views in its batch.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def cut(self, image: Image.Image, rng: Rng, /) -> Any: ...  # noqa: D102

    def finish(self, cut: Any, rng: Rng, pixels: Images, /) -> None: ...  # noqa: D102


class EvalView(Protocol):
    """The same without chance."""

    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    def cut(self, image: Image.Image, /) -> Image.Image: ...  # noqa: D102

    def finish(self, image: Image.Image, pixels: Images, /) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Worker:
    """One of several data-parallel workers."""

    rank: int = 0
    count: int = 1


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    Args:
        images: (B, C, H, W) float32; (views · B, C, H, W) where an image has several, all first views first.
        targets: (B, classes) float32, or (views · B, classes); twice as wide with what a teacher answers.
        indices: (B,) positions in the source, of the images that were used.
        unreadable: (B,) positions of the images in whose place they were used, as they cannot be read; else -1.
    """

    images: Images
    targets: Targets
    indices: NDArray[np.int64]
    unreadable: NDArray[np.int64]


def _rng(seed: int, epoch: int, key: int) -> Rng:
    return np.random.Generator(np.random.Philox(key=np.array([seed, (epoch << 44) | key], np.uint64)))


class TrainBatches:
    """The training split as epochs of mixed, augmented batches for one worker.

    Args:
        source: the images.
        view: augmentation of one image.
        classes: width of the targets.
        batch_size: images a step on each worker.
        seed: decides order, views and mixing.
        repeats: views of an image in an epoch; an epoch keeps its length (RASampler of facebookresearch/xcit).
        threads: how many decode and cut at once, at most one a core; the source is read from all of them.
        tell: what a teacher answers to the mixed images of a batch, (B, classes); it stands after their targets.
    """

    def __init__(
        self,
        source: ImageSource,
        view: TrainView,
        *,
        classes: int,
        batch_size: int,
        seed: int,
        mixing: Mixing,
        smoothing: float = 0.0,
        shuffle: bool = True,
        repeats: int = 1,
        drop_remainder: bool = True,
        threads: int = 1,
        worker: Worker | None = None,
        tell: Callable[[Images], Targets] | None = None,
    ) -> None:
        self.source = source
        self.view = view
        self.tell = tell
        self.classes = classes
        self.batch_size = batch_size
        self.seed = seed
        self.mixing = mixing
        self.smoothing = smoothing
        self.shuffle = shuffle
        self.repeats = max(1, repeats)
        self.drop_remainder = drop_remainder
        self.threads = threads
        self.worker = worker or Worker()
        images, together = len(source.labels), batch_size * self.worker.count
        self.steps = images // together if drop_remainder else math.ceil(images / together)
        if not self.steps:
            raise InputError(
                f"{images} images do not fill one batch of {together}.",
                where="batch_size",
                fix="Lower batch_size, or set drop_remainder to false.",
            )
        # Every class has its output, also one of which a sample leaves no image: the outputs are called after all.
        if max(int(source.labels.max()) + 1, len(source.classes)) > classes:
            raise InputError(
                f"The data set has {len(source.classes)} classes, the network {classes}.",
                where="num_classes",
                fix="Raise num_classes, or leave it out to take as many as the data set has.",
            )

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the source positions of a whole epoch, all workers together, in order."""
        images = len(self.source.labels)
        once = _rng(self.seed, epoch, _ORDER).permutation(images) if self.shuffle else np.arange(images)
        return np.repeat(once, self.repeats)[:images].astype(np.int64)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch (0, 1, …) for this worker."""
        stream = Stream(partial(self._made, epoch), _COLUMNS, self.steps)
        return (Batch(*row) for row in stream.rows())

    def epochs(self, first: int, last: int, rates: Sequence[float], *, taken: int = 0) -> Stream:
        """Return the batches of the epochs ``first`` … ``last`` − 1 as one stream, each with its learning rate.

        Args:
            rates: learning rate of every step of the run, from epoch 0 on.
            taken: batches of the first epoch that are left out.
        """

        def make() -> Iterator[tuple[Any, ...]]:
            for epoch in range(first, last):
                begin = taken if epoch == first else 0
                for step, columns in enumerate(self._made(epoch, begin), begin):
                    yield *columns, np.float32(rates[epoch * self.steps + step])

        return Stream(make, [*_COLUMNS, "rate"], (last - first) * self.steps - taken)

    def _made(
        self, epoch: int, taken: int = 0
    ) -> Iterator[tuple[Images, Targets, NDArray[np.int64], NDArray[np.int64]]]:
        order = self.order(epoch)
        workers = self.worker.count
        # Without drop_remainder the first images are repeated until every worker has as many, as in torch's
        # DistributedSampler: workers that take different steps would wait for each other for ever.
        shares = self.steps * self.batch_size if self.drop_remainder else math.ceil(len(order) / workers)
        used = np.resize(order, shares * workers)
        # Neighbours go to different workers, so that repeated views of an image do, too.
        positions = np.arange(self.worker.rank, len(used), self.worker.count)
        rows = _Views(self.source, self.view, used[positions], positions, self.seed, epoch)
        made = _whole_batches(rows, self.batch_size, self.drop_remainder, self.threads, taken * self.batch_size)
        for step, (images, indices, unreadable) in enumerate(made, taken):
            targets = dense_targets(self.source.labels[indices], self.classes, self.smoothing)
            rng = _rng(self.seed, epoch, _MIXING + step * self.worker.count + self.worker.rank)
            images, targets = self.mixing(*_view_by_view(images, targets), rng, epoch)
            if self.tell is not None:
                targets = np.concatenate([targets, self.tell(images)], axis=1, dtype=np.float32)
            yield images, targets, indices, unreadable


def _view_by_view(images: Images, targets: Targets) -> tuple[Images, Targets]:
    """Lay the views of (B, views, 3, H, W) one after another: all first ones, all second ones, …"""
    if images.ndim == 4:
        return images, targets
    views = images.shape[1]
    return images.swapaxes(0, 1).reshape(-1, *images.shape[2:]), np.tile(targets, (views, 1))


class _Views:
    """The augmented views of one worker's epoch: each is begun from its row and what opens its image."""

    def __init__(
        self,
        source: ImageSource,
        view: TrainView,
        indices: NDArray[np.int64],
        positions: NDArray[np.int64],
        seed: int,
        epoch: int,
    ) -> None:
        self.source = source
        self.view = view
        self.indices = indices
        self.positions = positions
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.indices)

    def __call__(self, row: int, opener: Opener) -> _Row:
        rng = _rng(self.seed, self.epoch, int(self.positions[row]))
        wanted = int(self.indices[row])
        index = wanted
        for attempt in range(_REPLACEMENTS):
            try:
                image = opener()
            except InputError:
                index = int(self.indices[(row + 1 + attempt) % len(self.indices)])
                opener = partial(self.source.open, index)
                continue
            return partial(self.view.finish, self.view.cut(image, rng), rng), index, -1 if index == wanted else wanted
        raise InputError(
            f"{_REPLACEMENTS} images in a row cannot be read.", where=self.source.name(wanted), fix="Check the data."
        )


class EvalBatches:
    """A split as batches in which this worker's share of the images stands exactly once.

    The last batch is filled up to keep its shape; ``weights`` is 0 for what was filled up and for unreadable images.
    """

    def __init__(
        self, source: ImageSource, view: EvalView, *, batch_size: int, threads: int = 1, worker: Worker | None = None
    ) -> None:
        self.source = source
        self.batch_size = batch_size
        self.threads = threads
        worker = worker or Worker()
        self.indices = np.arange(worker.rank, len(source.labels), worker.count, dtype=np.int64)
        self.unreadable: list[int] = []
        self._rows = _Images(source, view, self.indices)
        self.steps = math.ceil(len(self.indices) / batch_size)

    def __iter__(self) -> Iterator[tuple[Images, NDArray[np.int64], NDArray[np.bool_]]]:
        """Yield images (B, 3, H, W), their positions in the source (B,), and whether each counts (B,).

        An image that cannot be read does not count; its position is added to ``unreadable``.
        """
        self.unreadable = []
        if not len(self.indices):
            return
        make = partial(_whole_batches, self._rows, self.batch_size, False, self.threads)
        for images, indices, unreadable in Stream(make, ("images", "indices", "unreadable"), self.steps).rows():
            missing = self.batch_size - len(indices)
            self.unreadable += unreadable[unreadable >= 0].tolist()
            if missing:
                images = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
            yield images, np.pad(indices, (0, missing)), np.pad(unreadable < 0, (0, missing))


class _Images:
    def __init__(self, source: ImageSource, view: EvalView, indices: NDArray[np.int64]) -> None:
        self.source = source
        self.view = view
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __call__(self, row: int, opener: Opener) -> _Row:
        index = int(self.indices[row])
        try:
            return partial(self.view.finish, self.view.cut(opener())), index, -1
        except InputError:
            return _leave_blank, index, index


def _leave_blank(pixels: Images) -> None:
    pixels[:] = 0


def _whole_batches(
    rows: _Views | _Images, batch_size: int, drop_remainder: bool, threads: int, first: int = 0
) -> Iterator[_Columns]:
    """Yield batches whose images several threads cut: Pillow decodes and resizes without Python's lock.

    The first row is ``first``. The thread that asks finishes them, each straight into the batch's memory, while the
    others go on.

    MindSpore's own workers are no faster than one: its threads wait for each other, and its processes start anew every
    epoch and send every image through a pipe.
    """
    openers = enumerate(rows.source.in_turn(rows.indices[first:].tolist()), first)
    with ThreadPoolExecutor(min(threads, os.cpu_count() or 1)) as pool:

        def begin() -> list[Future[_Row]]:
            return [pool.submit(rows, row, opener) for row, opener in islice(openers, batch_size)]

        ahead = begin()
        while len(ahead) > (batch_size - 1 if drop_remainder else 0):
            begun, ahead = ahead, begin()
            images = np.empty((len(begun), *rows.view.shape), np.float32)
            indices, unreadable = np.empty((2, len(begun)), np.int64)
            for place, each in enumerate(begun):
                finish, indices[place], unreadable[place] = each.result()
                finish(images[place])
            yield images, indices, unreadable


class Stream:
    """Rows that a Python generator makes, as a data set of MindSpore's.

    Args:
        make: starts the generator of tuples of arrays; called again for every pass.
        columns: what the arrays are called.
        length: how many rows there are.
    """

    def __init__(self, make: Callable[[], Iterator[tuple[Any, ...]]], columns: Sequence[str], length: int) -> None:
        self._make = make
        self._length = length
        self._fault: XcitHubError | None = None
        self.dataset = ds.GeneratorDataset(
            self, list(columns), shuffle=False, num_parallel_workers=1, python_multiprocessing=False
        )

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._make()
        except XcitHubError as fault:
            self._fault = fault
            raise

    def rows(self, *, as_tensors: bool = False) -> Iterator[tuple[Any, ...]]:
        """Yield the rows once, in order, as arrays or MindSpore's tensors.

        Raises:
            XcitHubError: the generator's own, which MindSpore would make a page of text of.
        """
        try:
            yield from self.dataset.create_tuple_iterator(num_epochs=1, output_numpy=not as_tensors)
        except RuntimeError:
            if self._fault is not None:
                raise self._fault from None
            raise
