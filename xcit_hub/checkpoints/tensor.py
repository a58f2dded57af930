"""One tensor of a checkpoint: a dtype, a shape, and bytes that stay in the mapped file until they are needed."""

from __future__ import annotations

import functools
import math
import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Transform = Callable[[Array], Array]

# In flight at a time while a tensor is streamed: fits the second-level cache, and is a multiple of every item size.
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Dtype:
    """One element type under the names that numpy and the three formats give it.

    Args:
        storage: numpy's little-endian type of the stored bytes; what numpy lacks is its bits.
        safetensors: the code in a safetensors header.
        mindspore: ``tensor_type`` in a MindSpore checkpoint; "" where it has none.
        torch: the name of the attribute of ``torch``.
        weights: whether a network's parameters may be of it.
    """

    name: str
    storage: str
    safetensors: str
    mindspore: str
    torch: str
    weights: bool = False

    @functools.cached_property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return np.dtype(self.storage).itemsize


# In the order in which the safetensors library lays tensors out, reversed: narrow types first.
DTYPES: dict[str, Dtype] = {
    entry.name: entry
    for entry in (
        Dtype("bool", "|b1", "BOOL", "Bool", "bool"),
        Dtype("uint8", "|u1", "U8", "UInt8", "uint8"),
        Dtype("int8", "|i1", "I8", "Int8", "int8"),
        Dtype("float8_e5m2", "|u1", "F8_E5M2", "", "float8_e5m2"),
        Dtype("float8_e4m3fn", "|u1", "F8_E4M3", "", "float8_e4m3fn"),
        Dtype("float8_e8m0fnu", "|u1", "F8_E8M0", "", "float8_e8m0fnu"),
        Dtype("float8_e4m3fnuz", "|u1", "F8_E4M3FNUZ", "", "float8_e4m3fnuz"),
        Dtype("float8_e5m2fnuz", "|u1", "F8_E5M2FNUZ", "", "float8_e5m2fnuz"),
        Dtype("int16", "<i2", "I16", "Int16", "int16"),
        Dtype("uint16", "<u2", "U16", "UInt16", "uint16"),
        Dtype("float16", "<f2", "F16", "Float16", "float16", weights=True),
        Dtype("bfloat16", "<u2", "BF16", "BFloat16", "bfloat16", weights=True),
        Dtype("int32", "<i4", "I32", "Int32", "int32"),
        Dtype("uint32", "<u4", "U32", "UInt32", "uint32"),
        Dtype("float32", "<f4", "F32", "Float32", "float32", weights=True),
        Dtype("complex64", "<c8", "C64", "", "complex64"),
        Dtype("float64", "<f8", "F64", "Float64", "float64", weights=True),
        Dtype("int64", "<i8", "I64", "Int64", "int64"),
        Dtype("uint64", "<u8", "U64", "UInt64", "uint64"),
    )
}


_MOST_AXES = 31  # numpy 1's 32, less one for the bytes of an element


def elements(shape: Iterable[int]) -> int | None:
    """Return how many elements a shape has; None if it has more, or more axes, than any array."""
    count, axes = 1, 0
    for length in shape:
        count, axes = count * length, axes + 1
        if axes > _MOST_AXES or length >> 63 or count >> 63:
            return None
    return count


class Mapping(Protocol):
    """Memory that a file is mapped to, as ``mmap.mmap`` is."""

    def madvise(self, option: int, start: int, length: int, /) -> object:
        """Tell the system what will become of these bytes."""


@dataclass(frozen=True)
class Extent:
    """A stretch of bytes, and the mapped file it lies in and where, if it lies in one."""

    view: memoryview
    mapping: Mapping | None = None
    offset: int = 0

    def __len__(self) -> int:
        return len(self.view)

    def cut(self, start: int, stop: int) -> Extent:
        """Return the bytes ``[start, stop)`` of this stretch, without a copy."""
        return Extent(self.view[start:stop], self.mapping, self.offset + start)

    def pieces(self, size: int = 0) -> Iterator[memoryview]:
        """Yield the bytes in order, at most ``size`` at a time, or :data:`PIECE_BYTES`.

        A piece is to be used before the next one is asked for: then the pages it lay in are given back, so that a
        file of any size streams through little memory.
        """
        size = size or PIECE_BYTES
        for start in range(0, len(self.view), size):
            piece = self.cut(start, min(start + size, len(self.view)))
            yield piece.view
            piece._forget()

    def _forget(self) -> None:
        # Whoever reads these pages again gets them from the file again.
        if self.mapping is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = self.offset - self.offset % mmap.PAGESIZE
        self.mapping.madvise(mmap.MADV_DONTNEED, start, self.offset + len(self.view) - start)


@dataclass(frozen=True)
class Computed:
    """A stretch of bytes that are computed anew whenever they are asked for: only one such tensor is in memory.

    Args:
        compute: returns the whole of which this is ``[start, stop)``.
    """

    compute: Callable[[], memoryview]
    start: int
    stop: int

    @property
    def view(self) -> memoryview:
        """The bytes."""
        return self.compute()[self.start : self.stop]

    def __len__(self) -> int:
        return self.stop - self.start

    def cut(self, start: int, stop: int) -> Computed:
        """Return the bytes ``[start, stop)`` of this stretch."""
        return Computed(self.compute, self.start + start, self.start + stop)

    def pieces(self) -> Iterator[memoryview]:
        """Yield the bytes in order, at most :data:`PIECE_BYTES` at a time."""
        view = self.view
        for start in range(0, len(view), PIECE_BYTES):
            yield view[start : start + PIECE_BYTES]


