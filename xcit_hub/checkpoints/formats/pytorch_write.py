"""``.pth`` as ``torch.save`` writes it (PyTorch 1.6 and later), without PyTorch and with little memory.

The pickle that describes the tensors comes first, then the bytes of each, which stream through the archive.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

from xcit_hub.checkpoints.tensor import DTYPES, StoredTensor

_ROOT = "archive"
_ALIGNMENT = 64  # of a record's bytes, as PyTorch's own: torch.load(mmap=True) uses them where they lie
_LOCAL_HEADER = 30

# Classes of storages, older than dtypes; a tensor of any other dtype lies in an untyped one and says its dtype itself.
_STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
}


def write(
    stream: BinaryIO, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str], under: str = "model"
) -> None:
    """Write ``{under: tensors, **metadata}``.

    Args:
        stream: where to; it need not be able to seek.
        under: ``model``, which timm and facebookresearch/xcit unwrap, or ``state_dict``, which mmengine does.
    """
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        _record(archive, "data.pkl", [_described(tensors, metadata, under)])
        _record(archive, "byteorder", [b"little"])
        for key, tensor in enumerate(tensors.values()):
            _record(archive, f"data/{key}", tensor.pieces(), tensor.nbytes)
        _record(archive, "version", [b"3\n"])


def _record(archive: zipfile.ZipFile, name: str, pieces: Iterable[bytes | memoryview], size: int = 0) -> None:
    entry = zipfile.ZipInfo(f"{_ROOT}/{name}")
    entry.file_size = size  # only a hint, by which zipfile chooses the header's form
    begins = archive.fp.tell() + _LOCAL_HEADER + len(entry.filename) + 4  # type: ignore[union-attr]  # it is open
    padding = -begins % _ALIGNMENT
    entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(entry, "w") as record:
        for piece in pieces:
            record.write(piece)


# ---- The pickle ----------------------------------------------------------------------------------
# Written as the instructions themselves: Pickler would have to import what it names.

_MARK, _TUPLE, _CALL, _REFER, _FILL = b"(", b"t", b"R", b"Q", b"u"
_EMPTY_TABLE, _EMPTY_TUPLE, _FALSE = b"}", b")", b"\x89"


def _described(tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str], under: str) -> bytes:
    state = _table((name, _tensor(key, tensor)) for key, (name, tensor) in enumerate(tensors.items()))
    whole = _table([(under, state), *((name, _text(value)) for name, value in metadata.items())])
    return b"\x80\x02" + whole + b"."


def _tensor(key: int, tensor: StoredTensor) -> bytes:
    dtype, storage = DTYPES[tensor.dtype], _STORAGES.get(tensor.dtype)
    elements = tensor.size if storage else tensor.nbytes
    kind = _name("torch", storage) if storage else _name("torch.storage", "UntypedStorage")
    reference = _tuple(_text("storage"), kind, _text(str(key)), _text("cpu"), _whole(elements)) + _REFER
    strides = [math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape))]
    hooks = _name("collections", "OrderedDict") + _EMPTY_TUPLE + _CALL
    plain = (reference, _whole(0), _tuple(*map(_whole, tensor.shape)), _tuple(*map(_whole, strides)), _FALSE, hooks)
    if storage:
        return _name("torch._utils", "_rebuild_tensor_v2") + _tuple(*plain) + _CALL
    return _name("torch._utils", "_rebuild_tensor_v3") + _tuple(*plain, _name("torch", dtype.torch)) + _CALL


def _table(entries: Iterable[tuple[str, bytes]]) -> bytes:
    return _EMPTY_TABLE + _MARK + b"".join(_flat(entries)) + _FILL


def _flat(entries: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    for name, value in entries:
        yield _text(name)
        yield value


def _tuple(*items: bytes) -> bytes:
    return _MARK + b"".join(items) + _TUPLE


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def _whole(number: int) -> bytes:
    if number < 1 << 31:
        return b"J" + number.to_bytes(4, "little")
    encoded = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return b"\x8a" + len(encoded).to_bytes(1, "little") + encoded
