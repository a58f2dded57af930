"""Images that do not lie in files of their own: members of tar archives (WebDataset's shards), cells of Parquet tables.

A shard is listed once, where the work is shared out; each image is then read in place, by whoever needs it.
"""

from __future__ import annotations

import importlib.util
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from xcit_hub.data.folders import is_image, readable
from xcit_hub.errors import InputError, first_line
from xcit_hub.files import state_of

SUFFIXES = (".tar", ".parquet")
COLUMNS = ("image", "bytes", "jpg", "jpeg", "png", "webp")
"""Columns of a Parquet table that may hold images, the first that is there being taken."""

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_READ_AT_ONCE = 1 << 20
_LARGEST_IMAGE = 1 << 30  # bytes of an encoded image, or of the part of a table that is read at once


class Stored:
    """An encoded image that is not a file of its own; ``str`` names it."""

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            InputError: they cannot be read.
        """
        raise NotImplementedError

    @property
    def stem(self) -> str:
        """Its name alone, as of a path: neither what holds it nor a suffix."""
        return Path(str(self).replace("!", "/").replace("#", "/")).stem


@dataclass(frozen=True)
class Encoded(Stored):
    """An image's bytes in memory.

    Args:
        name: what it is called in messages.
        content: a JPEG, PNG or similar file's.
    """

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
        """Return them."""
        return self.content


@dataclass(frozen=True)
class Member(Stored):
    """An image in an uncompressed tar archive.

    Args:
        shard: the archive's path.
        name: the member's.
        offset, size: of its bytes in the archive.
    """

    shard: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{readable(self.shard)}!{readable(self.name)}"

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            InputError: the archive cannot be read, or ends before.
        """
        with _reading(self):
            if self.size > _LARGEST_IMAGE:
                raise OSError(f"it has {self.size:,} bytes, more than any image")
            with Path(self.shard).open("rb") as stream:
                stream.seek(self.offset)
                content = stream.read(self.size)
            if len(content) < self.size:
                raise OSError("the archive is cut short")
            return content


