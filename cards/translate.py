"""The same card in the other form, or in the other language."""

from __future__ import annotations

from pathlib import Path

from cards import check, hugging_face, index, mindspore_hub
from cards.card import Card, Form, Language, language_of, read_text
from cards.facts import Facts
from cards.generate import render
from xcit_hub.errors import CardError

FACTS = "facts.json"


def translate(path: Path, *, form: Form | None = None, lang: Language | None = None, facts: Path | None = None) -> str:
    """Return a card's text in another form or language.

    Between forms the metadata is mapped and the prose kept. Prose in the other language is not translated but written
    again from the facts: those of ``facts``, of ``facts.json`` beside the card, or of a shipped card.

    Args:
        form, lang: what is wanted; what the card is without them.

    Raises:
        UnreadableCardError: the card cannot be read.
        CardError: the other language is wanted and nobody knows the facts.
    """
    card = check.read(path)
    form = form or check.form_of(read_text(path))
    if lang is not None and lang != language_of(card):
        return render(_facts(path, facts), form=form, lang=lang)
    if form == "mindspore-hub":
        return mindspore_hub.write(Card(card.title, card.metadata.for_mindspore_hub(), card.prose))
    return hugging_face.write(Card(card.title, card.metadata.for_hugging_face(), card.prose))


def _facts(path: Path, given: Path | None) -> Facts:
    beside = path.parent / FACTS
    if given is not None or beside.is_file():
        return Facts.read(given or beside)
    shipped = {f"{entry.uid}.md": entry.facts for entry in index.entries()}
    inside = path.resolve()
    if inside.is_relative_to(index.folder().resolve()):
        name = inside.relative_to(index.folder().resolve()).as_posix()
        if found := shipped.get(name) or shipped.get(name.replace("_cn.md", ".md")):
            return found
    raise CardError(
        "Nobody knows the facts behind this card, so its prose cannot be written in the other language.",
        where=path,
        fix=f"Give the {FACTS} that `xcit-hub card new` wrote beside the card: --facts {FACTS}.",
    )
