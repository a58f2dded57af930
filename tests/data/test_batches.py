from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xcit_hub.data.batches import EvalBatches, TrainBatches, Worker
from xcit_hub.data.mixing import Mixing
from xcit_hub.data.sources import ImageSource
from xcit_hub.errors import InputError

PLAIN = Mixing(0.0, 0.0, 1.0, 0.5)


class Numbered(ImageSource):
    """Images whose colour is their number; some cannot be read."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.labels = np.arange(count, dtype=np.int64) % 3
        self.classes = ["a", "b", "c"]
        self.broken = broken

    def name(self, index: int) -> str:
        return f"image {index}"

    def open(self, index: int) -> Image.Image:
        if index in self.broken:
            raise InputError("broken", where=self.name(index))
        return Image.new("RGB", (8, 8), (index, 0, 0))


class TrainView:
    """An image's colours, and what was drawn first and second."""

    shape = (3, 8, 8)

    def cut(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        image.info["drawn"] = rng.random()
        return image

    def finish(self, image: Image.Image, rng: np.random.Generator, pixels: np.ndarray) -> None:
        pixels[0] = np.asarray(image)[..., 0]
        pixels[1], pixels[2] = image.info["drawn"], rng.random()


class EvalView:
    shape = (3, 8, 8)

    def cut(self, image: Image.Image) -> Image.Image:
        return image

    def finish(self, image: Image.Image, pixels: np.ndarray) -> None:
        pixels[:] = np.asarray(image).transpose(2, 0, 1)


def train_batches(count: int = 20, broken: tuple[int, ...] = (), **changes: Any) -> TrainBatches:
    settings: dict[str, Any] = {"classes": 3, "batch_size": 4, "seed": 7, "mixing": PLAIN, **changes}
    return TrainBatches(Numbered(count, broken), TrainView(), **settings)


def test_an_epoch_holds_every_image_once_in_a_new_order() -> None:
    batches = train_batches()
    first, second = ([int(i) for batch in batches.epoch(epoch) for i in batch.indices] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert [int(i) for batch in train_batches().epoch(0) for i in batch.indices] == first
    unshuffled = train_batches(shuffle=False)
    assert [int(i) for batch in unshuffled.epoch(3) for i in batch.indices] == list(range(20))


def test_images_and_targets_belong_together() -> None:
    for batch in train_batches(smoothing=0.3).epoch(0):
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.indices)
        np.testing.assert_array_equal(batch.targets.argmax(1), batch.indices % 3)
        assert batch.targets.max() == pytest.approx(0.8)


def test_two_workers_see_what_one_sees_with_twice_the_batch() -> None:
    alone = list(train_batches(batch_size=4).epoch(2))
    left, right = (list(train_batches(batch_size=2, worker=Worker(rank, 2)).epoch(2)) for rank in (0, 1))
    assert len(alone) == len(left) == len(right) == 5
    for whole, first, second in zip(alone, left, right, strict=True):
        np.testing.assert_array_equal(whole.images[0::2], first.images)
        np.testing.assert_array_equal(whole.images[1::2], second.images)


def test_decoding_threads_change_nothing() -> None:
    one, two = (list(train_batches(threads=count).epoch(1)) for count in (1, 2))
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left.images, right.images)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core decodes one image at a time")
def test_threads_make_images_at_the_same_time() -> None:
    both_here = threading.Barrier(2, timeout=600)  # breaks unless two are at work at once

    class WaitingView(EvalView):
        def cut(self, image: Image.Image) -> Image.Image:
            both_here.wait()
            return image

    batches = EvalBatches(Numbered(4), WaitingView(), batch_size=4, threads=2)
    assert [counts.tolist() for _, _, counts in batches] == [[True] * 4]


def test_mixing_is_the_same_in_every_run_and_differs_between_batches() -> None:
    mixing = Mixing(0.8, 1.0, 1.0, 0.5)
    first, again = (list(train_batches(mixing=mixing).epoch(0)) for _ in range(2))
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left.images, right.images)
    assert len({batch.targets.tobytes() for batch in first}) > 1


