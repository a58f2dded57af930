"""What may touch the disk: whole files or none, digests, and paths that stay inside their folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from xcit_hub.errors import InputError, XcitHubError

_CHUNK = 1 << 20


@contextlib.contextmanager
def atomic_write(target: str | os.PathLike[str], *, expected: int = 0) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``target``; on a clean exit sync it and rename it over ``target``.

    Whatever interrupts the block, ``target`` is afterwards either what it was or wholly the new content.

    Args:
        expected: bytes that the content will have, roughly. They are reserved at once: a full disk is told before any
            work, and a large file is written faster.

    Raises:
        XcitHubError: the folder is missing or may not be written, or the disk is full.
    """
    path = Path(target)
    try:
        mode = mode_of_new_file(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            _reserve(handle, expected)
            yield stream
            if expected:
                stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all (:func:`atomic_write`)."""
    with atomic_write(target) as stream:
        stream.write(text.encode("utf-8"))


_KINDS = {
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, without waiting for whatever else may stand under its name.

    Raises:
        OSError: there is no such file, or it is a FIFO, a device, a socket, a folder or a loop of links; ``strerror``
            says which.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # a NUL inside the name
        raise OSError(errno.EINVAL, f"no file can have this name ({error})", str(path)) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a loop of symbolic links", str(path)) from None
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, f"it is {_KINDS[stat.S_IFSOCK]}, not a file", str(path)) from None
        raise
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    if kind != stat.S_IFREG:
        os.close(handle)
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'something else')}, not a file", str(path))
    return os.fdopen(handle, "rb")


def read_bounded(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the bytes of a regular file of at most ``limit`` bytes.

    Raises:
        InputError: it is missing, larger, or not a regular file: reading a pipe or a device would never end.
    """
    try:
        # Without O_NONBLOCK opening a pipe waits for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise InputError("This is not a regular file.", where=path, fix="Give the path of a file.")
            content = stream.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"Cannot read the file: {reason}.", where=path, fix="Check the path.") from error
    if len(content) > limit:
        raise InputError(f"The file is larger than {limit:,} bytes.", where=path, fix="Give another file.")
    return content


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits.

    Raises:
        OSError: see :func:`open_regular`.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def contained(folder: str | os.PathLike[str], relative: str) -> Path:
    """Return ``folder / relative`` if it stays inside ``folder`` after every link is followed.

    Raises:
        InputError: ``relative`` is absolute, climbs out with ``..``, or goes through a link that leaves.
    """
    root = Path(folder).resolve()
    path = (root / relative).resolve()
    if Path(relative).is_absolute() or not path.is_relative_to(root):
        raise InputError(
            f"The path {relative!r} leaves its folder.",
            where=root,
            fix="Use a relative path without '..' and without links that point outside.",
        )
    return path


def mode_of_new_file(path: Path) -> int:
    """Return the permissions that ``open`` would give or leave; what makes temporary files makes private ones."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _reserve(handle: int, size: int) -> None:
    if not size or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise  # any other only says that this file system cannot reserve


def _sync_folder(folder: Path) -> None:
    # Without this a power cut can forget the rename; some file systems refuse to open folders.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot_write(path: Path, error: OSError) -> XcitHubError:
    return XcitHubError(
        f"Cannot write {path.name}: {error.strerror or error}.",
        where=path,
        fix="Choose a target in a folder that exists, may be written, and has room.",
    )
