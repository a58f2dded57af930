"""``.pth``, ``.pt``, ``.bin``: PyTorch's pickles, read in place without PyTorch: no code in them ever runs.

An archive (PyTorch 1.6 and later) is a zip of uncompressed records: ``ROOT/data.pkl`` describes the objects, and
storage ``k`` is the bytes of ``ROOT/data/k``. Before, a file was four pickles in a row (a magic number, a version, the
writing system, the objects), a pickle with the storages' keys, and each storage as its length and its bytes.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from xcit_hub.checkpoints.formats import Content, pickled
from xcit_hub.checkpoints.formats.pickle_names import TENSOR_ARGUMENTS, is_dtype
from xcit_hub.checkpoints.formats.pickled import CodeError, Described, Made, Name, PickleError, Reference
from xcit_hub.checkpoints.formats.zip_records import broken, checksums_of, records_in
from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.checkpoints.tensor import DTYPES, Computed, Extent, StoredTensor, elements
from xcit_hub.errors import CheckpointError

_LARGEST_PICKLE = 256 << 20
_DEEPEST, _MOST_LETTERS = 1000, 100_000_000  # of tables in tables; of all names together
_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_RECORDS = {"data.pkl", "version", "byteorder", ".data/serialization_id", ".storage_alignment", ".format_version"}
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
    root = next(name for name in records if name.endswith("/data.pkl")).removesuffix("data.pkl")
    numbers = {name for name in records if name.startswith(f"{root}data/")}
    file.checksums = checksums_of(archive, {name: part for name, part in records.items() if name not in numbers})
    file.compare()
    file.checksums = checksums_of(archive, {name: records[name] for name in numbers})
    elsewhere = next((name for name in records if not name.startswith(root)), None)
    if elsewhere is not None:
        raise broken(file.path, f"its record {elsewhere!r} does not stand in {root}")
    strange = next((name for name in records.keys() - numbers if name.removeprefix(root) not in _RECORDS), None)
    if strange is not None:
        raise broken(file.path, f"its record {strange!r} is none of those that PyTorch reads")
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
    whole = io.BytesIO(described)
    content = _unpickled(file.path, whole)
    if whole.read(1):
        raise broken(file.path, "its description goes on behind its end")
    _check_references(file.path, content, _ARCHIVE_FIELDS)
    storages = {name.removeprefix(f"{root}data/"): part for name, part in records.items() if name in numbers}
    read = _content(file.path, content, storages)
    _check_referred(file.path, content, storages)
    return read


def read_legacy(file: MappedFile) -> Content:
    """Return what a file of PyTorch before 1.6 holds.

    Raises:
        CheckpointError: the file is damaged, or asks for more than plain data.
    """
    stream = file.stream(_LARGEST_PICKLE)
    if _unpickled(file.path, stream).root != _MAGIC or _unpickled(file.path, stream).root != _LEGACY_VERSION:
        raise broken(file.path, "it is of a version that PyTorch never wrote")
    system = _unpickled(file.path, stream).root
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise broken(file.path, "its numbers are big-endian")
    content = _unpickled(file.path, stream)
    keys = _unpickled(file.path, stream).root
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise broken(file.path, "it has no list of its storages")
    _check_references(file.path, content, _LEGACY_FIELDS)
    described = [_storage(file.path, found) for found in content.references]
    itemsizes = {storage.key: storage.itemsize for storage in described}
    _check_referred(file.path, content, keys)
    storages: dict[str, Extent] = {}
    position = stream.tell()
    for key in keys:
        if position + 8 > len(file):
            raise broken(file.path, f"it ends before storage {key!r} does; it was cut short")
        end = position + 8 + int.from_bytes(file.view[position : position + 8], "little") * itemsizes[key]
        if end > len(file):
            raise broken(file.path, f"it ends before storage {key!r} does; it was cut short")
        storages[key] = file.extent(position + 8, end)
        position = end
    if position != len(file):
        raise broken(file.path, f"{len(file) - position} bytes follow the last storage")
    return _content(file.path, content, storages)


# ---- The objects ---------------------------------------------------------------------------------


def _unpickled(path: Path, stream: IO[bytes]) -> Described:
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


def _content(path: Path, described: Described, storages: Mapping[str, Extent]) -> Content:
    content = Content({})
    reached: set[int] = set()
    for name, leaf in _leaves(path, described.root):
        array = _array(path, name, leaf, storages, reached)
        if name in content.tensors or name in content.metadata:
            raise broken(path, f"{name!r} occurs twice")
        if array is not None:
            content.tensors[name] = array
        elif isinstance(leaf, str):
            content.metadata[name] = pickled.printable(leaf)
        else:
            content.values.append(name)
            if isinstance(leaf, bool | int | float):
                content.numbers[name] = leaf
    if any(id(made) not in reached for made in described.tensors):
        raise CheckpointError(
            f"{path.name} holds a tensor that has no name: an attribute, a key, or part of what is no table or list.",
            where=path,
            fix="Save the tensors alone in PyTorch: torch.save({name: tensor, …}, OUT).",
        )
    if not content.tensors:
        arrays = sum(
            isinstance(leaf, Made) and leaf.name.endswith("._reconstruct") for _, leaf in _leaves(path, described.root)
        )
        held = f"{arrays} numpy arrays and no tensor" if arrays else "no tensor"
        raise CheckpointError(
            f"{path.name} is a PyTorch file that holds {held}.",
            where=path,
            fix="Save tensors in PyTorch: torch.save({name: torch.from_numpy(array) for name, array in …}, OUT)."
            if arrays
            else "Check that it is the file that is meant.",
        )
    return content


def _leaves(path: Path, root: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is not a table or list, with its path; what stands in two places has two. A table in itself ends."""
    waiting: list[tuple[str, Any, tuple[int, ...]]] = [("", root, ())]
    letters = 0
    while waiting:
        name, value, around = waiting.pop()
        letters += len(name) + 1
        if letters > _MOST_LETTERS or len(around) > _DEEPEST:
            raise broken(path, "it nests deeper, or names more, than any checkpoint does")
        if not isinstance(value, dict | list | tuple):
            yield name, value
        elif id(value) not in around:  # a pickle can hold a table within itself
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            prefix, within = f"{name}." if name else "", (*around, id(value))
            waiting += reversed([(f"{prefix}{key}", entry, within) for key, entry in entries])


