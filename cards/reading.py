"""From fields as they were written to fields as they are typed; shared by both forms."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from cards import vocabulary
from cards.front_matter import Text, Tree, flow, resolved
from cards.metadata import HUGGING_FACE_FIELDS, MINDSPORE_HUB_FIELDS, Asset, CardMetadata

_LISTS_OF_NAMES = frozenset({"tags", "datasets", "metrics", "base_model", "language"})
_TEXTS = (frozenset(HUGGING_FACE_FIELDS) - _LISTS_OF_NAMES - {"results"}) | {"dialect"}
_TRUTH_VALUES = frozenset({"fine-tunable", "allow-cache-ckpt"})
_ASSET_FIELDS = frozenset(field.alias for field in Asset.model_fields.values())


def canonical(name: str) -> str:
    """Return MindSpore Hub's own name of a field (lower case, dashes, English); an unknown name as it is."""
    stripped = name.strip()
    dashed = vocabulary.CHINESE_FIELDS.get(stripped, stripped.lower().replace("_", "-").replace(" ", "-"))
    return dashed if dashed in MINDSPORE_HUB_FIELDS else name


def metadata_values(tree: dict[str, Tree]) -> dict[str, Any]:
    """Turn written fields into :class:`CardMetadata`'s values. What is mistyped stays the text it was."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        values.setdefault(canonical(name), _typed(canonical(name), value))
    return values


def metadata_from(values: dict[str, Any]) -> CardMetadata:
    """Build the metadata. A value that its field cannot hold is kept as an unknown field ``x-<name>``."""
    try:
        return CardMetadata.model_validate(values)
    except ValidationError as error:
        refused = {str(entry["loc"][0]) for entry in error.errors()}
    kept = {(f"x-{name}" if name in refused else name): value for name, value in values.items()}
    return CardMetadata.model_validate(kept)


def text_of(tree: Tree) -> str | None:
    """Return a field that should be text: a list or mapping becomes one line of text, nothing becomes None."""
    if isinstance(tree, Text):
        return None if tree.plain and resolved(tree) is None else str(tree)
    return flow(tree)


def _typed(name: str, value: Tree) -> Any:
    if name in _TRUTH_VALUES:
        found = resolved(value)
        return found if isinstance(found, bool) else text_of(value)
    if name == "accuracy":
        found = resolved(value)
        return found if isinstance(found, (int, float)) and not isinstance(found, bool) else text_of(value)
    if name == "input-shape":
        return resolved(value) if isinstance(value, list) else text_of(value)
    if name == "asset":
        return _assets(value)
    if name in _LISTS_OF_NAMES:
        entries = value if isinstance(value, list) else [value]
        return [text for text in map(text_of, entries) if text is not None]
    if name in MINDSPORE_HUB_FIELDS or name in _TEXTS:
        return text_of(value)
    return resolved(value)


def _assets(value: Tree) -> Any:
    entries = [value] if isinstance(value, dict) else value
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return [] if text_of(value) is None else text_of(value)
    return [_asset(entry) for entry in entries if isinstance(entry, dict)]


def _asset(entry: dict[str, Tree]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for written, value in entry.items():
        dashed = written.strip().lower().replace("_", "-")
        known = dashed in _ASSET_FIELDS
        values.setdefault(dashed if known else written, text_of(value) if known else resolved(value))
    return values
