"""Images below a folder, found as torchvision finds them: by suffix, through links, and never for ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xcit_hub.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_MOST_FOLDERS = 100_000  # links to one another multiply


@dataclass
class Found:
    """What lies below a folder.

    Args:
        images: regular files with an image's suffix, in the order of their paths.
        unreadable: what has such a suffix and is not a file (pipes, dangling links), or is a folder that cannot be
            listed or lies inside itself: path and reason.
        others: number of files without such a suffix.
    """

    images: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    others: int = 0


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def readable(name: str | os.PathLike[str]) -> str:
    """Return a path or name as text that can be printed and stored; bytes that are not UTF-8 become ``\\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name.

    Raises:
        InputError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            f"Cannot list the folder: {error.strerror}.",
            where=readable(folder),
            fix="Name one that can be read.",
        ) from error


def find_images(folder: Path) -> Found:
    """Find the images below ``folder``; links are followed, a folder that leads back into itself is not.

    Raises:
        InputError: there are more than 100,000 folders.
    """
    found = Found()
    visited = 0
    around = {place for path in (folder.absolute(), folder.resolve()) for place in (path, *path.parents)}
    above = frozenset(identity for place in around for identity in _identity(place))
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, above)]
    while waiting:
        place, above = waiting.pop()
        visited += 1
        if visited > _MOST_FOLDERS:
            raise InputError(
                f"More than {_MOST_FOLDERS:,} folders lie below this one.",
                where=readable(folder),
                fix="Remove links that lead to one another.",
            )
        try:
            listed = entries(place)
        except InputError as error:
            found.unreadable.append(f"{readable(place)} ({error.what.rstrip('.')})")
            continue
        for entry in listed:
            path = place / entry.name
            kind = _kind(entry)
            if kind == "folder":
                identity = frozenset(_identity(path))
                if identity & above or not identity:
                    found.unreadable.append(f"{readable(path)} (a folder inside itself)")
                else:
                    waiting.append((path, above | identity))
            elif not is_image(entry.name):
                found.others += 1
            elif kind == "file":
                found.images.append(path)
            else:
                found.unreadable.append(f"{readable(path)} ({kind})")
    found.images.sort()
    return found


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:
        return "a link to itself"
    return "a link to nothing" if entry.is_symlink() else "not a file"


def _identity(folder: Path) -> Iterator[tuple[int, int]]:
    try:
        state = folder.stat()
    except OSError:
        return
    yield state.st_dev, state.st_ino
