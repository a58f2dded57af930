from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from xcit_hub.data.batches import EvalBatches
from xcit_hub.data.sources import ImageSource
from xcit_hub.errors import InputError
from xcit_hub.training.evaluation import confusion_of, evaluate, samples_of, wilson_interval, write_confusion


class Coloured(ImageSource):
    """Eleven images whose colour is their number; number 4 cannot be read."""

    def __init__(self, broken: bool = False) -> None:
        self.labels = np.arange(11, dtype=np.int64) % 7
        self.classes = list("abcdefg")
        self.broken = broken

    def name(self, index: int) -> str:
        return f"image {index}"

    def open(self, index: int) -> Image.Image:
        if self.broken and index == 4:
            raise InputError("broken")
        return Image.new("RGB", (4, 4), (index, 0, 0))


class Untouched:
    shape = (3, 4, 4)

    def cut(self, image: Image.Image) -> Image.Image:
        return image

    def finish(self, image: Image.Image, pixels: np.ndarray) -> None:
        pixels[:] = np.asarray(image).transpose(2, 0, 1)


def answers(images: np.ndarray) -> np.ndarray:
    """Right for numbers below 7; beyond, the true class comes third."""
    number = images[:, 0, 0, 0].astype(int)
    logits = np.tile(np.linspace(0.1, 0, 7, dtype=np.float32), (len(images), 1))
    logits[np.arange(len(images)), number % 7] = np.where(number < 7, 9, 0.097)
    logits[:, 6] += np.where(number < 7, 0, 5).astype(np.float32)
    return logits


def test_of_too_few_classes_there_is_no_top_5_anywhere() -> None:
    class Two(Coloured):
        def __init__(self) -> None:
            super().__init__()
            self.labels = self.labels % 2

    few = evaluate(lambda images: answers(images)[:, :2], EvalBatches(Two(), Untouched(), batch_size=4), outputs=2)
    few = replace(few, real=(1, 2, 2))
    assert (few.top5, few.interval5) == (None, None)
    assert few.real_figures == {"top1": 50.0, "top5": None, "samples": 2}
    assert "top-5" not in str(few) and "top-1" in str(few)
    many = evaluate(answers, EvalBatches(Coloured(), Untouched(), batch_size=4), outputs=7)
    assert many.top5 == 100.0 and "top-5 100.000%" in str(many)
    assert replace(many, real=(1, 2, 2)).real_figures == {"top1": 50.0, "top5": 100.0, "samples": 2}


def test_the_last_partial_batch_and_unreadable_images_are_counted_right() -> None:
    found = evaluate(answers, EvalBatches(Coloured(), Untouched(), batch_size=4), outputs=7)
    assert (found.samples, found.correct1, found.correct5) == (11, 7, 11)
    assert found.confusion is not None
    assert found.confusion.sum() == 11
    np.testing.assert_array_equal(found.classes, np.stack([found.confusion.sum(1), np.diag(found.confusion)], axis=1))
    numbers = np.arange(11)
    logits = answers(np.tile(numbers[:, None, None, None], (1, 3, 4, 4)))
    log_softmax = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    assert found.loss == pytest.approx(-log_softmax[numbers, numbers % 7].mean(), rel=1e-6)
    assert np.diag(found.confusion).sum() == 7
    assert found.predictions[10] == 6
    broken = EvalBatches(Coloured(broken=True), Untouched(), batch_size=4)
    found = evaluate(answers, broken, outputs=7, max_corrupt=1)
    assert (found.samples, found.correct1, found.unreadable) == (10, 6, ("image 4",))
    with pytest.raises(InputError, match="image 4"):
        evaluate(answers, broken, outputs=7)


def test_a_few_images_go_with_their_class_and_answer() -> None:
    source = Coloured(broken=True)
    found = evaluate(answers, EvalBatches(source, Untouched(), batch_size=4), outputs=7, max_corrupt=1)
    samples = samples_of(found, source)
    numbers = [1, 6, 9]  # the middle of each third of the ten that could be read: 0, 1, 2, 3, 5, 6, …
    assert [(each.label, each.answer) for each in samples] == [
        ("abcdefg"[number % 7], "abcdefg"[found.predictions[number]]) for number in numbers
    ]
    with Image.open(io.BytesIO(base64.b64decode(samples[2].thumbnail))) as image:
        assert (image.format, image.size) == ("JPEG", (4, 4))
        assert abs(image.getpixel((1, 1))[0] - 9) <= 3
    assert samples_of(found, source, count=20) and len(samples_of(found, source, count=20)) == 10


def test_the_confusion_matrix_is_recorded_of_the_classes_that_have_names(tmp_path, monkeypatch) -> None:
    source = Coloured()
    found = evaluate(answers, EvalBatches(source, Untouched(), batch_size=4), outputs=9)
    rows = confusion_of(found, source.classes)
    assert len(rows) == 7 and sum(map(sum, rows)) == 11
    assert confusion_of(found, [str(n) for n in range(101)]) is None
    assert write_confusion(tmp_path / "a.png", found, source.classes)
    monkeypatch.setattr("xcit_hub.training.evaluation.find_spec", lambda name: None)
    assert not write_confusion(tmp_path / "b.png", found, source.classes)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_more_classes_than_outputs_is_an_error() -> None:
    with pytest.raises(InputError, match="7 classes, the network 6"):
        evaluate(answers, EvalBatches(Coloured(), Untouched(), batch_size=4), outputs=6)


def test_intervals_are_wilsons() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I.
    assert wilson_interval(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 16.11), abs=0.01)
    assert wilson_interval(1, 29) == pytest.approx((0.61, 17.18), abs=0.01)
