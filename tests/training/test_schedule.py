from __future__ import annotations

import numpy as np
import pytest

from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.schedule import learning_rates

torch = pytest.importorskip("torch")
CosineLRScheduler = pytest.importorskip("timm.scheduler").CosineLRScheduler


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize(
    ("warmup", "decay", "epochs"), [(0, 10, 10), (3, 7, 10), (3, 7, 13), (5, 400, 400), (40, 460, 2)]
)
def test_every_step_equals_timms_cosine(prefix: bool, by_epoch: bool, warmup: int, decay: int, epochs: int) -> None:
    steps = 7
    recipe = load_recipe(
        None,
        {
            "model": "xcit_nano_12_p16_224",
            "lr": 1e-3,
            "min_lr": 1e-5,
            "warmup_epochs": warmup,
            "warmup_factor": 0.01,
            "decay_epochs": decay,
            "epoch_size": epochs,
            "warmup_prefix": prefix,
            "lr_epoch_stair": by_epoch,
        },
    )
    unit = 1 if by_epoch else steps
    timms = CosineLRScheduler(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3),
        t_initial=decay * unit,
        lr_min=1e-5,
        warmup_t=warmup * unit,
        warmup_lr_init=1e-5,
        warmup_prefix=prefix,
        t_in_epochs=by_epoch,
    )
    expected = [timms._get_lr(step // steps if by_epoch else step)[0] for step in range(epochs * steps)]
    np.testing.assert_allclose(learning_rates(recipe, steps), expected, rtol=0, atol=1e-12)


def test_constant_stays_after_the_warm_up() -> None:
    recipe = load_recipe(
        None,
        {"model": "xcit_nano_12_p16_224", "scheduler": "constant", "lr": 0.5, "warmup_epochs": 1, "epoch_size": 3},
    )
    np.testing.assert_allclose(learning_rates(recipe, 2), [0, 0.25, 0.5, 0.5, 0.5, 0.5])
