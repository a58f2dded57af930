"""What the README and the pages of docs/ tell their readers to type."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^( *)```([\w-]*)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SHELLS = ("console", "shell", "bash", "sh")
_REMARK = re.compile(r"\s+#\s.*$")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the file it is to be saved as, and what it holds."""

    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands of a shell's block, in order, without prompt and remark."""
        if self.language not in _SHELLS:
            return []
        lines = [line for line in self.text.splitlines() if line.strip()]
        typed = [line[2:] for line in lines if line.startswith("$ ")] if self.language == "console" else lines
        return [_REMARK.sub("", line).strip() for line in typed]

    @property
    def exits_with(self) -> dict[str, int]:
        """The exit code that a command's remark promises, where it is not 0."""
        return {
            _REMARK.sub("", line).removeprefix("$ ").strip(): int(found[1])
            for line in self.text.splitlines()
            if (found := re.search(r"#\s+exits (\d+)", line))
        }


def blocks(page: Path) -> list[Block]:
    """Return every fenced block of a page."""
    return [Block(found[2], found[3] or "", found[4]) for found in _FENCE.finditer(page.read_text("utf-8"))]


def name_of(page: Path) -> str:
    """Return a page's path in the repository."""
    return page.relative_to(ROOT).as_posix()
