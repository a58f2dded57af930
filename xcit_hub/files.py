"""What may touch the disk: whole files or none, digests, and paths that stay inside their folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from xcit_hub.errors import InputError, XcitHubError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_CHUNK = 1 << 20
LARGEST = 64 << 30  # bytes of a file that is hashed or read
SCRATCH = "xcit-hub.scratch-"
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)  # as tempfile names them for atomic_write
_LONGEST_NAME = 255 - len("..12345678.tmp")  # bytes, of a name that stands in a temporary file's
_ROOM = "Make room where temporary files are kept, or name another folder in TMPDIR."


@contextlib.contextmanager
def atomic_write(target: str | os.PathLike[str], *, expected: int = 0) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``target``; on a clean exit sync it and rename it over ``target``.

    Whatever interrupts the block, ``target`` is afterwards either what it was or wholly the new content. What killed
    processes left of earlier ones goes first.

    Args:
        expected: bytes that the content will have, roughly. They are reserved at once: a full disk is told before any
            work, and a large file is written faster.

    Raises:
        XcitHubError: the folder is missing or may not be written, the disk is full, or what stands there is not a file.
    """
    path = Path(target)
    try:
        _refuse_other_kinds(path)
        mode = mode_of_new_file(path)
        remove_stale(path.parent, f".{path.name}.", ".tmp")
        handle, temporary = _locked_file(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            _reserve(handle, expected)
            yield stream
            if expected:
                stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())
            temporary.chmod(mode)
            if fcntl is not None:  # while it is locked: another process would take it for a stale one
                temporary.replace(path)
        if fcntl is None:  # Windows renames no open file
            temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None, prefix: str = SCRATCH, suffix: str = "") -> Iterator[Path]:
    """Make a folder that is gone afterwards, with all that is left in it.

    What killed processes left of earlier ones goes first: a folder is in use while its maker holds its lock.

    Args:
        parent: where; by default where temporary files are kept.

    Raises:
        OSError: it cannot be made in ``parent``.
        XcitHubError: it cannot be made where temporary files are kept.
    """
    if parent is None:
        parent = _temporary_folder()
    remove_stale(parent, prefix, suffix)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # it was taken for a stale one
            continue
        _lock(handle)
        if folder.exists():  # else it was taken for a stale one before it was locked
            break
        os.close(handle)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _temporary_folder() -> Path:
    try:
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as probe:
            return Path(probe).parent
    except OSError as error:
        raise XcitHubError(
            f"Temporary files cannot be kept: {error.strerror or error}.", where=os.environ.get("TMPDIR"), fix=_ROOM
        ) from error


def remove_stale(parent: Path, prefix: str = SCRATCH, suffix: str = "") -> list[tuple[Path, int]]:
    """Remove this user's temporary files and folders of that name which nobody holds; return what, and its bytes."""
    return _remove_unheld(_named(parent, prefix, suffix))


def remove_unfinished(folder: Path, *, below: bool = False, dry_run: bool = False) -> list[tuple[Path, int]]:
    """Remove what killed processes left of files that they were writing there (:func:`atomic_write`, exports).

    Args:
        below: in every folder below it, too; links are not followed.
        dry_run: remove nothing.

    Returns:
        What is gone, or would be, and its bytes.
    """
    found = []
    for place, folders, names in os.walk(folder):
        left = [name for name in (*folders, *names) if _UNFINISHED.fullmatch(name)]
        found += [Path(place, name) for name in left]
        folders[:] = [name for name in folders if name not in left] if below else []
    return _remove_unheld(found, dry_run=dry_run)


def _remove_unheld(paths: Iterable[Path], *, dry_run: bool = False) -> list[tuple[Path, int]]:
    removed = []
    for path in paths:
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                state = os.fstat(handle)
                is_folder = stat.S_ISDIR(state.st_mode)
                is_left = is_folder or stat.S_ISREG(state.st_mode)
                if not is_left or state.st_uid != os.geteuid() or not _lock(handle, wait=False):
                    continue
                inside = [each.lstat().st_size for each in path.rglob("*")] if is_folder else [state.st_size]
                if is_folder and not dry_run:
                    shutil.rmtree(path)
                elif not dry_run:
                    path.unlink()
                removed.append((path, sum(inside)))
            finally:
                os.close(handle)
    return removed


