"""Tries, with checkpoints that were changed by bytes, fields and records, to have read what is not there.

Every mutated file that is accepted is read by an independent reader as well: safetensors' own library, MindSpore's
protobuf message, ``torch.load(weights_only=True)``. It must accept it too, and read the same tensors.
"""

from __future__ import annotations

import io
import json
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from ledger import Attack, Case, expect

from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import XcitHubError

_BATCH = 50
_BATCHES = 80  # of each format: 12,000 files
Arrays = dict[str, np.ndarray]
Tensors = dict[str, tuple[tuple[int, ...], bytes]]  # shape and bytes
Mutate = Callable[[bytes, random.Random], bytes]


def cases(seed: int) -> list[Case]:
    return [
        Case(f"{suffix} {number}", partial(_attempt, suffix, f"{seed} {suffix} {number}"))
        for suffix in _FORMATS
        for number in range(_BATCHES)
    ]


ATTACK = Attack("mutated files", cases, sample=12)


def _attempt(suffix: str, seed: str, folder: Path) -> int:
    chance = random.Random(seed)
    written, mutate, read = _FORMATS[suffix]
    whole = written()
    path = folder / f"mutated.{suffix}"
    for number in range(_BATCH):
        content = mutate(chance.choice(whole), chance)
        path.write_bytes(content)
        try:
            with checkpoint.read(path) as opened:
                ours = {name: (tuple(held.shape), bytes(held.raw())) for name, held in opened.tensors.items()}
        except XcitHubError as error:
            expect(len(str(error)) < 3000, f"file {number}: a message of {len(str(error))} letters")
            continue
        try:
            theirs = read(content)
        except Exception as error:
            expect(False, f"file {number} is accepted, and {type(error).__name__} there: {error}")
            raise
        _compare(ours, theirs, number)
    return _BATCH


def _compare(ours: Tensors, theirs: Tensors, number: int) -> None:
    ours = {re.sub(r"\((?!key)\w+ (\d+)\)", r"(key \1)", name): tensor for name, tensor in ours.items()}
    expect(ours.keys() == theirs.keys(), f"file {number} holds {sorted(ours)} here, {sorted(theirs)} there")
    for name, tensor in ours.items():
        expect(tensor == theirs[name], f"file {number} has another {name} here than there")


# ---- the files: a few small tensors of every kind


def _tensors() -> Arrays:
    numbers = np.random.default_rng(0)
    return {
        "head.weight": numbers.normal(size=(5, 4)).astype(np.float32),
        "head.bias": numbers.normal(size=5).astype(np.float32),
        "blocks.0.norm.weight": numbers.normal(size=3).astype(np.float16),
        "count": np.array(7, np.int64),
        "wide": numbers.normal(size=(2, 1, 3)),
        "flags": np.array([True, False, True]),
    }


@cache
def _safetensors() -> list[bytes]:
    from safetensors.numpy import save

    return [save(_tensors()), save(_tensors(), {"format": "pt", "xcit_hub.dialect": "paper"}), save({"a": np.ones(1)})]


@cache
def _ckpt() -> list[bytes]:
    import tempfile

    import mindspore

    whole = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ckpt"
        held = [{"name": name, "data": mindspore.Tensor(array)} for name, array in _tensors().items()]
        for options in ({}, {"append_dict": {"epoch": 3, "name": "xcit"}}, {"crc_check": True}):
            mindspore.save_checkpoint(held, str(path), **options)
            whole.append(path.read_bytes())
            path.chmod(0o600)
            path.unlink()
    return whole


@cache
def _pth() -> list[bytes]:
    import torch

    tensors = {name: torch.from_numpy(np.array(array)) for name, array in _tensors().items()}
    tensors["turned"] = tensors["head.weight"].t()
    tensors["part"] = tensors["head.weight"][1:3]
    whole = []
    for content, options in (
        (tensors, {}),
        ({"model": tensors, "epoch": 3}, {}),
        (tensors, {"_use_new_zipfile_serialization": False}),
    ):
        stream = io.BytesIO()
        torch.save(content, stream, **options)
        whole.append(stream.getvalue())
    return whole


