"""A file that is opened once: what is hashed is what is read, whatever stands under its name by then."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import io
import mmap
import os
import stat
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from xcit_hub.checkpoints.tensor import Extent
from xcit_hub.errors import CheckpointError
from xcit_hub.files import LARGEST, open_regular

_HASHED_BYTES = 4 << 20  # at a time: giving back pages makes the other threads wait


@dataclass(frozen=True)
class Checksum:
    """What a file says of a part of itself.

    Args:
        name: the part's.
        start, stop: its bytes.
        crc32: their checksum.
    """

    name: str
    start: int
    stop: int
    crc32: int


class MappedFile:
    """The bytes of one file, mapped to memory.

    Attributes:
        path: the name it was opened under; for messages, and to see whether the file is still the same.
        view: all of its bytes.
        checksums: what is still to be compared of it, in the order of its bytes: by :attr:`sha256`, which sees all of
            them, or by :meth:`compare`.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self._opened = os.fstat(stream.fileno())
        self._mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.view = memoryview(self._mapping)
        self.checksums: Sequence[Checksum] = ()

    @classmethod
    def open(cls, path: Path) -> MappedFile:
        """Open and map a file.

        Raises:
            CheckpointError: it is missing, empty, may not be read, or is not a regular file.
        """
        try:
            with open_regular(path) as stream:
                size = os.fstat(stream.fileno()).st_size
                if size > LARGEST:
                    raise CheckpointError(
                        f"{path.name} has {size:,} bytes, more than any checkpoint.",
                        where=path,
                        fix="Do not use this file.",
                    )
                if not size:
                    raise CheckpointError(f"{path.name} is empty.", where=path, fix="Fetch the file again.")
                return cls(path, stream)
        except OSError as error:
            raise CheckpointError(
                f"Cannot read {path.name}: {error.strerror or error}.", where=path, fix="Check the path."
            ) from error

    def __len__(self) -> int:
        return len(self.view)

    @property
    def is_private(self) -> bool:
        """Whether nobody else can change it: it has no name."""
        return not self._opened.st_nlink and stat.S_ISREG(self._opened.st_mode)

    def extent(self, start: int, stop: int) -> Extent:
        """Return the bytes ``[start, stop)``, which stay in the file until they are used."""
        return Extent(self.view[start:stop], self._mapping, start)

    def stream(self, most: int | None = None) -> io.BufferedReader:
        """Return its bytes, or the first ``most``, as a stream; any number of them do not disturb each other."""
        return _Reader(self.view[:most])

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of its bytes as 64 hex digits.

        Raises:
            CheckpointError: one of :attr:`checksums` is another one.
        """
        digest = hashlib.sha256()
        position = 0
        for checksum in (*self.checksums, None):
            for piece in self.extent(position, len(self) if checksum is None else checksum.start).pieces(_HASHED_BYTES):
                digest.update(piece)
            if checksum is not None:
                self._compare(checksum, digest.update)
                position = checksum.stop
        self.checksums = ()
        return digest.hexdigest()

    def compare(self) -> None:
        """Compare all of :attr:`checksums`.

        Raises:
            CheckpointError: one is another one.
        """
        with concurrent.futures.ThreadPoolExecutor(2) as pool:  # zlib lets go of the interpreter
            for _ in pool.map(self._compare, self.checksums):
                pass
        self.checksums = ()

    def _compare(self, checksum: Checksum, see: Callable[[memoryview], None] = lambda _: None) -> None:
        found = 0
        for piece in self.extent(checksum.start, checksum.stop).pieces(_HASHED_BYTES):
            see(piece)
            found = zlib.crc32(piece, found)
        if found != checksum.crc32:
            raise CheckpointError(
                f"{self.path.name} is damaged: its record {checksum.name!r} fails its checksum.",
                where=self.path,
                fix="Fetch the file again and compare its SHA-256.",
            )

    def check_unchanged(self) -> None:
        """Make sure that what was read at different times was read of one and the same file.

        Raises:
            CheckpointError: it was written to, replaced or removed since it was opened.
        """
        if self.is_private:
            return
        with contextlib.suppress(OSError):
            if _version(self.path.stat()) == _version(self._opened):
                return
        raise CheckpointError(
            f"{self.path.name} was changed while it was read.",
            where=self.path,
            fix="Wait until whatever writes it has finished.",
        )


class _Reader(io.BufferedReader):
    """Reads no more than there is: Python sets aside at once what it is asked for, and files claim any length."""

    def __init__(self, view: memoryview) -> None:
        super().__init__(_Stream(view))
        self._length = len(view)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = min(size, max(0, self._length - self.tell()))
        return super().read(size)


class _Stream(io.RawIOBase):
    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._view)}[whence]
        if start + offset < 0:
            raise ValueError("a position before the beginning")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        piece = self._view[self._position : self._position + len(target)]
        target[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def _version(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