# "storage", its type, key, place and elements; before archives, what it is a part of as well.
_ARCHIVE_FIELDS, _LEGACY_FIELDS = 5, 6


def _check_references(path: Path, described: Described, fields: int) -> None:
    """Refuse what the pickle refers to in other words than PyTorch does, a part of a storage among it."""
    for reference in described.references:
        identity = reference.identity
        whole = isinstance(identity, tuple) and len(identity) == fields
        if not whole or any(field is not None for field in identity[_ARCHIVE_FIELDS:]):
            raise broken(path, "it refers to what is not a storage")


def _check_referred(path: Path, described: Described, keys: Iterable[str]) -> None:
    """Refuse storages that no tensor is of: PyTorch writes none."""
    unknown = set(keys) - {_storage(path, reference).key for reference in described.references}
    if unknown:
        raise broken(path, f"nothing refers to its storage {min(unknown)!r}")


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
        or not isinstance(identity[2], str)
        or not isinstance(identity[4], int)
        or identity[4] < 0
    ):
        raise broken(path, "it refers to what is not a storage")
    kind = identity[1].text
    if kind not in _DTYPE_OF_STORAGE and kind not in _UNTYPED:
        raise _without_format(path, kind)
    return _Storage(identity[2], _DTYPE_OF_STORAGE.get(kind), identity[4])


def _without_format(path: Path, kind: str) -> CheckpointError:
    return CheckpointError(
        f"{path.name} holds numbers of {kind}, which no other format can hold.",
        where=path,
        fix="Convert them to a dense float in PyTorch and save the file again.",
    )


def _array(path: Path, name: str, leaf: Any, storages: Mapping[str, Extent], reached: set[int]) -> StoredTensor | None:
    """The tensor that a leaf stands for, or None if it stands for none; what it is made of is ``reached``."""
    trained = False
    described = isinstance(leaf, Made) and leaf.name in TENSOR_ARGUMENTS
    reached.add(id(leaf))
    while isinstance(leaf, Made) and leaf.name in _AROUND:
        leaf, trained = _AROUND[leaf.name](path, name, leaf)
        reached.add(id(leaf))
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


def _of_type(path: Path, name: str, made: Made) -> tuple[Any, bool]:
    """Return what a subclass's tensor is made of, and that nothing says here that it is trained."""
    function, _, arguments, state = made.arguments
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise broken(path, f"the description of {name!r} is not a tensor's")
    _check_state(path, name, state)
    try:
        return pickled.tensor(function.text, arguments), False
    except PickleError as error:
        raise broken(path, str(error)) from error


def _of_parameter(path: Path, name: str, made: Made) -> tuple[Any, bool]:
    """Return what a parameter is made of, and whether it is trained, as it is if nothing is said."""
    said: tuple[Any, ...] = made.arguments + (None, True, None, None)[len(made.arguments) :]
    data, trained, hooks, state = said
    if not isinstance(trained, bool) or hooks not in (None, {}):
        raise broken(path, f"the description of {name!r} is not a parameter's")
    _check_state(path, name, state)
    return data, trained


