"""The zip that PyTorch writes: where each record lies, and whether the archive is whole. zipfile itself asks less."""

from __future__ import annotations

import itertools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from xcit_hub.checkpoints.mapped import Checksum, MappedFile
from xcit_hub.checkpoints.tensor import Extent
from xcit_hub.errors import CheckpointError

_LOCAL_HEADER = 30
_ENTRY, _END = 46, 22  # bytes of an entry in the archive's directory, before its name; of the directory's end
_FOLDER = 0x10  # of a record's attributes: PyTorch gives what is in memory for what it takes to be a folder
_FLAGS = 0x0808  # a record's sizes after its bytes, its name in UTF-8: all that PyTorch's writer sets


def records_in(file: MappedFile, archive: zipfile.ZipFile) -> dict[str, Extent]:
    """Return where each record's bytes lie.

    Raises:
        CheckpointError: an entry is damaged, compressed, or not where the directory says.
    """
    found: dict[str, Extent] = {}
    alike: set[str] = set()  # PyTorch looks for a record without regard to capitals
    if not _is_whole_directory(file, archive):
        raise broken(file.path, "its directory does not end where its entries do")
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise broken(file.path, "its records are compressed, which PyTorch's never are")
        is_odd = entry.flag_bits & ~_FLAGS or entry.volume or entry.external_attr & _FOLDER
        if is_odd or entry.filename.lower() in alike or entry.filename != entry.orig_filename:
            raise broken(file.path, f"the entry of its record {entry.filename!r} is damaged")
        start = _start_of(file, entry)
        if start is None or start + entry.file_size > len(file):
            raise broken(file.path, f"its record {entry.filename!r} is not where its entry says")
        alike.add(entry.filename.lower())
        found[entry.filename] = file.extent(start, start + entry.file_size)
    in_order = sorted(found.values(), key=lambda record: record.offset)
    if any(one.offset + len(one) > other.offset for one, other in itertools.pairwise(in_order)):
        raise broken(file.path, "two of its records lie upon each other")
    return found


def checksums_of(archive: zipfile.ZipFile, records: Mapping[str, Extent]) -> list[Checksum]:
    """Return what the archive says of each record's bytes, in their order."""
    found = [
        Checksum(name, part.offset, part.offset + len(part), archive.getinfo(name).CRC)
        for name, part in records.items()
    ]
    return sorted(found, key=lambda checksum: checksum.start)


def _is_whole_directory(file: MappedFile, archive: zipfile.ZipFile) -> bool:
    """Whether the entries fill the directory, and nothing but its end marks follows: zipfile asks less."""
    begin = position = archive.start_dir
    count = len(archive.infolist())
    for _ in range(count):
        header = bytes(file.view[position : position + _ENTRY])
        if len(header) != _ENTRY or not header.startswith(b"PK\x01\x02"):
            return False
        position += _ENTRY + sum(int.from_bytes(header[at : at + 2], "little") for at in (28, 30, 32))
    size, rest = position - begin, bytes(file.view[position : position + 98])
    if rest.startswith(b"PK\x06\x06"):
        wide, locator = rest[:56], rest[56:76]
        if wide[4:16] != struct.pack("<QHH", 44, *struct.unpack("<HH", wide[12:16])) or wide[16:56] != struct.pack(
            "<IIQQQQ", 0, 0, count, count, size, begin
        ):
            return False
        if locator != struct.pack("<4sIQI", b"PK\x06\x07", 0, position, 1):
            return False
        rest = rest[76:]
    if len(rest) != _END or len(file) != position + _END + (76 if file.view[position + 2] == 6 else 0):
        return False
    mark, *disks, here, whole, told_size, told_begin, comment = struct.unpack("<4sHHHHIIH", rest)
    return (
        (mark, disks, comment) == (b"PK\x05\x06", [0, 0], 0)
        and {here, whole} <= {count, 0xFFFF}
        and told_size in (size, 0xFFFFFFFF)
        and told_begin in (begin, 0xFFFFFFFF)
    )


def _start_of(file: MappedFile, entry: zipfile.ZipInfo) -> int | None:
    """Where a record's bytes begin: behind its own header, which has to be its entry's."""
    header = bytes(file.view[entry.header_offset : entry.header_offset + _LOCAL_HEADER])
    if len(header) != _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        return None
    flags, method = int.from_bytes(header[6:8], "little"), int.from_bytes(header[8:10], "little")
    name_bytes, extra_bytes = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    start = entry.header_offset + _LOCAL_HEADER
    name = bytes(file.view[start : start + name_bytes])
    agrees = name == entry.orig_filename.encode("utf-8") and method == 0 and flags == entry.flag_bits
    return start + name_bytes + extra_bytes if agrees else None


def broken(path: Path, why: str) -> CheckpointError:
    """Say what is wrong with a file that PyTorch wrote."""
    return CheckpointError(
        f"{path.name} is not a whole PyTorch checkpoint: {why}.",
        where=path,
        fix="Fetch the file again and compare its SHA-256.",
    )
