"""What no hub refuses and a reader should know all the same: every finding here is a warning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any

from cards import figures, vocabulary
from cards.faults import Fault
from cards.metadata import Asset, CardMetadata
from cards.public import holds_secret
from xcit_hub.variants import DIALECTS

Rule = Callable[[Any], "str | None"]


def warnings(metadata: CardMetadata, lines: Mapping[str, int]) -> Iterator[Fault]:
    """Yield what is odd about the fields of a card of either form.

    Args:
        lines: field, by MindSpore Hub's name → line.
    """
    said = metadata.model_dump(by_alias=True)
    for name, value in said.items():
        if holds_secret(str(value)):
            found = "an address holds a password or a token: take it out, and have it replaced"
            yield Fault(lines.get(name), name, found, "warning")
    for name, rule in _RULES.items():
        if said[name] not in (None, "") and (message := rule(said[name])):
            yield Fault(lines.get(name), name, message, "warning")
    for name in metadata.model_extra or {}:
        if name not in vocabulary.OTHER_FIELDS:
            known = "is not a field that a hub or this program knows, and tells it nothing"
            yield Fault(lines.get(name), name, known, "warning")
    for refused in figures.read(metadata.evaluation).refused:
        yield Fault(lines.get("evaluation"), "evaluation", f"left out: {refused}", "warning")
    for number, asset in enumerate(metadata.asset, 1):
        place = "asset" if len(metadata.asset) == 1 else f"asset {number}"
        if asset.asset_link and not asset.asset_link.lower().startswith(("http://", "https://")):
            yield Fault(lines.get("asset"), place, "asset-link does not lead into the web", "warning")
        for name in asset.model_extra or {}:
            yield Fault(lines.get("asset"), place, f"{name} is not a field of an asset, and tells nothing", "warning")
        if message := _digest(asset):
            yield Fault(lines.get("asset"), place, message, "warning")


def empty(metadata: CardMetadata, lines: Mapping[str, int]) -> Iterator[Fault]:
    """Yield the fields that MindSpore Hub asks for and lets pass although they say nothing."""
    said = metadata.model_dump(by_alias=True)
    for name in vocabulary.REQUIRED:
        if said[name] in (None, "") and name in lines:
            yield Fault(lines[name], name, "says nothing", "warning")


def _digest(asset: Asset) -> str | None:
    digest = asset.asset_sha256
    if asset.has_whole_digest:
        return None
    if not digest:
        return "no asset-sha256: the file cannot be verified"
    if asset.has_digest_prefix:
        return (
            f"asset-sha256 is only a prefix ({len(digest)} of 64 digits): the file can be recognised, not verified, "
            "and the Hub's client, which compares the whole digest, refuses it"
        )
    return f"asset-sha256 {digest!r} is neither 64 hex digits nor a prefix of 8 or more"


def _input_shape(value: Any) -> str | None:
    whole = isinstance(value, list) and all(isinstance(side, (int, list)) for side in value)
    return None if whole else f"must be a list of whole numbers such as [3, 224, 224], and is {value!r}"


def _backends(value: Any) -> str | None:
    wrong = [part for part in str(value).split("/") if part.lower() not in vocabulary.BACKENDS]
    return f"each part must be one of {', '.join(vocabulary.BACKENDS)}, and is {'/'.join(wrong)!r}" if wrong else None


def _dialect(value: Any) -> str | None:
    return None if value in DIALECTS else f"it must be one of {', '.join(DIALECTS)}, and is {value!r}"


def _day(value: Any) -> str | None:
    try:
        date.fromisoformat(str(value))
    except ValueError:
        return f"{value!r} is not a day written YYYY-MM-DD"
    return None


_VERSION = re.compile(r"\d+(\.\d+){0,3}\S{0,16}")


def _version(value: Any) -> str | None:
    return None if _VERSION.fullmatch(str(value)) else f"{value!r} is not a version number"


_RULES: dict[str, Rule] = {
    "input-shape": _input_shape,
    "train-backend": _backends,
    "infer-backend": _backends,
    "update-time": _day,
    "mindspore-version": _version,
    "dialect": _dialect,
}
