"""What may stand in a card that everybody reads: no password or token of an address, no path of somebody's disk."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

_PASSWORD = re.compile(r"(?<=://)[^\s/?#@<>\"']*@")
_TOKEN = re.compile(
    r"(?P<sign>[?&])(?:(?:access|auth|private|api|id|refresh)[-_]?(?:token|key)|token|apikey|key|auth|authorization|pass"
    r"|passwd|password|pwd|secret|client_secret|sig|signature|credential|x-(?:amz|goog|oss|cos)-[a-z-]+)=[^&\s<>\"')#]*&?",
    re.IGNORECASE,
)
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:@[\w.-]+)?")
_FILE = re.compile(r"\.(?:ckpt|safetensors|pth|pt|bin|tar|npz|yaml|yml|json)$", re.IGNORECASE)


def public(text: str) -> str:
    """Return ``text`` without what only its writer may know of the addresses in it."""
    without = _TOKEN.sub(lambda found: found["sign"], _PASSWORD.sub("", text))
    return without if without == text else re.sub(r"[?&](?=[\s<>\"')#]|$)", "", without)


def holds_secret(text: str) -> bool:
    """Say whether an address in ``text`` holds a password or a token."""
    return public(text) != text


def public_values(value: Any) -> Any:
    """Return the same value with every text in it made :func:`public`."""
    if isinstance(value, dict):
        return {name: public_values(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [public_values(entry) for entry in value]
    return public(value) if isinstance(value, str) else value


def is_model_id(text: str) -> bool:
    """Say whether ``text`` names a repository (``org/name``) and not a file."""
    return _ID.fullmatch(text) is not None and _FILE.search(text) is None


def file_name(path: str) -> str:
    """Return the last part of a path of either kind; where a file lay on somebody's disk is nobody's business."""
    return PurePosixPath(path.replace("\\", "/")).name
