"""From the fields of a written card to :class:`CardMetadata`; shared by both forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cards import vocabulary
from cards.front_matter import Tree, resolved
from cards.metadata import HUGGING_FACE_FIELDS, MINDSPORE_HUB_FIELDS, CardMetadata

_KNOWN = frozenset({*MINDSPORE_HUB_FIELDS, *HUGGING_FACE_FIELDS, "dialect"})


def canonical(name: str) -> str:
    """Return MindSpore Hub's own name of a field (lower case, dashes, English); an unknown name as it is."""
    stripped = name.strip()
    dashed = vocabulary.CHINESE_FIELDS.get(stripped, stripped.lower().replace("_", "-").replace(" ", "-"))
    return dashed if dashed in MINDSPORE_HUB_FIELDS else name


def metadata_values(tree: Mapping[str, Tree]) -> dict[str, Any]:
    """Return field → what was written, under the canonical names.

    Of one field written under two names the canonical one counts; the other is kept as an unknown field ``x-<name>``.
    """
    values: dict[str, Any] = {}
    for name, value in sorted(tree.items(), key=lambda item: canonical(item[0]) != item[0]):
        known = canonical(name)
        values[known if known not in values else f"x-{name}"] = value
    return values


def metadata_from(values: Mapping[str, Any]) -> CardMetadata:
    """Build the metadata. A value that its field cannot hold is kept as an unknown field ``x-<name>``."""
    named = {name: value if name in _KNOWN else resolved(value) for name, value in values.items()}
    try:
        return CardMetadata.model_validate(named)
    except ValidationError as error:
        refused = {str(entry["loc"][0]) for entry in error.errors()}
    return CardMetadata.model_validate(
        {
            (f"x-{name}" if name in refused else name): (resolved(value) if name in refused else value)
            for name, value in named.items()
        }
    )
