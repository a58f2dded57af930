"""Tries, by what stands in a data set, to hang, to read outside, to lose images in silence, to end in a traceback.

Every kind of odd entry at every place of a folder of classes: what can be an image is found, everything else is named
or counted, and a data set that cannot be read is one clear error.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from image_folder import write_images
from ledger import Attack, Case, expect
from odd_folders import KINDS

from xcit_hub.data.sources import open_source
from xcit_hub.errors import XcitHubError

_IMAGES = 9
_PLACES = {
    "an image": "train/class0/extra.png",
    "a shouted image": "train/class0/EXTRA.JPEG",
    "a class": "train/class9",
    "a folder of a class": "train/class0/more",
    "something beside the classes": "train/notes.txt",
    "the split": "val",
    "a table": "LOC_val_solution.csv",
    "an archive": "val.tar",
}


def cases(_: int) -> list[Case]:
    return [
        Case(f"{kind} as {place}", partial(_attempt, kind, relative))
        for place, relative in _PLACES.items()
        for kind in KINDS
    ]


ATTACK = Attack("odd data sets", cases, sample=40)


def _attempt(kind: str, relative: str, folder: Path) -> None:
    root, victim = write_images(folder / "data", train=_IMAGES // 3, val=0), folder / "outside" / "victim"
    victim.parent.mkdir()
    victim.write_text("precious")
    place = root / relative
    if os.path.lexists(place):
        place.rmdir()
    KINDS[kind](place, victim)
    for dataset, split in (("imagefolder", "train"), ("imagefolder", "val"), ("tar", "val"), ("mindrecord", "val")):
        try:
            source = open_source(dataset, root, split, train=split == "train")
            shown = [source.name(index) for index in range(len(source.labels))]
            for index in range(len(shown)):
                _open(source, index)
        except XcitHubError as error:
            expect(str(error).replace("\n", "").isprintable(), f"control characters: {error!s}")
            continue
        if (dataset, split) == ("imagefolder", "train"):
            expect(len(shown) >= _IMAGES, f"only {len(shown)} of {_IMAGES} images are found")
            told = len(shown) - _IMAGES + len(source.unreadable) + source.others
            holds_something = kind not in ("folder", "deep folder") and relative.startswith("train")
            expect(told or not holds_something, "an entry is left out in silence")
            expect(all(name.isprintable() for name in [*shown, *source.unreadable]), "a name with control characters")
    expect(victim.read_text() == "precious", "the file outside was changed")


def _open(source: object, index: int) -> None:
    try:
        source.open(index)
    except XcitHubError as error:
        expect(str(error).replace("\n", "").isprintable(), f"control characters: {error!s}")
