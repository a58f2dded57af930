from __future__ import annotations

from collections.abc import Iterator

import mindspore
import numpy as np
import pytest

from xcit_hub.data.batches import Stream, Worker
from xcit_hub.errors import InputError
from xcit_hub.training import device
from xcit_hub.training.recipe import Recipe


def numbers(count: int) -> Stream:
    def make() -> Iterator[tuple[np.ndarray, np.float32]]:
        for number in range(count):
            yield np.full((2, 3), number, np.float32), np.float32(10 * number)

    return Stream(make, ["image", "rate"], count)


@pytest.mark.parametrize("sink", [True, False])
def test_every_row_is_fed_once_and_in_order_as_tensors(sink: bool) -> None:
    seen = list(device.fed(lambda image, rate: float(image.sum() + rate), numbers(4), sink=sink))
    assert seen == [0.0, 16.0, 32.0, 48.0]


@pytest.mark.skipif(device.has_queue(), reason="this device has a queue")
def test_what_is_said_to_have_no_queue_has_none() -> None:
    with pytest.raises(ValueError, match="Data sinking supports"):
        mindspore.data_sink(lambda *row: row, numbers(2).dataset)


def test_what_a_row_cannot_be_made_of_is_said_as_it_was_raised() -> None:
    def make() -> Iterator[tuple[np.ndarray]]:
        yield (np.zeros(1, np.float32),)
        raise InputError("An image is missing.", where="here")

    with pytest.raises(InputError, match=r"^An image is missing") as caught:
        list(Stream(make, ["image"], 2).rows())
    assert "Call Stack" not in str(caught.value)


def test_alone_nothing_is_exchanged() -> None:
    assert device.gather([7, 3], 5, Worker()) == [3, 7]
    assert device.mean(np.array([1.5], np.float32), Worker()).tolist() == [1.5]


def test_a_compile_cache_that_would_hand_out_an_old_recipes_graph_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("MS_COMPILER_CACHE_ENABLE", "1")
    recipe = Recipe.model_validate({"model": "xcit_nano_12_p16_224", "mode": mindspore.GRAPH_MODE})
    with pytest.raises(InputError, match="compile cache is on"):
        device.prepare(recipe, distribute=False)
    without_graph = recipe.model_copy(update={"mode": mindspore.PYNATIVE_MODE})
    assert device.prepare(without_graph, distribute=False) == Worker()
