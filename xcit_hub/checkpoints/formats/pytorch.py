"""``.pth``, ``.pt``, ``.bin``: PyTorch's pickles, read in place without PyTorch: no code in them ever runs.

An archive (PyTorch 1.6 and later) is a zip of uncompressed records: ``ROOT/data.pkl`` describes the objects, and
storage ``k`` is the bytes of ``ROOT/data/k``. Before, a file was four pickles in a row (a magic number, a version, the
writing system, the objects), a pickle with the storages' keys, and each storage as its length and its bytes.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from xcit_hub.checkpoints.formats import Content, pickled
from xcit_hub.checkpoints.formats.pickle_names import TENSOR_ARGUMENTS, is_dtype
from xcit_hub.checkpoints.formats.pickled import CodeError, Made, Name, PickleError, Reference
from xcit_hub.checkpoints.formats.zip_records import broken, checksums_of, records_in
from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.checkpoints.tensor import DTYPES, Extent, StoredTensor
from xcit_hub.errors import CheckpointError

_LARGEST_PICKLE = 256 << 20
_LEGACY_VERSION = 1001
_LATEST = 10  # the versions of the archive's format that PyTorch reads

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
    records = records_in(file, archive)
    numbers = {name for name in records if "/data/" in name}
    file.checksums = checksums_of(archive, {name: part for name, part in records.items() if name not in numbers})
    file.compare()
    file.checksums = checksums_of(archive, {name: records[name] for name in numbers})
    root = next(name for name in records if name.endswith("/data.pkl")).removesuffix("data.pkl")
    elsewhere = next((name for name in records if not name.startswith(root)), None)
    if elsewhere is not None:
        raise broken(file.path, f"its record {elsewhere!r} does not stand in {root}")
    told = records.get(f"{root}version")
    version = b"" if told is None else bytes(told.view[:20]).strip()
    if not version.isdigit() or not 1 <= int(version) <= _LATEST:
        raise broken(file.path, "the version of PyTorch's format in which it is written is not known")
    identity = records.get(f"{root}.data/serialization_id")
    if identity is not None and not bytes(identity.view[:4096]).isalnum():
        raise broken(file.path, "its identity is not a word")
    aligned = records.get(f"{root}.storage_alignment")
    if aligned is not None and not bytes(aligned.view[:20]).isdigit():
        raise broken(file.path, "how its storages are aligned is not a number")
    order = records.get(f"{root}byteorder")
    if order is not None and bytes(order.view) != b"little":
        raise broken(file.path, "its numbers are big-endian")
    described = records[f"{root}data.pkl"].view
    if len(described) > _LARGEST_PICKLE:
        raise broken(file.path, f"its description has {len(described)} bytes, more than any checkpoint's")
    content = _unpickled(file.path, io.BytesIO(described))
    _check_references(file.path, content, _ARCHIVE_FIELDS)
    return _content(file.path, content, {name.removeprefix(f"{root}data/"): part for name, part in records.items()})


def read_legacy(file: MappedFile) -> Content:
    """Return what a file of PyTorch before 1.6 holds.

    Raises:
        CheckpointError: the file is damaged, or asks for more than plain data.
    """
    stream = file.stream(_LARGEST_PICKLE)
    _unpickled(file.path, stream)  # the magic number, which told the format
    if _unpickled(file.path, stream) != _LEGACY_VERSION:
        raise broken(file.path, "it is of a version that PyTorch never wrote")
    system = _unpickled(file.path, stream)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise broken(file.path, "its numbers are big-endian")
    content = _unpickled(file.path, stream)
    keys = _unpickled(file.path, stream)
    if not isinstance(keys, list):
        raise broken(file.path, "it has no list of its storages")
    _check_references(file.path, content, _LEGACY_FIELDS)
    itemsizes = {_storage(file.path, found).key: _storage(file.path, found).itemsize for found in _references(content)}
    storages: dict[str, Extent] = {}
    position = stream.tell()
    for key in map(str, keys):
        if position + 8 > len(file):
            raise broken(file.path, f"it ends before storage {key!r} does; it was cut short")
        end = position + 8 + int.from_bytes(file.view[position : position + 8], "little") * itemsizes.get(key, 1)
        if end > len(file):
            raise broken(file.path, f"it ends before storage {key!r} does; it was cut short")
        storages[key] = file.extent(position + 8, end)
        position = end
    if position != len(file):
        raise broken(file.path, f"{len(file) - position} bytes follow the last storage")
    return _content(file.path, content, storages)


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
        raise broken(path, str(error)) from error


def _content(path: Path, root: Any, storages: Mapping[str, Extent]) -> Content:
    content = Content({})
    for name, leaf in _leaves(root):
        array = _array(path, name, leaf, storages)
        if array is not None:
            if name in content.tensors:
                raise broken(path, f"{name!r} occurs twice")
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


# "storage", its type, key, place and elements; before archives, what it is a part of as well.
_ARCHIVE_FIELDS, _LEGACY_FIELDS = 5, 6


def _check_references(path: Path, root: Any, fields: int) -> None:
    """Refuse what the pickle refers to in other words than PyTorch does, a part of a storage among it."""
    for reference in _references(root):
        identity = reference.identity
        whole = isinstance(identity, tuple) and len(identity) == fields
        if not whole or any(field is not None for field in identity[_ARCHIVE_FIELDS:]):
            raise broken(path, "it refers to what is not a storage")


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
        identity[0] != "storage"
        or not isinstance(identity[1], Name)
        or not isinstance(identity[4], int)
        or identity[4] < 0
    ):
        raise broken(path, "it refers to what is not a storage")
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
    trained = False
    described = isinstance(leaf, Made) and leaf.name in TENSOR_ARGUMENTS
    while isinstance(leaf, Made) and leaf.name in (_OF_TYPE, *_PARAMETERS):
        if leaf.name == _OF_TYPE:
            leaf = _of_type(path, name, leaf)
        else:
            leaf, trained = _of_parameter(path, name, leaf)
    if not isinstance(leaf, Made) or not leaf.name.startswith("torch."):
        if described:
            raise broken(path, f"the description of {name!r} is not a tensor's")
        return None
    if leaf.name in TENSOR_ARGUMENTS:
        return _rebuilt(path, name, leaf, storages, trained=trained)
    if not leaf.name.startswith(("torch._utils._rebuild_", "torch._tensor")):
        return None
    kind = leaf.name.rpartition("_rebuild_")[2].replace("_", " ")
    raise CheckpointError(
        f"{path.name} holds {name!r} as a {kind}, which no other format can hold.",
        where=path,
        fix="Convert that tensor to a dense float in PyTorch and save the file again.",
    )


# What stands around a tensor and does not change it: a subclass, a parameter.
_OF_TYPE = "torch._tensor._rebuild_from_type_v2"
_PARAMETERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
)
_NUMBERS = {"data", "real", "imag"}  # attributes that are the tensor's numbers


def _of_type(path: Path, name: str, made: Made) -> Any:
    function, _, arguments, state = made.arguments
    attributes = state[0] if isinstance(state, tuple) and state else state
    changed = _NUMBERS.intersection(attributes) if isinstance(attributes, dict) else ()
    if not isinstance(function, Name) or not isinstance(arguments, tuple) or changed:
        raise broken(path, f"the description of {name!r} is not a tensor's")
    try:
        return pickled.call(function.text, arguments)
    except PickleError as error:
        raise broken(path, str(error)) from error


def _of_parameter(path: Path, name: str, made: Made) -> tuple[Any, bool]:
    """Return what a parameter is made of, and whether it is trained, as it is if nothing is said."""
    trained = made.arguments[1] if len(made.arguments) > 1 else True
    if not isinstance(trained, bool):
        raise broken(path, f"the description of {name!r} is not a parameter's")
    return made.arguments[0], trained


def _rebuilt(path: Path, name: str, made: Made, storages: Mapping[str, Extent], *, trained: bool) -> StoredTensor:
    reference, offset, shape, strides, *rest = made.arguments
    plain = [entry for entry in rest if isinstance(entry, dict) and not isinstance(entry, pickled.Table)]
    metadata = plain[-1] if plain else {}
    if not isinstance(reference, Reference) or not _whole((offset,)) or not _whole(shape) or not _whole(strides):
        raise broken(path, f"the description of {name!r} is not a tensor's")
    storage = _storage(path, reference)
    dtype = storage.dtype
    for entry in rest:
        if isinstance(entry, Name) and is_dtype(entry.text):
            dtype = _DTYPE_OF.get(entry.text)
    if dtype is None or len(shape) != len(strides) or not isinstance(rest[0] if rest else False, bool):
        raise broken(path, f"the description of {name!r} is not a tensor's")
    if (trained or (rest and rest[0])) and not dtype.startswith(_TRAINABLE):
        raise broken(path, f"{name!r} is of {dtype} and would be trained, which PyTorch refuses")
    if not set(metadata) <= {"neg", "conj"}:
        raise broken(path, f"{name!r} carries {', '.join(map(str, metadata))}, which no tensor here may")
    extent = storages.get(storage.key)
    itemsize = DTYPES[dtype].itemsize
    if extent is None or len(extent.view) != storage.elements * storage.itemsize:
        held = "is missing" if extent is None else f"has {len(extent.view)} bytes"
        expected = storage.elements * storage.itemsize
        raise broken(path, f"the record of {name!r} ({storage.key!r}) {held}, and should have {expected}")
    stored = _strided(path, name, extent, dtype, itemsize * offset, shape, strides)
    if metadata.get("conj"):
        stored = stored.through(np.conjugate)
    return stored.through(_NEGATED.get(dtype, np.negative)) if metadata.get("neg") else stored


_TRAINABLE = ("float", "bfloat", "complex")

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
        raise broken(path, f"{name!r} claims more numbers than the file holds")
    last = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) if size else -1
    if start + (last + 1) * itemsize > len(extent.view):
        raise broken(path, f"{name!r} reaches beyond its record")
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
