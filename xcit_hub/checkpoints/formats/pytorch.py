"""``.pth``, ``.pt``, ``.bin``: PyTorch's pickles, read with ``weights_only``: no code in them ever runs."""

from __future__ import annotations

import argparse
import ctypes
import pickle
import re
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping as Table
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xcit_hub.checkpoints.tensor import DTYPES, Extent, Mapping, StoredTensor
from xcit_hub.errors import CheckpointError


def read(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return the tensors and strings of a pickle; a nested one is named by its path (``model.cls_token``).

    Raises:
        CheckpointError: PyTorch is missing, the file is damaged, or it asks for more than plain data.
    """
    torch = _torch()
    records = _checked_records(path) if zipfile.is_zipfile(path) else None
    mapping = None if records is None else _PyTorchsMemory()
    storages: dict[int, int] = {}
    tensors: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    for name, leaf in _leaves(_unpickled(path, torch, mapped=records is not None)):
        if isinstance(leaf, torch.Tensor):
            if name in tensors:
                raise _broken(path, f"{name!r} occurs twice")
            tensors[name] = _stored(path, name, leaf, mapping, torch)
            storages[leaf.untyped_storage().data_ptr()] = leaf.untyped_storage().nbytes()
        elif isinstance(leaf, str):
            metadata[name] = leaf
    if not tensors:
        raise _broken(path, "it holds no tensor")
    if records is not None and Counter(storages.values()) - records:
        raise _broken(path, "its records are not of its tensors' sizes")
    return tensors, metadata


def write(stream: BinaryIO, tensors: Table[str, StoredTensor], metadata: Table[str, str]) -> None:
    """Write ``{"model": tensors}``, which timm and facebookresearch/xcit both unwrap, beside the metadata."""
    torch = _torch()
    content: dict[str, Any] = {"model": {name: _tensor(stored, torch) for name, stored in tensors.items()}}
    torch.save({**content, **metadata}, stream)


class _PyTorchsMemory:
    """The memory that PyTorch has mapped a file to; addresses are its offsets."""

    def madvise(self, option: int, start: int, length: int, /) -> None:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), option)


def _checked_records(path: Path) -> Counter[int]:
    """Return how many records of each size an archive has, which PyTorch checks neither for sizes nor checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise _broken(path, "its records are compressed, which PyTorch's never are")
            orders = {archive.read(entry) for entry in archive.infolist() if entry.filename.endswith("/byteorder")}
            if orders - {b"little"}:
                # PyTorch swaps them in mapped memory, where the change is lost when the memory is given back.
                raise _broken(path, "its numbers are big-endian")
            damaged = archive.testzip()
    except (OSError, ValueError, LookupError, RuntimeError, EOFError, zipfile.BadZipFile, struct.error) as error:
        raise _broken(path, _first_line(error)) from error
    if damaged is not None:
        raise _broken(path, f"its record {damaged!r} fails its checksum")
    return Counter(entry.file_size for entry in archive.infolist())


def _unpickled(path: Path, torch: Any, *, mapped: bool) -> object:
    # Training scripts keep their arguments and their best score beside the weights: plain data, and safe.
    scalar = np.float64(0).__reduce__()[0]
    plain = [argparse.Namespace, scalar, np.dtype, *(type(np.dtype(code)) for code in "fdilq?")]
    try:
        with torch.serialization.safe_globals(plain), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        # PyTorch's own words advise to let the code run, so none of them are passed on but the name of what it met.
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code is None:
            raise CheckpointError(
                f"{path.name} is no PyTorch checkpoint: it is no pickle of tensors.",
                where=path,
                fix="Check that it is the file that is meant, and fetch it again.",
            ) from error
        raise CheckpointError(
            f"{path.name} holds code objects ({code[1]}), not plain tensors, and was not loaded.",
            where=path,
            fix="A pickle can run any code. If you trust its source, load it in PyTorch where nothing is "
            "at stake and save its state_dict: torch.save(network.state_dict(), PATH).",
        ) from error
    except Exception as error:  # a damaged archive fails in a dozen ways inside PyTorch
        raise _broken(path, _first_line(error)) from error


def _leaves(root: object) -> Iterator[tuple[str, object]]:
    """Yield what is no table or list, with its path; without recursion, for a pickle nests as deep as it likes."""
    waiting: list[tuple[str, object]] = [("", root)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if not isinstance(value, (Table, list, tuple)):
            yield name, value
        elif id(value) not in seen:  # a pickle can hold a table within itself
            seen.add(id(value))
            entries = value.items() if isinstance(value, Table) else enumerate(value)
            prefix = f"{name}." if name else ""
            waiting += reversed([(f"{prefix}{key}", entry) for key, entry in entries])


def _stored(path: Path, name: str, tensor: Any, mapping: Mapping | None, torch: Any) -> StoredTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES or tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CheckpointError(
            f"{path.name} holds {name!r} as {tensor.dtype} {tensor.layout}, which no other format can hold.",
            where=path,
            fix="Convert that tensor to a dense float in PyTorch and save the file again.",
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise _broken(path, f"{name!r} claims more numbers than the file holds")
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    # A copy is in memory of its own, which to give back would be to lose.
    mapped = mapping if flat.data_ptr() == tensor.data_ptr() else None
    return StoredTensor(dtype, tensor.shape, (Extent(memoryview(flat.numpy()).toreadonly(), mapped, flat.data_ptr()),))


def _tensor(stored: StoredTensor, torch: Any) -> Any:
    dtype = getattr(torch, DTYPES[stored.dtype].torch)
    if not stored.size:
        return torch.empty(stored.shape, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the buffer is read-only, and so is our use of it
        return torch.frombuffer(stored.raw(), dtype=dtype).reshape(stored.shape)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            "PyTorch's own files can only be read and written with PyTorch, which is not installed.",
            fix="pip install 'xcit-hub[timm]', or use a .safetensors file.",
        ) from error
    return torch


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path.name} is not a whole PyTorch checkpoint: {why}.",
        where=path,
        fix="Fetch the file again and compare its SHA-256.",
    )
