"""What Modelers' and ModelScope's forms share: Hugging Face's form with other names at its head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from cards import hugging_face
from cards.card import Card
from cards.faults import Fault, UnreadableCardError
from cards.front_matter import Fields, Text, Tree, resolved
from cards.reading import metadata_from


def write(card: Card, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """Write a card as :func:`cards.hugging_face.write` does, with its head changed."""
    parts = hugging_face.split(hugging_face.write(card))
    # Written by us a moment ago, and read safely before.
    head = change(yaml.safe_load(parts.head) or {})
    dumped = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=float("inf"))
    return f"---\n{dumped}---\n{parts.prose}"


def read(text: str, names: Callable[[Fields], Fields]) -> Card:
    """Read a card whose fields have other names.

    Raises:
        UnreadableCardError: there is no metadata, or it holds YAML that a card has no business to contain.
    """
    parts = hugging_face.split(text)
    if not parts.fields.readable:
        raise UnreadableCardError(parts.fields.faults)
    values, _ = hugging_face.values_of(names(parts.fields))
    title, prose = hugging_face.titled(parts.prose)
    return Card(title, metadata_from(values), prose)


def renamed(fields: Fields, names: Mapping[str, str]) -> Fields:
    """Return the same fields under other names."""
    return Fields(
        {names.get(name, name): value for name, value in fields.values.items()},
        {names.get(name, name): line for name, line in fields.lines.items()},
        fields.faults,
        fields.readable,
    )


def words(value: Tree | None) -> list[str]:
    """Return a field's names, whether one or a list was written."""
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return [str(entry) for entry in entries if isinstance(entry, Text) and resolved(entry) is not None]


def all_but(fields: Fields, kept: Mapping[str, str | None]) -> dict[str, str]:
    """Say of fields of several names, of which one is kept, which: the field's name → the sentence."""
    several = {name: [word for word in words(fields.values.get(name)) if word != one] for name, one in kept.items()}
    return {name: f"only {kept[name]} is kept, not {', '.join(rest)}" for name, rest in several.items() if rest}


def lists(fields: Fields, names: frozenset[str]) -> Iterator[Fault]:
    """Yield the fields that should be names or lists of them, and are something else."""
    for name, value in fields.values.items():
        entries = value if isinstance(value, list) else [value]
        if name in names and any(isinstance(entry, (dict, list)) for entry in entries):
            yield Fault(fields.lines.get(name), name, f"must be a list of names, and is {resolved(value)!r}"[:200])
