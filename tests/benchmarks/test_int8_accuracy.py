"""``python -m benchmarks.int8``: its images, its interval, its table. What it measures takes minutes."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks import int8

# Asked for without an import, of which every process of tests would have to pay a second.
pytestmark = pytest.mark.skipif(not all(map(find_spec, ("sklearn", "skimage"))), reason="no scikit-learn or -image")


def test_every_image_is_a_test_image_once_and_there_are_enough_of_them() -> None:
    for name, least in (("digits", 1500), ("tiles", 1000)):
        images, labels = int8.DATA[name]()
        assert images.shape == (len(labels), int8.SIDE, int8.SIDE) and images.dtype == np.uint8
        assert len(labels) >= least and set(labels) == set(range(10))
        unseen = np.concatenate([test for _, test in int8.folds(images, labels, 5)])
        assert sorted(unseen) == list(range(len(labels)))


def test_the_interval_of_a_loss_has_a_width_even_where_nothing_was_lost() -> None:
    same = [True] * 990 + [False] * 10
    loss, low, high = int8.loss_interval(same, same)
    assert loss == 0 and low == pytest.approx(-high) and 0.1 < high < 0.3
    lost = [False] * 20 + [True] * 970 + [False] * 10
    loss, low, high = int8.loss_interval(same, lost)
    assert loss == pytest.approx(2.0) and 1.0 < low < 2.0 < high < 3.0


def test_the_table_names_images_runtimes_and_losses() -> None:
    outcome = int8.Outcome("digits", {"float32": 4000, "int8": 1000})
    for runtime, precisions in (("onnxruntime", ["int8"]), (int8.FUSED, ["bfloat16", "int8"])):
        outcome.count(runtime, "float32", np.ones(100, bool))
        for precision in precisions:
            outcome.count(runtime, precision, np.arange(100) < 99)
    rows = int8.table([outcome]).splitlines()[2:]
    assert rows[0].startswith("| digits, 100 | onnxruntime | int8 | 100.00 | 99.00 | 1.00 (")
    assert rows[0].endswith("| 4,000 | 1,000 |")
    assert rows[1].startswith("| digits, 100 | xcit-hub, fused | bfloat16 | 100.00 | 99.00 | 1.00 (")
    assert rows[2].endswith(") |  |  |")
