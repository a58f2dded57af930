"""``.ckpt``: MindSpore's checkpoint, a protobuf message, read in place and streamed out without MindSpore.

The message is public (``mindspore/ccsrc/utils/checkpoint.proto``)::

    Checkpoint:  repeated Value value = 1
    Value:       required string tag = 1, and one of TensorProto tensor = 2, MapTensorProto maptensor = 3
    TensorProto: repeated int64 dims = 1, required string tensor_type = 2, required bytes tensor_content = 3

A tensor larger than 512 MiB is a run of values with the same tag. ``save_checkpoint(append_dict=...)``
stores a string as ``tensor_type`` "str" with numpy's UTF-32 content, and ``crc_check=True`` adds ``crc_num``
and ten bytes at the end.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from xcit_hub.checkpoints.formats import Content
from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.checkpoints.tensor import DTYPES, StoredTensor, elements
from xcit_hub.errors import CheckpointError

_DTYPE_OF_TYPE = {entry.mindspore: entry for entry in DTYPES.values() if entry.mindspore}
_SLICE_BYTES = 512 << 20
_CHECKSUM_MARK = b"crc_num"
_CHECKSUM_BYTES = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SKIPPED = {_FIXED64: 8, _FIXED32: 4}
_VALUE_FIELDS = {1: "tag", 2: "tensor", 3: "maptensor"}
_TENSOR_FIELDS = {2: "tensor_type", 3: "tensor_content"}
_Field = tuple[int, int, int, int]  # field number, wire type, first byte, end


class _MalformedError(ValueError):
    """What is wrong with the message, in words."""


def read(file: MappedFile) -> Content:
    """Return the tensors and the appended strings of a file.

    Raises:
        CheckpointError: the file is not a whole checkpoint, fails its checksum, is encrypted, holds a tag twice,
            or holds what no network's weights are (map parameters, four-bit integers).
    """
    stop = _checked_end(file)
    values: dict[str, list[_Value]] = {}
    previous = None
    content = Content({})
    try:
        for start, end in _submessages(file.view, 0, stop, field=1):
            value = _value(file.view, start, end)
            if value.tag in values and value.tag != previous:
                raise _MalformedError(f"{value.tag!r} occurs twice")
            values.setdefault(value.tag, []).append(value)
            previous = value.tag
        for tag, slices in values.items():
            if len({value.kind for value in slices}) != 1:
                raise _MalformedError(f"the slices of {tag!r} disagree on its type")
            if slices[0].kind == "str":
                content.metadata[tag] = _text(tag, file.view, slices)
            else:
                content.tensors[tag] = _tensor(tag, file, slices)
    except _MalformedError as error:
        raise _broken(file.path, str(error)) from error
    if not values:
        raise _broken(file.path, "it holds nothing")
    return content


def write(stream: BinaryIO, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` as ``mindspore.save_checkpoint`` does, and ``metadata`` as its ``append_dict``."""
    for tag, tensor in tensors.items():
        if not tensor.size:
            raise CheckpointError(
                f"A MindSpore checkpoint cannot hold the empty tensor {tag!r}.",
                where="the target (.ckpt)",
                fix="Write a .safetensors file.",
            )
        if not DTYPES[tensor.dtype].mindspore:
            raise CheckpointError(
                f"A MindSpore checkpoint cannot hold {tag!r}, which is {tensor.dtype}.",
                where="the target (.ckpt)",
                fix="Write a .safetensors file.",
            )
        _write_tensor(stream, tag, tensor)
    for tag, text in metadata.items():
        content = text.encode("utf-32-le")
        stream.write(_value_head(tag, (0,), "str", len(content)))
        stream.write(content)


class _Value:
    """One value of the message: where its content lies, and what it says the whole tensor is."""

    __slots__ = ("dims", "kind", "start", "stop", "tag")

    def __init__(self, tag: str, dims: tuple[int, ...], kind: str, start: int, stop: int) -> None:
        self.tag, self.dims, self.kind, self.start, self.stop = tag, dims, kind, start, stop


