from __future__ import annotations

import numpy as np
import pytest
from saturating import OVERFLOWS
from workers import Together


@pytest.mark.slow
def test_two_workers_skip_a_step_together_whichever_of_them_overflowed(two_workers: Together) -> None:
    """Gradients that saturated are finite, and their sum tells the other worker nothing."""
    folder = two_workers.saturated
    first, second, quiet = (dict(np.load(folder / name)) for name in ("all-0.npz", "all-1.npz", "quiet-0.npz"))
    assert first["applied"].tolist() == [0.0 if who else 1.0 for who in OVERFLOWS]
    assert first["scales"].tolist() == [1024.0, 512.0, 256.0, 128.0, 128.0]
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, err_msg=name)
    # A scale is a power of two: what is left is, to the bit, the training without the steps that overflowed.
    last = len(OVERFLOWS) - 1
    names = [name.partition("/")[2] for name in quiet if name.startswith("1/")]
    assert len(names) > 15
    for name in names:
        np.testing.assert_array_equal(first[f"{last}/{name}"], quiet[f"1/{name}"], err_msg=name)
        np.testing.assert_array_equal(first[f"1/{name}"], first[f"0/{name}"], err_msg=name)
    assert any(not np.array_equal(first[f"{last}/{name}"], first[f"0/{name}"]) for name in names)
