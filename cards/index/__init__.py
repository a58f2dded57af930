"""The cards of published checkpoints: the official MindSpore one's ships as a file, timm's 42 are made when asked for.

All are generated, never edited: ``python -m cards.index`` writes the shipped ones again, and with ``--check`` it says
whether they are what the generator would write. What no table knows stands in the ``.yaml`` files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from cards.facts import CardYaml, Facts
from cards.forms import FORMS, HUB_SUFFIXES, LANGUAGES, Form, Language
from cards.gather import of_published
from cards.generate import render
from xcit_hub import variants

_MINDSPORE_HUB, _HUGGING_FACE = FORMS[:2]
_OFFICIAL = "mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012"
_OFFICIAL_CHECKPOINT = "xcit_tiny_12_p16_224.ms_in1k"


@dataclass(frozen=True)
class Entry:
    """One card before it is written.

    Args:
        uid: its id; of a shipped card also its path below the index without the language and ``.md``.
    """

    uid: str
    form: Form
    facts: Facts

    def text(self, lang: Language = "en") -> str:
        """Return the whole card."""
        return render(self.facts, form=self.form, lang=lang)


def folder() -> Path:
    """Return the folder that holds the shipped cards."""
    return Path(str(resources.files("cards.index")))


def find(name: str, *, lang: Language = "en") -> Path | None:
    """Return the file of a shipped card, or None.

    Args:
        name: a uid (``mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012``), or the same without version and dataset
            (``mindspore/xcit_tiny_12_p16_224``).
    """
    uid = _names().get(name.strip("/"))
    path = folder() / f"{uid}{HUB_SUFFIXES[lang]}.md"
    return path if uid is not None and path.is_file() else None


def entry(name: str) -> Entry | None:
    """Return the card of a published checkpoint, or None.

    Args:
        name: as for :func:`find`, ``timm/NAME``, or a checkpoint's bare name.
    """
    uid = _names().get(name.strip("/"))
    return None if uid is None else _entry(uid)


def uids() -> list[str]:
    """Return the ids of all cards, sorted."""
    return sorted(set(_names().values()))


def shipped() -> dict[str, str]:
    """Return path below the index → text, for every shipped card in every language."""
    return {f"{_OFFICIAL}{HUB_SUFFIXES[lang]}.md": _entry(_OFFICIAL).text(lang) for lang in LANGUAGES}


@cache
def _names() -> dict[str, str]:
    """Map every name under which a card may be asked for to its uid."""
    official, (publisher, _, stem) = variants.checkpoint(_OFFICIAL_CHECKPOINT), _OFFICIAL.split("/")
    names = dict.fromkeys((_OFFICIAL, stem, f"{publisher}/{official.architecture}", official.name), _OFFICIAL)
    for name in _timms():
        names |= dict.fromkeys((name, f"timm/{name}"), f"timm/{name}")
    return names


def _timms() -> Iterator[str]:
    return (checkpoint.name for checkpoint in variants.CHECKPOINTS.values() if checkpoint.repository)


@cache
def _entry(uid: str) -> Entry:
    if uid == _OFFICIAL:
        meta = CardYaml.read(folder() / f"{_OFFICIAL}.yaml")
        return Entry(uid, _MINDSPORE_HUB, of_published(_OFFICIAL_CHECKPOINT, meta))
    checkpoint = variants.checkpoint(uid.removeprefix("timm/"))
    own = {"summary": _summary(checkpoint), "base_model": [checkpoint.repository or checkpoint.name]}
    meta = CardYaml.read(folder() / "timm.yaml").model_copy(update=own)
    return Entry(uid, _HUGGING_FACE, of_published(checkpoint.name, meta))


def _summary(checkpoint: variants.PublishedCheckpoint) -> str:
    shape = variants.architecture(checkpoint.architecture)
    how = "distilled on ImageNet-1k" if "_dist_" in checkpoint.name else "trained on ImageNet-1k"
    return f"XCiT of {shape.depth} layers and width {shape.embed_dim}, {how} at {shape.image_size} pixels"
