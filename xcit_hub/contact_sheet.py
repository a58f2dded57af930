"""Answers as one HTML page: each image, its most probable classes as bars, and what the network looked at."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcit_hub.errors import InputError
from xcit_hub.prediction import Answer

if TYPE_CHECKING:
    from PIL import Image

    from xcit_hub.data.transforms import ImageLike

_SIDE = 224  # of the images on the page, pixels


def contact_sheet(
    title: str,
    answers: Iterable[Answer],
    images: Sequence[ImageLike],
    drawings: Mapping[int, Image.Image] | None = None,
    *,
    exif: bool = False,
) -> str:
    """Return a page that needs no other file.

    Args:
        title: its heading.
        answers: what :func:`xcit_hub.prediction.answers` yields.
        images: what they are of, in the same order.
        drawings: what is shown beside an image, by its position.
        exif: turn images as their EXIF orientation says.
    """
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        Path(__file__).with_name("contact_sheet.html").read_text("utf-8")
    )
    rows = [
        _row(answer, image, (drawings or {}).get(number), exif)
        for number, (answer, image) in enumerate(zip(answers, images, strict=True))
    ]
    return page.render(title=title, rows=rows)


def _row(answer: Answer, image: ImageLike, drawing: Image.Image | None, exif: bool) -> dict[str, Any]:
    from xcit_hub.data.transforms import open_image

    row: dict[str, Any] = {"answer": answer, "image": "", "drawing": ""}
    if not answer.problem:
        try:
            shown = open_image(image, "RGB", exif=exif)
        except InputError:  # it was replaced since it was answered
            return row
        row["image"] = _embedded(shown)
    if drawing is not None:
        row["drawing"] = _embedded(drawing)
    return row


def _embedded(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
