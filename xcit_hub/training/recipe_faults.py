"""What is wrong with a recipe, in plain words, and which flags cause it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from xcit_hub.training.recipe import Recipe

SHOWN = 60
"""Characters of a wrong value in a message."""
_MISSING = "has to be said"
# pydantic's words for what Python calls a thing, by its kinds of faults.
_PLAINLY = {
    "tuple_type": "must be a list, as [1, 2]",
    "missing": "has too few entries",
    "too_long": "has too many entries",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
}


def faults_of(error: ValidationError, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong by the recipe's keys; under the empty name what cannot be together."""
    faults: dict[str, str] = {}
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"][:1])
        message = _PLAINLY.get(fault["type"], fault["msg"].removeprefix("Value error, "))
        message = message.replace("Input should be", "must be")
        if key in faults:  # of each form that a key may take; its description names them all
            message = f"takes {Recipe.model_fields[key].description}"
        if fault["type"] == "missing" and len(fault["loc"]) == 1:  # not of a list
            faults[key] = f"{key} {_MISSING}"
        else:
            faults[key] = f"{key}: {message}, not {shown(settings.get(key))}" if key else message
    return faults


def blamed(
    faults: Mapping[str, str],
    layers: Sequence[Mapping[str, Any]],
    found: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, str] | None],
) -> list[str]:
    """Return the flags that cause the faults, by the names they were given under; none where one has another cause.

    A flag is a cause of what is not wrong without it: several keys may follow from it, under other names.

    Args:
        layers: what a recipe says, one over another; the last are the flags.
        found: returns the faults of such layers, None where they cannot be read.
    """
    *others, flags = layers
    wrong, causes = {key: fault for key, fault in faults.items() if not fault.endswith(_MISSING)}, {}
    for flag in flags:
        left = found([*others, {name: value for name, value in flags.items() if name != flag}])
        if left is not None and left.keys() <= {*faults, ""}:
            causes[flag] = {key for key, fault in wrong.items() if left.get(key) != fault}
    return [flag for flag, cured in causes.items() if cured] if wrong.keys() <= set().union(*causes.values()) else []


def shown(value: object) -> str:
    """Return a wrong value as a message shows it."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes
        return f"this {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
