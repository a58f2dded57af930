"""The YAML between the dashes, read without trusting it and written without losing a digit.

PyYAML would turn ``mindspore-version: 1.10`` into 1.1. Here every scalar stays the text that was written; only fields
that are known to be numbers, and unknown fields whose text a number prints back exactly, become numbers.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import yaml

from cards.faults import Fault

MAX_CHARACTERS = 64 * 1024
MAX_DEPTH = 12
MAX_NODES = 10_000

GIVEN_TWICE = "given twice"
NOT_YAML = "not valid YAML"


class Text(str):
    """A scalar as it was written. ``plain`` is False for quoted and block scalars."""

    plain: bool
    __slots__ = ("plain",)

    def __new__(cls, value: str, plain: bool = False) -> Text:  # noqa: D102
        text = super().__new__(cls, value)
        text.plain = plain
        return text


Tree: TypeAlias = "Text | list[Tree] | dict[str, Tree]"


@dataclass
class Fields:
    """The top-level fields of a card's metadata.

    Args:
        values: name as written → value.
        lines: name → line in the file, counted from 1.
        faults: what was wrong while reading.
        readable: False when something was refused, so that the values must not be used.
    """

    values: dict[str, Tree] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    readable: bool = True


class _RefusedError(Exception):
    """YAML that a card has no business to contain."""

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        self.message = message
        super().__init__(message)


def load(text: str, first_line: int = 1, *, tolerant: bool = True) -> Fields:
    """Read the lines between the dashes.

    Args:
        first_line: the line of the file at which ``text`` begins.
        tolerant: when the whole is not YAML, read it field by field and keep as text what cannot be parsed.

    Returns:
        The fields with every fault found; never raises, whatever the text is.
    """
    fields = Fields()
    if len(text) > MAX_CHARACTERS:
        fields.faults.append(Fault(first_line, "metadata", f"longer than {MAX_CHARACTERS:,} characters"))
        fields.readable = False
        return fields
    try:
        _from_yaml(fields, text, first_line)
    except _RefusedError as error:
        fields.faults.append(Fault(first_line + error.line, "metadata", error.message))
        fields.readable = False
    except (yaml.YAMLError, ValueError) as error:
        line, problem = _problem(error)
        fields.faults.append(Fault(first_line + line, "metadata", f"{NOT_YAML}: {problem}"))
        if tolerant:
            _field_by_field(fields, text, first_line)
        else:
            fields.readable = False
    return fields


def resolved(value: Any) -> Any:
    """Turn written values into Python's: plain booleans, numbers and nulls, text for everything else that is text.

    A number whose digits would change (``1.10``) stays text. What is a Python value already is returned as it is.
    """
    if isinstance(value, dict):
        return {str(key): resolved(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [resolved(entry) for entry in value]
    if isinstance(value, Text):
        return _resolved_scalar(value) if value.plain else str(value)
    return value


def text_of(value: Text | list[Any] | dict[str, Any]) -> str | None:
    """Return a field that should be text: a list or mapping becomes one line of text, nothing becomes None."""
    if isinstance(value, Text):
        return None if value.plain and value in _NULLS else str(value)
    return flow(value)


def plain(tree: Tree) -> Any:
    """Return the same tree with every scalar as text, and with nothing (``key:``) as None."""
    if isinstance(tree, dict):
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    return None if tree.plain and tree in _NULLS else str(tree)


def flow(tree: Tree) -> str:
    """Return a value as one line of text: what a field that should be text says when it is not."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {flow(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(flow(value) for value in tree) + "]"
    return str(tree)


