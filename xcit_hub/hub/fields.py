"""One level of a foreign record, field by field: each is of its kind and range, or refused by its name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from xcit_hub import strict_json
from xcit_hub.errors import HubError

T = TypeVar("T")

IGNORED = "ignored, as was asked for"


def parsed(text: str, where: object) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        HubError: it is not one.
    """
    try:
        record = strict_json.parsed(text)
    except (ValueError, RecursionError) as error:
        raise malformed(f"not JSON ({error!s:.80})", where) from None
    if not isinstance(record, dict):
        raise malformed("not a JSON object", where)
    return record


def drop_ignored(levels: Mapping[str, dict[str, Any]], ignore: frozenset[str]) -> list[str]:
    """Delete the fields that are to be ignored, and return their full names.

    Args:
        levels: prefix of the fields' names → fields.
        ignore: names, with their prefix or without.
    """
    dropped = []
    for prefix, fields in levels.items():
        for name in [name for name in fields if name in ignore or f"{prefix}{name}" in ignore]:
            del fields[name]
            dropped.append(f"{prefix}{name}")
    return dropped


def ignored_note(name: str) -> str:
    """Say that a field was not read."""
    return f"the description's {name} was ignored, as was asked for"


class Reader:
    """One level of a foreign record. Whatever nobody took from it is left for :meth:`rest`, to be accounted for.

    Args:
        prefix: of its fields' names in messages.
    """

    def __init__(self, fields: Mapping[str, Any], prefix: str, where: object) -> None:
        self.fields = dict(fields)
        self.prefix = prefix
        self.where = where
        self.taken: set[str] = set()

    def take(self, name: str, default: Any = None) -> Any:
        """Return a field as it is; ``default`` where it is absent or null."""
        self.taken.add(name)
        value = self.fields.get(name)
        return default if value is None else value

    def rest(self) -> list[str]:
        """Name the fields that nobody took."""
        return [name for name in self.fields if name not in self.taken]

    def whole(self, name: str, default: int | None, *, least: int) -> int | None:
        """Return a whole number of at least ``least``."""
        value = self.take(name, default)
        if value is not None and (not _is_whole(value) or value < least):
            raise self._wrong(name, value, f"a whole number from {least} to 2^53")
        return value

    def number(self, name: str) -> float | None:
        """Return a finite number; null is refused, as a constructor would refuse it."""
        value = self.take(name)
        if name in self.fields and not (_is_number(value)):
            raise self._wrong(name, value, "a number")
        return value

    def flag(self, name: str) -> bool | None:
        """Return true or false."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def one_of(self, name: str, known: tuple[str, ...], default: str) -> str:
        """Return one of a few words."""
        value = self.take(name, default)
        if value not in known:
            raise self._wrong(name, value, f"one of {', '.join(map(repr, known))}")
        return str(value)

    def wholes(self, name: str, count: int) -> tuple[int, ...] | None:
        """Return a list of ``count`` positive whole numbers."""
        value = self.take(name)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(_is_whole(each) and each > 0 for each in value)
        ):
            raise self._wrong(name, value, f"a list of {count} positive whole numbers")
        return tuple(value)

    def pair(self, name: str, value: Any) -> tuple[int, int]:
        """Return one whole number twice, or a list of two."""
        values = value if isinstance(value, list) else [value, value]
        if len(values) != 2 or not all(_is_whole(each) and each > 0 for each in values):
            raise self._wrong(name, value, "a size")
        return values[0], values[1]

    def _wrong(self, name: str, value: object, wanted: str) -> HubError:
        return malformed(f"{self.prefix}{name}: {value!r:.40} is not {wanted}", self.where)


def typed(fields: Mapping[str, object], name: str, kind: type[T], default: T, where: object) -> T:
    """Return a field of one kind; a whole number may stand for any number.

    Raises:
        HubError: it is of another kind, or not finite.
    """
    value = fields.get(name, default)
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 2**53 else value
    if not isinstance(value, kind) or isinstance(value, bool) or not _is_finite(value):
        raise malformed(f"{name}: {value!r:.40} is not of the kind {kind.__name__}", where)
    return value


def one_of(fields: Mapping[str, object], name: str, known: tuple[Any, ...], where: object, default: Any = None) -> Any:
    """Return one of a few words.

    Raises:
        HubError: it is another one.
    """
    value = fields.get(name, default)
    if not isinstance(value, str | None) or value not in known:
        raise malformed(f"{name}: {value!r:.40} is not one of {', '.join(map(repr, known))}", where)
    return value


def each_of(fields: Mapping[str, object], name: str, kind: type[T], where: object) -> list[T]:
    """Return a list of one kind; an absent one is empty.

    Raises:
        HubError: it is not such a list.
    """
    values = fields.get(name, ())
    if not isinstance(values, list | tuple):
        raise malformed(f"{name}: not a list", where)
    return [typed({name: value}, name, kind, kind(), where) for value in values]


def is_digest(value: object) -> bool:
    """Whether a value is a SHA-256 as hex digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def malformed(reason: str, where: object) -> HubError:
    """Say that a description cannot be used."""
    return HubError(
        f"The model's description cannot be used: {reason}.",
        where=where,
        fix="Publish the model again, or name another revision.",
    )
