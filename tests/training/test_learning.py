"""It learns: handwritten digits, in the time a test may take."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xcit_hub.training.engine import train
from xcit_hub.training.recipe import load_recipe

RECIPE = Path(__file__).parents[2] / "configs" / "xcit" / "cpu_smoke.yaml"


@pytest.mark.slow
@pytest.mark.usefixtures("graph")
def test_a_nano_reads_held_out_digits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = tmp_path / ("val" if number % 3 == 2 else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
        picture.convert("RGB").save(folder / f"{number}.png")
    settings = {
        "model": "xcit_nano_12_p8_224",
        "image_resize": 32,
        "data_dir": str(tmp_path),
        "ckpt_save_dir": str(tmp_path / "run"),
        "epoch_size": 4,
        "decay_epochs": 3,
        "scale": [0.7, 1.0],
        "hflip": 0.0,
        "color_jitter": 0.0,
    }
    began = time.process_time()
    record = train(load_recipe(RECIPE, settings))
    assert record.eval_samples == 599
    assert record.top1 is not None
    assert record.top1 >= 97.0
    assert time.process_time() - began < 300, "five CPU minutes"
