"""``python -m cards.index [--check]``: write the shipped cards again, or say which are not what they should be."""

from __future__ import annotations

import sys

from cards import index
from xcit_hub.files import write_text


def main(arguments: list[str]) -> int:
    """Return 0, or with ``--check`` 1 if a shipped card differs from what the generator writes."""
    wanted = index.shipped()
    present = {path.relative_to(index.folder()).as_posix() for path in index.folder().rglob("*.md")}
    stale = sorted(present - wanted.keys())
    changed = [
        path
        for path, text in wanted.items()
        if path not in present or (index.folder() / path).read_text(encoding="utf-8") != text
    ]
    if "--check" in arguments:
        for path in [*changed, *stale]:
            print(f"not as generated: {path}")
        return 1 if changed or stale else 0
    for path in changed:
        target = index.folder() / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, wanted[path])
    for path in stale:
        (index.folder() / path).unlink()
    print(f"{len(wanted)} cards, {len(changed)} written, {len(stale)} removed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