def _named(parent: Path, prefix: str, suffix: str) -> list[Path]:
    random = 8  # letters that tempfile puts between
    length = len(prefix) + random + len(suffix)
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        names = [entry.name for entry in entries]
        return [
            parent / name for name in names if len(name) == length and name.startswith(prefix) and name.endswith(suffix)
        ]
    return []


def _locked_file(path: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        _lock(handle)
        if os.fstat(handle).st_nlink:  # else it was taken for a stale one before it was locked
            return handle, Path(name)
        os.close(handle)


def _lock(handle: int, *, wait: bool = True) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # somebody holds it, or this file system has no locks
        return False
    return True


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


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether anything stands there. Unlike pathlib's, these three take whatever a user may write for a name."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file stands there; see :func:`is_there`."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder stands there; see :func:`is_there`."""
    return os.path.isdir(path)  # noqa: PTH112


def real_path(path: str | os.PathLike[str]) -> str:
    """Return a path with its links followed as far as they lead; a loop, or what no file can be called, as it is."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return os.fspath(path)


def check_apart(written: Mapping[str, Path | None], what: str) -> dict[str, str]:
    """Make sure that no two outputs have one place, and return the option of each place; links are followed.

    Args:
        written: the files and folders that will be written, by the option that names each.
        what: ``file``, ``folder``, or whatever they are.

    Raises:
        InputError: two of them name the same one.
    """
    places: dict[str, str] = {}
    for option, path in written.items():
        if path is not None:
            other = places.setdefault(real_path(path), option)
            if other != option:
                raise InputError(f"{other} and {option} name the same {what}.", where=path, fix=f"Name two {what}s.")
    return places


def check_outputs(written: Mapping[str, Path | None], read: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Make sure, before any work, that every output can be written, in the place of no other and of nothing read.

    Args:
        written: the files that will be written, by the option that names each.
        read: what is read; what is not a file does not matter.

    Raises:
        InputError: two names are of one file; links are followed. Or a file cannot be written there.
    """
    places = check_apart(written, "file")
    for each in read if places else ():
        if (option_of := places.get(real_path(each))) is not None:
            raise InputError(f"{option_of} names a file that is read.", where=each, fix="Name another file to write.")
    for option, path in written.items():
        if path is not None:
            _check_writable(option, path)


def check_folders(written: Mapping[str, Path | None]) -> None:
    """Make sure, before any work, that each folder can be written into; those that are missing need not be there.

    Args:
        written: the folders, by the option that names each.

    Raises:
        InputError: two names are of one folder; links are followed. Or one is not a folder, or may not be written or
            made.
    """
    check_apart(written, "folder")
    for option, folder in written.items():
        if folder is None:
            continue
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                folder.lstat()  # a name that no folder can have is refused here
            there = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(each))
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise InputError(
                f"Cannot write into {folder} ({option}): {error.strerror or error}.",
                where=folder,
                fix="Name a folder that may be written, or made.",
            ) from error


def check_numbered(
    written: Mapping[str, Path | None], suffix: str, stems: Sequence[str], read: Iterable[str | os.PathLike[str]]
) -> None:
    """Make sure, before any work, that no file that will be numbered takes the place of one that is read.

    Args:
        written: the folders in which there will be a file of each stem, see :func:`numbered`, by the option that names
            each.
        stems: in the order of their numbers, which begin with 0.
        read: what is read; what is not a file does not matter.

    Raises:
        InputError: it would; links are followed.
    """
    folders = {option: path for option, path in written.items() if path is not None and path.is_dir()}
    places = {real_path(each) for each in read} if folders else set()
    for option, folder in folders.items():
        for number, stem in enumerate(stems):
            place = folder / numbered(number, stem, suffix)
            if os.path.lexists(place) and real_path(place) in places:
                raise InputError(
                    f"{option} would write over a file that is read.", where=place, fix="Name another folder."
                )


def _check_writable(option: str, path: Path) -> None:
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _refuse_other_kinds(path)
        if len(os.fsencode(path.name)) > _LONGEST_NAME:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except (OSError, ValueError) as error:  # a NUL inside the name is a ValueError
        raise InputError(
            f"Cannot write {path.name or path} ({option}): {getattr(error, 'strerror', None) or error}.",
            where=path,
            fix="Name a file in a folder that exists and may be written.",
        ) from error