def is_deep(value: list[Any] | dict[str, Any]) -> bool:
    """Say whether lists and mappings stand in one another more than :data:`MAX_DEPTH` deep."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inside = [entry for held in level for entry in (held.values() if isinstance(held, dict) else held)]
        level = [entry for entry in inside if isinstance(entry, (dict, list))]
    return bool(level)


@lru_cache(maxsize=4096)  # names and words come again in every card
def scalar(text: str) -> str:
    """Write ``text`` as a YAML scalar on one line, unquoted where any YAML reader would print the same text."""
    if text and text == text.strip() and not text.startswith("---") and text.isprintable():
        try:
            node: Any = yaml.compose(f"k: {text}\n", Loader=yaml.SafeLoader)
            value = node.value[0][1]
            if (
                isinstance(value, yaml.ScalarNode)
                and value.style is None
                and value.value == text
                and str(_constructed(text)) == text
            ):
                return text
        except (yaml.YAMLError, ValueError):
            pass
    quoted = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))
    return str(quoted).rstrip("\n")


def block(value: object) -> str:
    """Write any value as YAML for the right of ``key:``, on one line."""
    dumped = yaml.dump(
        escaped(value), Dumper=_Dumper, default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf")
    )
    return str(dumped).removesuffix("\n").removesuffix("\n...")


class Escaped(str):
    """Text that YAML must write in double quotes: PyYAML writes several line breaks so that it cannot read them."""

    __slots__ = ()


def escaped(value: Any) -> Any:
    """Return ``value`` with every text in it, keys too, that holds unprintable characters as :class:`Escaped`."""
    if isinstance(value, dict):
        return {escaped(key): escaped(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [escaped(entry) for entry in value]
    return Escaped(value) if isinstance(value, str) and not value.isprintable() else value


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_escaped(dumper: Any, value: Escaped) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(value), style='"')


for _dumper in (_Dumper, yaml.Dumper):  # huggingface_hub writes with the latter
    yaml.add_representer(Escaped, _represent_escaped, Dumper=_dumper)


def _constructed(text: str) -> object:
    return yaml.safe_load(text)


@dataclass
class _Open:
    """A mapping or list whose end has not come yet; ``key`` is the name that still waits for its value."""

    content: list[Tree] | dict[str, Tree]
    key: Text | None = None


def _from_yaml(fields: Fields, text: str, first_line: int) -> None:
    """Read one mapping in one pass over YAML's events: nothing is built that is larger than its text, nothing runs."""
    root: list[Tree] = []
    levels = [_Open(root)]
    documents = values = 0
    event: Any
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line: int = event.start_mark.line
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise ValueError("more than one document")
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            levels.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        values += 1
        _refuse(event, depth=len(levels), values=values)
        value: Tree
        if isinstance(event, yaml.ScalarEvent):
            value = Text(event.value, plain=event.style is None and event.tag is None)
        else:
            value = {} if isinstance(event, yaml.MappingStartEvent) else []
        _place(fields, levels, value, line, first_line)
        if not isinstance(value, Text):
            levels.append(_Open(value))
    if root and not isinstance(root[0], dict):
        raise ValueError("not a list of `key: value` fields")
    fields.values = root[0] if root and isinstance(root[0], dict) else {}


def _refuse(event: Any, *, depth: int, values: int) -> None:
    line = event.start_mark.line
    if isinstance(event, yaml.AliasEvent):
        raise _RefusedError(line, f"an alias (*{event.anchor}) is not allowed in a card")
    if event.anchor is not None:
        raise _RefusedError(line, f"an anchor (&{event.anchor}) is not allowed in a card")
    if event.tag is not None and event.tag != "!":
        raise _RefusedError(line, f"the tag {event.tag} is not allowed in a card")
    if values > MAX_NODES:
        raise _RefusedError(line, f"more than {MAX_NODES:,} values")
    if depth > MAX_DEPTH:
        raise _RefusedError(line, f"nested more than {MAX_DEPTH} deep")


def _place(fields: Fields, levels: list[_Open], value: Tree, line: int, first_line: int) -> None:
    """Put a value into the innermost open mapping or list; in a mapping every second one is a name."""
    inner = levels[-1]
    if isinstance(inner.content, list):
        inner.content.append(value)
    elif inner.key is None:
        if not isinstance(value, Text):
            raise ValueError("a field's name is not text")
        if value.plain and value == "<<":
            raise _RefusedError(line, "a merge (<<) is not allowed in a card")
        inner.key = value
        _seen(fields, str(value), first_line + line, again=str(value) in inner.content, at_top=len(levels) == 2)
    else:
        inner.content[str(inner.key)] = value
        inner.key = None


