"""huggingface_hub's cache layout, for every store: blobs named by their digest, snapshots that point at them, refs.

::

    models--org--name/
      blobs/<sha256>                 the bytes, once, never changed
      snapshots/<revision>/<path>    links to blobs
      refs/<branch>                  the revision a branch is at

Blobs and refs are written beside their place and renamed, snapshots are built aside and renamed whole, so a reader sees
all of a revision or none of it, whoever writes at the same time and whenever a writer is killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xcit_hub.errors import HubError
from xcit_hub.files import contained, sha256_of, write_text

_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_UNFINISHED = (".incomplete", ".tmp")
_CHUNK = 1 << 20


def default_folder() -> Path:
    """Return huggingface_hub's cache folder (``HF_HUB_CACHE``, ``HF_HOME``)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_commit(revision: str) -> bool:
    """Whether ``revision`` is a commit's full name rather than a branch or tag."""
    return _COMMIT.match(revision) is not None


def digest_like(name: str) -> Callable[[Path], str] | None:
    """Return the function that gives the digest a blob is named by: SHA-256, or git's SHA-1 of a small file."""
    if re.fullmatch(r"[0-9a-f]{64}", name):
        return sha256_of
    return git_sha1_of if _COMMIT.match(name) else None


def git_sha1_of(path: str | os.PathLike[str]) -> str:
    """Return the name git gives a file's bytes, which is the ETag of a small file on Hugging Face."""
    content = Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def revision_of(digests: Mapping[str, str]) -> str:
    """Name a set of files by their paths and contents: 40 hex digits, the same for the same set."""
    lines = "".join(f"{digest} {path}\n" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:40]


class Repository:
    """One model's folder in the layout above.

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
        ref = contained(self.folder / "refs", revision)
        if not ref.is_file():
            return None
        commit = ref.read_text(encoding="utf-8").strip()
        return commit if is_commit(commit) else None

    def branches(self) -> dict[str, str]:
        """Map every branch to its commit."""
        refs = self.folder / "refs"
        found = (path for path in sorted(refs.rglob("*")) if path.is_file() and not path.name.startswith("."))
        return {path.relative_to(refs).as_posix(): path.read_text(encoding="utf-8").strip() for path in found}

    def set_branch(self, branch: str, commit: str) -> None:
        """Point a branch at a commit, atomically."""
        ref = contained(self.folder / "refs", branch)
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_text(ref, commit)

    def files(self, commit: str) -> dict[str, Path]:
        """Map each path of a snapshot to its file: the link, whose name has a suffix, not the blob.

        Raises:
            HubError: a link leads out of this folder.
        """
        snapshot = self.folder / "snapshots" / commit
        found = {}
        for path in sorted(snapshot.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                continue
            target = path.resolve()
            if not target.is_relative_to(self.folder.resolve()):
                raise HubError(
                    f"The file {path.relative_to(snapshot)} is a link that leaves its model's folder.",
                    where=path,
                    fix="Remove that entry; a hub's own links stay inside.",
                )
            found[path.relative_to(snapshot).as_posix()] = path
        return found

    def digest(self, path: Path) -> str | None:
        """Return the digest a stored file must have, by its blob's name; ``None`` if it is no blob."""
        blob = path.resolve()
        return blob.name if blob.parent.name == "blobs" and digest_like(blob.name) is not None else None

    def add_blob(self, write: Callable[[BinaryIO], None], sha256: str | None = None) -> str:
        """Store bytes under their SHA-256; bytes that are there already are not written again.

        Args:
            write: writes the bytes to an open file.
            sha256: the digest they must have, whole or a prefix; any other is refused and nothing is kept.

        Returns:
            The digest.
        """
        blobs = self.folder / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=blobs)
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            digest = sha256_of(aside)
            if sha256 is not None and not digest.startswith(sha256):
                raise wrong_bytes(self.name, sha256, digest)
            aside.chmod(0o644)
            aside.replace(blobs / digest)
        finally:
            aside.unlink(missing_ok=True)
        return digest

    def add_snapshot(self, commit: str, blobs: Mapping[str, str]) -> None:
        """Make a revision visible: all of its paths at once.

        Args:
            blobs: each path and the digest of its blob, which must be stored already.
        """
        final = self.folder / "snapshots" / commit
        if final.is_dir():
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=final.parent))
        try:
            for relative, digest in blobs.items():
                path = contained(aside, relative)
                path.parent.mkdir(parents=True, exist_ok=True)
                depth = len(Path(relative).parts) + 1
                path.symlink_to(Path(*[".."] * depth, "blobs", digest))
            aside.chmod(0o755)
            with suppress(OSError):  # another process was first with the same content
                aside.rename(final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def relink(self, commit: str, blobs: Mapping[str, str]) -> list[str]:
        """Put back every link of a revision that is gone or leads elsewhere; return the paths it was done for."""
        snapshot = self.folder / "snapshots" / commit
        mended = []
        for relative, digest in blobs.items():
            path = snapshot / relative
            if path.resolve() == (self.folder / "blobs" / digest).resolve():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=snapshot.parent) as aside:
                fresh = Path(aside) / path.name
                fresh.symlink_to(Path(*[".."] * (len(Path(relative).parts) + 1), "blobs", digest))
                fresh.replace(path)
            mended.append(relative)
        return mended

    def obtain(
        self,
        commit: str,
        path: str,
        sha256: str,
        write: Callable[[BinaryIO], None],
        *,
        offline: bool = False,
        force: bool = False,
    ) -> Path:
        """Return one file of a remote revision: the one that is here if its hash is right, or a fresh one.

        Of several processes that ask at once one writes, the others wait and find it.

        Args:
            sha256: the digest the file must have, whole or a prefix; empty where nobody published one.
            write: fetches the bytes.

        Raises:
            HubError: the bytes are others, or have to be fetched and must not, or cannot be kept.
        """
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # its __all__ is made at run time

        locks = self.folder.parent / ".locks" / self.folder.name
        try:
            locks.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(locks / f"{commit}.lock"):
                held = self.files(commit).get(path)
                if held is not None:
                    if held.exists() and not force and sha256_of(held) == self.digest(held):
                        return held
                    self.drop(held.resolve())
                if offline:
                    raise HubError(
                        f"{path} is not in the cache, or damaged, and offline mode forbids fetching it.",
                        where=self.folder.parent,
                        fix="Load it once online, or give cache_dir the folder that has it.",
                    )
                digest = self.add_blob(write, sha256)
                link = contained(self.folder / "snapshots" / commit, path)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(Path(*[".."] * (len(Path(path).parts) + 1), "blobs", digest))
                return link
        except OSError as error:
            raise HubError(
                f"Cannot keep the file: {error.strerror or error}.",
                where=self.folder.parent,
                fix="Make room, or give cache_dir a folder that may be written. Nothing half-written is left.",
            ) from error

    def drop(self, path: Path) -> None:
        """Remove one stored file and every link to it."""
        for link in (self.folder / "snapshots").rglob("*"):
            if link.is_symlink() and link.resolve() == path.resolve():
                link.unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def copy_into(source: Path) -> Callable[[BinaryIO], None]:
    """Return a writer for :meth:`Repository.add_blob` that copies a file."""

    def write(target: BinaryIO) -> None:
        with source.open("rb") as stream:
            shutil.copyfileobj(stream, target, _CHUNK)

    return write