# ---- the readers that know nothing of ours


def _by_safetensors(content: bytes) -> Tensors:
    from safetensors import deserialize

    return {name: (tuple(entry["shape"]), bytes(entry["data"])) for name, entry in deserialize(content)}


_NUMPY = {
    "Int8": np.int8, "UInt8": np.uint8, "Int16": np.int16, "Int32": np.int32, "Int64": np.int64, "Bool": np.bool_,
    "UInt16": np.uint16, "UInt32": np.uint32, "UInt64": np.uint64,
    "Float16": np.float16, "Float32": np.float32, "Float64": np.float64, "BFloat16": np.uint16,
}  # fmt: skip


def _by_mindspore(content: bytes) -> Tensors:
    import zlib

    from mindspore.train.checkpoint_pb2 import Checkpoint

    if content[-17:-10] == b"crc_num":
        if zlib.crc32(content[:-17]) != int.from_bytes(content[-10:], "big"):
            raise ValueError("its checksum is another")
        content = content[:-17]
    message = Checkpoint.FromString(content)
    found: Tensors = {}
    for value in message.value:
        kind = value.tensor.tensor_type
        if kind in ("str", "int32", "int", "float", "bool") and kind not in _NUMPY:
            continue  # what append_dict wrote
        shape = () if list(value.tensor.dims) == [0] else tuple(value.tensor.dims)
        array = np.frombuffer(value.tensor.tensor_content, _NUMPY[kind]).reshape(shape)
        found[value.tag] = (array.shape, found.get(value.tag, ((), b""))[1] + array.tobytes())
    return found


