"""Where does a network that was trained on 64 × 64 pixels look in a photograph of 6000 × 4000?

    python examples/attention.py attention.png --keep digits
    python examples/large_attention.py digits docs/large_attention.jpg

The network is that of ``examples/attention.py``, which reads a digit on a piece of a photograph. Here a photograph of
scikit-image's, enlarged, has digits of 24 × 24 pixels in it, and goes through the network in one piece: 375,000 tokens,
too many for attention between tokens. Drawn are the photograph with its class attention (the first layer, the mean of
its heads, each point the largest of the patches under it), and pieces of it at full size, plain and with it. Printed
are the time, the memory, and what share of the attention lies on the digits beside their share of the area.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GLOG_v", "3")  # MindSpore: errors only

import numpy as np
from attention import DIGIT, LAYER
from PIL import Image, ImageDraw

import xcit_hub
from xcit_hub.data.transforms import normalize
from xcit_hub.errors import XcitHubError

Map = np.ndarray[Any, Any]
PLACES = 24
SHRINK, PIECE, ZOOM, GAP = 5, 48, 4, 6


def make(width: int, height: int, patch: int, seed: int = 1) -> tuple[Image.Image, list[tuple[int, int]]]:
    """Return a photograph with digits that the network was not trained on, and where they are: left, top."""
    from skimage import data
    from sklearn.datasets import load_digits

    generator = np.random.default_rng(seed)
    image = Image.fromarray(data.rocket()).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    image = image.point(lambda level: level * 3 // 4)
    digits, places = load_digits(), []
    for which in generator.choice(np.arange(2, len(digits.target), 3), PLACES):
        left = int(generator.integers(0, (width - DIGIT) // patch + 1)) * patch
        top = int(generator.integers(0, (height - DIGIT) // patch + 1)) * patch
        ink = Image.fromarray((digits.images[which] * (255 / 16)).astype(np.uint8))
        ink = ink.resize((DIGIT, DIGIT), Image.Resampling.BICUBIC)
        image.paste(Image.new("RGB", ink.size, "white"), (left, top), ink)
        places.append((left, top))
    return image, places


def on_digits(grid: Map, places: list[tuple[int, int]], patch: int) -> tuple[float, float]:
    """Return the share of the attention on the digits' patches, and the share of those of all."""
    inside = np.zeros(grid.shape, bool)
    for left, top in places:
        inside[top // patch : (top + DIGIT) // patch, left // patch : (left + DIGIT) // patch] = True
    return float(grid[inside].sum() / grid.sum()), float(inside.mean())


def draw(image: Image.Image, grid: Map, places: list[tuple[int, int]], patch: int) -> Image.Image:
    """Draw the whole, shrunk, with its attention; below, pieces around some digits, plain and with it."""
    width, height = image.width // SHRINK, image.height // SHRINK
    rows = np.linspace(0, grid.shape[0], height // 4, endpoint=False).astype(int)
    columns = np.linspace(0, grid.shape[1], width // 4, endpoint=False).astype(int)
    shrunk = np.maximum.reduceat(np.maximum.reduceat(grid, rows, 0), columns, 1)
    whole = xcit_hub.draw_attention(image.resize((width, height), Image.Resampling.LANCZOS), shrunk, strength=0.7)
    marks = ImageDraw.Draw(whole)
    for left, top in places:
        x, y = (left + DIGIT // 2) // SHRINK, (top + DIGIT // 2) // SHRINK
        marks.ellipse((x - 9, y - 9, x + 9, y + 9), outline="white")
    cell = PIECE * ZOOM
    shown = width // (cell + GAP)
    sheet = Image.new("RGB", (width, height + 2 * (cell + GAP)), "white")
    sheet.paste(whole)
    for number, (left, top) in enumerate(places[:shown]):
        x = min(max(left - (PIECE - DIGIT) // 2, 0), image.width - PIECE) // patch * patch
        y = min(max(top - (PIECE - DIGIT) // 2, 0), image.height - PIECE) // patch * patch
        piece = image.crop((x, y, x + PIECE, y + PIECE)).resize((cell, cell), Image.Resampling.BICUBIC)
        part = grid[y // patch : (y + PIECE) // patch, x // patch : (x + PIECE) // patch]
        for row, each in enumerate((piece, xcit_hub.draw_attention(piece, part, strength=0.7))):
            sheet.paste(each, (number * (cell + GAP), height + GAP + row * (cell + GAP)))
    return sheet


def main(network_id: str, target: Path, width: int, height: int) -> None:
    network = xcit_hub.load(network_id)
    seen, patch = network.config.preprocessing, network.architecture.patch_size
    image, places = make(width, height, patch)
    pixels = np.empty((3, height, width), np.float32)
    normalize(image, seen.mean, seen.std, pixels)
    began = time.perf_counter()
    attention = xcit_hub.attention(network, pixels)
    seconds = time.perf_counter() - began
    draw(image, attention.map(LAYER), places, patch).save(target, quality=80, optimize=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{network.architecture.name}, {width} × {height} pixels, {attention.map().size:,} tokens")
    print(f"{seconds:.0f} s in PyNative mode, {peak:.1f} GB at most, the photograph and MindSpore included")
    for layer in range(len(attention.classes)):
        share, area = on_digits(attention.map(layer), places, patch)
        print(f"layer {layer}: {share:.0%} of the attention is on the {PLACES} digits, {area:.2%} of the area")
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="the folder that examples/attention.py kept")
    parser.add_argument("target", type=Path, help="the JPEG to write")
    parser.add_argument("--width", type=int, default=6000, help="in pixels")
    parser.add_argument("--height", type=int, default=4000)
    asked = parser.parse_args()
    code = 0
    try:
        main(asked.network, asked.target, asked.width, asked.height)
    except XcitHubError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    # MindSpore's cells print when the interpreter takes them down in its own order.
    os._exit(code)