_NUMBERS = {"data", "real", "imag"}  # attributes that are a tensor's numbers


def _check_state(path: Path, name: str, state: Any) -> None:
    """Refuse attributes that would give a tensor other numbers: PyTorch sets them one by one, of slots as well."""
    for attributes in state if isinstance(state, tuple) else (state,):
        if attributes is not None and (not isinstance(attributes, dict) or _NUMBERS.intersection(attributes)):
            raise broken(path, f"the description of {name!r} is not a tensor's")


# What stands around a tensor and does not change it: a subclass, a parameter.
_AROUND = {
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_parameter": _of_parameter,
    "torch._utils._rebuild_parameter_with_state": _of_parameter,
    "torch.nn.parameter.Parameter": _of_parameter,
}


def _rebuilt(path: Path, name: str, made: Made, storages: Mapping[str, Extent], *, trained: bool) -> StoredTensor:
    is_typed = made.name.endswith("_v3")  # it says its dtype before its metadata
    reference, offset, shape, strides, *rest = made.arguments
    grad, hooks, *rest = rest or (False, None)
    named, metadata = (rest[0] if is_typed else None), dict(enumerate(rest)).get(int(is_typed)) or {}
    if (
        not isinstance(reference, Reference)
        or not _whole((offset,))
        or not _whole(shape)
        or not _whole(strides)
        or len(shape) != len(strides)
        or not isinstance(grad, bool)
        or hooks not in (None, {})
        or not isinstance(metadata, dict)
        or (is_typed and not isinstance(named, Name))
    ):
        raise broken(path, f"the description of {name!r} is not a tensor's")
    storage = _storage(path, reference)
    dtype = _DTYPE_OF.get(named.text) if isinstance(named, Name) else storage.dtype
    if isinstance(named, Name) and not is_dtype(named.text):
        raise broken(path, f"the description of {name!r} is not a tensor's")
    if dtype is None:
        raise _without_format(path, named.text if isinstance(named, Name) else "bytes without a type")
    if (trained or grad) and not dtype.startswith(_TRAINABLE):
        raise broken(path, f"{name!r} is of {dtype} and would be trained, which PyTorch refuses")
    if (
        not set(metadata) <= {"neg", "conj"}
        or any(value is not True for value in metadata.values())
        or ("conj" in metadata and not dtype.startswith("complex"))
        or ("neg" in metadata and dtype.startswith(("bool", "float8")))
    ):
        raise broken(path, f"{name!r} carries {', '.join(map(str, metadata))}, which no tensor of {dtype} may")
    extent = storages.get(storage.key)
    itemsize = DTYPES[dtype].itemsize
    if extent is None or len(extent.view) != storage.elements * storage.itemsize:
        held = "is missing" if extent is None else f"has {len(extent.view)} bytes"
        expected = storage.elements * storage.itemsize
        raise broken(path, f"the record of {name!r} ({storage.key!r}) {held}, and should have {expected}")
    stored = _strided(path, name, extent, dtype, itemsize * offset, shape, strides)
    if "conj" in metadata:
        stored = stored.through(np.conjugate)
    return stored.through(_NEGATED.get(dtype, np.negative)) if "neg" in metadata else stored


_TRAINABLE = ("float", "bfloat", "complex")

# The sign of what numpy has no numbers for is its highest bit.
_NEGATED = {"bfloat16": lambda bits: bits ^ np.uint16(0x8000)}


def _whole(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(type(number) is int and number >= 0 for number in value)


def _strided(
    path: Path, name: str, extent: Extent, dtype: str, start: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> StoredTensor:
    itemsize = DTYPES[dtype].itemsize
    size = elements(shape)
    if size is None or size * itemsize > len(extent.view):
        raise broken(path, f"{name!r} claims more numbers or axes than the file holds")
    last = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) if size else -1
    if start + (last + 1) * itemsize > len(extent.view):
        raise broken(path, f"{name!r} reaches beyond its record")
    dense = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if (
        all(length == 1 or stride == full for length, stride, full in zip(shape, strides, dense, strict=True))
        or not size
    ):
        return StoredTensor(dtype, shape, (extent.cut(start, start + size * itemsize),))

    def computed() -> memoryview:
        units = np.lib.stride_tricks.as_strided(
            np.frombuffer(extent.view[start:], np.uint8),
            (*shape, itemsize),
            (*(stride * itemsize for stride in strides), 1),
            writeable=False,
        )
        return np.ascontiguousarray(units).reshape(-1).data.toreadonly()

    return StoredTensor(dtype, shape, (Computed(computed, 0, size * itemsize),))
