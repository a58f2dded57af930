"""huggingface_hub's cache layout, for every store: blobs named by their digest, snapshots that point at them, refs.

::

    models--org--name/
      blobs/<sha256>                 the bytes, once, never changed
      snapshots/<revision>/<path>    links to blobs
      refs/<branch>                  the revision a branch is at

Blobs and refs are written beside their place and renamed, snapshots are built aside and renamed whole, so a reader sees
all of a revision or none of it, whoever writes at the same time and whenever a writer is killed.

Locks, by filelock as huggingface_hub's: whoever writes holds one of ``.locks/models--org--name/*.lock`` (publishing
``repository.lock``, downloading one of its own); :func:`prune` holds them all. Readers hold none, so a read-only cache
loads; what they may be reading no lock can tell, and :func:`prune` spares it by its age.

Listing and pruning are not huggingface_hub's: its scan leaves out a model for one broken link and opens pipes, its
deletion takes a commit from every model that has it, and equal files under two names have equal commits here.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from xcit_hub.errors import HubError, InputError
from xcit_hub.files import (
    LARGEST,
    contained,
    open_regular,
    remove_stale,
    remove_unfinished,
    sha256_in,
    sha256_of,
    write_text,
)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = (".incomplete", ".tmp")
_ASIDE = re.compile(r"\..*\.tmp")
_LONGEST_REF = 100
_LARGEST_CONFIG = 1 << 20
HOUR = 3600.0
SHARED_BLOBS_DIR_NAME = "blobs"  # huggingface_hub's store of blobs that several models have
_CHUNK = 1 << 20


def default_folder() -> Path:
    """Return huggingface_hub's cache folder (``HF_HUB_CACHE``, ``HF_HOME``)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_commit(revision: str) -> bool:
    """Whether ``revision`` is a commit's full name rather than a branch or tag."""
    return _COMMIT.fullmatch(revision) is not None


def digest_like(name: str) -> Callable[[Path], str] | None:
    """Return the function that gives the digest a blob is named by: SHA-256, or git's SHA-1 of a small file."""
    if _SHA256.fullmatch(name):
        return sha256_of
    return git_sha1_of if is_commit(name) else None


def digest_in(stream: BinaryIO, like: str) -> str:
    """Return the digest of an open file's bytes, of the kind that ``like`` is: SHA-256, or git's SHA-1."""
    return git_sha1_in(stream) if is_commit(like) else sha256_in(stream)


def git_sha1_of(path: str | os.PathLike[str]) -> str:
    """Return the name git gives a file's bytes, which is the ETag of a small file on Hugging Face.

    Raises:
        OSError: see :func:`xcit_hub.files.open_regular`.
    """
    with open_regular(path) as stream:
        return git_sha1_in(stream)


