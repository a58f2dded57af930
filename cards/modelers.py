"""Modelers' form, which GitCode's hub reads too: Hugging Face's fields, with ``frameworks`` and ``hardwares``.

What is known of the hub's rules is its client's code (openmind_hub 1.3.0): ``frameworks`` is what it shows as the
library, ``license`` is checked by the hub before an upload, the rest is read as :class:`ModelCardData` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cards import rewritten, vocabulary
from cards.card import Card
from cards.faults import Fault
from cards.front_matter import Fields, Text
from cards.hugging_face import Parts
from cards.metadata import CardMetadata

FRAMEWORKS = {"mindspore": "MindSpore", "pytorch": "PyTorch", "timm": "PyTorch"}
OWN = frozenset({"frameworks", "hardwares"})
HARDWARES = frozenset({"NPU", "CPU", "GPU"})
_LISTS = frozenset({"frameworks", "hardwares", "tags", "datasets", "metrics", "base_model", "language", "license"})


def write(card: Card) -> str:
    """Write a card so that :func:`read` finds the same metadata."""
    return rewritten.write(card, _written)


def read(text: str) -> Card:
    """Read a card.

    Raises:
        UnreadableCardError: there is no metadata, or it holds YAML that a card has no business to contain.
    """
    return rewritten.read(text, named)


def named(fields: Fields) -> Fields:
    """Return the fields under Hugging Face's names."""
    found = rewritten.renamed(fields, {"frameworks": "library_name"})
    if (first := _framework(fields)) is not None:
        found.values["library_name"] = Text(first.lower())
    return found


def unnamed(fields: Fields) -> dict[str, str]:
    """Return what :func:`named` leaves out: the field's name → why."""
    return rewritten.all_but(fields, {"frameworks": _framework(fields)})


def faults(parts: Parts, metadata: CardMetadata) -> Iterator[Fault]:
    """Yield what the hub refuses in a card, and what it lets pass and a reader should know."""
    values, lines = parts.fields.values, parts.fields.lines
    yield from rewritten.lists(parts.fields, _LISTS)
    if metadata.license_id is None:
        yield Fault(1, "license", "is missing: the hub looks at it before an upload, and refuses")
    elif metadata.license_id not in vocabulary.hugging_face_licenses():
        yield Fault(lines.get("license"), "license", f"{metadata.license_id!r} is not a licence's identifier")
    frameworks = rewritten.words(values.get("frameworks"))
    if not frameworks:
        yield Fault(1, "frameworks", "is missing: the hub lists the model under no library", "warning")
    for name in frameworks:
        if name not in FRAMEWORKS.values():
            known = ", ".join(sorted(set(FRAMEWORKS.values())))
            yield Fault(lines["frameworks"], "frameworks", f"{name!r} is not one of: {known}", "warning")
    hardwares = rewritten.words(values.get("hardwares"))
    if not hardwares:
        yield Fault(1, "hardwares", "is missing: nobody sees what the model ran on", "warning")
    for name in hardwares:
        if name not in HARDWARES:
            known = ", ".join(sorted(HARDWARES))
            yield Fault(lines["hardwares"], "hardwares", f"{name!r} is not one of: {known}", "warning")


def _framework(fields: Fields) -> str | None:
    frameworks = rewritten.words(fields.values.get("frameworks"))
    return "MindSpore" if "MindSpore" in frameworks else next(iter(frameworks), None)


def _written(head: dict[str, Any]) -> dict[str, Any]:
    library = head.pop("library_name", "mindspore")
    frameworks = ["MindSpore"] if library in ("mindspore", "timm") else [FRAMEWORKS.get(library, library)]
    hardwares = head.pop("hardwares", None)
    return {"frameworks": frameworks, **({"hardwares": hardwares} if hardwares else {}), **head}
