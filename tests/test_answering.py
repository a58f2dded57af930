"""What is written of many answers is of one network, whatever becomes of its file, and whatever that is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import xcit_hub
from xcit_hub import Predictor
from xcit_hub.answering import Wanted, answer_all
from xcit_hub.deploy import export


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("model")
    xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=4, depth=2, seed=0).save_pretrained(folder / "nano")
    return export(folder / "nano", folder / "nano.onnx", proof=False, attention=True, image_size=64).files[0]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(generator.integers(0, 255, (70, 90, 3), np.uint8)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def test_a_model_that_is_written_over_meanwhile_costs_neither_answers_nor_drawings(
    exported: Path, images: list[Path], tmp_path: Path
) -> None:
    model = tmp_path / "nano.onnx"
    content = exported.read_bytes()
    model.write_bytes(content)
    wanted = Wanted(csv=tmp_path / "a.csv", attention=tmp_path / "maps")

    def half_written(_: str) -> None:
        model.write_bytes(content[: len(content) // 2])

    done = answer_all(Predictor(str(model), top=2, batch=1), images, wanted, stage=half_written)
    assert [bool(each.problem) for each in done.answers] == [False] * 3 and not done.problems
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + 3 * 2
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["0-0.png", "1-1.png", "2-2.png"]


def test_a_table_names_a_model_whose_name_is_not_text(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    answer_all(Predictor(str(tmp_path / "x\udcff.onnx")), (), Wanted(parquet=tmp_path / "a.parquet"))
    assert parquet.read_schema(tmp_path / "a.parquet").metadata[b"xcit_hub.model"] == rb"x\xff.onnx"
