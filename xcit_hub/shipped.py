"""Files that come with the library and are not code."""

from __future__ import annotations

from pathlib import Path


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with the library, by name."""
    # Installed, they lie inside the package; in a checkout beside it.
    folders = [Path(__file__).parents[level] / "configs" / "xcit" for level in (1, 0)]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}