def _seen(fields: Fields, key: str, line: int, *, again: bool, at_top: bool) -> None:
    if again:
        first = f", first at line {fields.lines[key]}" if at_top else ""
        fields.faults.append(Fault(line, key, f"{GIVEN_TWICE}{first}; the last one counts", "warning"))
    if at_top:
        fields.lines[key] = line


_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}


def _resolved_scalar(text: Text) -> Any:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) <= 32:
        for kind in (int, float):
            try:
                number = kind(text)
            except ValueError:
                continue
            if math.isfinite(number) and text in (repr(number), block(number)):
                return number
    return str(text)


def _problem(error: Exception) -> tuple[int, str]:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return error.problem_mark.line, error.problem or "syntax error"
    first = str(error).strip().splitlines()
    return 0, first[0] if first else "syntax error"


# A field starts at the left margin. Cards in Chinese write a full-width colon, with or without a space.
_FIELD = re.compile(r"^(?P<key>[^\s:：#\-\[\]{}<>|&*!'\"][^:：\[\]{}<>|]{0,60}?)[ \t]*[:：](?P<rest>.*)$")
_ENTRY = re.compile(r"(?P<dash>-)?[ \t]*(?:(?P<key>[A-Za-z][\w-]*)[ \t]*[:：](?P<rest>.*))?")
_ASSET_KEYS = frozenset({"file-format", "asset-link", "asset-sha256"})


def _field_by_field(fields: Fields, text: str, first_line: int) -> None:
    chunks: list[tuple[str, int, list[str]]] = []
    for number, line in enumerate(text.split("\n"), first_line):
        found = _FIELD.match(line)
        continues_asset = bool(chunks) and found is not None and _canonical(found["key"]) in _ASSET_KEYS
        if found and not continues_asset:
            chunks.append((found["key"].strip(), number, [found["rest"]]))
        elif chunks:
            chunks[-1][2].append(line)
        elif line.strip():
            fields.faults.append(Fault(number, "metadata", f"this line belongs to no field: {line.strip()[:60]!r}"))
    fields.values.clear()
    fields.lines.clear()
    for key, number, lines in chunks:
        try:
            value = _chunk(key, lines)
        except _RefusedError as error:
            fields.faults.append(Fault(number + error.line, key, error.message))
            fields.readable = False
            continue
        _seen(fields, key, number, again=key in fields.values, at_top=True)
        fields.values[key] = value


def _canonical(key: str) -> str:
    return key.strip().lower().replace("_", "-")


def _chunk(key: str, lines: list[str]) -> Tree:
    body = "\n".join(lines)
    if _canonical(key) == "asset":
        return _assets(lines)
    try:
        inner = Fields()
        _from_yaml(inner, "v: " + body.replace("\t", "    "), 1)
        return inner.values["v"]
    except (yaml.YAMLError, ValueError):
        return Text(" ".join(line.strip() for line in lines if line.strip()))


def _assets(lines: list[str]) -> Tree:
    entries: list[Tree] = []
    entry: dict[str, Tree] = {}
    for line in lines:
        found = _ENTRY.fullmatch(line.strip())
        if not found:
            continue
        if found["dash"] or (found["key"] and _canonical(found["key"]) in entry):
            entry = {}
        if found["key"]:
            if not entry:
                entries.append(entry)
            rest = found["rest"].strip()
            _refuse_node_properties(rest)
            entry[_canonical(found["key"])] = Text(rest.strip("\"'"))
    return entries


def _refuse_node_properties(text: str) -> None:
    if text.startswith(("&", "*", "!")):
        raise _RefusedError(0, f"{text.split()[0]} (an anchor, alias or tag) is not allowed in a card")
