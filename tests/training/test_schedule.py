from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xcit_hub.training.recipe import Recipe
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


# By mindcv.scheduler.create_scheduler of MindCV 0.5.0: lr 0.1, min_lr 1e-3, warmup_factor 0.01, decay_rate 0.7,
# milestones 2 and 5, 10 epochs of 3 steps; steps 0, 4, 9, 14, 20, 25, 29.
_AT = [0, 4, 9, 14, 20, 25, 29]
_MINDCV = {
    (("scheduler", "cosine_decay"), ("warmup_epochs", 3), ("decay_epochs", 7)): [
        0.001,
        0.045,
        0.1,
        0.0867860676556,
        0.0468008603675,
        0.0142139323444,
        0.00155287410186,
    ],
    (("scheduler", "warmup_cosine_decay"), ("warmup_epochs", 3), ("decay_epochs", 7)): [
        0.001,
        0.045,
        0.1,
        0.0867860676556,
        0.0468008603675,
        0.0142139323444,
        0.00155287410186,
    ],
    (
        ("scheduler", "cosine_decay"),
        ("warmup_epochs", 2),
        ("decay_epochs", 3),
        ("num_cycles", 2),
        ("cycle_decay", 0.5),
    ): [0.001, 0.067, 0.07525, 0.0039852152711, 0.0212456196472, 0.001, 0.001],
    (("scheduler", "cosine_decay"), ("warmup_epochs", 3), ("decay_epochs", 7), ("lr_epoch_stair", True)): [
        0.001,
        0.034,
        0.1,
        0.0950979589612,
        0.0615147862308,
        0.019637254808,
        0.00590204103883,
    ],
    (("scheduler", "constant"), ("warmup_epochs", 3)): [0.001, 0.045, 0.1, 0.1, 0.1, 0.1, 0.1],
    (("scheduler", "exponential_decay"), ("warmup_epochs", 3)): [
        0.001,
        0.045,
        0.1,
        0.0551861461417,
        0.0270412116095,
        0.0149230025573,
        0.00927513558204,
    ],
    (("scheduler", "exponential_decay"), ("warmup_epochs", 3), ("lr_epoch_stair", True)): [
        0.001,
        0.034,
        0.1,
        0.07,
        0.0343,
        0.016807,
        0.0117649,
    ],
    (("scheduler", "polynomial_decay"), ("warmup_epochs", 3)): [
        0.001,
        0.045,
        0.1,
        0.0826666772193,
        0.0594903458448,
        0.0366206034674,
        0.0118698845169,
    ],
    (("scheduler", "step_decay"), ("warmup_epochs", 2), ("decay_epochs", 3)): [
        0.001,
        0.067,
        0.1,
        0.1,
        0.07,
        0.049,
        0.049,
    ],
    (("scheduler", "multi_step_decay"), ("warmup_epochs", 0)): [0.1, 0.1, 0.07, 0.07, 0.049, 0.049, 0.049],
    (("scheduler", "one_cycle"), ("warmup_epochs", 0)): [
        0.004,
        0.052,
        0.0994471258981,
        0.081362745192,
        0.0394852137692,
        0.00960118067136,
        0.001,
    ],
    (("scheduler", "cyclic"), ("warmup_epochs", 0), ("num_cycles", 2)): [
        0.001,
        0.0575714285714,
        0.0717142857143,
        0.001,
        0.0858571428571,
        0.0434285714286,
        0.0151428571429,
    ],
}


@pytest.mark.parametrize(("keys", "expected"), _MINDCV.items(), ids=str)
def test_every_schedule_is_mindcvs(keys: tuple[tuple[str, object], ...], expected: list[float]) -> None:
    fixed = {"lr": 0.1, "min_lr": 1e-3, "warmup_factor": 0.01, "decay_rate": 0.7, "multi_step_decay_milestones": [2, 5]}
    recipe = load_recipe(None, {"model": "xcit_nano_12_p16_224", "epoch_size": 10, **fixed, **dict(keys)})
    np.testing.assert_allclose(learning_rates(recipe, 3)[_AT], expected, rtol=1e-9)


def test_facebooks_first_two_epochs_run_at_the_first_rate() -> None:
    """main.py calls timm's ``scheduler.step(epoch)`` after the epoch; ModelEma and all else do not see it."""
    recipe = load_recipe("xcit_small_12_p16_224", {"epoch_size": 8})
    scheduler = CosineLRScheduler(
        optimizer := torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3),
        t_initial=400,
        lr_min=1e-5,
        warmup_t=5,
        warmup_lr_init=1e-6,
        t_in_epochs=True,
    )
    expected = []
    for epoch in range(8):
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(epoch)
    found = learning_rates(recipe, 2)[::2]
    assert expected[0] == expected[1] != expected[2]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_constant_stays_after_the_warm_up() -> None:
    recipe = load_recipe(
        None,
        {"model": "xcit_nano_12_p16_224", "scheduler": "constant", "lr": 0.5, "warmup_epochs": 1, "epoch_size": 3},
    )
    np.testing.assert_allclose(learning_rates(recipe, 2), [0, 0.25, 0.5, 0.5, 0.5, 0.5])


