"""The cards that ship with the package: the official MindSpore checkpoint's and timm's 42, in both languages.

They are generated, never edited: ``python -m cards.index`` writes them again, ``python -m cards.index --check`` says
whether they are what the generator would write. What no table knows stands in a ``.yaml`` beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from cards import mindspore_hub
from cards.card import FORMS, HUB_SUFFIXES, LANGUAGES, Form, Language, read_text
from cards.facts import CardYaml, Facts
from cards.gather import of_published
from cards.generate import render
from xcit_hub import variants

_MINDSPORE_HUB, _HUGGING_FACE = FORMS
_OFFICIAL = "mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012"


@dataclass(frozen=True)
class Entry:
    """One shipped card before it is written.

    Args:
        uid: its id, and its path below the index without the language and ``.md``.
    """

    uid: str
    form: Form
    facts: Facts


def folder() -> Path:
    """Return the folder that holds the shipped cards."""
    return Path(str(resources.files("cards.index")))


def find(name: str, *, lang: Language = "en") -> Path | None:
    """Return the file of a shipped card, or None.

    Args:
        name: a uid (``mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012``), the same without version and dataset
            (``mindspore/xcit_tiny_12_p16_224``: the newest), ``timm/NAME``, or a checkpoint's bare name.
    """
    uid = _names().get(name.strip("/"))
    return None if uid is None else folder() / f"{uid}{HUB_SUFFIXES[lang]}.md"


def uids() -> list[str]:
    """Return the ids of all shipped cards, sorted."""
    return sorted(set(_names().values()))


def entries() -> Iterator[Entry]:
    """Yield every card that ships, made from the variant table and the ``.yaml`` files."""
    official = CardYaml.read(folder() / f"{_OFFICIAL}.yaml")
    yield Entry(_OFFICIAL, _MINDSPORE_HUB, of_published("xcit_tiny_12_p16_224.ms_in1k", official))
    common = CardYaml.read(folder() / "timm" / "card.yaml")
    for checkpoint in variants.CHECKPOINTS.values():
        if checkpoint.family == "timm":
            own = {"summary": _summary(checkpoint), "base_model": [checkpoint.repository or checkpoint.name]}
            yield Entry(
                f"timm/{checkpoint.name}", _HUGGING_FACE, of_published(checkpoint.name, common.model_copy(update=own))
            )


def rendered() -> dict[str, str]:
    """Return path below the index → text, for every card in every language."""
    return {
        f"{entry.uid}{HUB_SUFFIXES[lang]}.md": render(entry.facts, form=entry.form, lang=lang)
        for entry in entries()
        for lang in LANGUAGES
    }


def _summary(checkpoint: variants.PublishedCheckpoint) -> str:
    shape = variants.architecture(checkpoint.architecture)
    how = "distilled on ImageNet-1k" if "_dist_" in checkpoint.name else "trained on ImageNet-1k"
    return f"XCiT of {shape.depth} layers and width {shape.embed_dim}, {how} at {shape.image_size} pixels"


@cache
def _names() -> dict[str, str]:
    """Map every name under which a card may be asked for to its uid. Later versions take the short names."""
    names: dict[str, str] = {}
    found = (path.relative_to(folder()).with_suffix("") for path in folder().rglob("*.md"))
    for path in sorted(found, key=_age):
        uid = path.as_posix()
        if uid.endswith(HUB_SUFFIXES["zh"]):
            continue
        names[uid] = uid
        names[path.name] = uid
        if path.parts[0] == "mindspore":
            card = mindspore_hub.read(read_text(folder() / f"{uid}.md"))
            names[f"mindspore/{card.metadata.model_name}"] = uid
    return names


def _age(path: Path) -> tuple[tuple[int, ...], str]:
    version = path.parts[1].split(".") if len(path.parts) == 3 else []
    return tuple(int(part) for part in version if part.isdigit()), path.as_posix()
