"""Every kind of operator can be left out of the plain network, and what is left still computes, in both works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from benchmarks.operators import LEFT_OUT
from xcit_hub import variants
from xcit_hub.models import create_model

_SMALL = variants.Architecture("small", 16, 24, 2, 2, 1.0, True, 32)
_CHECKOUT = Path(__file__).parents[2]


def _logits(left_out: str) -> np.ndarray:
    # In training: a fresh batch norm changes nothing in evaluation.
    network = create_model(_SMALL, num_classes=5, seed=0).set_train(True)
    LEFT_OUT[left_out](network)
    return network(Tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 48), np.float32))).asnumpy()


@pytest.mark.parametrize("left_out", [name for name in LEFT_OUT if name != "nothing"])
def test_what_is_left_of_the_network_computes_something_else(left_out: str) -> None:
    whole, found = _logits("nothing"), _logits(left_out)
    assert found.shape == whole.shape
    assert np.isfinite(found).all()
    assert np.abs(found - whole).max() > 1e-6


def test_the_table_is_of_processes_of_their_own() -> None:
    command = [sys.executable, "-m", "benchmarks.operators", "--one", "MLPs, whole", "inference"]
    path = os.pathsep.join(filter(None, [str(_CHECKOUT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [*command, "--batch", "1", "--rounds", "1"],
        capture_output=True, text=True, check=True, timeout=600, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["ms"] > 0
    assert figures["mb"] > 0
