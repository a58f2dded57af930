"""What a key of a recipe takes, told from its type: a truth value, words, numbers, lists of them."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin

Kind = Literal["switch", "text", "number", "switch or text", "other"]

NUMBER = re.compile(
    r"[-+]?(0|[1-9]\d{0,17})|[-+]?(\d{1,18}\.\d{0,30}|\.\d{1,30})([eE][-+]?\d{1,3})?|[-+]?\d{1,18}[eE][-+]?\d{1,3}"
)
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_LONGEST_TEXT = 4096


def kind(annotation: Any) -> Kind:
    """Say what a type takes: a truth value, words, either of the two, a number or numbers, or something of its own."""
    kinds = {_kind(part) for part in _parts(annotation)} - {"nothing"}
    if kinds == {"switch", "text"}:
        return "switch or text"
    found = kinds.pop() if len(kinds) == 1 else "other"
    return found if found in ("switch", "text", "number") else "other"  # type: ignore[return-value]


def literals(annotation: Any) -> list[Any]:
    """Return the values that a type takes, where it takes certain ones only."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for entry in get_args(annotation) for word in literals(entry)]


def lists(annotation: Any) -> Literal["any", "fixed", ""]:
    """Say whether a type takes a list: of any length, of certain lengths, or none."""
    found = [part for part in (annotation, *get_args(annotation)) if get_origin(part) is tuple]
    return "any" if any(... in get_args(part) for part in found) else "fixed" if found else ""


def _parts(annotation: Any) -> list[Any]:
    """Flatten unions and tuples into the types that stand in them."""
    origin = get_origin(annotation)
    if origin is Literal:
        return [type(value) for value in get_args(annotation)]
    if origin is None:
        return [annotation]
    return [part for entry in get_args(annotation) if entry is not ... for part in _parts(entry)]


def _kind(part: Any) -> str:
    if part is bool:
        return "switch"
    if part in (int, float):
        return "number"
    return "text" if part is str else "nothing"


def switched(value: Any) -> Any:
    """Return a truth value, or null, from what means one; raises ValueError for anything else."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in SWITCHES:
        return SWITCHES[value.lower()]
    raise ValueError("must be true or false")


def checked_text(value: Any) -> Any:
    """Let a text through that can be a name in a file, a path and a line of a log; raises ValueError for others."""
    for entry in value if isinstance(value, list | tuple) else (value,):
        if isinstance(entry, str):
            if len(entry) > _LONGEST_TEXT:
                raise ValueError(f"must not be longer than {_LONGEST_TEXT} characters")
            if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in entry):
                raise ValueError("must be plain text in UTF-8")
    return value
