"""The same card in the other form, or in the other language."""

from __future__ import annotations

from pathlib import Path

from cards import check, hugging_face, index, mindspore_hub, modelers, modelscope
from cards.card import Card, language_of, read_text
from cards.facts import Facts
from cards.forms import Form, Language
from cards.generate import render
from cards.public import public
from xcit_hub.errors import CardError
from xcit_hub.files import is_there

FACTS = "facts.json"
_WRITERS = {"hugging-face": hugging_face.write, "modelers": modelers.write, "modelscope": modelscope.write}


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
    """
    published = _published(card)
    text = published.text() if published else read_text(card)
    read = check.read(text if published else Path(card))
    form = form or check.form_of(text)
    if lang is not None and lang != language_of(read):
        return render(published.facts if published else _facts(Path(card), facts), form=form, lang=lang)
    if form == "mindspore-hub":
        return public(mindspore_hub.write(Card(read.title, read.metadata.for_mindspore_hub(), read.prose)))
    return public(_WRITERS[form](Card(read.title, read.metadata.for_hugging_face(), read.prose)))


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
