"""Reads the small files a card is generated from, and says which field of which file is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cards import front_matter
from xcit_hub import strict_json
from xcit_hub.errors import InputError
from xcit_hub.files import read_bounded

_MAX_BYTES = 8 << 20
_Model = TypeVar("_Model", bound=BaseModel)


def read_json(path: str | Path, model: type[_Model]) -> _Model:
    """Read a JSON file as ``model``.

    Raises:
        InputError: the file is missing, too large, not JSON, or a field of it is wrong; all wrong fields are named.
    """
    return validated(read_json_object(path), model, path)


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        InputError: the file is missing, too large, or not a JSON object.
    """
    try:
        value = strict_json.parsed(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"This is not JSON: {error}", where=path, fix="Give the file as it was written.") from error
    if not isinstance(value, dict):
        raise InputError("This JSON file does not hold an object.", where=path, fix="Give the file as it was written.")
    return value


def read_yaml(path: str | Path, model: type[_Model]) -> _Model:
    """Read a YAML file as ``model``, under the same limits as a card's metadata.

    Raises:
        InputError: the file is missing, refused, or a field of it is wrong; all faults are named.
    """
    fields = front_matter.load(_text(path), tolerant=False)
    if not fields.readable or fields.faults:
        listed = "\n".join(f"  {fault}" for fault in fields.faults)
        raise InputError(f"This YAML file cannot be used:\n{listed}", where=path, fix="Mend the lines above.")
    # Every scalar is text here, so that `2.10` keeps its zero; the model knows which fields are numbers.
    return validated({name: front_matter.plain(value) for name, value in fields.values.items()}, model, path)


def validated(values: dict[str, Any], model: type[_Model], where: object) -> _Model:
    """Return ``values`` as ``model``.

    Raises:
        InputError: one or more fields are wrong; all are named.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        listed = "\n".join(f"  {'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise InputError(f"Some fields are wrong:\n{listed}", where=where, fix="Mend the fields above.") from error


def _text(path: str | Path) -> str:
    try:
        return read_bounded(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"Byte {error.start} is not UTF-8.", where=path, fix="Save the file as UTF-8.") from error
