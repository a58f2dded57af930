from __future__ import annotations

import numpy as np
import pytest

from xcit_hub.checkpoints import tensor as module
from xcit_hub.checkpoints.tensor import DTYPES, StoredTensor


def test_an_array_comes_back_as_it_was_and_read_only():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    stored = StoredTensor.of(array)
    assert (stored.dtype, stored.shape, stored.nbytes) == ("float32", (2, 3, 4), 96)
    assert (stored.numpy() == array).all()
    with pytest.raises(ValueError):
        stored.numpy()[0] = 1


def test_big_endian_and_strided_arrays_are_stored_little_endian_and_contiguous():
    array = np.arange(12, dtype=">f4").reshape(3, 4).T
    assert StoredTensor.of(array).raw() == np.ascontiguousarray(array).astype("<f4").tobytes()


def test_splitting_by_rows_and_stacking_gives_the_same_bytes_without_a_copy():
    whole = StoredTensor.of(np.arange(36, dtype=np.float32).reshape(9, 4))
    parts = [whole.rows(0, 3), whole.rows(3, 6), whole.rows(6, 9)]
    again = StoredTensor.stack(parts)
    assert again.shape == (9, 4)
    assert again.raw() == whole.raw()
    assert again.rows(2, 5).raw() == whole.rows(2, 5).raw()  # across the seam
    assert np.shares_memory(np.frombuffer(parts[1].raw()), np.frombuffer(whole.raw()))


def test_stacking_what_differs_is_refused():
    with pytest.raises(ValueError):
        StoredTensor.stack(
            [StoredTensor.of(np.zeros((2, 3), np.float32)), StoredTensor.of(np.zeros((2, 3), np.float16))]
        )
    with pytest.raises(ValueError):
        StoredTensor.stack(
            [StoredTensor.of(np.zeros((2, 3), np.float32)), StoredTensor.of(np.zeros((2, 4), np.float32))]
        )


def test_pieces_are_the_whole_in_order_and_pass_through_transforms(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 64)
    array = np.arange(100, dtype=np.float32)
    stored = StoredTensor.of(array)
    assert b"".join(stored.pieces()) == array.tobytes()
    assert max(len(piece) for piece in stored.pieces()) == 64
    halved = stored.through(lambda values: (values / 2).astype("<f2"), "float16")
    assert b"".join(halved.pieces()) == (array / 2).astype(np.float16).tobytes() == halved.raw()
    assert halved.rows(10, 20).raw() == (array[10:20] / 2).astype(np.float16).tobytes()


def test_bfloat16_widens_exactly():
    values = np.array([1.0, -2.5, 3.0e38, 1e-40], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    stored = StoredTensor("bfloat16", (4,), StoredTensor.of(bits)._extents)
    assert (stored.numpy().view(np.uint32) == values.view(np.uint32) & 0xFFFF0000).all()


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_knows_its_size(name: str):
    widths = {"bool": 1, "bfloat16": 2, **{name: 1 for name in DTYPES if name.startswith("float8")}}
    digits = "".join(character for character in name if character.isdigit())
    assert DTYPES[name].itemsize == widths.get(name, int(digits or 8) // 8)
