"""Is this card fit to be published? Every fault at once, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from cards import hugging_face, mindspore_hub, rules
from cards.agreement import disagreements
from cards.card import Card, Form, normalized, outside_code, read_text
from cards.faults import Fault, UnreadableCardError
from cards.metadata import CardMetadata
from cards.reading import canonical, metadata_from, metadata_values
from cards.vocabulary import PIPELINE_TAGS
from xcit_hub.errors import CardError

_READERS = {"mindspore-hub": mindspore_hub.read, "hugging-face": hugging_face.read}
_ATX = re.compile(r" {0,3}#{1,6}[ \t]+(?P<text>.*)")
_HUB_FIELD = re.compile(r"^(?:backbone-name|module-type|repo-link|mindspore-version)[ \t]*:", re.MULTILINE)
_SETEXT = re.compile(r" {0,3}(?:=+|-+)")


def check(card: str | Path) -> list[Fault]:
    """Return everything that is wrong with a card, in the order of its lines; an empty list means fit to publish.

    Args:
        card: a file, or the text of a card. A ``str`` without a line break is a path.

    Raises:
        CardError: there is no such file.
    """
    try:
        text = _text(card)
    except UnreadableCardError as error:
        return error.faults
    faults = list(_CHECKS[form_of(text)](text))
    return sorted(dict.fromkeys(faults), key=lambda fault: (fault.line or 0, fault.severity, fault.field))


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
        where = card if isinstance(card, Path) or "\n" not in card else None
        raise UnreadableCardError(error.faults, where) from error


def form_of(text: str) -> Form:
    """Say which form a card has: Hugging Face's begins with its metadata, MindSpore Hub's with a heading.

    A card that lost its heading is still MindSpore Hub's if that hub's fields stand at the left margin.
    """
    begins_with_metadata = normalized(text).lstrip().startswith("---")
    return "hugging-face" if begins_with_metadata and not _HUB_FIELD.search(text) else "mindspore-hub"


def cards_in(places: list[Path]) -> list[Path]:
    """Return the Markdown files that ``places`` name, folders searched to the bottom, sorted and each once.

    Raises:
        CardError: a place does not exist, or a folder holds no Markdown.
    """
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*.md") if path.is_file())
            if not inside:
                raise CardError("The folder holds no card (*.md).", where=place, fix="Give a file, or another folder.")
            found |= dict.fromkeys(inside)
        elif place.exists():
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
    yield from parts.fields.faults
    if parts.title_line is None:
        yield Fault(1, "title", "the card does not begin with a heading")
    if len(parts.dashes) != 2:
        listed = ", ".join(map(str, parts.dashes)) or "none"
        message = f"exactly two lines may begin with '---', and these do: {listed}"
        yield Fault(parts.dashes[2] if len(parts.dashes) > 2 else None, "metadata", message)
    yield from _headings(parts.prose, parts.prose_line)
    if parts.fields.readable:
        lines = {canonical(name): line for name, line in parts.fields.lines.items()}
        values = metadata_values(parts.fields.values)
        yield from rules.faults_of(values, lines, form="mindspore-hub", block=min(parts.dashes, default=None))
        yield from disagreements(metadata_from(values), parts.prose, parts.prose_line, lines)
        try:
            mindspore_hub.read(text)
        except UnreadableCardError as error:
            yield from error.faults


def _check_hugging_face(text: str) -> Iterator[Fault]:
    parts = hugging_face.split(text)
    yield from parts.fields.faults
    yield from _headings(parts.prose, parts.prose_line)
    if not parts.fields.readable:
        return
    values, faults = hugging_face.values_of(parts.fields)
    yield from faults
    lines = dict(parts.fields.lines)
    block = lines.get(hugging_face.FOREIGN)
    yield from rules.faults_of(values, lines, form="hugging-face", block=block)
    metadata = metadata_from(values)
    yield from _hugging_face_fields(metadata, lines)
    yield from disagreements(metadata, parts.prose, parts.prose_line, lines)


def _hugging_face_fields(metadata: CardMetadata, lines: Mapping[str, int]) -> Iterator[Fault]:
    for name in metadata.model_extra or {}:
        if name.startswith("x-") and (known := name.removeprefix("x-")) in lines:
            yield Fault(lines[known], known, "is not what this field holds")
    if metadata.license_id is None:
        yield Fault(1, "license", "is missing: nobody may use weights without a licence")
    if metadata.library_name == "mindspore" and metadata.dialect is None:
        yield Fault(1, "dialect", "is missing: MindSpore's weights mean nothing without it")
    if metadata.pipeline_tag is not None and metadata.pipeline_tag not in PIPELINE_TAGS:
        message = f"{metadata.pipeline_tag!r} is not a task of this network"
        yield Fault(lines.get("pipeline_tag"), "pipeline_tag", message, "warning")
    for result in metadata.results:
        value = result.metric_value
        line = lines.get(hugging_face.MODEL_INDEX)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            yield Fault(line, hugging_face.MODEL_INDEX, f"the value {value!r} of {result.metric_type} is no number")
        elif result.metric_type == "accuracy" and not 0 <= value <= 100:
            yield Fault(line, hugging_face.MODEL_INDEX, f"an accuracy of {value:g} % cannot be")


def _headings(prose: str, prose_line: int) -> Iterator[Fault]:
    lines = [(number, line.rstrip()) for number, line in outside_code(prose, prose_line)]
    following = [line for _, line in lines[1:]] + [""]
    for (number, line), below in zip(lines, following, strict=True):
        text = ""
        if found := _ATX.fullmatch(line):
            text = found["text"].rstrip("#").strip()
        elif line and _SETEXT.fullmatch(below):
            text = line.strip()
        if text.endswith(":"):
            yield Fault(number, "prose", f"a heading must not end in ':': {text[:80]!r}")


_CHECKS = {"mindspore-hub": _check_mindspore_hub, "hugging-face": _check_hugging_face}