def _checked_end(file: MappedFile) -> int:
    end = len(file) - _CHECKSUM_BYTES - len(_CHECKSUM_MARK)
    if end < 0 or file.view[end : end + len(_CHECKSUM_MARK)] != _CHECKSUM_MARK:
        return len(file)
    stored = int.from_bytes(file.view[-_CHECKSUM_BYTES:], "big")
    checksum = 0
    for piece in file.extent(0, end).pieces():
        checksum = zlib.crc32(piece, checksum)
    if checksum != stored:
        raise _broken(file.path, f"its checksum is {stored:#x}, its content's is {checksum:#x}")
    return end


def _value(view: memoryview, start: int, stop: int) -> _Value:
    fields, others = _singular_fields(view, start, stop, names=_VALUE_FIELDS)
    if others:
        raise _MalformedError(f"field {others[0][0]} at byte {others[0][2]} belongs to no value")
    if "tag" not in fields:
        raise _MalformedError(f"the value at byte {start} has no tag")
    tag = _string(view, *fields["tag"])
    if "maptensor" in fields:
        raise _MalformedError(f"{tag!r} is a map parameter (a hash table), which no XCiT has")
    if "tensor" not in fields:
        raise _MalformedError(f"{tag!r} has no tensor")
    begin, end = fields["tensor"]
    fields, others = _singular_fields(view, begin, end, names=_TENSOR_FIELDS)
    if "tensor_type" not in fields or "tensor_content" not in fields:
        raise _MalformedError(f"{tag!r} lacks tensor_type or tensor_content")
    return _Value(tag, tuple(_dims(view, others)), _string(view, *fields["tensor_type"]), *fields["tensor_content"])


def _tensor(tag: str, file: MappedFile, slices: list[_Value]) -> StoredTensor:
    first = slices[0]
    if any((value.dims, value.kind) != (first.dims, first.kind) for value in slices):
        raise _MalformedError(f"the slices of {tag!r} disagree on its shape or type")
    if first.kind not in _DTYPE_OF_TYPE:
        raise _MalformedError(f"the type of {tag!r}, {first.kind!r}, is not one of {list(_DTYPE_OF_TYPE)}")
    dtype = _DTYPE_OF_TYPE[first.kind]
    shape = () if first.dims == (0,) else first.dims  # MindSpore reads [0] as a scalar
    stored = sum(value.stop - value.start for value in slices)
    size = elements(shape)
    if size is None:
        raise _MalformedError(f"the shape of {tag!r} has more numbers or axes than any tensor")
    expected = size * dtype.itemsize
    if stored != expected:
        raise _MalformedError(f"{tag!r}, {dtype.name} {list(shape)}, has {stored} bytes, not {expected}")
    if any((value.stop - value.start) % dtype.itemsize for value in slices):
        raise _MalformedError(f"a slice of {tag!r} ends inside a number")
    return StoredTensor(dtype.name, shape, (file.extent(value.start, value.stop) for value in slices))


def _text(tag: str, view: memoryview, slices: list[_Value]) -> str:
    content = b"".join(view[value.start : value.stop] for value in slices)
    try:
        return content.decode("utf-32-le").rstrip("\0")
    except UnicodeDecodeError as error:
        raise _MalformedError(f"the string {tag!r} is not UTF-32") from error


def _singular_fields(
    view: memoryview, start: int, stop: int, names: Mapping[int, str]
) -> tuple[dict[str, tuple[int, int]], list[_Field]]:
    """The bytes of the fields that are named, each of which occurs once at most; and the others, as they are."""
    found: dict[str, tuple[int, int]] = {}
    others = []
    for each in _fields(view, start, stop):
        field, wire, begin, end = each
        name = names.get(field)
        if name is None:
            others.append(each)
            continue
        if wire != _BYTES or name in found:
            raise _MalformedError(f"the field {name} at byte {begin} is repeated or of the wrong kind")
        found[name] = (begin, end)
    return found, others


