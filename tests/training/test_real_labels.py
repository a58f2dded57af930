from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xcit_hub.data.batches import EvalBatches
from xcit_hub.data.sources import ImageSource
from xcit_hub.errors import InputError
from xcit_hub.training.evaluation import evaluate
from xcit_hub.training.real_labels import read_real_labels

OUTPUTS = 7


class Validation(ImageSource):
    """ImageNet's first validation images, in another order than their numbers."""

    def __init__(self, count: int = 12) -> None:
        self.numbers = np.random.default_rng(0).permutation(count) + 1
        self.labels = (self.numbers % OUTPUTS).astype(np.int64)
        self.classes = list("abcdefg")

    def name(self, index: int) -> str:
        return f"val/n0144/ILSVRC2012_val_{self.numbers[index]:08d}.JPEG"

    def open(self, index: int) -> Image.Image:
        return Image.new("RGB", (4, 4), (int(self.numbers[index]), 0, 0))


class Untouched:
    shape = (3, 4, 4)

    def cut(self, image: Image.Image) -> Image.Image:
        return image

    def finish(self, image: Image.Image, pixels: np.ndarray) -> None:
        pixels[:] = np.asarray(image).transpose(2, 0, 1)


def answers(images: np.ndarray) -> np.ndarray:
    """Logits of each image by its number."""
    return np.stack([np.random.default_rng(int(image[0, 0, 0])).standard_normal(OUTPUTS) for image in images]).astype(
        np.float32
    )


def test_accuracy_by_the_real_labels_is_timms(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    timms = pytest.importorskip("timm.data.real_labels")
    rng = np.random.default_rng(1)
    table = [rng.permutation(OUTPUTS)[: rng.integers(0, 3)].tolist() for _ in range(12)]
    assert [] in table
    path = tmp_path / "real.json"
    path.write_text(json.dumps(table))
    source = Validation()
    found = evaluate(
        answers, EvalBatches(source, Untouched(), batch_size=5), outputs=OUTPUTS,
        real=read_real_labels(str(path), source, OUTPUTS),
    )  # fmt: skip
    theirs = timms.RealLabelsImagenet([source.name(index) for index in range(12)], str(path))
    theirs.add_result(torch.from_numpy(answers(np.array(source.numbers)[:, None, None, None])))
    assert found.real is not None
    right1, right5, counted = found.real
    assert counted == sum(map(bool, table)) < 12
    assert 100 * right1 / counted == pytest.approx(theirs.get_accuracy(1))
    assert 100 * right5 / counted == pytest.approx(theirs.get_accuracy(5))
    assert f"by the real labels top-1 {100 * right1 / counted:.3f}%" in str(found)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[[1], [2]", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "not one list of classes, 0 to 6"),
        ("[[1], 2]", "not one list of classes"),
        ("[[1], [7]]", "not one list of classes"),
        ("[[1], [true]]", "not one list of classes"),
        ("[[1], [-1]]", "not one list of classes"),
        ("[[1], [2]]", "say nothing of val/n0144/ILSVRC2012_val_"),
    ],
    ids=["cut", "deep", "table", "no list", "no output", "truth value", "negative", "too few"],
)
def test_what_is_not_such_a_file_is_refused(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "real.json"
    path.write_text(content)
    with pytest.raises(InputError, match=says):
        read_real_labels(str(path), Validation(), OUTPUTS)


def test_images_of_other_names_have_no_real_labels(tmp_path: Path) -> None:
    class Renamed(Validation):
        def name(self, index: int) -> str:
            return f"{index}.png"

    path = tmp_path / "real.json"
    path.write_text(json.dumps([[1]] * 12))
    with pytest.raises(InputError, match=r"say nothing of 0\.png"):
        read_real_labels(str(path), Renamed(), OUTPUTS)
