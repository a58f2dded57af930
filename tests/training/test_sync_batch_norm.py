from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_processes import msrun, run
from torch_twin import arrays_of

from xcit_hub.models import create_model
from xcit_hub.parity import GRADIENT_FLOOR, Reference, random_images, torch_network
from xcit_hub.parity.networks import _torch_gradients
from xcit_hub.variants import ARCHITECTURES

CLASSES = 5


@pytest.mark.slow
def test_two_workers_gradients_and_statistics_are_those_of_one_batch_twice_as_large(
    mini_architecture: str, tmp_path: Path
) -> None:
    """By the rule of the proof: PyTorch in double precision on the whole batch is the truth, float32 the measure."""
    network = create_model(mini_architecture, num_classes=CLASSES, dialect="paper", seed=1)
    rng = np.random.default_rng(0)
    arrays = {}
    for name, array in arrays_of(network).items():
        spread = rng.uniform(0.5, 1.5, array.shape) if name.endswith((".moving_variance", "gamma")) else None
        arrays[name] = (array + 0.05 * rng.standard_normal(array.shape) if spread is None else spread).astype(
            np.float32
        )
    images = random_images(8, 3, 64, 64)
    np.savez(tmp_path / "given.npz", **arrays, images=images)
    script = Path(__file__).with_name("synced_norm.py")
    ended = run(*msrun(tmp_path / "logs", script), tmp_path / "given.npz", tmp_path, CLASSES, timeout=900)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    theirs = torch_network(arrays, ARCHITECTURES[mini_architecture], "paper", num_classes=CLASSES)
    reference = Reference(theirs, images, partial(_torch_gradients, names=tuple(arrays)), floor=GRADIENT_FLOOR)
    for mode in (0, 1):
        workers = [dict(np.load(tmp_path / f"{mode}-{rank}.npz")) for rank in range(2)]
        for name, array in workers[0].items():
            np.testing.assert_array_equal(workers[1][name], array, err_msg=name)
        checks = reference.check(workers[0], varying=False)
        assert not [check for check in checks if not check.passed]
        assert len(checks) == len(arrays)
