"""``.safetensors``: a length, a JSON header, the tensors' bytes. Read in place, written as a stream."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from xcit_hub.checkpoints.formats import Content
from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.checkpoints.tensor import DTYPES, StoredTensor, elements
from xcit_hub.errors import CheckpointError

_DTYPE_OF_CODE = {entry.safetensors: entry for entry in DTYPES.values()}
_RANK = {name: rank for rank, name in enumerate(DTYPES)}
_PACKED = ("F4", "F6_E2M3", "F6_E3M2")  # the library opens these, too
_CHECKSUM = "crc_num"
_MOST_ZEROS = 1 << 28
_LARGEST_HEADER = 100_000_000  # the safetensors library's own limit


def read(file: MappedFile) -> Content:
    """Return the tensors and the metadata of a file.

    Every rule of the format is checked: each name once, no holes or overlaps, sizes equal to shapes; and the checksum
    that MindSpore writes (``crc_check=True``). As the library does, ``"__metadata__": null`` is read as none, and
    fields of an entry that the format does not know are left out.

    Raises:
        CheckpointError: the file breaks one of them, is cut short, or holds a dtype without a meaning here.
    """
    header, begin = _header(file.path, file.view)
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(file.path, "its __metadata__ is not a table of strings")
    position = 0
    tensors: dict[str, StoredTensor] = {}
    for name, (dtype, shape, start, stop) in _by_offset(file.path, header):
        if start != position:
            raise _broken(file.path, f"the bytes of {name!r} begin at {start}, not at {position}")
        size = elements(shape)
        if size is None:
            raise _broken(file.path, f"the shape of {name!r} has more numbers or axes than any tensor")
        expected = size * DTYPES[dtype].itemsize
        if stop - start != expected:
            raise _broken(file.path, f"{name!r}, {dtype} {list(shape)}, has {stop - start} bytes, not {expected}")
        if begin + stop > len(file):
            raise _broken(file.path, f"it ends before {name!r} does; it was cut short")
        tensors[name] = StoredTensor(dtype, shape, (file.extent(begin + start, begin + stop),))
        position = stop
    if begin + position != len(file):
        raise _broken(file.path, f"{len(file) - begin - position} bytes follow the last tensor")
    if metadata.get("format") == "ms" and _CHECKSUM in metadata:
        _compare(file.path, tensors, metadata[_CHECKSUM])
    return Content({name: tensors[name] for name in header}, metadata)


def write(stream: BinaryIO, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` as the safetensors library lays them out: widest dtype first, then by name."""
    order = sorted(tensors, key=lambda name: (-_RANK[tensors[name].dtype], name))
    header: dict[str, object] = {}
    if metadata:
        header["__metadata__"] = dict(metadata)
    position = 0
    for name in order:
        tensor = tensors[name]
        header[name] = {
            "dtype": DTYPES[tensor.dtype].safetensors,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.nbytes],
        }
        position += tensor.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight
    stream.write(len(text).to_bytes(8, "little"))
    stream.write(text)
    for name in order:
        for piece in tensors[name].pieces():
            stream.write(piece)


def _compare(path: Path, tensors: Mapping[str, StoredTensor], told: str) -> None:
    """Compare MindSpore's checksum: the CRC-32 of each name and its bytes, in the order of the names."""
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(name.encode("utf-8"), checksum)
        for piece in _seen_by_mindspore(path, name, tensors[name]):
            checksum = zlib.crc32(piece, checksum)
    if told != str(checksum):
        raise _broken(path, f"its checksum is {told[:40]!r}, its content's is {checksum}")


def _seen_by_mindspore(path: Path, name: str, tensor: StoredTensor) -> Iterable[bytes | memoryview]:
    """Yield the bytes that the checksum is of; Python's ``bytes`` makes of one whole number n as many zeros."""
    if tensor.shape or not tensor.dtype.startswith(("int", "uint")):
        return tensor.pieces()
    count = int(tensor.numpy())
    if not 0 <= count <= _MOST_ZEROS:
        raise _broken(path, f"MindSpore writes no checksum over {name!r}, which is {count}")
    return (bytes(count),)


def _header(path: Path, view: memoryview) -> tuple[dict[str, Any], int]:
    if len(view) < 8:
        raise _broken(path, "it is shorter than the eight bytes it must begin with")
    length = int.from_bytes(view[:8], "little")
    if length > _LARGEST_HEADER or 8 + length > len(view):
        raise _broken(path, f"its header would be {length} bytes long, of {len(view)} in the file")
    try:
        text = str(view[8 : 8 + length], "utf-8")
        header = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is not readable: {error}") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a table")
    return header, 8 + length


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    for text in (*table, *table.values()):
        if isinstance(text, str):
            text.encode("utf-8")  # JSON can escape half a character, which is not one
    return table


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _by_offset(path: Path, header: dict[str, Any]) -> Iterable[tuple[str, tuple[str, list[int], int, int]]]:
    entries = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
            raise _broken(path, f"the entry {name!r} lacks dtype, shape or data_offsets")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
            raise _broken(path, f"the shape or the data_offsets of {name!r} are not whole numbers")
        if entry["dtype"] in _PACKED:
            raise CheckpointError(
                f"{path.name} holds {name!r} as {entry['dtype']}, several numbers to a byte, as no XCiT is stored.",
                where=path,
                fix="Dequantize it where it was made, and save it as float16 or wider.",
            )
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPE_OF_CODE:
            raise _broken(path, f"the dtype of {name!r}, {entry['dtype']!r}, is not one of {list(_DTYPE_OF_CODE)}")
        entries.append((name, (_DTYPE_OF_CODE[entry["dtype"]].name, shape, offsets[0], offsets[1])))
    return sorted(entries, key=lambda entry: entry[1][2:])


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path.name} is not a whole safetensors file: {why}.",
        where=path,
        fix="Fetch the file again and compare its SHA-256.",
    )