def git_sha1_in(stream: BinaryIO) -> str:
    """Return the name git gives an open file's bytes."""
    size = stream.seek(0, os.SEEK_END)
    if size > LARGEST:
        raise OSError(errno.EFBIG, "it is larger than any checkpoint")
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    stream.seek(0)
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


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
        return _commit_in(contained(self.folder / "refs", revision))

    def branches(self) -> dict[str, str]:
        """Map every branch to its commit; what is not a branch's file is left out."""
        refs = self.folder / "refs"
        found = {path: _commit_in(path) for path in sorted(refs.rglob("*")) if not path.name.startswith(".")}
        return {path.relative_to(refs).as_posix(): commit for path, commit in found.items() if commit is not None}

    @property
    def locks(self) -> Path:
        """The folder of this model's locks."""
        return self.folder.parent / ".locks" / self.folder.name

    @contextmanager
    def locked(self, name: str = "repository") -> Iterator[None]:
        """Hold one of this model's locks; wait for whoever has it.

        Raises:
            OSError: the folder may not be written.
        """
        self.check_inside()
        self.locks.mkdir(parents=True, exist_ok=True)
        lock = self.locks / f"{name}.lock"
        if lock.is_symlink():  # older filelocks would empty what it leads to
            raise _leaves(lock)
        with FileLock(lock):
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold all of this model's locks, if nobody has one and they stand in its cache; the value says whether."""
        with ExitStack() as stack:
            try:
                self.check_inside()
                self.locks.mkdir(parents=True, exist_ok=True)
                for path in sorted({self.locks / "repository.lock", *self.locks.glob("*.lock")}):
                    if path.is_symlink():
                        raise _leaves(path)
                    stack.enter_context(FileLock(path, timeout=0))
            except (Timeout, OSError, HubError):
                yield False
                return
            yield True

    def check_inside(self, commit: str = "", path: str = "") -> None:
        """Refuse a model's folder that leaves its cache, or a file that leaves its model's folder, by a link.

        Raises:
            HubError: following links, the folder, one of its parts, or the file is elsewhere.
        """
        root = _resolved(self.folder.parent)
        parts = [self.folder, *(self.folder / part for part in ("blobs", "refs", "snapshots", ".no_exist"))]
        if commit:
            parts.append(self.folder / "snapshots" / commit)
        for part in [*parts, self.locks]:
            if _resolved(part) != root / part.relative_to(self.folder.parent):
                raise _leaves(part)
        if path:
            self._check_file(self.folder / "snapshots" / commit / path)

    def _check_file(self, path: Path) -> None:
        target = _resolved(path)
        shared = self.folder.parent / SHARED_BLOBS_DIR_NAME
        if not target.is_relative_to(_resolved(self.folder)) and not target.is_relative_to(_resolved(shared)):
            raise _leaves(path)

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

    def digest(self, path: Path) -> str | None:
        """Return the digest a stored file must have, by its blob's name; ``None`` if it is no blob."""
        blob = _resolved(path)
        return blob.name if blob.parent.name == "blobs" and digest_like(blob.name) is not None else None

    def add_blob(self, write: Callable[[BinaryIO], None], sha256: str | None = None) -> str:
        """Store bytes under their SHA-256; bytes that are there already are not written again.

        Args:
            write: writes the bytes to an open file.
            sha256: the digest they must have, whole or a prefix; any other is refused and nothing is kept.

        Returns:
            The digest.
        """
        self.check_inside()
        blobs = self.folder / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".incomplete", dir=blobs)
        aside = Path(name)
        try:
            with os.fdopen(handle, "w+b") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
                os.fchmod(stream.fileno(), 0o644)
                digest = sha256_in(stream)
            if sha256 is not None and not digest.startswith(sha256):
                raise wrong_bytes(self.name, sha256, digest)
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
            with suppress(HubError):  # a circle is mended as well
                if _resolved(path) == _resolved(self.folder / "blobs" / digest):
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
        try:
            held = self._whole(commit, path) if not force else None
            if held is not None:
                return held  # without a lock: the cache may be read-only
            with self.locked(commit):
                held = self._whole(commit, path) if not force else None
                if held is not None:
                    return held
                damaged = self.files(commit).get(path)
                if damaged is not None:
                    self.drop(damaged)
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
                self.check_inside(commit, path)
                return link
        except OSError as error:
            raise HubError(
                f"Cannot keep the file: {error.strerror or error}.",
                where=self.folder.parent,
                fix="Make room, or give cache_dir a folder that may be written. Nothing half-written is left.",
            ) from error

    def _whole(self, commit: str, path: str) -> Path | None:
        held = self.files(commit).get(path)
        return held if held is not None and held.exists() and sha256_of(held) == self.digest(held) else None

    def drop(self, path: Path) -> None:
        """Remove one stored file and every link to it.

        Raises:
            HubError: it is not in this model's folder; nothing was removed.
        """
        target = _resolved(path)
        if not target.is_relative_to(_resolved(self.folder)):
            raise _leaves(path)
        for link in (self.folder / "snapshots").rglob("*"):
            if link.is_symlink() and _resolved(link) == target:
                link.unlink(missing_ok=True)
        target.unlink(missing_ok=True)

    def unneeded(self, age: float) -> list[Path]:
        """Name what nobody needs: old revisions, blobs without links, what killed processes left.

        Args:
            age: seconds for which a revision must have been without a branch; its readers may take so long.
        """
        refs, snapshots, blobs = (self.folder / part for part in ("refs", "snapshots", "blobs"))
        wanted = set(self.branches().values())
        now = time.time()
        # When the last branch moved, this revision lost its own, at the latest.
        moved = max((path.lstat().st_mtime for path in refs.rglob("*") if path.is_file()), default=0.0)
        gone: list[Path] = []
        needed: set[Path] = set()
        for snapshot in _listed(snapshots):
            is_old = now - max(moved, snapshot.lstat().st_mtime) >= age
            if not is_commit(snapshot.name) or (wanted and snapshot.name not in wanted and is_old):
                gone.append(snapshot)
            else:
                needed.update(_resolved(path) for path in snapshot.rglob("*"))
        gone += [blob for blob in _listed(blobs) if _resolved(blob) not in needed or blob.name.endswith(_UNFINISHED)]
        return gone + [path for path in refs.rglob(".*") if path.name.endswith(_UNFINISHED)]


