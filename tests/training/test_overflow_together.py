from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from saturating import OVERFLOWS
from workers import msrun, run


@pytest.mark.slow
def test_two_workers_skip_a_step_together_whichever_of_them_overflowed(tmp_path: Path) -> None:
    """Gradients that saturated are finite, and their sum tells the other worker nothing."""
    script = Path(__file__).with_name("saturating.py")
    ended = run(*msrun(tmp_path / "logs", script), tmp_path, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    first, second, quiet = (dict(np.load(tmp_path / name)) for name in ("all-0.npz", "all-1.npz", "quiet-0.npz"))
    assert first["applied"].tolist() == [0.0 if who else 1.0 for who in OVERFLOWS]
    assert first["scales"].tolist() == [1024.0, 512.0, 256.0, 128.0, 128.0]
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, err_msg=name)
    # A scale is a power of two: what is left is, to the bit, the training without the steps that overflowed.
    last = len(OVERFLOWS) - 1
    names = [name.partition("/")[2] for name in quiet if name.startswith("1/")]
    assert len(names) > 50
    for name in names:
        np.testing.assert_array_equal(first[f"{last}/{name}"], quiet[f"1/{name}"], err_msg=name)
        np.testing.assert_array_equal(first[f"1/{name}"], first[f"0/{name}"], err_msg=name)
    assert any(not np.array_equal(first[f"{last}/{name}"], first[f"0/{name}"]) for name in names)
