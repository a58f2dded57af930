"""One model's folder in huggingface_hub's cache layout, written to: locks, blobs, snapshots, branches."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from xcit_hub.errors import HubError
from xcit_hub.files import contained, open_regular, sha256_in, sha256_of, write_text
from xcit_hub.hub.cache.digests import wrong_bytes
from xcit_hub.hub.cache.layout import Layout, below, leaves, resolved

_CHUNK = 1 << 20


class Repository(Layout):
    """One model's folder, to read from and to write to.

    Blobs and refs are written beside their place and renamed, snapshots are built aside and renamed whole, so a reader
    sees all of a revision or none of it, whoever writes at the same time and whenever a writer is killed.

    Locks, by filelock as huggingface_hub's: whoever writes holds one of ``.locks/models--org--name/*.lock`` (publishing
    ``repository.lock``, downloading one of its own); pruning holds them all. Readers hold none, so a read-only cache
    loads; what they may be reading no lock can tell, and pruning spares it by its age.
    """

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
            raise leaves(lock)
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
                        raise leaves(path)
                    stack.enter_context(FileLock(path, timeout=0))
            except (Timeout, OSError, HubError):
                yield False
                return
            yield True

    def set_branch(self, branch: str, commit: str) -> None:
        """Point a branch at a commit, atomically."""
        ref = contained(self.folder / "refs", branch)
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_text(ref, commit)

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

    def set_lacking(self, commit: str, paths: Iterable[str]) -> None:
        """Record that a revision has none of these files; a cache that may not be written is left as it is."""
        with suppress(OSError, HubError):
            self.check_inside(commit)
            for path in paths:
                record = contained(self.folder / ".no_exist" / commit, path)
                record.parent.mkdir(parents=True, exist_ok=True)
                record.touch()

    def relink(self, commit: str, blobs: Mapping[str, str]) -> list[str]:
        """Put back every link of a revision that is gone or leads elsewhere; return the paths it was done for."""
        snapshot = self.folder / "snapshots" / commit
        mended = []
        for relative, digest in blobs.items():
            path = snapshot / relative
            with suppress(HubError):  # a circle is mended as well
                if resolved(path) == resolved(self.folder / "blobs" / digest):
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

        Of several processes that ask at once one writes, the others wait and find it. A file that is to be replaced
        stays until the other has arrived.

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
                if offline:
                    raise HubError(
                        f"{path} is not in the cache, or damaged, and offline mode forbids fetching it.",
                        where=self.folder.parent,
                        fix="Load it once online, or give cache_dir the folder that has it.",
                    )
                replaced = self.files(commit).get(path)
                link = replaced or contained(self.folder / "snapshots" / commit, path)
                digest = self.add_blob(write, sha256)
                if replaced is not None and resolved(replaced) != resolved(self.folder / "blobs" / digest):
                    self.drop(replaced)
                self.relink(commit, {path: digest})
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
        target = resolved(path)
        if not target.is_relative_to(resolved(self.folder)):
            raise leaves(path)
        for link in below(self.folder / "snapshots"):
            if link.is_symlink() and resolved(link) == target:
                link.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


def copy_into(source: Path) -> Callable[[BinaryIO], None]:
    """Return a writer for :meth:`Repository.add_blob` that copies a file."""

    def write(target: BinaryIO) -> None:
        with open_regular(source) as stream:
            shutil.copyfileobj(stream, target, _CHUNK)

    return write