def copy_into(source: Path) -> Callable[[BinaryIO], None]:
    """Return a writer for :meth:`Repository.add_blob` that copies a file."""

    def write(target: BinaryIO) -> None:
        with open_regular(source) as stream:
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
        for snapshot in _listed(repository.folder / "snapshots"):
            if not is_commit(snapshot.name) or not snapshot.is_dir():
                continue
            try:
                files = repository.files(snapshot.name).values()
            except HubError:
                continue  # one bad entry hides no other; `info` says what is wrong with it
            size = sum(file.stat().st_size for file in files if file.exists())
            at = tuple(branch for branch, commit in branches.items() if commit == snapshot.name)
            found.append(Entry(repository.name, snapshot.name, at, size, snapshot))
    return found


def verify(root: Path) -> tuple[int, list[Damage]]:
    """Hash every blob of every XCiT model in a cache: how many were read, and which are damaged."""
    count, damaged = 0, []
    for repository in _repositories(root):
        for blob in _listed(repository.folder / "blobs"):
            digest_of = digest_like(blob.name)
            if digest_of is None or not blob.is_file():
                continue
            count += 1
            try:
                found = digest_of(blob)
            except OSError as error:
                found = error.strerror or "it cannot be read"
            if found != blob.name:
                damaged.append(Damage(repository.name, blob, blob.name, found))
    return count, damaged


def prune(
    root: Path,
    *,
    dry_run: bool = False,
    age: float = HOUR,
    folders: Iterable[Path] = (),
    on_spared: Callable[[str], None] = lambda _: None,
) -> list[tuple[Path, int]]:
    """Remove what no branch of an XCiT model needs: old revisions, blobs without links, what a killed process left.

    Args:
        folders: where trainings, conversions and exports wrote. What killed ones left in them and below goes as well:
            hidden files and folders that nobody holds; the next one that writes there would remove them, too.
        age: seconds for which a revision must have been without a branch.
        on_spared: told the name of each model that is not touched: somebody writes to it, or it cannot be locked.

    Returns:
        Each removed file or folder and its bytes.

    Raises:
        InputError: one of ``folders`` is not a folder; nothing was removed.
    """
    for folder in (folders := list(folders)):
        if not folder.is_dir():
            raise InputError("That is not a folder.", where=folder, fix="Name the folder that was written to.")
    if not dry_run:
        remove_stale(Path(tempfile.gettempdir()))  # what killed publications left, which is not of this folder
    removed: list[tuple[Path, int]] = []
    for folder in folders:
        removed += remove_unfinished(folder, below=True, dry_run=dry_run)
    for repository in _repositories(root):
        seen = repository.unneeded(age)
        if dry_run:
            removed += [(path, _size(path)) for path in seen]
            continue
        with repository.alone() as is_alone:
            if not is_alone:
                on_spared(repository.name)
                continue
            # What is unneeded now and was so before the locks were taken, nobody was about to need.
            still = set(repository.unneeded(age))
            for path in seen:
                if path in still:
                    removed.append((path, _size(path)))
                    _remove(path)
        removed += _remove_leftovers(root / Path(repository.name).parent)
    return removed


def _remove_leftovers(folder: Path) -> list[tuple[Path, int]]:
    # A folder hub's plain view is a link that is made beside its place.
    found = [path for path in _listed(folder) if path.is_symlink() and _ASIDE.fullmatch(path.name)]
    for path in found:
        path.unlink(missing_ok=True)
    return [(path, 0) for path in found]


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    # Renamed first: whoever is killed here leaves no half of a revision.
    aside = path.with_name(f".{path.name}.tmp")
    path.rename(aside)
    shutil.rmtree(aside)


def _size(path: Path) -> int:
    return path.lstat().st_size if not path.is_dir() else 0


def _listed(folder: Path) -> list[Path]:
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


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        raise HubError("That link leads in a circle.", where=path, fix="Remove that entry.") from None


def _leaves(path: Path) -> HubError:
    return HubError(
        f"{path.name} is a link that leaves its folder.",
        where=path,
        fix="Remove that entry; a hub's own links stay inside. Nothing was written or removed.",
    )


def _repositories(root: Path) -> Iterator[Repository]:
    if not root.is_dir():
        return
    for folder in sorted(root.glob("models--*")):
        repository = Repository(root, folder.name.removeprefix("models--").replace("--", "/"))
        is_sound = repository.name.isprintable() and not folder.is_symlink()
        if is_sound and (folder / "snapshots").is_dir() and (folder / "blobs").is_dir() and _is_xcit(folder):
            yield repository


def _is_xcit(folder: Path) -> bool:
    snapshots = folder / "snapshots"
    if "xcit" in folder.name.lower() or any(snapshots.glob("*/xcit_hub.json")):
        return True
    return any(_describes_xcit(path) for path in snapshots.glob("*/config.json"))


def _describes_xcit(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            described = json.loads(stream.read(_LARGEST_CONFIG).decode("utf-8"))
        return str(described["architecture"]).startswith("xcit_")
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