def _refuse_other_kinds(path: Path) -> None:
    """Refuse to put a file in the place of a pipe or a device; a name like /dev/stdout is a link to whatever it is.

    Raises:
        OSError: it is one.
    """
    is_system = path.absolute().parts[1:2] in (("dev",), ("proc",)) and path.absolute().parts[1:3] != ("dev", "shm")
    kind = stat.S_IFMT(path.stat().st_mode) if path.exists() else stat.S_IFREG
    if is_system or kind not in (stat.S_IFREG, stat.S_IFDIR):
        what = _KINDS.get(kind, "a name of this machine's own")
        raise OSError(errno.EINVAL, f"it is {what}, and a file is written beside its place and renamed", str(path))


def numbered(number: int, stem: str, suffix: str) -> str:
    """Return the name ``NUMBER-STEM.suffix``; of a stem that is too long its beginning, as names have a limit."""
    room = _LONGEST_NAME - len(f"{number}-{suffix}")
    encoded = os.fsencode(stem)
    return f"{number}-{stem if len(encoded) <= room else encoded[:room].decode(errors='ignore')}{suffix}"


def state_of(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return numbers that are others once the file or folder was replaced or written to; links are followed.

    Raises:
        OSError: nothing is there.
    """
    found = os.stat(path)  # noqa: PTH116  (any name)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def open_regular(path: str | os.PathLike[str], *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading, without waiting for whatever else may stand under its name.

    Whoever checks a file and then uses it does both through this one stream: under its name another may stand by then.

    Args:
        follow: whether the name may be a symbolic link's.

    Raises:
        OSError: there is no such file, or it is a FIFO, a device, a socket, a folder or a loop of links; ``strerror``
            says which.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    try:
        handle = os.open(path, flags)
    except ValueError as error:  # a NUL inside the name
        raise OSError(errno.EINVAL, f"no file can have this name ({error})", str(path)) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            what = "it is a loop of symbolic links" if follow else "it is a symbolic link"
            raise OSError(errno.ELOOP, what, str(path)) from None
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
        with open_regular(path) as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"Cannot read the file: {reason}.", where=path, fix="Give the path of a file.") from error
    if len(content) > limit:
        raise InputError(f"The file is larger than {limit:,} bytes.", where=path, fix="Give another file.")
    return content


def sha256_of(path: str | os.PathLike[str], *, follow: bool = True) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits.

    Raises:
        OSError: see :func:`open_regular`.
    """
    with open_regular(path, follow=follow) as stream:
        return sha256_in(stream)


def sha256_in(stream: BinaryIO) -> str:
    """Return the SHA-256 of an open file's bytes, all of them, as 64 hex digits; it stands at its beginning again.

    Raises:
        OSError: it is larger than :data:`LARGEST`: a few bytes on a disk can claim to be a terabyte of zeros.
    """
    digest = hashlib.sha256()
    if stream.seek(0, os.SEEK_END) > LARGEST:
        raise OSError(errno.EFBIG, "it is larger than any checkpoint")
    stream.seek(0)
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    stream.seek(0)
    return digest.hexdigest()


def contained(folder: str | os.PathLike[str], relative: str) -> Path:
    """Return ``folder / relative`` if it stays inside ``folder`` after every link is followed.

    Raises:
        InputError: ``relative`` is absolute, climbs out with ``..``, or goes through a link that leaves.
    """
    try:
        root = Path(folder).resolve()
        path = (root / relative).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop; a name that is too long, or holds a zero byte
        raise InputError(
            f"The path {relative!r:.200} leads nowhere: a loop of links, or no file can have that name.",
            where=folder,
            fix="Remove that entry, or use another path.",
        ) from None
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
    meant, fix = path, "Choose a target in a folder that exists, may be written, and has room."
    for folder in path.parents:  # what is on its way to its place is called by that
        if folder.name.startswith(SCRATCH):
            meant, fix = folder.parent, _ROOM
        elif unfinished := _UNFINISHED.fullmatch(folder.name):
            meant = folder.with_name(unfinished["name"])
    return XcitHubError(f"Cannot write {path.name}: {error.strerror or error}.", where=meant, fix=fix)