def wrong_bytes(name: str, expected: str, found: str) -> HubError:
    """Say that a file is not the one that was promised."""
    return HubError(
        f"The bytes received for {name} are not the ones that were published: "
        f"SHA-256 should begin {expected[:16]}…, it begins {found[:16]}….",
        where=name,
        fix="Try again; if it stays so, the hub or something on the way changes the file: do not use it.",
    )


@dataclass(frozen=True)
class Entry:
    """One cached revision of one model.

    Args:
        name: ``org/name``.
        commit: the revision.
        branches: the branches that point at it.
        size: bytes of all its files.
        folder: where it is.
    """

    name: str
    commit: str
    branches: tuple[str, ...]
    size: int
    folder: Path


@dataclass(frozen=True)
class Damage:
    """A cached file whose bytes are not the ones its name promises."""

    name: str
    file: Path
    expected: str
    found: str


def entries(root: Path) -> list[Entry]:
    """List the XCiT models in a cache; other libraries' models in the same folder are not looked at."""
    found = []
    for repository in _repositories(root):
        branches = repository.branches()
        for snapshot in sorted((repository.folder / "snapshots").iterdir()):
            if not is_commit(snapshot.name):
                continue
            size = sum(file.stat().st_size for file in repository.files(snapshot.name).values() if file.exists())
            at = tuple(branch for branch, commit in branches.items() if commit == snapshot.name)
            found.append(Entry(repository.name, snapshot.name, at, size, snapshot))
    return found


def verify(root: Path) -> tuple[int, list[Damage]]:
    """Hash every blob of every XCiT model in a cache: how many were read, and which are damaged."""
    count, damaged = 0, []
    for repository in _repositories(root):
        for blob in sorted((repository.folder / "blobs").iterdir()):
            digest_of = digest_like(blob.name)
            if digest_of is None or not blob.is_file():
                continue
            count += 1
            found = digest_of(blob)
            if found != blob.name:
                damaged.append(Damage(repository.name, blob, blob.name, found))
    return count, damaged


def prune(root: Path, *, dry_run: bool = False) -> list[tuple[Path, int]]:
    """Remove what no branch of an XCiT model needs: old revisions, blobs without links, what a killed process left.

    Returns:
        Each removed file or folder and its bytes.
    """
    removed: list[tuple[Path, int]] = []

    def remove(path: Path) -> None:
        size = path.lstat().st_size if not path.is_dir() else 0
        removed.append((path, size))
        if dry_run:
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    for repository in _repositories(root):
        wanted = set(repository.branches().values())
        needed: set[Path] = set()
        for snapshot in sorted((repository.folder / "snapshots").iterdir()):
            if is_commit(snapshot.name) and (snapshot.name in wanted or not wanted):
                needed.update(file.resolve() for file in repository.files(snapshot.name).values())
            else:
                remove(snapshot)
        for blob in sorted((repository.folder / "blobs").iterdir()):
            if blob.resolve() not in needed or blob.name.endswith(_UNFINISHED):
                remove(blob)
    return removed


def _repositories(root: Path) -> Iterator[Repository]:
    if not root.is_dir():
        return
    for folder in sorted(root.glob("models--*")):
        repository = Repository(root, folder.name.removeprefix("models--").replace("--", "/"))
        if (folder / "snapshots").is_dir() and (folder / "blobs").is_dir() and _is_xcit(folder):
            yield repository


def _is_xcit(folder: Path) -> bool:
    snapshots = folder / "snapshots"
    if "xcit" in folder.name.lower() or any(snapshots.glob("*/xcit_hub.json")):
        return True
    return any(_describes_xcit(path) for path in snapshots.glob("*/config.json"))


def _describes_xcit(path: Path) -> bool:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["architecture"]).startswith("xcit_")
    except (OSError, ValueError, LookupError, TypeError):
        return False
