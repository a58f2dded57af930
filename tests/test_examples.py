"""The examples that draw run, and draw what they say."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import xcit_hub

_ROOT = Path(__file__).parents[1]


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", _ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "nano"
    xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=0, seed=0).save_pretrained(folder)
    return folder


def test_retrieval_orders_images_and_finds_a_part_in_each(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pytest.importorskip("skimage.data")
    paths = [tmp_path / "coffee.png", tmp_path / "cat.png"]
    for path, pixels in zip(paths, (data.coffee(), data.chelsea()), strict=True):
        Image.fromarray(pixels).save(path)
    command = [sys.executable, str(_ROOT / "examples" / "retrieval.py"), str(model), str(paths[1]), "sheet.png"]
    command += ["--side", "96", "--among", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    same, other = found["neighbours"]
    assert [same["image"], other["image"]] == [str(paths[1]), str(paths[0])]
    assert same["similarity"] == pytest.approx(1.0, abs=1e-5) and same["similarity"] > other["similarity"]
    assert same["part"] == found["part"] and same["part_similarity"] == pytest.approx(1.0, abs=1e-5)
    assert all(0 <= side < 6 for each in (same, other) for side in each["part"])
    assert Image.open(tmp_path / "sheet.png").size == (4 * 230 - 6, 224)

    # The same program in this process, which has imported the frameworks already.
    monkeypatch.setattr(sys, "argv", [command[1], command[2], "missing.png", *command[4:]])
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(command[1], run_name="__main__")
    told = capfd.readouterr().err
    assert ended.value.code == 2 and "error: " in told and "missing.png" in told and "Traceback" not in told


def test_the_attention_example_knows_where_its_digits_are_and_draws_them(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage.data")
    example = _example("attention")
    places = example.make(tmp_path, 16)
    assert len(list((tmp_path / "train").rglob("*.png"))) == 16
    paths = sorted((tmp_path / "val").rglob("*.png"))
    assert {path.name for path in paths} == set(places) and len(paths) == 2
    for path in paths:
        left, top = places[path.name]
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape == (64, 64)
        inside = pixels[top : top + 24, left : left + 24]
        assert inside.max() > 230 and pixels.max() == inside.max()  # ink is white, photographs are darker
    uniform = np.ones((8, 8))
    assert example.share_on_digit(uniform, (5, 40)) == pytest.approx((24 / 64) ** 2)
    assert example.share_on_digit(np.eye(1, 64, 9).reshape(8, 8), (8, 8)) == 1.0
    sheet = example.draw(xcit_hub.load(str(model)), paths)
    assert sheet.size == (2 * 132 - 4, 2 * 128 + 4)


def test_the_example_of_a_large_photograph_counts_attention_where_its_digits_are(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("skimage.data")
    monkeypatch.syspath_prepend(str(_ROOT / "examples"))
    example = _example("large_attention")
    image, places = example.make(1000, 800, 8)
    assert image.size == (1000, 800) and len(places) == 24 and not any(side % 8 for place in places for side in place)
    grid = np.zeros((100, 125))
    for left, top in places:
        assert np.asarray(image)[top : top + 24, left : left + 24].max() > 230
        grid[top // 8 + 1, left // 8 + 2] = 1
    share, area = example.on_digits(grid, places, 8)
    assert share == 1.0 and area <= 24 * 9 / grid.size
    assert example.on_digits(np.ones_like(grid), places, 8) == pytest.approx((area, area))
    sheet = example.draw(image, grid, places, 8)
    assert sheet.size == (200, 160 + 2 * (192 + 6))


def test_the_pictures_of_attention_are_there_and_small() -> None:
    picture = _ROOT / "docs" / "attention.png"
    assert "docs/attention.png" in (_ROOT / "README.md").read_text("utf-8")
    assert picture.stat().st_size < 200_000
    assert Image.open(picture).size == (8 * 132 - 4, 2 * 128 + 4)
    large = _ROOT / "docs" / "large_attention.jpg"
    assert "large_attention.jpg" in (_ROOT / "docs" / "predict.md").read_text("utf-8")
    assert large.stat().st_size < 250_000 and Image.open(large).width == 1200
