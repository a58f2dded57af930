"""The classes of an image's pixels as an image: painted over it, with a legend of those that occur."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xcit_hub import ade20k
from xcit_hub.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

_GOLDEN = 0.618033988749895  # of the circle of hues: neighbours in the list are far apart in colour
_ROW, _SWATCH, _MARGIN = 22, 14, 8  # pixels of the legend
_MOST_ROWS = 40


def palette(labels: Sequence[str], count: int) -> NDArray[np.uint8]:
    """Return a colour for each class, (count, 3): ADE20K's own for its classes, else hues far from one another."""
    if tuple(labels) == ade20k.names():
        return np.array(ade20k.colours(), np.uint8)
    hues = [colorsys.hsv_to_rgb(index * _GOLDEN % 1.0, 0.85 - 0.25 * (index % 2), 0.95) for index in range(count)]
    return np.rint(np.array(hues).reshape(count, 3) * 255).astype(np.uint8)


def paint(
    image: Image.Image, classes: NDArray[np.int32], colours: NDArray[np.uint8], *, opacity: float = 0.5
) -> Image.Image:
    """Paint each pixel's class over an image of the same size, as mmsegmentation's ``show_result`` mixes them.

    Args:
        classes: (H, W), rows of ``colours``.
        opacity: of the colours, above 0 to 1.

    Raises:
        InputError: the sizes differ, or the opacity is not one.
    """
    from PIL import Image

    if classes.shape != (image.height, image.width):
        raise InputError(
            f"Classes of {classes.shape} pixels cannot be painted over an image of {image.size[::-1]}.",
            where="paint(image, classes)",
            fix="Give the image that was segmented, in the size it had then.",
        )
    if not 0.0 < opacity <= 1.0:
        raise InputError(
            f"An opacity of {opacity} cannot be painted.", where="paint(opacity=…)", fix="Choose above 0 to 1."
        )
    mixed = np.asarray(image.convert("RGB"), np.float32) * (1.0 - opacity) + colours[classes] * np.float32(opacity)
    return Image.fromarray(mixed.astype(np.uint8))


def with_legend(
    painted: Image.Image, shares: Sequence[tuple[int, str, float]], colours: NDArray[np.uint8]
) -> Image.Image:
    """Return an image with a list of classes at its right: colour, name, and share of the pixels.

    Args:
        shares: (class, name, share) in the order of the list; beyond forty they are counted.
    """
    from PIL import Image, ImageDraw

    font = _font()
    rows = [(index, f"{name} {share:.1%}") for index, name, share in shares[:_MOST_ROWS]]
    if len(shares) > _MOST_ROWS:
        rows.append((-1, f"… and {len(shares) - _MOST_ROWS} more"))
    texts = [(index, _drawable(text)) for index, text in rows]
    measure = ImageDraw.Draw(painted)
    widest = max((measure.textlength(text, font=font) for _, text in texts), default=0.0)
    width = int(widest) + _SWATCH + 3 * _MARGIN
    whole = Image.new(
        "RGB", (painted.width + width, max(painted.height, _ROW * len(texts) + 2 * _MARGIN)), (255, 255, 255)
    )
    whole.paste(painted, (0, 0))
    drawing = ImageDraw.Draw(whole)
    for row, (index, text) in enumerate(texts):
        left, top = painted.width + _MARGIN, _MARGIN + row * _ROW
        if index >= 0:
            drawing.rectangle(
                (left, top, left + _SWATCH, top + _SWATCH), fill=tuple(colours[index].tolist()), outline=(0, 0, 0)
            )
        drawing.text((left + _SWATCH + _MARGIN, top), text, fill=(0, 0, 0), font=font)
    return whole


def _font() -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.load_default(13)
    except TypeError:  # Pillow 10.0
        return ImageFont.load_default()


def _drawable(text: str) -> str:
    """Return a text of one line that Pillow's own font can draw."""
    return (
        "".join(each if each.isprintable() else "?" for each in text)[:80]
        .encode("latin-1", "replace")
        .decode("latin-1")
    )
