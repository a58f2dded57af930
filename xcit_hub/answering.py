"""Many images answered at once, and what is written of it: a table, a page, drawings of the attention."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xcit_hub.errors import InputError
from xcit_hub.files import atomic_write, write_text
from xcit_hub.prediction import Answer, answers

if TYPE_CHECKING:
    from PIL import Image

    from xcit_hub.hub.network import XCiT


@dataclass(frozen=True)
class Wanted:
    """What is asked of a network about images.

    Args:
        top, batch, exif: as for :func:`xcit_hub.prediction.predict`.
        csv: where a table goes: a row an image and class, one with the problem for what cannot be read.
        html: where a page goes, see :mod:`xcit_hub.contact_sheet`.
        attention: the folder for a drawing of each image, ``NUMBER-NAME.png``.
    """

    top: int = 5
    batch: int = 16
    exif: bool = False
    csv: Path | None = None
    html: Path | None = None
    attention: Path | None = None


def answer_all(
    network: XCiT,
    images: Sequence[Path],
    wanted: Wanted,
    *,
    title: str = "",
    stage: Callable[[str], None] = lambda _: None,
) -> list[Answer]:
    """Classify images and write what is wanted of it.

    Args:
        title: of the page.
        stage: told how far it is.

    Raises:
        InputError: the network has no classifier, or what is wanted cannot be written.
    """
    drawing = wanted.html is not None or wanted.attention is not None
    if wanted.attention is not None:
        _make(wanted.attention)
    answered: list[Answer] = []
    drawings: dict[str, Image.Image] = {}
    for number, answer in enumerate(answers(network, images, top=wanted.top, batch=wanted.batch, exif=wanted.exif)):
        answered.append(answer)
        stage(f"{number + 1:,} of {len(images):,} images")
        if drawing and not answer.problem:
            drawn = drawings[answer.image] = _drawn(network, images[number], wanted.exif)
            if wanted.attention is not None:
                with atomic_write(wanted.attention / f"{number}-{images[number].stem}.png") as target:
                    drawn.save(target, "PNG")
    if wanted.csv is not None:
        write_text(wanted.csv, _table(answered))
    if wanted.html is not None:
        from xcit_hub.contact_sheet import contact_sheet

        write_text(wanted.html, contact_sheet(title, answered, drawings, exif=wanted.exif))
    return answered


def _drawn(network: XCiT, image: Path, exif: bool) -> Image.Image:
    from xcit_hub.attention_maps import attention, draw_attention, seen

    return draw_attention(seen(network, image, exif=exif), attention(network, image, exif=exif).map())


def _table(answered: Sequence[Answer]) -> str:
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(("image", "rank", "index", "class", "share", "problem"))
    for answer in answered:
        if answer.problem:
            rows.writerow((answer.image, "", "", "", "", answer.problem))
        for rank, each in enumerate(answer.classes, 1):
            rows.writerow((answer.image, rank, each.index, each.label, f"{each.probability:.6g}", ""))
    return written.getvalue()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write there: {error.strerror}.", where=str(folder), fix="Name a folder.") from error
