"""One model's folder in huggingface_hub's cache layout, read without a lock; what stands in it is taken for hostile."""

from __future__ import annotations

import os
from pathlib import Path

from xcit_hub.errors import HubError
from xcit_hub.files import contained, is_file, is_folder, open_regular, real_path
from xcit_hub.hub.cache.digests import digest_like, is_commit

SHARED_BLOBS_DIR_NAME = "blobs"  # huggingface_hub's store of blobs that several models have
_LONGEST_REF = 100
_MOST_LINKS = 40  # in a row, as Linux follows them


def default_folder() -> Path:
    """Return huggingface_hub's cache folder (``HF_HUB_CACHE``, ``HF_HOME``)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


class Layout:
    """One model's folder.

    Args:
        root: the cache, or the folder hub.
        name: ``org/name``.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.folder = root / f"models--{name.replace('/', '--')}"

    def exists(self) -> bool:
        """Whether anything of this model is stored."""
        return (self.folder / "refs").is_dir() or (self.folder / "snapshots").is_dir()

    def commit_of(self, revision: str) -> str | None:
        """Return the commit that a branch, tag or commit names here, or ``None``."""
        if is_commit(revision):
            return revision if (self.folder / "snapshots" / revision).is_dir() else None
        return _commit_in(contained(self.folder / "refs", revision))

    def branches(self) -> dict[str, str]:
        """Map every branch to its commit; what is not a branch's file is left out."""
        return {branch: commit for branch, commit in self.refs().items() if commit is not None}

    def refs(self) -> dict[str, str | None]:
        """Map what stands among the branches, and is not hidden, to the commit in it, or None where it holds none."""
        refs = self.folder / "refs"
        return {
            path.relative_to(refs).as_posix(): _commit_in(path) for path in below(refs) if not path.name.startswith(".")
        }

    def revisions(self) -> list[str]:
        """Name the commits whose files stand here, in order."""
        return [path.name for path in listed(self.folder / "snapshots") if is_commit(path.name) and is_folder(path)]

    @property
    def locks(self) -> Path:
        """The folder of this model's locks."""
        return self.folder.parent / ".locks" / self.folder.name

    def check_inside(self, commit: str = "", path: str = "") -> None:
        """Refuse a model's folder that leaves its cache, or a file that leaves its model's folder, by a link.

        Raises:
            HubError: following links, the folder, one of its parts, or the file is elsewhere.
        """
        root = resolved(self.folder.parent)
        parts = [self.folder, *(self.folder / part for part in ("blobs", "refs", "snapshots", ".no_exist"))]
        if commit:
            parts.append(self.folder / "snapshots" / commit)
        for part in [*parts, self.locks]:
            if resolved(part) != root / part.relative_to(self.folder.parent):
                raise leaves(part)
        if path:
            self._check_file(self.folder / "snapshots" / commit / path)

    def _check_file(self, path: Path) -> None:
        target = resolved(path)
        shared = self.folder.parent / SHARED_BLOBS_DIR_NAME
        if not target.is_relative_to(resolved(self.folder)) and not target.is_relative_to(resolved(shared)):
            raise leaves(path)

    def files(self, commit: str) -> dict[str, Path]:
        """Map each path of a snapshot to its file: the link, whose name has a suffix, not the blob.

        Raises:
            HubError: a link leads out of this folder.
        """
        snapshot = self.folder / "snapshots" / commit
        found = {}
        for path in below(snapshot):
            if not str(path.relative_to(snapshot)).isprintable():
                raise HubError(
                    f"A file's name holds what is not for printing: {os.fsencode(path.name)!r:.100}.",
                    where=self.folder,
                    fix="Remove that entry.",
                )
            self._check_file(path)
            if path.exists() and not path.is_file():
                raise HubError(
                    f"{path.relative_to(snapshot)} is not a file: a pipe or a device.",
                    where=path,
                    fix="Remove that entry.",
                )
            found[path.relative_to(snapshot).as_posix()] = path
        return found

    def lacks(self, commit: str, path: str) -> bool:
        """Whether it is recorded that a revision has no such file, as huggingface_hub records it."""
        return is_file(self.folder / ".no_exist" / commit / path)

    def digest(self, path: Path) -> str | None:
        """Return the digest a stored file must have, by its blob's name; ``None`` if it is not a blob."""
        blob = resolved(path)
        return blob.name if blob.parent.name == "blobs" and digest_like(blob.name) is not None else None

    def blob_of(self, path: Path) -> Path:
        """Follow a stored file's links as far as this model's blobs, by the blobs' real folder.

        A blob may be a link itself, into the store that several models share; a file that is not a blob's is itself.
        """
        blobs = real_path(self.folder / "blobs")
        for _ in range(_MOST_LINKS):
            path = Path(real_path(path.parent), path.name)
            if str(path.parent) == blobs or not path.is_symlink():
                break
            path = path.parent / path.readlink()
        return path


def below(folder: Path) -> list[Path]:
    """Name whatever is not a folder, links among it, in a folder and below; links are not followed."""
    found: list[Path] = []
    folders = [folder]
    while folders:
        for path in listed(folders.pop()):
            (folders if is_folder(path) and not path.is_symlink() else found).append(path)
    return sorted(found)


def listed(folder: Path) -> list[Path]:
    """Name what stands in a folder, in order; nothing where it is gone or cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _commit_in(ref: Path) -> str | None:
    """Read a branch's file; None for a pipe, a link that leads nowhere, other text than a commit."""
    try:
        with open_regular(ref) as stream:
            commit = stream.read(_LONGEST_REF).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if is_commit(commit) else None


def resolved(path: Path) -> Path:
    """Follow a path's links.

    Raises:
        HubError: they lead in a circle.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        raise HubError("That link leads in a circle.", where=path, fix="Remove that entry.") from None


def leaves(path: Path) -> HubError:
    """Say that a link leads out of its model's folder."""
    return HubError(
        f"{path.name} is a link that leaves its folder.",
        where=path,
        fix="Remove that entry; a hub's own links stay inside. Nothing was written or removed.",
    )
