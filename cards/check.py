"""Is this card fit to be published? Every fault at once, each with its line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

from cards import advice, hugging_face, hugging_face_rules, mindspore_hub, mindspore_hub_rules, modelers, modelscope
from cards.agreement import disagreements
from cards.card import Card, normalized, read_text
from cards.faults import Fault, UnreadableCardError
from cards.forms import Form
from cards.front_matter import NOT_YAML
from cards.metadata import MINDSPORE_HUB_FIELDS
from cards.reading import canonical, metadata_from
from xcit_hub.errors import CardError
from xcit_hub.files import is_file, is_folder, is_there

_READERS = {
    "mindspore-hub": mindspore_hub.read,
    "hugging-face": hugging_face.read,
    "modelers": modelers.read,
    "modelscope": modelscope.read,
}
_OF_MODELSCOPE = re.compile(r"^(?:tasks|domain|model-type)[ \t]*:", re.MULTILINE)
_OF_MODELERS = re.compile(r"^(?:frameworks|hardwares)[ \t]*:", re.MULTILINE)
_HUB_FIELD = re.compile(r"^(?:backbone-name|module-type|repo-link|mindspore-version)[ \t]*:", re.MULTILINE)


def check(card: str | Path, form: Form | None = None) -> list[Fault]:
    """Return everything that is wrong with a card, in the order of its lines.

    An error is what the card's hub refuses, or what is not safe to read; everything else is a warning. In place of a
    Chinese card in a file (``NAME_cn.md``) MindSpore Hub checks the English one beside it, and so its faults count.

    Args:
        card: a file, or the text of a card. A ``str`` without a line break is a path.
        form: whose rules; by default the form that it has.

    Raises:
        CardError: there is no such file.
    """
    try:
        text = _text(card)
    except UnreadableCardError as error:
        return error.faults
    form = form or form_of(text)
    faults = list(_CHECKS[form](text))
    path = Path(card) if isinstance(card, Path) or "\n" not in card else None
    english = mindspore_hub_rules.english_card(path) if path is not None and form == "mindspore-hub" else None
    if english is not None:
        faults = [*map(_warning, faults), *_english(english)]
    return sorted(dict.fromkeys(faults), key=lambda fault: (fault.line or 0, fault.severity, fault.field))


def _english(card: Path) -> Iterator[Fault]:
    try:
        refusals = [fault for fault in _CHECKS["mindspore-hub"](read_text(card)) if fault.severity == "error"]
    except CardError:
        yield Fault(None, "file", f"the Hub checks {card.name} in place of this card, and it cannot be read")
        return
    for fault in refusals:
        yield Fault(None, "file", f"the Hub checks {card.name} in place of this card: {fault}")


def read(card: str | Path) -> Card:
    """Read a card of either form.

    Args:
        card: a file, or the text of a card. A ``str`` without a line break is a path.

    Raises:
        UnreadableCardError: nothing can be taken from it safely; every reason is listed.
        CardError: there is no such file.
    """
    text = _text(card)
    try:
        return _READERS[form_of(text)](text)
    except UnreadableCardError as error:
        where = card if isinstance(card, Path) or "\n" not in card else error.where
        raise UnreadableCardError(error.faults, where) from error


def form_of(text: str) -> Form:
    """Say which form a card has: MindSpore Hub's begins with a heading, the others with their metadata.

    ModelScope's names its ``tasks``, Modelers' its ``frameworks`` or ``hardwares``; else it is Hugging Face's.
    A card that lost its heading is still MindSpore Hub's if that hub's fields stand at the left margin.
    """
    begins_with_metadata = normalized(text).lstrip().startswith("---")
    if not begins_with_metadata or _HUB_FIELD.search(text):
        return "mindspore-hub"
    head = normalized(text).lstrip().partition("\n---")[0]
    if _OF_MODELSCOPE.search(head):
        return "modelscope"
    return "modelers" if _OF_MODELERS.search(head) else "hugging-face"


def cards_in(places: list[Path]) -> list[Path]:
    """Return the Markdown files that ``places`` name, folders searched to the bottom, sorted and each once.

    Raises:
        CardError: a place does not exist, or a folder holds no Markdown.
    """
    found: dict[Path, None] = {}
    for place in places:
        if is_folder(place):
            walked = (
                (Path(folder), names) for folder, _, names in os.walk(place)
            )  # what vanishes meanwhile is left out
            inside = sorted(folder / each for folder, names in walked for each in names if each.endswith(".md"))
            inside = [path for path in inside if is_file(path)]
            if not inside:
                raise CardError("The folder holds no card (*.md).", where=place, fix="Give a file, or another folder.")
            found |= dict.fromkeys(inside)
        elif is_there(place):
            found[place] = None
        else:
            raise CardError("There is no such file or folder.", where=place, fix="Check the path.")
    return list(found)


def _text(card: str | Path) -> str:
    if isinstance(card, Path) or "\n" not in card:
        return read_text(card)
    return normalized(card)


def _check_mindspore_hub(text: str) -> Iterator[Fault]:
    parts = mindspore_hub.split(text)
    refusals = list(mindspore_hub_rules.faults(parts, text))
    yield from refusals
    ours = [fault for fault in parts.fields.faults if fault not in refusals]
    yield from (_warning(fault) if fault.message.startswith(NOT_YAML) else fault for fault in ours)
    if parts.title_line is None:
        yield Fault(1, "title", "the card does not begin with a heading", "warning")
    if not parts.fields.readable:
        return
    try:
        metadata = mindspore_hub.read_parts(parts).metadata
    except UnreadableCardError as error:
        yield from error.faults
        return
    lines = {canonical(name): line for name, line in parts.fields.lines.items()}
    yield from advice.empty(metadata, lines)
    yield from advice.warnings(metadata, lines)
    yield from disagreements(metadata, parts.prose, parts.prose_line, lines)


def _check_hugging_face(text: str) -> Iterator[Fault]:
    parts = hugging_face.split(text)
    yield from parts.fields.faults
    if not parts.fields.readable:
        return
    values, faults = hugging_face.values_of(parts.fields)
    yield from faults
    metadata = metadata_from(values)
    lines = parts.fields.lines
    yield from hugging_face_rules.faults(parts, metadata)
    foreign = lines.get(hugging_face.FOREIGN)
    within = {} if foreign is None else dict.fromkeys(MINDSPORE_HUB_FIELDS, foreign)
    yield from advice.warnings(metadata, within | lines)
    yield from disagreements(metadata, parts.prose, parts.prose_line, lines)


def _check_renamed(text: str, form: ModuleType) -> Iterator[Fault]:
    parts = hugging_face.split(text)
    yield from parts.fields.faults
    if not parts.fields.readable:
        return
    values, faults = hugging_face.values_of(form.named(parts.fields))
    yield from faults
    metadata = metadata_from(values)
    yield from form.faults(parts, metadata)
    found = advice.warnings(metadata, parts.fields.lines)
    yield from (fault for fault in found if fault.field not in form.OWN)
    yield from disagreements(metadata, parts.prose, parts.prose_line, parts.fields.lines)


def _warning(fault: Fault) -> Fault:
    return replace(fault, severity="warning")


_CHECKS: dict[Form, Callable[[str], Iterator[Fault]]] = {
    "mindspore-hub": _check_mindspore_hub,
    "hugging-face": _check_hugging_face,
    "modelers": partial(_check_renamed, form=modelers),
    "modelscope": partial(_check_renamed, form=modelscope),
}