_TIMMS = [
    {"scheduler": "cosine_decay", "decay_epochs": 4, "num_cycles": 2, "cycle_decay": 0.5},
    {"scheduler": "cosine_decay", "decay_epochs": 3, "num_cycles": 2, "cycle_decay": 0.1, "cycle_mul": 2.0},
    {"scheduler": "cosine_decay", "decay_epochs": 4, "num_cycles": 3, "cycle_mul": 1.5},
    {"scheduler": "cosine_decay", "decay_epochs": 6, "num_cycles": 2, "k_decay": 1.5},
    {"scheduler": "tanh_decay", "decay_epochs": 12},
    {"scheduler": "tanh_decay", "decay_epochs": 4, "num_cycles": 2, "cycle_decay": 0.5, "cycle_mul": 1.5},
    {"scheduler": "polynomial_decay", "decay_epochs": 10, "decay_rate": 0.5, "k_decay": 0.8},
    {"scheduler": "polynomial_decay", "decay_epochs": 10, "decay_rate": 0.5},
    {"scheduler": "polynomial_decay", "decay_epochs": 3, "decay_rate": 2.0, "num_cycles": 3, "cycle_decay": 0.7},
    {"scheduler": "step_decay", "decay_epochs": 3, "decay_rate": 0.4},
    {"scheduler": "step_decay", "decay_epochs": 2.4, "decay_rate": 0.97},  # of timm's EfficientNets
    {"scheduler": "step_decay", "decay_epochs": 0.6, "decay_rate": 0.9},
    {"scheduler": "multi_step_decay", "multi_step_decay_milestones": (2, 5, 6), "decay_rate": 0.4},
    {"scheduler": "constant"},
]
_IN_TIMM = {
    "cosine_decay": "cosine",
    "tanh_decay": "tanh",
    "polynomial_decay": "poly",
    "step_decay": "step",
    "multi_step_decay": "multistep",
    "constant": "constant",
}


def timms_scheduler(recipe: Recipe, steps: int, **noise: Any) -> Any:
    """The scheduler that timm makes for a recipe, whose rate begins at 0.1 and whose warm-up begins at 0.001."""
    from timm.scheduler import create_scheduler_v2

    scheduler, _ = create_scheduler_v2(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1),
        sched=_IN_TIMM[recipe.scheduler],
        num_epochs=recipe.schedule_epochs,
        decay_epochs=recipe.decay_epochs,
        decay_milestones=list(recipe.multi_step_decay_milestones),
        decay_rate=recipe.decay_rate,
        min_lr=recipe.min_lr,
        warmup_lr=0.1 * 0.01,
        warmup_epochs=recipe.warmup_epochs,
        warmup_prefix=recipe.warmup_prefix,
        cycle_mul=recipe.cycle_mul,
        cycle_decay=recipe.cycle_decay,
        cycle_limit=recipe.num_cycles,
        k_decay=recipe.k_decay,
        step_on_epochs=recipe.lr_epoch_stair,
        updates_per_epoch=steps,
        **noise,
    )
    return scheduler


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("keys", _TIMMS, ids=str)
def test_every_step_of_a_timm_recipe_is_timms(keys: dict[str, Any], warmup: int, by_epoch: bool, prefix: bool) -> None:
    steps, epochs = 7, 13
    recipe = load_recipe(
        None,
        {"model": "xcit_nano_12_p16_224", "library": "timm", "lr": 0.1, "min_lr": 1e-3, "warmup_epochs": warmup}
        | {"warmup_factor": 0.01, "epoch_size": epochs, "warmup_prefix": prefix, "lr_epoch_stair": by_epoch, **keys},
    )
    timms = timms_scheduler(recipe, steps)
    expected = [timms._get_lr(step // steps if by_epoch else step)[0] for step in range(epochs * steps)]
    np.testing.assert_allclose(learning_rates(recipe, steps), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("keys", [_TIMMS[0], _TIMMS[9], _TIMMS[-1]], ids=str)
@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize(
    ("noise", "limit", "deviation"),
    [((0.42, 0.9), 0.67, 1.0), ((0,), 0.1, 1.0), ((0.25, 0.5), 0.9, 0.2), ((0, 1), 1, 0)],
)
def test_noise_on_the_rate_is_timms_at_every_step(
    noise: tuple[float, ...], limit: float, deviation: float, by_epoch: bool, keys: dict[str, Any]
) -> None:
    steps, epochs = 7, 13
    recipe = load_recipe(
        None,
        {"model": "xcit_nano_12_p16_224", "library": "timm", "lr": 0.1, "min_lr": 1e-3, "warmup_epochs": 2, "seed": 7}
        | {"warmup_factor": 0.01, "epoch_size": epochs, "lr_epoch_stair": by_epoch, "lr_noise": noise}
        | {"lr_noise_pct": limit, "lr_noise_std": deviation, **keys},
    )
    timms = timms_scheduler(
        recipe, steps, noise=list(noise), noise_pct=limit, noise_std=deviation, noise_seed=recipe.seed
    )
    expected = []
    for step in range(epochs * steps):  # as timm's train.py goes
        expected.append(timms.optimizer.param_groups[0]["lr"])
        timms.step_update(step + 1)
        if (step + 1) % steps == 0:
            timms.step((step + 1) // steps)
    found = learning_rates(recipe, steps)
    np.testing.assert_allclose(found, expected, rtol=2e-7)  # float32 is rounded in
    plain = learning_rates(recipe.model_copy(update={"lr_noise": None}), steps)
    assert (found != plain).any() == (deviation > 0)
    assert (np.abs(found / plain - 1) < limit).all()