def test_repeated_views_keep_the_epochs_length_and_go_to_different_workers() -> None:
    workers = [train_batches(24, repeats=3, batch_size=4, worker=Worker(rank, 2)) for rank in (0, 1)]
    seen = [[int(i) for batch in batches.epoch(0) for i in batch.indices] for batches in workers]
    together = np.array(seen).T.ravel()
    assert len(together) == 24
    values, counts = np.unique(together, return_counts=True)
    assert set(counts) == {3}
    assert len(values) == 8
    views = {float(image[1, 0, 0]) for batches in workers for batch in batches.epoch(0) for image in batch.images}
    assert len(views) == 24, "each repeated view is drawn anew"


def test_the_last_smaller_batch_is_kept_on_request() -> None:
    assert [len(batch.indices) for batch in train_batches(10).epoch(0)] == [4, 4]
    assert [len(batch.indices) for batch in train_batches(10, drop_remainder=False).epoch(0)] == [4, 4, 2]
    with pytest.raises(InputError, match="do not fill"):
        train_batches(3)


@given(images=st.integers(1, 40), workers=st.integers(1, 5), batch_size=st.integers(1, 6), shuffle=st.booleans())
@settings(max_examples=40)
def test_workers_take_equal_batches_padded_as_torchs_sampler_pads(
    images: int, workers: int, batch_size: int, shuffle: bool
) -> None:
    sampler = pytest.importorskip("torch").utils.data.DistributedSampler
    made = [
        train_batches(
            images, batch_size=batch_size, drop_remainder=False, shuffle=shuffle, worker=Worker(rank, workers)
        )
        for rank in range(workers)
    ]
    seen = [[batch.indices.tolist() for batch in batches.epoch(0)] for batches in made]
    for rank, batches in enumerate(seen):
        assert [len(batch) for batch in batches] == [len(batch) for batch in seen[0]]
        assert len(batches) == made[rank].steps
        theirs = list(sampler(range(images), workers, rank, shuffle=False))
        order = made[rank].order(0)
        assert [index for batch in batches for index in batch] == order[theirs].tolist()
    assert {index for batches in seen for batch in batches for index in batch} == set(range(images))


def test_an_unreadable_image_is_replaced_and_named() -> None:
    batches = list(train_batches(broken=(3, 11)).epoch(0))
    assert sorted(index for batch in batches for index in batch.unreadable if index >= 0) == [3, 11]
    used = [int(i) for batch in batches for i in batch.indices]
    assert len(used) == 20
    assert not {3, 11} & set(used)
    for batch in batches:
        np.testing.assert_array_equal(batch.targets.argmax(1), batch.indices % 3)


def test_more_classes_than_outputs_is_an_error() -> None:
    with pytest.raises(InputError, match="3 classes"):
        train_batches(classes=2)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_evaluation_shows_every_image_once_whatever_the_workers(workers: int) -> None:
    seen: list[int] = []
    for rank in range(workers):
        batches = EvalBatches(Numbered(11, broken=(5,)), EvalView(), batch_size=4, worker=Worker(rank, workers))
        for images, indices, counts in batches:
            assert images.shape == (4, 3, 8, 8)
            np.testing.assert_array_equal(images[counts][:, 0, 0, 0], indices[counts])
            assert not images[~counts].any()
            seen += indices[counts].tolist()
        assert batches.unreadable == ([5] if rank == 5 % workers else [])
    assert sorted(seen) == [index for index in range(11) if index != 5]


def test_a_run_is_one_stream_of_its_epochs_with_a_rate_for_every_step() -> None:
    batches = train_batches(mixing=Mixing(0.8, 1.0, 1.0, 0.5))
    rates = np.linspace(0, 1, 4 * batches.steps)
    rows = list(batches.epochs(1, 3, rates.tolist()).rows())
    single = [batch for epoch in (1, 2) for batch in batches.epoch(epoch)]
    assert len(rows) == len(single) == len(batches.epochs(1, 3, rates.tolist()))
    for (images, targets, indices, _, rate), batch, expected in zip(rows, single, rates[5:15], strict=True):
        np.testing.assert_array_equal(images, batch.images)
        np.testing.assert_array_equal(targets, batch.targets)
        np.testing.assert_array_equal(indices, batch.indices)
        assert rate == np.float32(expected)
