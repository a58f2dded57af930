"""What blobs and revisions are called: by digests of what they hold, so that what was changed since shows."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from xcit_hub.errors import HubError
from xcit_hub.files import LARGEST, open_regular, sha256_in, sha256_of

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


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


def wrong_bytes(name: str, expected: str, found: str) -> HubError:
    """Say that a file is not the one that was promised."""
    return HubError(
        f"The bytes received for {name} are not the ones that were published: "
        f"SHA-256 should begin {expected[:16]}…, it begins {found[:16]}….",
        where=name,
        fix="Try again; if it stays so, the hub or something on the way changes the file: do not use it.",
    )
