"""Every error that a user can cause, said in one form: what was wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence, Set

_LISTED = 5  # names in a sentence
_LONGEST_NAME = 500  # letters; a file's tensors may be called anything
_LONGEST_PATH = 4200  # Linux's longest, quoted
_LONGEST = 10_000
# Control characters but the end of a line and the tab, and what turns the direction of letters.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def readable(text: str, longest_word: int = _LONGEST_NAME) -> str:
    """Return a text for people: of a huge word, and of itself, the beginning and the length; nothing steers a terminal.

    Names and values in it are a file's or a hub's, and may be megabytes long.
    """
    cut = re.sub(rf"\S{{{longest_word + 1},}}", lambda word: _shortened(word.group(), longest_word), text)
    return _STEERING.sub(lambda letter: repr(letter.group())[1:-1], _shortened(cut, _LONGEST))


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} letters)"


class XcitHubError(Exception):
    """What went wrong, where, and what to do. The command line prints it without a traceback and exits 2.

    Args:
        what: one sentence that names the fault and the values it was found in.
        where: the file, id or option it was found at.
        fix: what the user can do next.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what = readable(what)
        self.where = None if where is None else readable(str(where), _LONGEST_PATH)
        self.fix = None if fix is None else readable(fix, _LONGEST_PATH)
        super().__init__(self.what)

    def as_dict(self) -> dict[str, dict[str, str | None]]:
        """Return the error as plain JSON values, as it stands in a report and on the error output."""
        return {"error": {"what": self.what, "where": self.where, "fix": self.fix}}

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.fix is not None:
            lines.append(f"  do:    {self.fix}")
        return "\n".join(lines)


class CheckpointError(XcitHubError):
    """A file that is not a whole, well-formed checkpoint, or could not be written."""


class WeightsError(XcitHubError, ValueError):
    """Tensors that are not the network's they were meant for: names, shapes, dtypes, numbers or dialect."""


class UnknownNameError(XcitHubError, LookupError):
    """A model, dialect or other name that is in no table."""


class InputError(XcitHubError, ValueError):
    """An option or an input image that the operation cannot take."""


class CardError(XcitHubError, ValueError):
    """A model card that cannot be read or may not be published."""


class DifferenceError(XcitHubError):
    """A file that was written and does not compute what it should; it is gone again. ``xcit-hub export`` exits 1."""


class HubError(XcitHubError):
    """A hub that lacks what was asked for, cannot be reached, or gave something else than it promised."""


class OutOfReachError(HubError):
    """Nobody could be asked: a hub does not answer or must not be asked, and what is on this machine does not tell."""


class ComputingWarning(UserWarning):
    """What is computed is right, and computed otherwise than it might be; the command line says it in one line."""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says that has a word, without a full stop; else the error's kind."""
    lines = [line for line in str(error).splitlines() if any(map(str.isalnum, line))]  # MindSpore's begin with a rule
    return (lines or [type(error).__name__])[0].strip().rstrip(".")


def some(names: Sequence[str]) -> str:
    """Return the first of several names, as a list in a sentence."""
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")


def closest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Say which known names look most like ``name``: ``"did you mean a, b or c?"``, or ``""``.

    Case and the kind of dash do not count. The same name comes first, then those that go on where ``name`` ends.
    """
    plain: dict[str, str] = {}
    for entry in sorted(known) if isinstance(known, Set) else known:  # a set's order differs from run to run
        plain.setdefault(_plain(entry), entry)
    meant = _plain(name)
    begun = [entry for entry in plain if entry.startswith(meant) and len(meant) > 2]
    alike = difflib.get_close_matches(meant, list(plain), n=count, cutoff=0.5)
    found = [plain[entry] for entry in dict.fromkeys([*(entry for entry in begun if entry == meant), *begun, *alike])]
    found = found[:count]
    if not found:
        return ""
    listed = found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"
    return f"did you mean {listed}?"
