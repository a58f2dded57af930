"""It learns: handwritten digits, in the time a test may take."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import mindspore
import numpy as np
import pytest
from PIL import Image

from xcit_hub import variants
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.training.engine import train
from xcit_hub.training.recipe_file import load_recipe

RECIPE = Path(__file__).parents[2] / "configs" / "xcit" / "cpu_smoke.yaml"

# Blocks of either kind of the network that is trained: three learn this as fourteen do, in less time.
BLOCKS = pytest.mark.parametrize("blocks", [(2, 1), pytest.param((12, 2), marks=pytest.mark.campaign)], ids=["3", "14"])


def nano_of(blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> str:
    """Add a nano of so many blocks to the table, and return its name."""
    (depth, last), nano = blocks, variants.ARCHITECTURES["xcit_nano_12_p8_224"]
    changed = dataclasses.replace(nano, name=f"xcit_nano_{depth}_p8_224", depth=depth, cls_attn_layers=last)
    monkeypatch.setitem(variants.ARCHITECTURES, changed.name, changed)
    return changed.name


@pytest.mark.slow
@pytest.mark.usefixtures("graph")
@BLOCKS
def test_a_nano_reads_held_out_digits(blocks: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = tmp_path / ("val" if number % 3 == 2 else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
        image.convert("RGB").save(folder / f"{number}.png")
    settings = {
        "model": nano_of(blocks, monkeypatch),
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


def _crop_photographs(root: Path, names: list[str], train: int, val: int) -> Path:
    """One class a photograph: crops of its left three fifths to train on, of the rest to evaluate on."""
    photographs = pytest.importorskip("skimage.data")
    rng = np.random.default_rng(0)
    for name in names:
        image = Image.fromarray(getattr(photographs, name)()).convert("RGB")
        border = image.width * 3 // 5
        for split, count, (left, right) in (("train", train, (0, border)), ("val", val, (border, image.width))):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                x, y = rng.integers(left, right - 96), rng.integers(0, image.height - 96)
                crop = image.crop((x, y, x + 96, y + 96)).resize((32, 32), Image.Resampling.BICUBIC)
                crop.save(root / split / name / f"{number}.png")
    return root


@pytest.mark.slow
@pytest.mark.usefixtures("graph")
@BLOCKS
def test_fine_tuning_converted_weights_beats_starting_from_scratch_on_real_photographs(
    blocks: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    textures = _crop_photographs(tmp_path / "textures", ["gravel", "brick", "grass", "coins", "page", "text"], 100, 20)
    scenes = _crop_photographs(tmp_path / "scenes", ["coffee", "astronaut", "cat", "rocket", "retina"], 16, 40)
    common = {"model": nano_of(blocks, monkeypatch), "image_resize": 32, "scale": [0.7, 1.0], "ema": False}

    first = train(load_recipe(RECIPE, {**common, "data_dir": str(textures), "ckpt_save_dir": str(tmp_path / "first")}))
    assert first.top1 is not None
    assert first.top1 >= 60.0, "real photographs are learnt: six classes, chance is 16.7"

    foreign = tmp_path / "for_timm.safetensors"
    rewrite(tmp_path / "first" / f"{common['model']}_best.ckpt", foreign, to="timm")
    tuned, scratch = (
        train(
            load_recipe(
                RECIPE,
                {
                    **common,
                    **start,
                    "data_dir": str(scenes),
                    "ckpt_save_dir": str(tmp_path / name),
                    "batch_size": 16,
                    "epoch_size": 2,
                    "decay_epochs": 1,
                    "mode": mindspore.PYNATIVE_MODE,  # ten steps take less than a graph's compilation
                },
            )
        )
        for name, start in (("tuned", {"ckpt_path": str(foreign)}), ("scratch", {}))
    )
    assert tuned.eval_samples == scratch.eval_samples == 200
    assert tuned.top1 >= scratch.top1 + 10.0
