"""What a file is, by its first bytes: one of the three formats, or something else that is called by its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from xcit_hub import strict_json

Format = Literal["safetensors", "ckpt", "pth"]

_HEAD_BYTES = 1 << 16  # enough for any of the marks below
_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(1, 6))
# The first pickle of a file of PyTorch before 1.6 is this number alone.
_TORCH_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
_ENCRYPTED = {b"\xd8\x5e\x3a\x7f", b"\xd9\x5e\x3a\x7f"}  # MindSpore's AES-GCM and AES-CBC, SM4-CBC


class Kind(Enum):
    """What a file may be. The value says it in words, after "is"."""

    SAFETENSORS = "a safetensors file"
    CKPT = "a MindSpore checkpoint"
    ZIP = "a zip archive"
    TORCH_LEGACY = "a PyTorch checkpoint"
    SHARD_INDEX = "the index of a checkpoint in several files"
    PICKLE = "a Python pickle"
    LFS_POINTER = "a Git LFS pointer, not the file itself"
    HTML = "an HTML page"
    JSON = "a JSON text"
    TEXT = "a text"
    ZEROS = "nothing but zeros at its beginning: a download that did not finish"
    GZIP = "compressed with gzip"
    BZIP2 = "compressed with bzip2"
    XZ = "compressed with xz"
    ZSTD = "compressed with zstd"
    SEVEN_ZIP = "compressed with 7-Zip"
    RAR = "compressed with RAR"
    LZ4 = "compressed with lz4"
    TAR = "a tar archive"
    TORCH_TAR = "a PyTorch checkpoint of the form of early 2017, a tar archive"
    HDF5 = "an HDF5 file (Keras, h5py)"
    NUMPY = "a numpy array"
    MINDIR = "a MindIR graph (mindspore.export), which holds no named parameters of a checkpoint"
    ONNX = "an ONNX model"
    GGUF = "a GGUF file (llama.cpp)"
    TFLITE = "a TensorFlow Lite model"
    SAVED_MODEL = "a TensorFlow SavedModel"
    MSGPACK = "a msgpack file (Flax)"
    OM = "a compiled model for Ascend (.om)"
    IMAGE = "an image"
    PDF = "a PDF document"
    PROGRAM = "a program or library"
    ENCRYPTED = "an encrypted MindSpore checkpoint"
    UNKNOWN = "of no format that is known here"


_FETCH = "Fetch the file again, from the address of the file itself, and compare its SHA-256."
_UNPACK = "Unpack it, and give the checkpoint that is in it."
_SAVE = "Save the weights as .safetensors from the framework that wrote it."
_EXPORTED = "Give the checkpoint that it was exported from."
_OTHER = "Check that it is the file that is meant."

# What to do about each kind that is not a checkpoint.
ADVICE: dict[Kind, str] = {
    Kind.LFS_POINTER: "Fetch the file itself: git lfs pull, or the hub's download address (…/resolve/…, not …/raw/…).",
    Kind.HTML: _FETCH,
    Kind.JSON: _FETCH,
    Kind.TEXT: _FETCH,
    Kind.ZEROS: _FETCH,
    Kind.GZIP: _UNPACK,
    Kind.BZIP2: _UNPACK,
    Kind.XZ: _UNPACK,
    Kind.ZSTD: _UNPACK,
    Kind.SEVEN_ZIP: _UNPACK,
    Kind.RAR: _UNPACK,
    Kind.LZ4: _UNPACK,
    Kind.TAR: _UNPACK,
    Kind.TORCH_TAR: "Load it with PyTorch, which still reads that form, and save it again: torch.save(content, OUT).",
    Kind.HDF5: _SAVE,
    Kind.GGUF: _EXPORTED,
    Kind.TFLITE: _EXPORTED,
    Kind.SAVED_MODEL: _SAVE,
    Kind.MSGPACK: _SAVE,
    Kind.OM: _EXPORTED,
    Kind.IMAGE: _OTHER,
    Kind.PDF: _OTHER,
    Kind.PROGRAM: _OTHER,
    Kind.NUMPY: "Save all parameters by their names as .safetensors.",
    Kind.MINDIR: "Give the .ckpt that it was exported from; `xcit-hub parity FILE --against CHECKPOINT` runs it.",
    Kind.ONNX: "xcit-hub predict FILE IMAGE... and xcit_hub.Predictor run it. To load a network, give its checkpoint.",
    Kind.ENCRYPTED: "Decrypt it with MindSpore first: load_checkpoint(PATH, dec_key=…), then save_checkpoint.",
    Kind.UNKNOWN: "Check that it is the file that is meant, and fetch it again.",
}


@dataclass(frozen=True)
class _Mark:
    kind: Kind
    fits: Callable[[bytes, int], bool]


def _starts(*marks: bytes) -> Callable[[bytes, int], bool]:
    return lambda head, _: head.startswith(marks)


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] in (b"{", b" ", b"\n", b"\t") and 8 + length <= size


def _is_ckpt(head: bytes, _: int) -> bool:
    # A message whose first field is a message whose first field is a name.
    position = 1
    while position < min(len(head), 11) and head[position] & 0x80:
        position += 1
    return head[:1] == b"\n" and head[position + 1 : position + 2] == b"\n"


def _is_mindir(head: bytes, _: int) -> bool:
    return re.match(rb"\n.[0-9.]+\x12.MindSpore", head, re.DOTALL) is not None


def _decoded(head: bytes) -> bytes:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
        head = head[: len(head) & ~1].decode("utf-16", "replace").encode()
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()


def _text(head: bytes) -> bytes:
    return _decoded(head).lower()


def _is_plain_text(head: bytes, _: int) -> bool:
    try:
        text = _text(head).decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4 or not error.start:  # not only a character that the head cuts
            return False
        text = _text(head)[: error.start].decode("utf-8")
    return bool(text) and all(character.isprintable() or character in "\n\r\t\f" for character in text)


def _is_lfs_pointer(head: bytes, _: int) -> bool:
    return _text(head).startswith(b"version https://git-lfs.github.com/spec/")


def _is_torch_tar(head: bytes, size: int) -> bool:
    return _is_tar(head, size) and head[:100].rstrip(b"\0") in (b"storages", b"sys_info", b"pickle", b"tensors")


def _is_msgpack(head: bytes, _: int) -> bool:
    # A table whose first key is a short text of letters.
    skipped = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x81 <= head[0] <= 0x8F else 0) if head else 0
    length = head[skipped] - 0xA0 if skipped and len(head) > skipped else 0
    return 0 < length < 32 and re.fullmatch(rb"[\w./-]+", head[skipped + 1 : skipped + 1 + length]) is not None


def _is_html(head: bytes, _: int) -> bool:
    return _text(head).startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--"))


def _is_json(head: bytes, _: int) -> bool:
    return _text(head)[:1] in (b"{", b"[") and b"\0" not in head


def _is_tar(head: bytes, _: int) -> bool:
    return head[257:262] == b"ustar"


def _is_onnx(head: bytes, _: int) -> bool:
    # ir_version, a small number, then the producer's name or the next field.
    return head[:1] == b"\x08" and b"\x01" < head[1:2] < b"\x20" and head[2:3] in (b"\x12", b"\x1a", b":", b"B")


_MARKS = (
    _Mark(Kind.ZIP, _starts(b"PK\x03\x04", b"PK\x05\x06")),
    _Mark(Kind.SAFETENSORS, _is_safetensors),
    _Mark(Kind.TORCH_LEGACY, lambda head, _: head.startswith(_PICKLES) and _TORCH_MAGIC in head[:32]),
    _Mark(Kind.PICKLE, _starts(*_PICKLES, b"(dp0\n", b"(lp0\n", b"ccollections\n", b"cnumpy")),
    _Mark(Kind.LFS_POINTER, _is_lfs_pointer),
    _Mark(Kind.MINDIR, _is_mindir),
    _Mark(Kind.HTML, _is_html),
    _Mark(Kind.JSON, _is_json),
    _Mark(Kind.CKPT, _is_ckpt),
    _Mark(Kind.ENCRYPTED, lambda head, _: head[:4] in _ENCRYPTED),
    _Mark(Kind.GZIP, _starts(b"\x1f\x8b")),
    _Mark(Kind.BZIP2, _starts(b"BZh")),
    _Mark(Kind.XZ, _starts(b"\xfd7zXZ\0")),
    _Mark(Kind.ZSTD, _starts(b"\x28\xb5\x2f\xfd")),
    _Mark(Kind.HDF5, _starts(b"\x89HDF\r\n")),
    _Mark(Kind.NUMPY, _starts(b"\x93NUMPY")),
    _Mark(Kind.SEVEN_ZIP, _starts(b"7z\xbc\xaf'\x1c")),
    _Mark(Kind.RAR, _starts(b"Rar!\x1a\x07")),
    _Mark(Kind.LZ4, _starts(b"\x04\x22\x4d\x18")),
    _Mark(Kind.TORCH_TAR, _is_torch_tar),
    _Mark(Kind.TAR, _is_tar),
    _Mark(Kind.ONNX, _is_onnx),
    _Mark(Kind.SAVED_MODEL, _starts(b"\x08\x01\x12")),
    _Mark(Kind.GGUF, _starts(b"GGUF", b"GGML", b"ggjt")),
    _Mark(Kind.TFLITE, lambda head, _: head[4:8] == b"TFL3"),
    _Mark(Kind.OM, _starts(b"IMOD")),
    _Mark(Kind.IMAGE, _starts(b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")),
    _Mark(Kind.PDF, _starts(b"%PDF-")),
    _Mark(Kind.PROGRAM, _starts(b"\x7fELF", b"MZ\x90", b"\xcf\xfa\xed\xfe")),
    _Mark(Kind.MSGPACK, _is_msgpack),
    _Mark(Kind.ZEROS, lambda head, _: not any(head[:4096])),
    _Mark(Kind.TEXT, _is_plain_text),
)


def kind_of(content: memoryview) -> Kind:
    """Say what a file with that content is: the first mark that fits."""
    head = bytes(content[:_HEAD_BYTES])
    kind = next((mark.kind for mark in _MARKS if mark.fits(head, len(content))), Kind.UNKNOWN)
    if kind is Kind.JSON and shard_index(content) is not None:
        return Kind.SHARD_INDEX
    return kind


def beginning(content: memoryview) -> str:
    """Return how a text begins, at most 60 characters of its first line."""
    line = next(iter(_decoded(bytes(content[:400])).decode("utf-8", "replace").splitlines()), "")
    return "".join(character for character in line if character.isprintable())[:60]


def shard_index(content: memoryview) -> dict[str, str] | None:
    """Return the table of a checkpoint in several files, tensor's name → file's name, or None if it is not one.

    Hugging Face's libraries write it as ``model.safetensors.index.json`` and ``pytorch_model.bin.index.json``.
    """
    if len(content) > 1 << 26:
        return None
    try:
        table = strict_json.parsed(bytes(content).decode("utf-8"))["weight_map"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    plain = isinstance(table, dict) and all(isinstance(name, str) for name in table.values())
    return table if plain and table else None