@dataclass(frozen=True)
class Cell(Stored):
    """An image in a Parquet table.

    Args:
        shard: the table's path.
        row: its number in the table.
        group: the row group that holds it.
        place: its number in that group.
        column: of the image.
    """

    shard: str
    row: int
    group: int
    place: int
    column: str

    def __str__(self) -> str:
        return f"{readable(self.shard)}#{self.row}"

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            InputError: the table cannot be read, or the cell is empty.
        """
        with _reading(self):
            value = _group(self.shard, self.group, self.column, state_of(self.shard))[self.place].as_py()
            content = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise OSError("the cell holds no bytes")
            return content


@dataclass(frozen=True)
class Shard:
    """What a shard holds.

    Args:
        images: in the archive's or table's order.
        problems: what could not be listed, with the reason.
        others: number of members that are not images by their names, WebDataset's labels and captions among them.
    """

    images: tuple[Member | Cell, ...] = ()
    problems: tuple[str, ...] = ()
    others: int = 0


def is_shard(name: str) -> bool:
    """Whether a file of this name is taken for a shard; compressed ones are, and are refused when they are listed."""
    return name.lower().endswith((*SUFFIXES, *_COMPRESSED))


def list_shard(path: Path, column: str | None = None) -> Shard:
    """List the images of a shard. What cannot be listed is a problem, not an error: the others go on.

    Args:
        column: of a Parquet table; by default the first of :data:`COLUMNS` that is there.

    Raises:
        InputError: Parquet is asked for, and pyarrow is not installed.
    """
    name = path.name.lower()
    if name.endswith(_COMPRESSED):
        return Shard(
            problems=(f"{readable(path)}: it is compressed, and its members cannot be read in place; unpack it",)
        )
    try:
        return _of_table(path, column) if name.endswith(".parquet") else _of_archive(path)
    except InputError:
        raise
    except Exception as error:  # of any class: pyarrow's are of several
        kind = "a Parquet table" if name.endswith(".parquet") else "an uncompressed tar archive"
        return Shard(problems=(f"{readable(path)}: it cannot be read as {kind} ({first_line(error)})",))


def _of_archive(path: Path) -> Shard:
    images: list[Member | Cell] = []
    problems: list[str] = []
    others = 0
    end = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:  # "r:" takes no compression: offsets must be file offsets
            for member in archive:
                if member.isdir():
                    continue
                if not is_image(member.name):
                    others += 1
                    continue
                found = Member(str(path), member.name, member.offset_data, member.size)
                if not member.isfile() or member.issparse():
                    problems.append(f"{found}: it is not a plain file")
                elif member.offset_data + member.size > end:
                    problems.append(f"{found}: the archive is cut short")
                else:
                    images.append(found)
            if unread := unlisted(path, archive.offset):
                problems.append(f"{readable(path)}: {unread}")
    except (OSError, tarfile.TarError) as error:
        if not images:
            raise
        if not problems:  # else that is why
            problems.append(
                f"{readable(path)}: the archive is broken or cut short after {images[-1]} ({first_line(error)})"
            )
    if not images and not problems:
        problems.append(f"{readable(path)}: there is no image in it")
    return Shard(tuple(images), tuple(problems), others)


def unlisted(path: Path, offset: int) -> str:
    """Say why an archive's list of members is not whole: tarfile ends it silently where it finds no header.

    Args:
        offset: where it ended; there two blocks of zeros end an archive, and more zeros may follow.
    """
    with path.open("rb") as stream:
        stream.seek(offset)
        block = stream.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
            return f"the archive is broken or cut short after {offset:,} bytes"
        while rest := stream.read(_READ_AT_ONCE):
            if rest.strip(b"\0"):
                return f"the archive ends after {offset:,} bytes, and more follows, as where two archives are joined"
    return ""


def _of_table(path: Path, column: str | None) -> Shard:
    need_pyarrow(path)
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as table:
        schema = table.schema_arrow
        wanted = [column] if column is not None else [name for name in COLUMNS if name in schema.names]
        if not wanted or wanted[0] not in schema.names:
            asked = "none of " + ", ".join(COLUMNS) if column is None else f"no {column}"
            return Shard(problems=(f"{readable(path)}: its columns are {', '.join(schema.names[:20])}, {asked}",))
        kind = schema.field(wanted[0]).type
        if not _holds_bytes(kind):
            text = f"{readable(path)}: column {wanted[0]} holds {kind}, and images are bytes, or {{bytes, path}}"
            return Shard(problems=(text,))
        images: list[Member | Cell] = []
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            images += [Cell(str(path), len(images) + place, group, place, wanted[0]) for place in range(rows)]
    return Shard(tuple(images), () if images else (f"{readable(path)}: there is no row in it",))


def _holds_bytes(kind: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


@lru_cache(maxsize=2)
def _group(path: str, group: int, column: str, state: tuple[int, ...]) -> Any:
    """Read a column of a row group: the images of a table come one after the other."""
    del state  # of the file: of another one it is read anew
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as table:
        part = table.metadata.row_group(group)
        size = part.total_byte_size
        if size > _LARGEST_IMAGE:
            raise OSError(f"row group {group} has {size:,} bytes; write the table with smaller row groups")
        return table.read_row_group(group, columns=[column]).column(0)


def need_pyarrow(where: object) -> None:
    """Refuse Parquet where nothing reads it.

    Raises:
        InputError: pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError(
            "pyarrow, which reads Parquet, is not installed.", where=where, fix="pip install 'xcit-hub[ray]'"
        )


@contextmanager
def _reading(image: Stored) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of any class: pyarrow's are of several
        raise InputError(
            f"Cannot read the image: {first_line(error)}.",
            where=str(image),
            fix="Write that image into the archive or table again, or leave it out.",
        ) from error