def _submessages(view: memoryview, start: int, stop: int, field: int) -> Iterator[tuple[int, int]]:
    for found, wire, begin, end in _fields(view, start, stop):
        if found != field or wire != _BYTES:
            raise _MalformedError(f"field {found} at byte {begin} belongs to no checkpoint")
        yield begin, end


def _dims(view: memoryview, fields: Iterable[_Field]) -> Iterator[int]:
    for field, wire, begin, end in fields:
        if field != 1:
            raise _MalformedError(f"field {field} at byte {begin} belongs to no tensor")
        if wire not in (_VARINT, _BYTES):
            raise _MalformedError(f"the dims at byte {begin} are of the wrong kind")
        while begin < end:  # one number, or several packed ones
            number, begin = _varint(view, begin, end)
            if number >> 63:
                raise _MalformedError(f"a negative length at byte {begin}")
            yield number


def _fields(view: memoryview, start: int, stop: int) -> Iterator[_Field]:
    """Yield every field of a message."""
    position = start
    while position < stop:
        key, position = _varint(view, position, stop)
        field, wire = key >> 3, key & 7
        begin = position
        if wire == _BYTES:
            length, begin = _varint(view, position, stop)
            position = begin + length
        elif wire == _VARINT:
            _, position = _varint(view, position, stop)
        elif wire in _SKIPPED:
            position += _SKIPPED[wire]
        else:
            raise _MalformedError(f"the byte {begin} begins no field")
        if field == 0 or position > stop:
            raise _MalformedError(f"the field at byte {begin} reaches beyond the end; the file was cut short")
        yield field, wire, begin, position


def _varint(view: memoryview, position: int, stop: int) -> tuple[int, int]:
    if position < stop and (byte := view[position]) < 0x80:  # most are
        return byte, position + 1
    number = 0
    for shift in range(0, 64, 7):
        if position >= stop:
            raise _MalformedError(f"it ends at byte {position}, inside a number")
        byte = view[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >> 64:
                break
            return number, position
    raise _MalformedError(f"the number that ends at byte {position} is too large")


def _string(view: memoryview, start: int, stop: int) -> str:
    try:
        return str(view[start:stop], "utf-8")
    except UnicodeDecodeError as error:
        raise _MalformedError(f"the name at byte {start} is not UTF-8") from error


def _write_tensor(stream: BinaryIO, tag: str, tensor: StoredTensor) -> None:
    kind = DTYPES[tensor.dtype].mindspore
    remaining = tensor.nbytes
    room = 0
    for piece in tensor.pieces():
        while piece:
            if not room:
                room = min(remaining, _SLICE_BYTES)
                stream.write(_value_head(tag, tensor.shape, kind, room))
            part = piece[:room]
            stream.write(part)
            piece = piece[len(part) :]
            room -= len(part)
            remaining -= len(part)


def _value_head(tag: str, dims: tuple[int, ...], kind: str, content_bytes: int) -> bytes:
    """Everything of one value that comes before its content."""
    tensor = b"".join(b"\x08" + _as_varint(length) for length in dims)
    tensor += _delimited(2, kind.encode("utf-8")) + b"\x1a" + _as_varint(content_bytes)
    value = _delimited(1, tag.encode("utf-8")) + b"\x12" + _as_varint(len(tensor) + content_bytes) + tensor
    return b"\x0a" + _as_varint(len(value) + content_bytes) + value


def _delimited(field: int, content: bytes) -> bytes:
    return _as_varint(field << 3 | _BYTES) + _as_varint(len(content)) + content


def _as_varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path.name} is not a whole MindSpore checkpoint: {why}.",
        where=path,
        fix="Fetch the file again and compare its SHA-256; decrypt an encrypted one with MindSpore first.",
    )
