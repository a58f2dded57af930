"""``.pth``, ``.pt``, ``.bin``: PyTorch's pickles, read in place without PyTorch: no code in them ever runs.

An archive (PyTorch 1.6 and later) is a zip of uncompressed records: ``ROOT/data.pkl`` describes the objects, and
storage ``k`` is the bytes of ``ROOT/data/k``. Before, a file was four pickles in a row (a magic number, a version, the
writing system, the objects), a pickle with the storages' keys, and each storage as its length and its bytes.
"""

from __future__ import annotations

import io
import itertools
import math
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from xcit_hub.checkpoints.formats import Content, pickled
from xcit_hub.checkpoints.formats.pickled import CodeError, Made, Name, PickleError, Reference
from xcit_hub.checkpoints.mapped import Checksum, MappedFile
from xcit_hub.checkpoints.tensor import DTYPES, Extent, StoredTensor
from xcit_hub.errors import CheckpointError

_LARGEST_PICKLE = 256 << 20
_LOCAL_HEADER = 30
_ENTRY, _END = 46, 22  # bytes of an entry in the archive's directory, before its name; of the directory's end
_LEGACY_VERSION = 1001
_LATEST = 10  # the versions of the archive's format that PyTorch reads
_FLAGS = 0x0808  # a record's sizes after its bytes, its name in UTF-8: all that PyTorch's writer sets

_DTYPE_OF = {f"torch.{entry.torch}": entry.name for entry in DTYPES.values()}
_DTYPE_OF |= {"torch.double": "float64", "torch.float": "float32", "torch.half": "float16", "torch.long": "int64"}
_DTYPE_OF_STORAGE = {
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "complex64",
}
_UNTYPED = ("torch.UntypedStorage", "torch.storage.UntypedStorage")


def read_archive(file: MappedFile, archive: zipfile.ZipFile) -> Content:
    """Return what an archive of PyTorch 1.6 or later holds. Every length is exact.

    The checksums of what is read here are compared; those of the tensors' numbers are left to whoever reads them
    (:attr:`~xcit_hub.checkpoints.mapped.MappedFile.checksums`).

    Raises:
        CheckpointError: the file is damaged, or asks for more than plain data.
    """
    records = _records(file, archive)
    numbers = {name for name in records if "/data/" in name}
    file.checksums = _checksums(archive, {name: part for name, part in records.items() if name not in numbers})
    file.compare()
    file.checksums = _checksums(archive, {name: records[name] for name in numbers})
    root = next(name for name in records if name.endswith("/data.pkl")).removesuffix("data.pkl")
    elsewhere = next((name for name in records if not name.startswith(root)), None)
    if elsewhere is not None:
        raise _broken(file.path, f"its record {elsewhere!r} does not stand in {root}")
    told = records.get(f"{root}version")
    version = b"" if told is None else bytes(told.view[:20]).strip()
    if not version.isdigit() or not 1 <= int(version) <= _LATEST:
        raise _broken(file.path, "the version of PyTorch's format in which it is written is not known")
    identity = records.get(f"{root}.data/serialization_id")
    if identity is not None and not bytes(identity.view[:4096]).isalnum():
        raise _broken(file.path, "its identity is not a word")
    aligned = records.get(f"{root}.storage_alignment")
    if aligned is not None and not bytes(aligned.view[:20]).isdigit():
        raise _broken(file.path, "how its storages are aligned is not a number")
    order = records.get(f"{root}byteorder")
    if order is not None and bytes(order.view) != b"little":
        raise _broken(file.path, "its numbers are big-endian")
    described = records[f"{root}data.pkl"].view
    if len(described) > _LARGEST_PICKLE:
        raise _broken(file.path, f"its description has {len(described)} bytes, more than any checkpoint's")
    content = _unpickled(file.path, io.BytesIO(described))
    return _content(file.path, content, {name.removeprefix(f"{root}data/"): part for name, part in records.items()})


def read_legacy(file: MappedFile) -> Content:
    """Return what a file of PyTorch before 1.6 holds.

    Raises:
        CheckpointError: the file is damaged, or asks for more than plain data.
    """
    stream = file.stream()
    _unpickled(file.path, stream)  # the magic number, which told the format
    if _unpickled(file.path, stream) != _LEGACY_VERSION:
        raise _broken(file.path, "it is of a version that PyTorch never wrote")
    system = _unpickled(file.path, stream)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise _broken(file.path, "its numbers are big-endian")
    content = _unpickled(file.path, stream)
    keys = _unpickled(file.path, stream)
    if not isinstance(keys, list):
        raise _broken(file.path, "it has no list of its storages")
    itemsizes = {_storage(file.path, found).key: _storage(file.path, found).itemsize for found in _references(content)}
    storages: dict[str, Extent] = {}
    position = stream.tell()
    for key in map(str, keys):
        if position + 8 > len(file):
            raise _broken(file.path, f"it ends before storage {key!r} does; it was cut short")
        end = position + 8 + int.from_bytes(file.view[position : position + 8], "little") * itemsizes.get(key, 1)
        if end > len(file):
            raise _broken(file.path, f"it ends before storage {key!r} does; it was cut short")
        storages[key] = file.extent(position + 8, end)
        position = end
    if position != len(file):
        raise _broken(file.path, f"{len(file) - position} bytes follow the last storage")
    return _content(file.path, content, storages)


