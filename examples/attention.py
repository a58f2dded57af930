"""Where does a small XCiT look? It learns to read a digit somewhere on a photograph, and its attention is drawn.

    python examples/attention.py docs/attention.png

Needs a checkout and its development dependencies: scikit-learn's handwritten digits are pasted onto crops of
scikit-image's photographs, 64 × 64 pixels, and xcit_nano_12_p8_224 is trained on them from random weights, for minutes.
What is drawn are held-out digits on held-out parts of the photographs: each image, and over it the class attention of
the first of the two layers, the mean of its heads. Nothing tells the network where a digit is. Printed is what share of
the attention of each layer lies on the square of the digit, and what share that square has of the image.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("GLOG_v", "3")  # MindSpore: errors only

import numpy as np
from PIL import Image

import xcit_hub
from xcit_hub.attention_maps import seen
from xcit_hub.errors import XcitHubError
from xcit_hub.training.engine import train
from xcit_hub.training.recipe_file import load_recipe

RECIPE = Path(__file__).parents[1] / "configs" / "xcit" / "cpu_smoke.yaml"
MODEL = "xcit_nano_12_p8_224"
SIDE, DIGIT = 64, 24  # pixels
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
LAYER, SHOWN, ZOOM, GAP = 0, 8, 2, 4
MEASURED = 200  # held-out images


def make(folder: Path, count: int, seed: int = 0) -> dict[str, tuple[int, int]]:
    """Write images of ``train`` and ``val``, a folder a digit; return where each digit of ``val`` is, by file name.

    Of every three digits the third is held out, and of every photograph the right quarter.
    """
    from skimage import data
    from sklearn.datasets import load_digits

    generator = np.random.default_rng(seed)
    digits = load_digits()
    photographs = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in PHOTOGRAPHS]
    places: dict[str, tuple[int, int]] = {}
    for split, images in (("train", count), ("val", count // 8)):
        chosen = np.flatnonzero((np.arange(len(digits.target)) % 3 == 2) == (split == "val"))
        for number in range(images):
            which = int(generator.choice(chosen))
            image = background(photographs[number % len(photographs)], split, generator)
            left, top = (int(each) for each in generator.integers(0, SIDE - DIGIT + 1, 2))
            ink = Image.fromarray((digits.images[which] * (255 / 16)).astype(np.uint8))
            ink = ink.resize((DIGIT, DIGIT), Image.Resampling.BICUBIC)
            image.paste(Image.new("RGB", ink.size, "white"), (left, top), ink)
            place = folder / split / str(digits.target[which])
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{number}.png")
            if split == "val":
                places[f"{number}.png"] = (left, top)
    return places


def background(photograph: Image.Image, split: str, generator: np.random.Generator) -> Image.Image:
    """Cut a square from a photograph, of some three times the side, and make it a little darker than the ink."""
    border = photograph.width * 3 // 4
    first, last = (0, border) if split == "train" else (border, photograph.width)
    wide = int(generator.integers(SIDE, min(3 * SIDE, last - first) + 1))
    left, top = (
        int(generator.integers(first, last - wide + 1)),
        int(generator.integers(0, photograph.height - wide + 1)),
    )
    cut = photograph.crop((left, top, left + wide, top + wide)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return cut.point(lambda level: level * 3 // 4)


def train_on(folder: Path, epochs: int) -> Any:
    """Train from random weights and return the network and its top-1 on the held-out images."""
    settings = {
        "model": MODEL,
        "image_resize": SIDE,
        "data_dir": str(folder),
        "ckpt_save_dir": str(folder / "run"),
        "epoch_size": epochs,
        "decay_epochs": epochs - 1,
        "scale": [0.9, 1.0],
        "hflip": 0.0,
    }
    record = train(load_recipe(RECIPE, settings))
    return xcit_hub.load(str(folder / "run" / f"{MODEL}_best.ckpt")), record.top1


def share_on_digit(attention_map: np.ndarray[Any, Any], place: tuple[int, int]) -> float:
    """Return what share of a map's attention lies on the square of the digit; patches that it cuts count in part."""
    fine = np.kron(attention_map, np.ones((SIDE // attention_map.shape[0], SIDE // attention_map.shape[1])))
    left, top = place
    return float(fine[top : top + DIGIT, left : left + DIGIT].sum() / fine.sum())


def draw(network: Any, paths: list[Path]) -> Image.Image:
    """Draw images in a row, and below each what the network looks at."""
    cell = ZOOM * SIDE
    sheet = Image.new("RGB", (len(paths) * (cell + GAP) - GAP, 2 * cell + GAP), "white")
    for column, path in enumerate(paths):
        image = seen(network, path)
        drawn = xcit_hub.draw_attention(
            image.resize((cell, cell)), xcit_hub.attention(network, path).map(LAYER), strength=0.7
        )
        for row, each in enumerate((image.resize((cell, cell)), drawn)):
            sheet.paste(each, (column * (cell + GAP), row * (cell + GAP)))
    return sheet.quantize(256)  # a palette: a quarter of the bytes


def main(target: Path, count: int, epochs: int, keep: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="xcit-hub-attention-") as scratch:
        folder = Path(scratch)
        places = make(folder, count)
        network, top1 = train_on(folder, epochs)
        paths = sorted((folder / "val").rglob("*.png"), key=lambda path: int(path.stem))
        attention = {path.name: xcit_hub.attention(network, path) for path in paths[:MEASURED]}
        draw(network, paths[:SHOWN]).save(target, optimize=True)
        if keep is not None:
            network.save_pretrained(keep)
    print(f"{MODEL}, {SIDE} × {SIDE} pixels, {count:,} images, {epochs} epochs: top-1 {top1:.1f} % of {len(paths):,}")
    print(f"The digit's square is {(DIGIT / SIDE) ** 2:.1%} of the area.")
    for layer in range(2):
        shares = [share_on_digit(each.map(layer), places[name]) for name, each in attention.items()]
        print(f"layer {layer}: {np.mean(shares):.1%} of the attention is on the digit ({len(shares)} images)")
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="the PNG to write")
    parser.add_argument("--count", type=int, default=4800, help="images to train on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--keep", type=Path, help="a folder for the network, which examples/large_attention.py takes")
    asked = parser.parse_args()
    code = 0
    try:
        main(asked.target, asked.count, asked.epochs, asked.keep)
    except XcitHubError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    # MindSpore's cells print when the interpreter takes them down in its own order.
    os._exit(code)
