"""MindSpore Hub's written form: a title, YAML between two lines of dashes, prose.

What only Hugging Face asks for rides in one Markdown comment after the metadata, because the Hub's checker allows no
``:`` inside a field.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from cards import front_matter
from cards.card import Card, normalized, outside_code
from cards.faults import Fault, UnreadableCardError
from cards.front_matter import Fields
from cards.metadata import HUGGING_FACE_FIELDS, MINDSPORE_HUB_FIELDS, Asset, CardMetadata, MindSporeHubFields
from cards.reading import metadata_from, metadata_values
from xcit_hub import strict_json

_DASHES = "---"
_COMMENT = re.compile(r"<!-- hugging-face (?P<json>\{.*\}) -->")
_COMMENT_BEGINS = re.compile(r"<!-- hugging-face(?![\w-])")
_LINKS = frozenset({"repo-link", "asset-link"})
# Fields that are text whatever it looks like: `2.10` needs no quotes there.
_TEXTS = frozenset(
    name
    for name, field in MINDSPORE_HUB_FIELDS.items()
    if MindSporeHubFields.model_fields[field].annotation == str | None
)
# The Hub's checker reads a lone dash here as "no"; that is not YAML.
_NO_EVALUATION = re.compile(r"^(evaluation:[ \t]*)-[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Parts:
    """A card taken apart, before anything is believed.

    Args:
        title_line, prose_line: where each begins in the file, counted from 1.
        dashes: the numbers of all lines that begin with ``---``.
    """

    title: str
    title_line: int | None
    fields: Fields
    prose: str
    prose_line: int
    dashes: list[int]


def split(text: str) -> Parts:
    """Take a card apart. Never raises; ``fields.faults`` and ``fields.readable`` say what went wrong."""
    lines = normalized(text).split("\n")
    dashes = [number for number, line in enumerate(lines, 1) if line.startswith(_DASHES)]
    if len(dashes) < 2:
        message = "there are no two lines of dashes with metadata between them"
        fields = Fields(faults=[Fault(dashes[0] if dashes else None, "metadata", message)], readable=False)
        return Parts("", None, fields, "\n".join(lines), 1, dashes)
    opening, closing = dashes[:2]
    head = "\n".join(lines[opening : closing - 1])
    fields = front_matter.load(_NO_EVALUATION.sub(r"\1'-'", head), opening + 1)
    title, title_line = "", None
    preamble: list[str] = []
    for number, line in enumerate(lines[: opening - 1], 1):
        if title_line is None and line.startswith("#"):
            title, title_line = line.lstrip("#").strip(), number
        elif line.strip():
            preamble.append(line)
    prose = "\n".join([*preamble, *lines[closing:]])
    return Parts(title, title_line, fields, prose, closing + 1 - len(preamble), dashes)


def read(text: str) -> Card:
    """Read a card, however uneven.

    Raises:
        UnreadableCardError: there is no metadata, or it holds YAML that a card has no business to contain.
    """
    return read_parts(split(text))


def read_parts(parts: Parts) -> Card:
    """Read a card that has been taken apart; raises as :func:`read`."""
    if not parts.fields.readable:
        raise UnreadableCardError(parts.fields.faults)
    foreign, prose = _foreign(parts)
    of_head = metadata_values(parts.fields.values)
    theirs = {name: value for name, value in foreign.items() if name in HUGGING_FACE_FIELDS}
    others = metadata_values({name: value for name, value in foreign.items() if name not in theirs})
    # Of a field that both have, the head's counts, as of one that is written under two names.
    kept = {f"x-{name}" if name in of_head else name: value for name, value in others.items()}
    metadata = metadata_from({**kept, **of_head, **theirs})
    return Card(parts.title, metadata, prose.strip("\n"))


def write(card: Card) -> str:
    """Write a card so that :func:`read` finds the same metadata and the Hub's checker its two lines of dashes."""
    lines = [_title(card), "", _DASHES, ""]
    for name, value in written_fields(card.metadata).items():
        lines += [*_field(name, value), ""]
    lines += [_DASHES, ""]
    foreign = card.metadata.model_dump(include=set(HUGGING_FACE_FIELDS), exclude_defaults=True, mode="json")
    if foreign:
        # Unescaped, a "-->" inside a value would end the comment.
        dumped = json.dumps(foreign, ensure_ascii=True).replace("--", "-\\u002d")
        lines += [f"<!-- hugging-face {dumped} -->", ""]
    # A space before dashes changes nothing in Markdown, and the checker counts only lines that begin with them.
    lines += [f" {line}" if line.startswith(_DASHES) else line for line in card.prose.strip("\n").split("\n")]
    return "\n".join(lines).rstrip("\n") + "\n"


