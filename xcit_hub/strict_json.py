"""JSON of strangers: each name once in a table, whole characters. Python keeps the last of two, and says nothing."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


def parsed(text: str) -> Any:
    """Return the value that a text is.

    Raises:
        ValueError: it is not JSON, or no reader can be sure what it says.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(text, object_pairs_hook=_each_once)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a character can be escaped, and is not one
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"it says {twice!r:.60} twice")
    return table
