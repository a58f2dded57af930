"""Which photograph is most like this one, and where is that part of it? Nearest neighbours by what a network sees.

    python examples/retrieval.py dino_xcit_small_12_p16 cat.jpg sheet.png
    python examples/retrieval.py ./mine.ckpt cat.jpg sheet.png --among photographs/*.jpg --side 448

Takes any id, DINO's backbones above all, which were trained for such features. The query is compared with photographs
of scikit-image's, or with those that are named: images by the cosine of their class tokens, parts by the cosine of the
last block's tokens. The part that is looked for is the patch that the class token attends to most. The sheet shows the
query with its attention and that part, then the others, the most alike first, each with the patch most like it.
Random weights show how it works, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("GLOG_v", "3")  # MindSpore: errors only

import mindspore
import numpy as np
from PIL import Image, ImageDraw

import xcit_hub
from xcit_hub.attention_maps import seen
from xcit_hub.errors import XcitHubError

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
CELL, GAP = 224, 6  # pixels of the sheet


@dataclass(frozen=True)
class Described:
    """What a network makes of an image.

    Args:
        seen: as the network sees it.
        whole: (C,) of length 1.
        parts: (Hp, Wp, C), each of length 1.
        attention: (Hp, Wp), the mean of the last layer's heads.
    """

    seen: Image.Image
    whole: np.ndarray[Any, Any]
    parts: np.ndarray[Any, Any]
    attention: np.ndarray[Any, Any]


def describe(network: Any, image: Image.Image | Path) -> Described:
    """Run an image through a network with class attention, a classifier or a backbone."""
    pixels = xcit_hub.preprocess(network)(image)
    features, maps = network.forward_intermediates(mindspore.Tensor(pixels[None]))
    whole, parts = features.asnumpy()[0, 0], maps[-1].asnumpy()[0].transpose(1, 2, 0)
    attention = xcit_hub.attention(network, pixels).map()
    return Described(seen(network, image), unit(whole), unit(parts), attention)


def unit(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Divide by the length along the last axis."""
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def retrieve(query: Described, among: Mapping[str, Described]) -> dict[str, Any]:
    """Return the query's part, and the others, the most alike first, each with the part most like it."""
    part = place_of_largest(query.attention)
    found = []
    for name, other in among.items():
        alike = other.parts @ query.parts[part]  # (Hp, Wp)
        place = place_of_largest(alike)
        similarity = float(other.whole @ query.whole)
        found.append({"image": name, "similarity": similarity, "part": place, "part_similarity": float(alike[place])})
    return {"part": part, "neighbours": sorted(found, key=lambda each: -float(each["similarity"]))}


def place_of_largest(values: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Return row and column of the largest value."""
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return int(row), int(column)


def draw(query: Described, among: Mapping[str, Described], found: Mapping[str, Any]) -> Image.Image:
    """Draw the query twice, with its part and with its attention, and every other image with its part."""
    cells = [marked(query.seen, found["part"], query.attention.shape)]
    cells.append(xcit_hub.draw_attention(query.seen, query.attention))
    for each in found["neighbours"]:
        other = among[each["image"]]
        cells.append(marked(other.seen, each["part"], other.attention.shape))
    sheet = Image.new("RGB", (len(cells) * (CELL + GAP) - GAP, CELL), "white")
    for column, cell in enumerate(cells):
        sheet.paste(cell.convert("RGB").resize((CELL, CELL)), (column * (CELL + GAP), 0))
    return sheet


def marked(image: Image.Image, place: tuple[int, int], grid: tuple[int, ...]) -> Image.Image:
    """Draw a frame around a patch."""
    framed = image.convert("RGB").resize((CELL, CELL))
    high, wide = CELL / grid[0], CELL / grid[1]
    row, column = place
    corners = (column * wide - 3, row * high - 3, (column + 1) * wide + 3, (row + 1) * high + 3)
    ImageDraw.Draw(framed).rectangle(corners, outline="yellow", width=3)
    return framed


def main(model: str, query: Path, target: Path, among: list[Path], side: int | None) -> None:
    network = xcit_hub.load(model)
    if side is not None:
        network.config = replace(
            network.config, preprocessing=replace(network.config.preprocessing, image_size=side, image_width=side)
        )
    images: dict[str, Image.Image | Path] = {str(path): path for path in among}
    if not among:
        from skimage import data

        images = {name: Image.fromarray(getattr(data, name)()) for name in PHOTOGRAPHS}
    described = {name: describe(network, image) for name, image in images.items()}
    asked = describe(network, query)
    found = retrieve(asked, described)
    draw(asked, described, found).save(target)
    print(json.dumps({"query": str(query), **found}, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what xcit_hub.load takes")
    parser.add_argument("query", type=Path)
    parser.add_argument("target", type=Path, help="the PNG to write")
    parser.add_argument("--among", type=Path, nargs="+", default=[], help="images, in place of scikit-image's")
    parser.add_argument("--side", type=int, help="of the images in pixels, in place of the model's own")
    given = parser.parse_args()
    code = 0
    try:
        main(given.model, given.query, given.target, given.among, given.side)
    except (XcitHubError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    sys.stdout.flush()
    # MindSpore's cells print when the interpreter takes them down in its own order.
    os._exit(code)
