"""What each metadata field may say: MindSpore Hub's rules (``mindspore_hub/_utils/check.py``), and ours beside them.

A rule takes a field's value and returns what is wrong with it, or None. Errors are what the Hub's checker refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from cards import vocabulary
from cards.faults import Fault
from cards.metadata import Asset, ranked_accuracies
from xcit_hub.errors import closest
from xcit_hub.variants import DIALECTS

Rule = Callable[[Any], "str | None"]


def faults_of(
    values: Mapping[str, Any], lines: Mapping[str, int], *, form: str, block: int | None = None
) -> Iterator[Fault]:
    """Hold MindSpore Hub's fields against the rules.

    Args:
        values: field → typed value, as :func:`cards.reading.metadata_values` gives them.
        lines: field → line.
        form: ``mindspore-hub`` also demands that every required field is there and that no value holds a ``:``.
        block: the line to name for a field that is not there.
    """
    if form == "mindspore-hub":
        for name in vocabulary.REQUIRED:
            if values.get(name) in (None, ""):
                yield Fault(lines.get(name, block), name, "is required, and is missing or empty")
        yield from _colons(values, lines)
    for name, value in values.items():
        line = lines.get(name, block)
        if value in (None, ""):
            continue
        if name in _ERRORS and (message := _ERRORS[name](value)):
            yield Fault(line, name, message)
        if name in _WARNINGS and (message := _WARNINGS[name](value)):
            yield Fault(line, name, message, "warning")
        if name == "asset":
            yield from _assets(value, line)


def _colons(values: Mapping[str, Any], lines: Mapping[str, int]) -> Iterator[Fault]:
    for name, value in values.items():
        if name not in vocabulary.COLON_ALLOWED and ":" in str(value):
            yield Fault(lines.get(name), name, f"contains a ':', which the Hub allows in no field but {_COLON_FIELDS}")


_COLON_FIELDS = ", ".join(sorted(vocabulary.COLON_ALLOWED))


def _assets(value: Any, line: int | None) -> Iterator[Fault]:
    if not isinstance(value, list):
        yield Fault(line, "asset", "is not a list of files")
        return
    for number, entry in enumerate(value, 1):
        asset = Asset.model_validate(entry)
        place = "asset" if len(value) == 1 else f"asset {number}"
        given = asset.model_dump(by_alias=True)
        for name in vocabulary.ASSET_REQUIRED:
            if given[name] in (None, ""):
                yield Fault(line, place, f"{name} is required, and is missing or empty")
        if asset.file_format and asset.file_format.lower() not in vocabulary.FILE_FORMATS:
            yield Fault(line, place, _not_one_of("file-format", asset.file_format, vocabulary.FILE_FORMATS))
        if asset.asset_link and (message := _link(asset.asset_link)):
            yield Fault(line, place, f"asset-link {message}")
        yield from _digest(asset, place, line)


def _digest(asset: Asset, place: str, line: int | None) -> Iterator[Fault]:
    digest = asset.asset_sha256
    if not digest or asset.has_whole_digest:
        return
    if asset.has_digest_prefix:
        yield Fault(
            line,
            place,
            f"asset-sha256 is only a prefix ({len(digest)} of 64 digits): the file can be recognised, not verified, "
            "and the Hub's client, which compares the whole digest, refuses it",
            "warning",
        )
    else:
        yield Fault(line, place, f"asset-sha256 {digest!r} is neither 64 hex digits nor a prefix of 8 or more")


def _truth_value(value: Any) -> str | None:
    return None if isinstance(value, bool) else f"must be True or False, and is {value!r}"


def _input_shape(value: Any) -> str | None:
    whole = isinstance(value, list) and all(isinstance(side, (int, list)) for side in value)
    return None if whole else f"must be a list of whole numbers such as [3, 224, 224], and is {value!r}"


def _number(value: Any) -> str | None:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if fine else f"must be a number, and is {value!r}"


def _link(value: Any) -> str | None:
    try:
        parts = urlsplit(str(value).strip().strip("<>"))
    except ValueError as error:
        return f"is not a web address ({error}): {value!r}"
    whole = parts.scheme in ("http", "https") and bool(parts.netloc) and " " not in str(value).strip()
    return None if whole else f"is not a web address: {value!r}"


def _train_dataset(value: Any) -> str | None:
    known = vocabulary.train_datasets()
    if value in known:
        return None
    hint = closest(str(value), known)
    return f"{value!r} is not on the Hub's list of datasets" + (f"; {hint}" if hint else "")


def _module_type(value: Any) -> str | None:
    first, *details = str(value).lower().split("-")
    if len(details) > 1:
        return f"may hold one '-' at most, and is {value!r}"
    return None if first in vocabulary.MODULE_TYPES else _not_one_of("its first part", first, vocabulary.MODULE_TYPES)


def _parts_of(choices: tuple[str, ...]) -> Rule:
    def rule(value: Any) -> str | None:
        wrong = [part for part in str(value).split("/") if part.strip().lower() not in choices]
        return _not_one_of("each part", ", ".join(wrong), choices) if wrong else None

    return rule


def _dialect(value: Any) -> str | None:
    return None if value in DIALECTS else _not_one_of("it", str(value), tuple(DIALECTS))


def _not_one_of(what: str, value: str, choices: tuple[str, ...]) -> str:
    return f"{what} must be one of {', '.join(choices)}, and is {value!r}"


def _day(value: Any) -> str | None:
    try:
        date.fromisoformat(str(value))
    except ValueError:
        return f"{value!r} is not a day written YYYY-MM-DD"
    return None


def _evaluation(value: Any) -> str | None:
    ranked = ranked_accuracies(str(value))
    above = [figure for figure in ranked.values() if figure > 100]
    if above:
        return f"an accuracy of {above[0]:g} % cannot be"
    if {1, 5} <= ranked.keys() and ranked[1] > ranked[5]:
        return f"top-1 ({ranked[1]:g}) cannot exceed top-5 ({ranked[5]:g})"
    return None


_VERSION = re.compile(r"\d+(\.\d+){0,3}\S{0,16}")


def _version(value: Any) -> str | None:
    return None if _VERSION.fullmatch(str(value)) else f"{value!r} is not a version number"


_ERRORS: dict[str, Rule] = {
    "fine-tunable": _truth_value,
    "allow-cache-ckpt": _truth_value,
    "input-shape": _input_shape,
    "accuracy": _number,
    "repo-link": _link,
    "train-dataset": _train_dataset,
    "module-type": _module_type,
    "used-for": _parts_of(vocabulary.USED_FOR),
    "train-backend": _parts_of(vocabulary.BACKENDS),
    "infer-backend": _parts_of(vocabulary.BACKENDS),
    "evaluation": _evaluation,
    "dialect": _dialect,
}
_WARNINGS: dict[str, Rule] = {"update-time": _day, "mindspore-version": _version}
