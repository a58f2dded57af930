"""What was found of one thing, and the machine it was looked for on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from xcit_hub.files import read_bounded

State = Literal["ok", "missing", "wrong"]
_LARGEST_NOTE = 64 << 10  # bytes of a version.info
_CARD = re.compile(r"davinci\d+")
_LONGEST = 200  # characters of a foreign value in a line


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Args:
        name: what was looked at.
        state: ``ok``, ``missing`` or ``wrong``.
        says: what is there.
        do: what to do about it, where something can be done.
        needed: whether this machine can do without it; what it does not need never fails.
    """

    name: str
    state: State
    says: str
    do: str = ""
    needed: bool = True

    @property
    def fails(self) -> bool:
        """Whether something has to be done."""
        return self.needed and self.state != "ok"


@dataclass(frozen=True)
class Machine:
    """Where is looked.

    Args:
        root: the folder that stands for ``/``.
        environment: the variables.
        device: ``CPU`` or ``Ascend`` if the machine is to be judged as one with that device, else ``auto``.
    """

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    device: Literal["auto", "CPU", "Ascend"] = "auto"

    def at(self, path: str) -> Path:
        """Return the place of a path; on this machine itself, what is not absolute is below the working directory."""
        return Path(path) if self.root == Path("/") else self.root / path.lstrip("/")

    def has(self, path: str) -> bool:
        """Whether something stands at a path; what cannot be looked at does not."""
        return os.path.exists(self.at(path))  # noqa: PTH110  (unlike Path's it never raises)

    @cached_property
    def cards(self) -> tuple[str, ...]:
        """The names of the cards' device files."""
        try:
            names = [entry.name for entry in self.at("/dev").iterdir()]
        except OSError:
            return ()
        return tuple(sorted((name for name in names if _CARD.fullmatch(name)), key=lambda name: int(name[7:])))

    @cached_property
    def is_ascend(self) -> bool:
        """Whether this is to be a machine with Ascend cards: it was said, or it has cards, a driver, or CANN."""
        if self.device != "auto":
            return self.device == "Ascend"
        return bool(self.cards) or self.has(f"{self.driver_folder}/driver") or bool(self.toolkit)

    @cached_property
    def driver_folder(self) -> str:
        """Where driver and firmware are, as their installer noted it."""
        return self.note("/etc/ascend_install.info").get("Driver_Install_Path_Param") or "/usr/local/Ascend"

    @property
    def toolkit(self) -> str:
        """Where CANN is, as its ``set_env.sh`` says it; empty where nobody does."""
        return self.environment.get("ASCEND_HOME_PATH", "")

    def note(self, path: str) -> dict[str, str]:
        """Read a file of lines ``name=value``; empty where there is none.

        Raises:
            InputError: something else stands there, it is too large, or may not be read.
            UnicodeDecodeError: it is not text.
        """
        place = self.at(path)
        if not os.path.lexists(place):
            return {}
        lines = read_bounded(place, _LARGEST_NOTE).decode("utf-8").splitlines()
        return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def is_folder(path: Path) -> bool:
    """Whether a folder stands there; what cannot be looked at is none."""
    return os.path.isdir(path)  # noqa: PTH112  (unlike Path's it never raises)


def shown(value: object) -> str:
    """Return a foreign value as it may stand in a line: in quotes, without control characters, and not for ever."""
    text = repr(str(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
