from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from workers import NORM_CLASSES, Together

from xcit_hub.parity import GRADIENT_FLOOR, Reference, torch_network
from xcit_hub.parity.networks import _torch_gradients
from xcit_hub.variants import ARCHITECTURES


@pytest.mark.slow
def test_two_workers_gradients_and_statistics_are_those_of_one_batch_twice_as_large(
    least_architecture: str, two_workers: Together
) -> None:
    """By the rule of the proof: PyTorch in double precision on the whole batch is the truth, float32 the measure."""
    arrays = dict(np.load(two_workers.given))
    images = arrays.pop("images")
    theirs = torch_network(arrays, ARCHITECTURES[least_architecture], "paper", num_classes=NORM_CLASSES)
    reference = Reference(theirs, images, partial(_torch_gradients, names=tuple(arrays)), floor=GRADIENT_FLOOR)
    for mode in (0, 1):
        workers = [dict(np.load(two_workers.norm / f"{mode}-{rank}.npz")) for rank in range(2)]
        for name, array in workers[0].items():
            np.testing.assert_array_equal(workers[1][name], array, err_msg=name)
        checks = reference.check(workers[0], varying=False)
        assert not [check for check in checks if not check.passed]
        assert len(checks) == len(arrays)