def _by_torch(content: bytes) -> Tensors:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    found: Tensors = {}

    def step(key: object, place: int) -> str:
        """A key's part of a name: what is neither text nor a number is called by its place."""
        ordinary = isinstance(key, str | float | None) or (isinstance(key, int) and abs(key) < 1 << 64)
        return str(key) if ordinary else f"(key {place})"

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            plain = value.contiguous().resolve_neg().resolve_conj()
            found[prefix] = (tuple(plain.shape), plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for place, (key, entry) in enumerate(value.items()):
                walk(f"{prefix}.{step(key, place)}" if prefix else step(key, place), entry)
        elif isinstance(value, list | tuple):
            for key, entry in enumerate(value):
                walk(f"{prefix}.{key}" if prefix else str(key), entry)

    walk("", held)
    return found


# ---- the mutations


def _bytes(content: bytes, chance: random.Random) -> bytes:
    """Change, cut, repeat, remove, insert or swap bytes; mostly near the beginning, where formats say what they are."""
    held = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        if not held:
            break
        near = chance.choice((8, 64, 400, len(held), len(held)))
        start = chance.randrange(min(near, len(held)))
        stop = min(len(held), start + chance.choice((1, 1, 2, 4, 8, 40)))
        what = chance.randrange(7)
        if what == 0:
            held[start] ^= 1 << chance.randrange(8)
        elif what == 1:
            held[start] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif what == 2:
            del held[start:stop]
        elif what == 3:
            held[start:start] = held[start:stop]
        elif what == 4:
            held[start:stop] = chance.randbytes(stop - start)
        elif what == 5:
            other = chance.randrange(len(held))
            held[start], held[other] = held[other], held[start]
        else:
            del held[chance.randrange(len(held)) :]
    return bytes(held)


def _mutated_safetensors(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.4:
        return _bytes(content, chance)
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = chance.choice([each for each in header if each != "__metadata__"])
    entry = header[name]
    number = chance.choice((0, -1, 1, 2, 3, 2**31, 2**63, 2**64, 10**30, 1.5, True, None, "1", [], 1e300, len(data)))
    what = chance.randrange(9)
    if what == 0:
        entry["dtype"] = chance.choice(
            ("F32", "F16", "BF16", "F64", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "f32", 5)
        )
    elif what == 1:
        entry["shape"] = [*entry["shape"], number]
    elif what == 2:
        entry["shape"] = [number] * chance.randrange(4)
    elif what == 3:
        entry["data_offsets"][chance.randrange(2)] = number
    elif what == 4:
        entry["data_offsets"] = [offset + chance.choice((-8, -4, -1, 1, 4, 8)) for offset in entry["data_offsets"]]
    elif what == 5:
        del entry[chance.choice(list(entry))]
    elif what == 6:
        header[chance.choice(("", "a\0b", "head.weight", "__metadata__", "é", "../x"))] = entry
    elif what == 7:
        header["__metadata__"] = chance.choice((None, {}, {"a": "b"}, {"a": 1}, [], "x", {"a": None}))
    else:
        data = data[: len(data) + chance.choice((-4, -1, 0))] + bytes(chance.choice((0, 0, 1, 4)))
    text = json.dumps(header, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    text += chance.choice((b"", b" ", b"\n", b"\0", b"  " * 9))
    told = len(text) + chance.choice((0, 0, 0, 0, 0, 0, 1, -1))
    return struct.pack("<Q", told) + text + data


def _mutated_ckpt(content: bytes, chance: random.Random) -> bytes:
    from mindspore.train.checkpoint_pb2 import Checkpoint

    if chance.random() < 0.5 or content[-17:-10] == b"crc_num":
        return _with_checksum(content, chance)
    message = Checkpoint.FromString(content)
    value = chance.choice(message.value)
    what = chance.randrange(7)
    if what == 0:
        value.tensor.tensor_type = chance.choice((*_NUMPY, "str", "BFloat16", "", "Int4", "float"))
    elif what == 1:
        value.tensor.dims.append(chance.choice((0, 1, 2, -1, 2**40)))
    elif what == 2:
        del value.tensor.dims[:]
        value.tensor.dims.extend(chance.choices((0, 1, 2, 3, 5, -1, 2**62), k=chance.randrange(4)))
    elif what == 3:
        held = value.tensor.tensor_content
        value.tensor.tensor_content = held[: chance.randrange(len(held) + 1)] + bytes(chance.choice((0, 1, 4)))
    elif what == 4:
        value.tag = chance.choice(("", "head.weight", "a b", "é", "../x", "t" * 5000))
    elif what == 5:
        message.value.add().CopyFrom(value)
    else:
        message.value.remove(value)
    return message.SerializeToString()


def _with_checksum(content: bytes, chance: random.Random) -> bytes:
    import zlib

    if content[-17:-10] != b"crc_num" or chance.random() < 0.5:
        return _bytes(content, chance)
    changed = _bytes(content[:-17], chance)
    return changed + b"crc_num" + zlib.crc32(changed).to_bytes(10, "big")


def _mutated_pth(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.3 or not content.startswith(b"PK"):
        return _bytes(content, chance)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as held, zipfile.ZipFile(made, "w") as archive:
        entries = held.infolist()
        target = chance.choice(entries)
        if chance.random() < 0.5:
            target = next(entry for entry in entries if entry.filename.endswith("data.pkl"))
        for entry in entries:
            data, name = held.read(entry), entry.filename
            if entry is target:
                what = chance.randrange(6)
                if what == 0:
                    name = chance.choice((name + "x", "../" + name, name.replace("data", "Data"), "/" + name))
                elif what == 1:
                    continue
                elif what == 2:
                    data = data[: chance.randrange(len(data) + 1)]
                else:
                    data = _bytes(data, chance) if what < 5 else data + bytes(chance.choice((1, 4, 40)))
            packed = zipfile.ZIP_DEFLATED if entry is target and chance.random() < 0.05 else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name), data, packed)
    return made.getvalue()


# of each format: whole files, how one is changed, who else reads it
_FORMATS: dict[str, tuple[Callable[[], list[bytes]], Mutate, Callable[[bytes], Tensors]]] = {
    "safetensors": (_safetensors, _mutated_safetensors, _by_safetensors),
    "ckpt": (_ckpt, _mutated_ckpt, _by_mindspore),
    "pth": (_pth, _mutated_pth, _by_torch),
}
