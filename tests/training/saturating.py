"""One of two workers on cards that saturate: an overflow shows in this card's own status, and in no number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from mini_train import LEAST

from xcit_hub.accelerated import twins
from xcit_hub.data.batches import Worker
from xcit_hub.models import create_model, functions
from xcit_hub.training import update
from xcit_hub.training.freezing import settle
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.step import TrainStep

CLASSES, BATCH = 5, 4
OVERFLOWS = ((), (1,), (0,), (0, 1), ())  # who overflows at each step


def train_saturating(worker: Worker, folder: Path) -> None:
    """Write what all steps did, and what those alone in which nobody overflowed."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (functions, twins, update):
            patch.setattr(module, "device_target", lambda: "Ascend")
        patch.setattr(update.amp, "all_finite", update.amp.all_finite)  # which each step sets
        np.savez(folder / f"all-{worker.rank}.npz", **_train(worker, list(range(len(OVERFLOWS)))))
        np.savez(
            folder / f"quiet-{worker.rank}.npz", **_train(worker, [n for n, who in enumerate(OVERFLOWS) if not who])
        )


def _train(worker: Worker, steps: list[int]) -> dict[str, np.ndarray]:
    """Train the steps of these numbers, and return what was applied, the scales, and the weights after each."""
    recipe = Recipe(
        model=LEAST, dialect="paper", num_classes=CLASSES, loss_scale=1024, loss_scale_type="dynamic", mode=1,
        freeze=("patch_embed", "pos_embeder", "cls_attn_blocks"),
    )  # fmt: skip
    student = create_model(LEAST, num_classes=CLASSES, seed=3)
    settle(student, recipe)
    network = TrainStep(student, recipe, worker=worker)
    found: dict[str, np.ndarray] = {}
    applied, scales = [], []
    for place, number in enumerate(steps):
        rng = np.random.default_rng([number, worker.rank])
        images = rng.standard_normal((BATCH, 3, 32, 32), np.float32)
        targets = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, BATCH)]
        overflowed = worker.rank in OVERFLOWS[number]
        update.amp.all_finite = lambda _, told=not overflowed: Tensor(told)
        # What saturated is large, and wrong.
        result = network(Tensor(images), Tensor(targets * (1000 if overflowed else 1)), 1e-2)
        assert np.isfinite(float(result.norm))
        applied.append(float(result.applied))
        scales.append(network.loss_scale)
        for parameter in network.network.trainable_params():
            found[f"{place}/{parameter.name}"] = parameter.asnumpy().copy()
    return {"applied": np.array(applied), "scales": np.array(scales), **found}
