"""What a card is once it has been read, and how its file is taken in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cards.faults import Fault, UnreadableCardError
from cards.forms import Language
from cards.metadata import CardMetadata
from xcit_hub.deprecated import moved_names
from xcit_hub.errors import CardError, InputError
from xcit_hub.files import is_file, read_bounded

MAX_BYTES = 1 << 20  # the longest of MindSpore Hub's cards has about 60 kB


@dataclass(frozen=True)
class Card:
    """A card in no form in particular.

    Args:
        title: the first heading, without its ``#``; empty when the card has none.
        metadata: every field, of either form.
        prose: the Markdown after the metadata, without leading or trailing blank lines.
    """

    title: str
    metadata: CardMetadata
    prose: str


def read_text(path: str | Path) -> str:
    """Return a card file's text, with ``\\n`` line ends and without a byte order mark.

    Never reads more than :data:`MAX_BYTES` + 1 bytes, however large the file is.

    Raises:
        UnreadableCardError: the file is too large or not UTF-8.
        CardError: there is no such file, or it is not a regular one.
    """
    path = Path(path)
    try:
        raw = read_bounded(path, MAX_BYTES)
    except InputError as error:
        if is_file(path) and path.stat().st_size > MAX_BYTES:
            message = f"larger than {MAX_BYTES:,} bytes: a card is a page of text"
            raise UnreadableCardError([Fault(None, "file", message)], where=path) from error
        raise CardError(error.what, where=path, fix="Give the path of a Markdown file.") from error
    try:
        return normalized(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"byte {error.start} (0x{raw[error.start]:02x}) is not UTF-8"
        raise UnreadableCardError([Fault(line, "file", message)], where=path) from error


def normalized(text: str) -> str:
    """Return ``text`` with ``\\n`` line ends and without a byte order mark."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def language_of(card: Card) -> Language:
    """Say which language a card's prose is in: Chinese if it has more than a few Chinese characters."""
    if "zh" in card.metadata.language:
        return "zh"
    return "zh" if len(_CHINESE.findall(card.prose)) > 20 else "en"


_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")


def outside_code(prose: str, first_line: int = 1) -> list[tuple[int, str]]:
    """Return ``(line number, line)`` of every line of Markdown that is not inside a fenced code block."""
    lines: list[tuple[int, str]] = []
    fence = ""
    for number, line in enumerate(prose.split("\n"), first_line):
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and line.strip() == found[1]:
                fence = ""
        elif found:
            fence = found[1]
        else:
            lines.append((number, line))
    return lines


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