# ---- The archive ---------------------------------------------------------------------------------


def _records(file: MappedFile, archive: zipfile.ZipFile) -> dict[str, Extent]:
    records: dict[str, Extent] = {}
    if not _is_whole_directory(file, archive):
        raise _broken(file.path, "its directory does not end where its entries do")
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _broken(file.path, "its records are compressed, which PyTorch's never are")
        if entry.flag_bits & ~_FLAGS or entry.volume or entry.filename in records:
            raise _broken(file.path, f"the entry of its record {entry.filename!r} is damaged")
        start = _start_of(file, entry)
        if start is None or start + entry.file_size > len(file):
            raise _broken(file.path, f"its record {entry.filename!r} is not where its entry says")
        records[entry.filename] = file.extent(start, start + entry.file_size)
    in_order = sorted(records.values(), key=lambda record: record.offset)
    if any(one.offset + len(one) > other.offset for one, other in itertools.pairwise(in_order)):
        raise _broken(file.path, "two of its records lie upon each other")
    return records


def _checksums(archive: zipfile.ZipFile, records: Mapping[str, Extent]) -> list[Checksum]:
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


# ---- The objects ---------------------------------------------------------------------------------


def _unpickled(path: Path, stream: IO[bytes]) -> Any:
    try:
        return pickled.read(stream)
    except CodeError as error:
        raise CheckpointError(
            f"{path.name} holds code objects ({error}), not plain tensors, and was not loaded.",
            where=path,
            fix="A pickle can run any code. If you trust its source, load it in PyTorch where nothing is "
            "at stake and save its state_dict: torch.save(network.state_dict(), PATH).",
        ) from error
    except PickleError as error:
        raise _broken(path, str(error)) from error


def _content(path: Path, root: Any, storages: Mapping[str, Extent]) -> Content:
    content = Content({})
    for name, leaf in _leaves(root):
        array = _array(path, name, leaf, storages)
        if array is not None:
            if name in content.tensors:
                raise _broken(path, f"{name!r} occurs twice")
            content.tensors[name] = array
        elif isinstance(leaf, str):
            content.metadata[name] = pickled.printable(leaf)
        else:
            content.values.append(name)
    if not content.tensors:
        arrays = sum(isinstance(leaf, Made) and leaf.name.endswith("._reconstruct") for _, leaf in _leaves(root))
        held = f"{arrays} numpy arrays and no tensor" if arrays else "no tensor"
        raise CheckpointError(
            f"{path.name} is a PyTorch file that holds {held}.",
            where=path,
            fix="Save tensors in PyTorch: torch.save({name: torch.from_numpy(array) for name, array in …}, OUT)."
            if arrays
            else "Check that it is the file that is meant.",
        )
    return content