class StoredTensor:
    """A tensor as a file holds it: dtype, shape, and little-endian bytes in C order.

    The bytes may lie in several stretches, so that parts of tensors are taken (:meth:`rows`) and put together
    (:meth:`stack`) without a copy; and they may pass through functions on their way out (:meth:`through`).

    Attributes:
        dtype: a key of :data:`DTYPES`.
        shape: lengths of the axes.
    """

    __slots__ = ("_extents", "_storage", "_transforms", "dtype", "shape")

    def __init__(self, dtype: str, shape: Iterable[int], extents: Iterable[Extent | Computed]) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self._extents = tuple(extents)
        self._storage = DTYPES[dtype].storage
        self._transforms: tuple[Transform, ...] = ()

    def __repr__(self) -> str:
        return f"StoredTensor({self.dtype}, {list(self.shape)})"

    @classmethod
    def of(cls, array: npt.NDArray[np.generic]) -> StoredTensor:
        """Wrap an array; its memory is shared where it is contiguous and little-endian.

        Raises:
            TypeError: its dtype is not one of :data:`DTYPES`.
        """
        if array.dtype.name not in DTYPES:
            raise TypeError(f"no checkpoint format holds numpy's {array.dtype}")
        stored = np.asarray(array, dtype=DTYPES[array.dtype.name].storage, order="C")
        return cls(array.dtype.name, array.shape, (Extent(_bytes_of(stored)),))

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.size * DTYPES[self.dtype].itemsize

    def pieces(self) -> Iterator[memoryview]:
        """Yield the bytes in order, those of at most :data:`PIECE_BYTES` of the file at a time (:class:`Extent`)."""
        for extent in self._extents:
            for piece in extent.pieces():
                yield self._transformed(piece)

    def raw(self) -> memoryview:
        """Return all bytes, little-endian: a view of the file where they lie there in one stretch."""
        if len(self._extents) == 1 and not self._transforms:
            return self._extents[0].view
        return memoryview(b"".join(self._transformed(extent.view) for extent in self._extents))

    def numpy(self) -> npt.NDArray[np.generic]:
        """Return a read-only array, a view where :meth:`raw` is one; bfloat16 becomes float32, exactly."""
        array: Array = np.frombuffer(self.raw(), dtype=DTYPES[self.dtype].storage)
        if self.dtype == "bfloat16":
            array = widen_bfloat16(array)
        array = array.reshape(self.shape)
        array.flags.writeable = False
        return array

    def rows(self, start: int, stop: int) -> StoredTensor:
        """Return entries ``[start, stop)`` of the first axis, without a copy."""
        row = math.prod(self.shape[1:]) * np.dtype(self._storage).itemsize
        wanted = range(start * row, stop * row)
        extents: list[Extent | Computed] = []
        position = 0
        for extent in self._extents:
            low = max(wanted.start - position, 0)
            high = min(wanted.stop - position, len(extent))
            if low < high:
                extents.append(extent.cut(low, high))
            position += len(extent)
        return self._like((stop - start, *self.shape[1:]), extents)

    @staticmethod
    def stack(parts: list[StoredTensor]) -> StoredTensor:
        """Concatenate along the first axis, without a copy. dtypes, other axes and transforms must agree."""
        first = parts[0]
        if len(parts) == 1:
            return first
        kinds = {(part.dtype, part.shape[1:], part._storage, part._transforms) for part in parts}
        if len(kinds) != 1:
            raise ValueError(f"cannot stack {parts}")
        rows = sum(part.shape[0] for part in parts)
        extents = [extent for part in parts for extent in part._extents]
        return first._like((rows, *first.shape[1:]), extents)

    def reshape(self, shape: tuple[int, ...]) -> StoredTensor:
        """Return the same elements in the same order under another shape, without a copy."""
        if math.prod(shape) != self.size:
            raise ValueError(f"cannot view {list(self.shape)} as {list(shape)}")
        return self._like(shape, self._extents)

    def transposed(self) -> StoredTensor:
        """Return a matrix's transpose, which is computed whenever it is read."""
        rows, columns = self.shape

        def computed() -> memoryview:
            read = bytearray()
            for piece in self.pieces():  # gives the file's pages back
                read += piece
            units = np.frombuffer(read, f"V{DTYPES[self.dtype].itemsize}").reshape(rows, columns)
            return np.ascontiguousarray(units.T).reshape(-1).view(np.uint8).data.toreadonly()

        return StoredTensor(self.dtype, (columns, rows), (Computed(computed, 0, self.nbytes),))

    def through(self, transform: Transform, dtype: str | None = None) -> StoredTensor:
        """Return the tensor whose elements pass through ``transform`` when they are read.

        Args:
            transform: takes and returns a flat array of stored elements, any number of them at a time.
            dtype: what it returns, if that is another dtype.
        """
        result = self._like(self.shape, self._extents)
        result.dtype = dtype or self.dtype
        result._transforms = (*self._transforms, transform)
        return result

    def _like(self, shape: Iterable[int], extents: Iterable[Extent | Computed]) -> StoredTensor:
        result = StoredTensor(self.dtype, shape, extents)
        result._storage = self._storage
        result._transforms = self._transforms
        return result

    def _transformed(self, view: memoryview) -> memoryview:
        if not self._transforms:
            return view
        array: Array = np.frombuffer(view, dtype=self._storage)
        for transform in self._transforms:
            array = transform(array)
        return _bytes_of(array)


def _bytes_of(array: npt.NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data.toreadonly()


def widen_bfloat16(bits: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Return the float32 values of bfloat16 ``bits`` (uint16): a bfloat16 is the upper half of a float32."""
    return (bits.astype("<u4") << 16).view("<f4")
