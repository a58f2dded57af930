"""A file ↔ named tensors. Knows formats, knows no model."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import numpy.typing as npt

from xcit_hub.checkpoints.formats import mindspore, pytorch, safetensors
from xcit_hub.checkpoints.hashing import hashed
from xcit_hub.checkpoints.tensor import Extent, StoredTensor
from xcit_hub.errors import CheckpointError
from xcit_hub.files import atomic_write

__all__ = ["SUFFIXES", "Checkpoint", "Format", "StoredTensor", "read", "write"]

Format = Literal["safetensors", "ckpt", "pth"]

SUFFIXES: dict[str, Format] = {
    ".safetensors": "safetensors",
    ".ckpt": "ckpt",
    ".pth": "pth",
    ".pt": "pth",
    ".bin": "pth",
}


class Checkpoint:
    """An open file of named tensors, which stay in the mapped file until they are asked for.

    A context manager. The tensors outlive it: the file is unmapped when the last of them is gone.

    Attributes:
        path: the file.
        format: its format.
        tensors: name → tensor, in the file's order.
        metadata: the strings it carries beside them.
    """

    def __init__(
        self,
        path: Path,
        file_format: Format,
        mapping: mmap.mmap,
        opened: os.stat_result,
        tensors: Mapping[str, StoredTensor],
        metadata: dict[str, str],
    ) -> None:
        self.path = path
        self.format = file_format
        self.tensors = tensors
        self.metadata = metadata
        self._mapping = mapping
        self._opened = opened

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file that was opened, as 64 hex digits, whatever stands under its name by now."""
        digest = hashlib.sha256()
        for piece in Extent(memoryview(self._mapping), self._mapping).pieces():
            digest.update(piece)
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Make sure that the tensors and the digest that were read are those of one and the same file.

        Raises:
            CheckpointError: the file was written to, replaced or removed since it was opened.
        """
        with contextlib.suppress(OSError):
            if _version(self.path.stat()) == _version(self._opened):
                return
        raise CheckpointError(
            f"{self.path.name} was changed while it was read.",
            where=self.path,
            fix="Wait until whatever writes it has finished.",
        )

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tensors = {}


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format that a file's suffix stands for.

    Raises:
        CheckpointError: no format has that suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise CheckpointError(
            f"{Path(path).name} has the suffix {suffix!r}, which names no checkpoint format.",
            where=path,
            fix=f"Use one of {', '.join(SUFFIXES)}.",
        )
    return SUFFIXES[suffix]


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint; its suffix says in which format.

    Only the names, shapes and dtypes are read. A ``.pth`` needs PyTorch, and nothing in it is executed.

    Raises:
        CheckpointError: there is no such file, or it is not a whole checkpoint of its format.
    """
    source = Path(path)
    if source.is_dir():
        raise CheckpointError(
            f"{path} is a folder, not a checkpoint.",
            where=source,
            fix="Name a file in it, or convert all of them: xcit-hub convert --all FOLDER OUT.",
        )
    file_format = format_of(source)
    try:
        with source.open("rb") as stream:
            opened = os.fstat(stream.fileno())
            if opened.st_size == 0:
                raise CheckpointError(f"{source.name} is empty.", where=source, fix="Fetch the file again.")
            mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise CheckpointError(
            f"Cannot read {source.name}: {error.strerror or error}.", where=source, fix="Check the path."
        ) from error
    if file_format == "pth":
        return Checkpoint(source, file_format, mapping, opened, *pytorch.read(source))
    _check_kind(source, file_format, mapping[:9])
    reader = safetensors.read if file_format == "safetensors" else mindspore.read
    return Checkpoint(source, file_format, mapping, opened, *reader(source, mapping))


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, StoredTensor | npt.NDArray[np.generic]],
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Write named tensors and strings to a file, whole or not at all; its suffix says in which format.

    Tensors are streamed: a few megabytes of them are in memory at a time (a ``.pth`` needs all of them).
    ``.safetensors`` carries ``metadata`` in its header, ``.ckpt`` as ``append_dict`` entries, which
    ``mindspore.load_checkpoint`` returns as strings, and ``.pth`` beside ``model``.

    Returns:
        The SHA-256 of the file as 64 hex digits.

    Raises:
        CheckpointError: the format cannot hold a tensor, or the suffix names no format.
        XcitHubError: the file cannot be written.
    """
    file_format = format_of(path)
    stored = {
        name: tensor if isinstance(tensor, StoredTensor) else StoredTensor.of(tensor)
        for name, tensor in tensors.items()
    }
    writer = {"safetensors": safetensors.write, "ckpt": mindspore.write, "pth": pytorch.write}[file_format]
    size = sum(tensor.nbytes for tensor in stored.values())
    with atomic_write(path, expected=size) as stream, hashed(stream) as (announced, digest):
        writer(announced, stored, metadata or {})
    return digest.result()


def _version(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _check_kind(path: Path, file_format: Format, head: bytes) -> None:
    kinds = {b"PK\x03\x04": "a PyTorch archive", b"\x80\x02": "a Python pickle"}
    with contextlib.suppress(StopIteration):
        kind = next(text for mark, text in kinds.items() if head.startswith(mark))
        raise CheckpointError(
            f"{path.name} is called .{file_format} but is {kind}.", where=path, fix="Rename it to .pth."
        )
    if file_format == "ckpt" and head[8:9] == b"{":
        raise CheckpointError(
            f"{path.name} is called .ckpt but is a safetensors file.",
            where=path,
            fix="Rename it to .safetensors.",
        )
