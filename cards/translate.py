"""The same card in the other form, or in the other language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cards import check, hugging_face, index, mindspore_hub, modelers, modelscope
from cards.card import Card, language_of, read_text
from cards.facts import Facts
from cards.forms import Form, Language
from cards.front_matter import resolved
from cards.generate import render
from cards.metadata import MINDSPORE_HUB_FIELDS, CardMetadata
from cards.public import public
from xcit_hub.errors import CardError, InputError
from xcit_hub.files import is_there

FACTS = "facts.json"
_NAMES = {"license_id": "license", "results": hugging_face.MODEL_INDEX}
_FOREIGN_FIELDS = frozenset(MINDSPORE_HUB_FIELDS)
_WRITERS = {"hugging-face": hugging_face.write, "modelers": modelers.write, "modelscope": modelscope.write}
_SITES = {"modelers": modelers, "modelscope": modelscope}


def translate(
    card: str | Path, *, form: Form | None = None, lang: Language | None = None, facts: Path | None = None
) -> str:
    """Return a card's text in another form or language.

    Between forms the metadata is mapped and the prose kept. Prose in the other language is not translated but written
    again from the facts: those of ``facts``, of ``facts.json`` beside the card, or of a published checkpoint's card.

    Args:
        card: a file, or the name of a published checkpoint (:func:`cards.index.entry`).
        form, lang: what is wanted; what the card is without them.

    Raises:
        UnreadableCardError: the card cannot be read.
        CardError: there is no such card, or the other language is wanted and nobody knows the facts.
        InputError: ``facts`` were given, and nothing is written from them.
    """
    published = _published(card)
    text = published.text() if published else read_text(card)
    read = check.read(text if published else Path(card))
    form = form or check.form_of(text)
    anew = _is_anew(read, lang)
    if facts is not None and (published or not anew):
        raise InputError(
            "The facts would not be used: "
            + ("those of a published checkpoint are known." if published else "the card has that language already."),
            where=facts,
            fix="Leave --facts out." if published else "Leave --facts out, or name the other language with --lang.",
        )
    if anew and lang is not None:
        return render(published.facts if published else _facts(Path(card), facts), form=form, lang=lang)
    if form == "mindspore-hub":
        return public(mindspore_hub.write(Card(read.title, read.metadata.for_mindspore_hub(), read.prose)))
    return public(_WRITERS[form](Card(read.title, read.metadata.for_hugging_face(), read.prose)))


def _is_anew(card: Card, lang: Language | None) -> bool:
    """Whether a card is to be written again from its facts."""
    return lang is not None and lang != language_of(card)


def left(card: str | Path, *, form: Form | None = None, lang: Language | None = None) -> dict[str, str]:
    """Return what of a card's metadata its text in another form does not have: the field's name → why.

    Args:
        card, form, lang: as for :func:`translate`; a card in the other language is written from the facts, and leaves
            nothing.

    Raises:
        UnreadableCardError, CardError: as for :func:`translate`.
    """
    published = _published(card)
    text = published.text() if published else read_text(card)
    read = check.read(text if published else Path(card))
    if _is_anew(read, lang):
        return {}
    fields, own = hugging_face.split(text).fields, check.form_of(text)
    form = form or own
    found = _SITES[own].unnamed(fields) if own in _SITES else {}
    if form == "mindspore-hub" and own != form:
        found |= _figures_elsewhere(read.metadata)
    if form not in _SITES:
        return found
    whole = read.metadata.for_hugging_face()
    written = _SITES[form].write(Card(read.title, whole, read.prose))
    there = hugging_face.split(written).fields.values
    found = {name: why for name, why in found.items() if resolved(there.get(name)) != resolved(fields.values.get(name))}
    return found | _apart(_said(whole), _said(_SITES[form].read(written).metadata))


def _figures_elsewhere(metadata: CardMetadata) -> dict[str, str]:
    """Name the field that stays empty where no accuracy of the card may stand in it."""
    stated = any(metadata.accuracy_of(rank) is not None for rank in (1, 5))
    if not stated or metadata.for_mindspore_hub().evaluation:
        return {}
    return {"evaluation": "no accuracy of the card is of its training data set and of images it was not trained on"}


def _said(metadata: CardMetadata) -> dict[str, Any]:
    """Every field that says something, by the name that Hugging Face's form has for it."""
    foreign = {name: value for name, value in mindspore_hub.written_fields(metadata).items() if name in _FOREIGN_FIELDS}
    said = metadata.model_dump(exclude=set(MINDSPORE_HUB_FIELDS.values()), exclude_defaults=True)
    renamed = {_NAMES.get(name, name): value for name, value in said.items()}
    return {**renamed, **({hugging_face.FOREIGN: foreign} if foreign else {})}


def _apart(asked: dict[str, Any], found: dict[str, Any]) -> dict[str, str]:
    return {
        name: f"it is {found[name]!r:.80} there" if name in found else "that form has no field for it"
        for name, value in asked.items()
        if found.get(name) != value
    }


def opened(card: str | Path) -> Card:
    """Read a card's file, or make the card of a published checkpoint of that name where there is no such file.

    Raises:
        UnreadableCardError: the card cannot be read.
        CardError: there is neither such a file nor such a checkpoint.
    """
    published = _published(card)
    return check.read(published.text() if published else Path(card))


def _published(card: str | Path) -> index.Entry | None:
    return None if is_there(card) else index.entry(str(card))


def _facts(path: Path, given: Path | None) -> Facts:
    beside = path.parent / FACTS
    if given is not None or beside.is_file():
        return Facts.read(given or beside)
    inside = path.resolve()
    if inside.is_relative_to(index.folder().resolve()):
        name = inside.relative_to(index.folder().resolve()).as_posix().removesuffix(".md").removesuffix("_cn")
        if found := index.entry(name):
            return found.facts
    raise CardError(
        "Nobody knows the facts behind this card, so its prose cannot be written in the other language.",
        where=path,
        fix=f"Give the {FACTS} that `xcit-hub card new` wrote beside the card: --facts {FACTS}.",
    )
