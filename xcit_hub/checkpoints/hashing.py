"""The SHA-256 of a file while it is written: a second thread, behind the writer, hashes what has arrived in it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import BinaryIO, cast

_CHUNK = 1 << 20
_END = 0


@contextlib.contextmanager
def hashed(stream: BinaryIO) -> Iterator[tuple[BinaryIO, Future[str]]]:
    """Hash a new file beside the writing of it; yields the stream to write to, and the digest to come.

    The second thread reads back what has arrived, so the digest is that of what the file holds, and the two threads
    share nothing but lengths. The file is synced while the rest is hashed.

    Args:
        stream: an empty file open for reading and writing.

    Raises:
        OSError: the file cannot be synced or read back.
    """
    arrived: SimpleQueue[int] = SimpleQueue()
    announced = _Announced(stream, arrived)
    with ThreadPoolExecutor(1) as second:
        digest = second.submit(_sha256_behind, stream.fileno(), arrived)
        try:
            yield cast(BinaryIO, announced), digest
            announced.flush()
            os.fsync(stream.fileno())
        finally:
            arrived.put(_END)
    digest.result()


def _sha256_behind(handle: int, arrived: SimpleQueue[int]) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    position = 0
    for length in iter(arrived.get, _END):
        end = position + length
        while position < end:
            count = os.preadv(handle, [buffer[: end - position]], position)
            if not count:
                raise OSError(errno.EIO, "the file lost what was written to it")
            digest.update(buffer[:count])
            position += count
    return digest.hexdigest()


class _Announced:
    """A stream to a file that tells the second thread how much has arrived there, a chunk at a time."""

    def __init__(self, stream: BinaryIO, arrived: SimpleQueue[int]) -> None:
        self._stream = stream
        self._arrived = arrived
        self._unsaid = 0

    def write(self, content: bytes | memoryview) -> int:
        length = self._stream.write(content)
        self._unsaid += length
        if self._unsaid >= _CHUNK:
            self.flush()
        return length

    def flush(self) -> None:
        self._stream.flush()
        if self._unsaid:
            self._arrived.put(self._unsaid)
            self._unsaid = 0