def _leaves(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is not a table or list, with its path; without recursion, for a pickle nests as deep as it likes."""
    waiting: list[tuple[str, Any]] = [("", root)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if not isinstance(value, dict | list | tuple):
            yield name, value
        elif id(value) not in seen:  # a pickle can hold a table within itself
            seen.add(id(value))
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            prefix = f"{name}." if name else ""
            waiting += reversed([(f"{prefix}{key}", entry) for key, entry in entries])


def _references(root: Any) -> Iterator[Reference]:
    waiting, seen = [root], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Reference):
            yield value
        elif isinstance(value, dict | list | tuple | Made) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, Made):
                waiting += [value.arguments, value.state]
            else:
                waiting += value.values() if isinstance(value, dict) else value


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str | None  # None: bytes, which the tensor says the type of
    elements: int

    @property
    def itemsize(self) -> int:
        return DTYPES[self.dtype].itemsize if self.dtype else 1


def _storage(path: Path, reference: Reference) -> _Storage:
    identity = reference.identity
    if (
        not isinstance(identity, tuple)
        or len(identity) < 5
        or identity[0] != "storage"
        or not isinstance(identity[1], Name)
        or not isinstance(identity[4], int)
        or identity[4] < 0
        or (len(identity) > 5 and identity[5] is not None)
    ):
        raise _broken(path, "it refers to what is not a storage")
    kind = identity[1].text
    if kind not in _DTYPE_OF_STORAGE and kind not in _UNTYPED:
        raise CheckpointError(
            f"{path.name} holds numbers of {kind}, which no other format can hold.",
            where=path,
            fix="Convert them to a dense float in PyTorch and save the file again.",
        )
    return _Storage(str(identity[2]), _DTYPE_OF_STORAGE.get(kind), identity[4])


def _array(path: Path, name: str, leaf: Any, storages: Mapping[str, Extent]) -> StoredTensor | None:
    """The tensor that a leaf stands for, or None if it stands for none."""
    while isinstance(leaf, Made) and leaf.name in _AROUND and leaf.arguments:
        leaf = _AROUND[leaf.name](leaf)
    if not isinstance(leaf, Made) or not leaf.name.startswith("torch."):
        return None
    if leaf.name in _ARGUMENTS:
        return _rebuilt(path, name, leaf, storages)
    if not leaf.name.startswith(("torch._utils._rebuild_", "torch._tensor")):
        return None
    kind = leaf.name.rpartition("_rebuild_")[2].replace("_", " ")
    raise CheckpointError(
        f"{path.name} holds {name!r} as a {kind}, which no other format can hold.",
        where=path,
        fix="Convert that tensor to a dense float in PyTorch and save the file again.",
    )


def _of_type(made: Made) -> Any:
    arguments = made.arguments
    function = arguments[0]
    inner = arguments[2] if len(arguments) > 2 else None
    return Made(function.text, inner) if isinstance(function, Name) and isinstance(inner, tuple) else None


# What makes a tensor, and of how many arguments.
_ARGUMENTS = {
    "torch._utils._rebuild_tensor": (4,),
    "torch._utils._rebuild_tensor_v2": (6, 7),
    "torch._utils._rebuild_tensor_v3": (7, 8),
}

# What stands around a tensor and does not change it: a parameter, a subclass.
_AROUND = {
    "torch._utils._rebuild_parameter": lambda made: made.arguments[0],
    "torch._utils._rebuild_parameter_with_state": lambda made: made.arguments[0],
    "torch.nn.parameter.Parameter": lambda made: made.arguments[0],
    "torch._tensor._rebuild_from_type_v2": _of_type,
}


def _rebuilt(path: Path, name: str, made: Made, storages: Mapping[str, Extent]) -> StoredTensor:
    arguments: tuple[Any, ...] = made.arguments
    if len(arguments) not in _ARGUMENTS[made.name]:
        raise _broken(path, f"the description of {name!r} is not a tensor's")
    reference, offset, shape, strides, *rest = arguments
    plain = [entry for entry in rest if isinstance(entry, dict) and not isinstance(entry, pickled.Table)]
    metadata = plain[-1] if plain else {}
    if not isinstance(reference, Reference) or not _whole((offset,)) or not _whole(shape) or not _whole(strides):
        raise _broken(path, f"the description of {name!r} is not a tensor's")
    storage = _storage(path, reference)
    dtype = storage.dtype
    for entry in rest:
        if isinstance(entry, Name) and pickled.is_dtype(entry.text):
            dtype = _DTYPE_OF.get(entry.text)
    if dtype is None or len(shape) != len(strides):
        raise _broken(path, f"the description of {name!r} is not a tensor's")
    if not set(metadata) <= {"neg", "conj"}:
        raise _broken(path, f"{name!r} carries {', '.join(map(str, metadata))}, which no tensor here may")
    extent = storages.get(storage.key)
    itemsize = DTYPES[dtype].itemsize
    if extent is None or len(extent.view) != storage.elements * storage.itemsize:
        held = "is missing" if extent is None else f"has {len(extent.view)} bytes"
        expected = storage.elements * storage.itemsize
        raise _broken(path, f"the record of {name!r} ({storage.key!r}) {held}, and should have {expected}")
    stored = _strided(path, name, extent, dtype, itemsize * offset, shape, strides)
    if metadata.get("conj"):
        stored = stored.through(np.conjugate)
    return stored.through(_NEGATED.get(dtype, np.negative)) if metadata.get("neg") else stored


# The sign of what numpy has no numbers for is its highest bit.
_NEGATED = {"bfloat16": lambda bits: bits ^ np.uint16(0x8000)}


def _whole(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(type(number) is int and number >= 0 for number in value)


def _strided(
    path: Path, name: str, extent: Extent, dtype: str, start: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> StoredTensor:
    itemsize = DTYPES[dtype].itemsize
    size = math.prod(shape)
    if size * itemsize > len(extent.view):
        raise _broken(path, f"{name!r} claims more numbers than the file holds")
    last = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) if size else -1
    if start + (last + 1) * itemsize > len(extent.view):
        raise _broken(path, f"{name!r} reaches beyond its record")
    dense = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if (
        all(length == 1 or stride == full for length, stride, full in zip(shape, strides, dense, strict=True))
        or not size
    ):
        return StoredTensor(dtype, shape, (extent.cut(start, start + size * itemsize),))
    flat = np.frombuffer(extent.view[start:], np.uint8)
    units = np.lib.stride_tricks.as_strided(
        flat, (*shape, itemsize), (*(stride * itemsize for stride in strides), 1), writeable=False
    )
    copied = np.ascontiguousarray(units).reshape(-1)
    return StoredTensor(dtype, shape, (Extent(copied.data.toreadonly()),))


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path.name} is not a whole PyTorch checkpoint: {why}.",
        where=path,
        fix="Fetch the file again and compare its SHA-256.",
    )