def written_fields(metadata: CardMetadata) -> dict[str, Any]:
    """Return the fields of ``metadata`` that say something, under the Hub's names and in its order."""
    dumped = metadata.model_dump(by_alias=True, exclude_none=True, exclude=set(HUGGING_FACE_FIELDS))
    dumped["asset"] = [_said(asset) for asset in metadata.asset]
    known = {name: dumped[name] for name in (*MINDSPORE_HUB_FIELDS, "dialect") if dumped.get(name, []) != []}
    return known | extra_fields(metadata)


def _said(asset: Asset) -> dict[str, Any]:
    # An unknown field that is empty is still a field that was read.
    unknown = asset.model_extra or {}
    dumped = asset.model_dump(by_alias=True)
    return {name: value for name, value in dumped.items() if value is not None or name in unknown}


def extra_fields(metadata: CardMetadata) -> dict[str, Any]:
    """Return a copy of the unknown fields."""
    names = set(metadata.model_extra or {})
    return {name: value for name, value in metadata.model_dump().items() if name in names}


def _foreign(parts: Parts) -> tuple[dict[str, Any], str]:
    outside = outside_code(parts.prose, parts.prose_line)
    line, begun = next(((number, text) for number, text in outside if _COMMENT_BEGINS.match(text)), (0, ""))
    if not begun:
        return {}, parts.prose
    found = _COMMENT.match(begun)
    if not found:
        fault = Fault(line, "hugging-face", "the comment is not one JSON object, in one line and closed by ' -->'")
        raise UnreadableCardError([fault])
    try:
        values = strict_json.parsed(found["json"])
    except (ValueError, RecursionError) as error:
        fault = Fault(line, "hugging-face", f"the comment's JSON cannot be read: {error}")
        raise UnreadableCardError([fault]) from error
    if front_matter.is_deep(values):
        fault = Fault(line, "hugging-face", f"the comment is nested more than {front_matter.MAX_DEPTH} deep")
        raise UnreadableCardError([fault])
    lines = parts.prose.split("\n")
    before, after = lines[: line - parts.prose_line], lines[line - parts.prose_line + 1 :]
    rest = "\n".join([begun[found.end() :], *after]).lstrip("\n")
    return values, "\n".join([*before, rest])


def _title(card: Card) -> str:
    title = " ".join((card.title or card.metadata.model_name or "").split())
    return f"# {title}".rstrip()


def _field(name: str, value: Any) -> list[str]:
    key = front_matter.scalar(name)
    if name == "asset":
        lines = [f"{key}:", ""]
        for asset in value:
            entries = [f"{front_matter.scalar(part)}: {_value(part, said)}" for part, said in asset.items()]
            lines += [f"{'  ' if index else '- '}{entry}" for index, entry in enumerate(entries)] or ["- {}"]
        return lines
    return [f"{key}: {_value(name, value)}"]


def _value(name: str, value: Any) -> str:
    if name in _LINKS:
        return front_matter.scalar(f"<{value}>")
    if isinstance(value, bool) and name in MINDSPORE_HUB_FIELDS:
        return str(value)
    if name in _TEXTS and isinstance(value, str):
        return front_matter.scalar(value)
    return front_matter.block(value)
