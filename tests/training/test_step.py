from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mindspore
import numpy as np
import pytest
from mini_train import brief, least
from torch_twin import Arrays, arrays_of, relative_error, timm_twin

from xcit_hub import variants
from xcit_hub.accelerated import fuse
from xcit_hub.errors import InputError
from xcit_hub.models import create_model
from xcit_hub.training.freezing import settle
from xcit_hub.training.precision import mix_precision
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.schedule import learning_rates
from xcit_hub.training.step import TrainStep

CLASSES = 10


def recipe_of(model: str, **settings: Any) -> Recipe:
    fixed = {"model": model, "weight_decay": 0.05, "weight_decay_filter": "paper", "eps": 1e-8, "num_classes": CLASSES}
    return load_recipe(None, {**fixed, **settings})


def batches(count: int, size: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Noise whose mean colour tells the class, and its classes."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        labels = rng.integers(0, CLASSES, size)
        images = rng.standard_normal((size, 3, 64, 64)) + 0.3 * labels[:, None, None, None]
        drawn.append((images.astype(np.float32), labels))
    return drawn


def smoothed(labels: np.ndarray, smoothing: float = 0.1) -> np.ndarray:
    return (np.eye(CLASSES)[labels] * (1 - smoothing) + smoothing / CLASSES).astype(np.float32)


def train(step: TrainStep, data: list[tuple[np.ndarray, np.ndarray]], rate: float = 1e-3) -> list[float]:
    return [
        float(step(mindspore.Tensor(images), mindspore.Tensor(smoothed(labels)), rate).loss) for images, labels in data
    ]


def largest_difference(left: Arrays, right: Arrays) -> float:
    return max(float(np.abs(left[name] - right[name]).max()) for name in left)


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Two frameworks that spin on the same cores take twice as long."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("graph", "one_torch_thread")
# Two blocks would go wrong as twelve do, and take a third of the time.
@pytest.mark.parametrize("depth", [2, pytest.param(12, marks=pytest.mark.campaign)])
def test_fifty_steps_are_torchs_fifty_steps(depth: int) -> None:
    import torch
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.utils import ModelEmaV2

    name, steps = "xcit_nano_12_p16_224", 50
    recipe = recipe_of(
        name, ema=True, ema_decay=0.9, ema_warmup=0, lr=5e-4, warmup_epochs=1, decay_epochs=4, epoch_size=5,
        weight_decay_filter="paper",
    )  # fmt: skip
    network, average = (create_model(name, num_classes=CLASSES, seed=1, depth=depth) for _ in range(2))
    twin = timm_twin(network, name, CLASSES, depth=depth).train()
    twin_average = ModelEmaV2(twin, decay=0.9)
    decayed, plain = [], []
    for key, parameter in twin.named_parameters():
        exempt = parameter.ndim <= 1 or key.endswith(".bias") or key == "cls_token"
        (plain if exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, eps=1e-8)
    criterion = LabelSmoothingCrossEntropy(0.1)
    step = TrainStep(network, recipe, ema=average)

    for rate, (images, labels) in zip(learning_rates(recipe, steps // 5), batches(steps, 4), strict=True):
        ours = float(step(mindspore.Tensor(images), mindspore.Tensor(smoothed(labels)), float(rate)).loss)
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        optimizer.zero_grad()
        theirs = criterion(twin(torch.from_numpy(images)), torch.from_numpy(labels))
        theirs.backward()
        optimizer.step()
        twin_average.update(twin)
        assert ours == pytest.approx(theirs.item(), rel=1e-4)

    averaged = {key.removeprefix("ema."): value for key, value in arrays_of(step.ema).items()}
    for arrays, state in ((arrays_of(step.network), twin.state_dict()), (averaged, twin_average.module.state_dict())):
        errors = relative_error(arrays, state)
        # Softmax does not see the class attention's key bias: its gradient is rounding noise, which Adam amplifies.
        errors = {key: error for key, error in errors.items() if not key.endswith("attn.k.bias")}
        assert max(errors.values()) < 1e-3


@pytest.mark.usefixtures("pynative")
def test_four_accumulated_batches_equal_one_of_four_times_the_size(least_architecture: str) -> None:
    large = batches(2, 16)
    small = [(images[i : i + 4], labels[i : i + 4]) for images, labels in large for i in range(0, 16, 4)]
    results = []
    for data, accumulation in ((large, 1), (small, 4)):
        network = create_model(least_architecture, num_classes=CLASSES, seed=3)
        # BatchNorm sees 4 images or 16: only with fixed statistics can the two be the same computation.
        recipe = recipe_of(least_architecture, gradient_accumulation_steps=accumulation, freeze_bn=True)
        step = TrainStep(network, recipe)
        losses = train(step, data)
        results.append((np.array(losses).reshape(2, -1).mean(1), arrays_of(step.network)))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-4)
    assert largest_difference(results[0][1], results[1][1]) < 1e-4


@pytest.mark.usefixtures("pynative")
def test_clipping_bounds_the_gradients_norm_as_torch_does(mini_architecture: str) -> None:
    network = create_model(mini_architecture, num_classes=CLASSES, seed=3)
    step = TrainStep(network, recipe_of(mini_architecture, clip_grad=True, clip_value=0.5))
    images, labels = batches(1, 4)[0]
    result = step(mindspore.Tensor(images), mindspore.Tensor(smoothed(labels)), 1e-3)
    assert float(result.norm) > 1.0
    moments = np.concatenate([moment.asnumpy().ravel() for moment in step.optimizer.adam_m])
    # After one step the first moment is a tenth of the gradient that was used.
    assert np.linalg.norm(moments) == pytest.approx(0.1 * 0.5, rel=1e-4)


@pytest.mark.usefixtures("pynative")
def test_an_overflow_skips_the_update_and_halves_a_dynamic_scale(mini_architecture: str) -> None:
    network = create_model(mini_architecture, num_classes=CLASSES, seed=3)
    average = create_model(mini_architecture, num_classes=CLASSES, seed=3)
    recipe = recipe_of(mini_architecture, loss_scale=3e38, loss_scale_type="dynamic", ema=True, freeze_bn=True)
    step = TrainStep(network, recipe, ema=average)
    before = arrays_of(network)
    images, labels = batches(1, 4)[0]
    # A hundred times the targets are a hundred times the gradients: norm 400, of which float32 holds 1.1 at this scale.
    result = step(mindspore.Tensor(images), mindspore.Tensor(100 * smoothed(labels)), 1e-3)
    assert float(result.applied) == 0.0
    assert np.isfinite(float(result.loss))
    assert largest_difference(before, arrays_of(step.network)) == 0.0
    assert step.loss_scale == pytest.approx(1.5e38)
    assert float(step.optimizer.updates) == 0.0


@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize("warmup", [2000, 3, 0])
def test_the_average_forgets_its_beginning_as_mindcvs_and_timms_do(least_architecture: str, warmup: int) -> None:
    """MindCV 0.5, train_step.py: decay · (1 − exp(−t/2000)), t from 1; timm's ModelEma: the decay itself."""
    network = create_model(least_architecture, num_classes=CLASSES, seed=3)
    average = create_model(least_architecture, num_classes=CLASSES, seed=3)
    for parameter in average.get_parameters():
        parameter.set_data(parameter + 1.0)
    recipe = recipe_of(
        least_architecture, ema=True, ema_decay=0.99996, ema_warmup=warmup, freeze_bn=True, weight_decay=0.0
    )
    step = TrainStep(network, recipe, ema=average)
    share = 1.0
    for updates in (1, 2, 3):
        train(step, batches(1, 2), rate=0.0)
        share *= 0.99996 * (1 - np.exp(-updates / warmup) if warmup else 1.0)
        left = arrays_of(step.ema)["ema.head.bias"] - arrays_of(step.network)["head.bias"]
        np.testing.assert_allclose(left, share, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_forgets_its_beginning_as_timms_newest_does(least_architecture: str, warmup: bool) -> None:
    """ModelEmaV3 as timm's train.py calls it: with the number of the update, and --model-ema-warmup or without."""
    from timm.utils import ModelEmaV3
    from torch import nn

    network = create_model(least_architecture, num_classes=CLASSES, seed=3)
    average = create_model(least_architecture, num_classes=CLASSES, seed=3)
    recipe = recipe_of(
        least_architecture, ema=True, ema_decay=0.4, ema_form="timm_warmup" if warmup else "timm", freeze_bn=True
    )
    step = TrainStep(network, recipe, ema=average)
    theirs = ModelEmaV3(nn.Linear(1, 1), decay=0.4, use_warmup=warmup)
    for updates in (1, 2, 3):
        for parameter in average.get_parameters():
            parameter.set_data(parameter + 1.0)
        before = arrays_of(step.ema)["ema.head.bias"]
        train(step, batches(1, 2), rate=0.0)
        weights = arrays_of(step.network)["head.bias"]
        kept = theirs.get_decay(updates)
        expected = before * kept + weights * (1 - kept)
        np.testing.assert_allclose(arrays_of(step.ema)["ema.head.bias"], expected, rtol=1e-5, atol=1e-6)
        assert kept == (0.0, 1 - 2 ** (-2 / 3) if warmup else 0.4, 0.4)[updates - 1]


def test_what_the_average_keeps_of_its_beginning() -> None:
    """The shares that were measured in MindCV after 20, 200 and 2,000 updates, and of a constant decay."""
    updates = np.arange(1, 2001)
    mindcv = np.cumprod(0.99996 * -np.expm1(-updates / 2000))[[19, 199, 1999]]
    constant = np.cumprod(np.full(2000, 0.99996))[[19, 199, 1999]]
    np.testing.assert_allclose(mindcv, 0.0, atol=1e-40)
    np.testing.assert_allclose(constant, [0.999, 0.992, 0.923], atol=5e-4)


@pytest.mark.usefixtures("pynative")
def test_the_loss_scale_changes_nothing_but_the_range(least_architecture: str) -> None:
    runs = []
    for scale in (1.0, 1024.0):
        network = create_model(least_architecture, num_classes=CLASSES, seed=3)
        runs.append(train(TrainStep(network, recipe_of(least_architecture, loss_scale=scale)), batches(2, 4)))
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-5)


@pytest.mark.usefixtures("pynative")
def test_a_step_goes_on_in_the_middle_of_an_accumulation_as_if_nothing_had_been(least_architecture: str) -> None:
    recipe = recipe_of(least_architecture, gradient_accumulation_steps=2)
    data = batches(4, 4)
    step = TrainStep(create_model(least_architecture, num_classes=CLASSES, seed=3), recipe)
    train(step, data[:3])
    stored = {name: array.copy() for name, array in step.state().items()}
    expected = train(step, data[3:])
    other = TrainStep(create_model(least_architecture, num_classes=CLASSES, seed=4), recipe)
    other.restore(stored)
    assert train(other, data[3:]) == expected
    assert float(other.optimizer.updates) == 2.0
    assert largest_difference(other.state(), step.state()) == 0.0


@pytest.mark.usefixtures("pynative")
def test_every_step_on_a_network_draws_its_own_masks(least_architecture: str) -> None:
    network = create_model(least_architecture, num_classes=CLASSES, seed=3, drop_rate=0.5, proj_drop_rate=0.1)
    for _ in range(2):
        losses = train(TrainStep(network, recipe_of(least_architecture, freeze_bn=True)), 3 * batches(1, 4), rate=0.0)
        assert len(set(losses)) == 3


@pytest.mark.usefixtures("pynative")
def test_networks_that_would_be_trained_wrongly_are_refused(mini_architecture: str) -> None:
    recipe = recipe_of(mini_architecture)
    network = create_model(mini_architecture, num_classes=CLASSES, seed=3)
    with pytest.raises(InputError, match="fused"):
        TrainStep(fuse(network), recipe)
    with pytest.raises(InputError, match="average"):
        TrainStep(network, recipe, ema=network)
    network.set_grad_checkpointing()
    with pytest.raises(InputError, match="twice"):
        TrainStep(network, recipe)
    TrainStep(network, recipe_of(mini_architecture, freeze_bn=True))


def run_of(architecture: str, *, recompute: bool = False) -> tuple[TrainStep, Arrays, list[float]]:
    """Four steps in the mode that is set: the step, the weights it began with, and the losses."""
    network = create_model(architecture, num_classes=CLASSES, seed=3, drop_path_rate=0.3, drop_rate=0.2)
    network.set_grad_checkpointing(recompute)
    # The optimizer with the fewest operations to compile; fifty steps of PyTorch's are of AdamW.
    step, before = TrainStep(network, recipe_of(architecture, opt="sgd", momentum=0.0)), arrays_of(network)
    return step, before, train(step, batches(4, 4), rate=0.1)


@pytest.fixture(scope="module")
def run_in_a_graph() -> Iterator[tuple[TrainStep, Arrays, list[float]]]:
    """For two tests: the graph takes seconds to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants.ARCHITECTURES, brief().name, brief())
        mindspore.set_context(mode=mindspore.GRAPH_MODE)
        yield run_of(brief().name)


def test_the_students_network_is_current_and_whole_when_it_is_read(
    run_in_a_graph: tuple[TrainStep, Arrays, list[float]], graph: None
) -> None:
    step, before, _ = run_in_a_graph
    assert {cell.training for _, cell in step.network.cells_and_names()} == {True}
    owner = mindspore.nn.SequentialCell([step.network])  # which renames its parameters
    moved = [np.abs(array - before[name.removeprefix("0.")]).max() for name, array in arrays_of(owner).items()]
    assert min(moved) > 0.0


@pytest.mark.slow
def test_graph_mode_recomputation_and_pynative_train_alike(
    brief_architecture: str, run_in_a_graph: tuple[TrainStep, Arrays, list[float]], pynative: None
) -> None:
    expected = run_of(brief_architecture)[-1]
    np.testing.assert_allclose(expected, run_in_a_graph[-1], rtol=1e-4)
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    np.testing.assert_allclose(expected, run_of(brief_architecture, recompute=True)[-1], rtol=1e-4)


@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize(
    ("level", "jit_level"),
    [
        ("O1", None),
        ("O2", None),
        ("O3", None),
        # Each of both levels of a graph with one of precision.
        *(pytest.param(level, jit, marks=pytest.mark.slow) for level, jit in (("O2", "O1"), ("O3", "O0"))),
        pytest.param("O1", "O0", marks=[pytest.mark.slow, pytest.mark.campaign]),
    ],
)
def test_float16_levels_follow_float32_and_keep_float32_weights(
    least_architecture: str, losses_in_float32: list[float], level: Any, jit_level: str | None
) -> None:
    settings = {}
    if jit_level is not None:
        mindspore.set_context(mode=mindspore.GRAPH_MODE)
        settings = {"jit_level": jit_level}
    losses = losses_at(level, **settings)
    assert losses != losses_in_float32, "float16 must show"
    np.testing.assert_allclose(losses_in_float32, losses, rtol=5e-3)


def losses_at(level: Any, **settings: str) -> list[float]:
    network = create_model(least().name, num_classes=CLASSES, seed=3)
    names = list(network.parameters_dict())
    mix_precision(network, level)
    assert list(network.parameters_dict()) == names
    # The optimizer with the fewest operations to compile: it is in float32 at every level.
    step = TrainStep(network, recipe_of(least().name, opt="sgd", momentum=0.0, loss_scale=128.0, **settings))
    losses = train(step, batches(2, 4), rate=0.1)
    assert float(step.optimizer.updates) == 2.0, "no update may be skipped"
    assert {parameter.dtype for parameter in network.get_parameters()} == {mindspore.float32}
    return losses


@pytest.fixture(scope="module")
def losses_in_float32() -> list[float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants.ARCHITECTURES, least().name, least())
        return losses_at("O0")


_OPTIMIZERS = [
    *({"opt": name} for name in ("nadam", "lamb", "rmsprop")),
    {"opt": "adan", "library": "timm"},
    *(
        pytest.param(keys, marks=pytest.mark.campaign)
        for keys in (
            *({"opt": name} for name in ("momentum", "adam", "lion", "adan")),
            *({"opt": name, "library": "timm"} for name in ("sgd", "lamb", "nadam", "rmsprop")),
        )
    ),
]


@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize("keys", _OPTIMIZERS, ids=lambda keys: " ".join(keys.values()))
def test_every_optimizer_accumulates_averages_scales_and_goes_on(least_architecture: str, keys: dict[str, str]) -> None:
    """In the middle of an accumulation, bit for bit; the average's decay counts its updates."""
    recipe = recipe_of(
        least_architecture, gradient_accumulation_steps=2, ema=True, ema_decay=0.9, ema_warmup=2, loss_scale=64.0,
        freeze_bn=True, freeze=["patch_embed", "pos_embeder", "cls_attn_blocks"], **keys,
    )  # fmt: skip
    data, steps = batches(4, 2), []
    for seed in (3, 4):
        network, average = (create_model(least_architecture, num_classes=CLASSES, seed=seed) for _ in range(2))
        settle(network, recipe)
        steps.append(TrainStep(network, recipe, ema=average))
    first, other = steps
    before = arrays_of(first.network)
    train(first, data[:3], rate=1e-4)
    stored = {name: array.copy() for name, array in first.state().items()}
    expected = train(first, data[3:], rate=1e-4)
    other.restore(stored)
    assert train(other, data[3:], rate=1e-4) == expected
    assert largest_difference(other.state(), first.state()) == 0.0
    assert float(other.optimizer.updates) == 2.0
    moved = arrays_of(first.network)
    for name in (parameter.name for parameter in first.network.trainable_params()):
        assert not np.array_equal(before[name], moved[name]), name
    share = 0.9 * (1 - np.exp(-2 / 2))
    averaged = {name.removeprefix("ema."): value for name, value in arrays_of(first.ema).items()}
    early = {name.removeprefix("ema."): value for name, value in stored.items() if name.startswith("ema.")}
    for name, value in early.items():
        np.testing.assert_allclose(averaged[name], share * value + (1 - share) * moved[name], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [{"opt": "lamb"}, pytest.param({"opt": "adan", "library": "timm"}, marks=pytest.mark.campaign)],
    ids=lambda keys: keys["opt"],
)
def test_blocks_that_are_one_cell_are_trained_as_each_of_them(
    brief_architecture: str, pynative: None, keys: dict[str, str]
) -> None:
    """In graph mode norms are those of each layer's parameter, not of the stack."""
    runs = []
    # Beside the blocks what follows them: each parameter more takes a third of a second to compile.
    recipe = recipe_of(brief_architecture, freeze=["patch_embed", "pos_embeder", "cls_*"], **keys)
    for mode in (mindspore.PYNATIVE_MODE, mindspore.GRAPH_MODE):
        mindspore.set_context(mode=mode)
        network = create_model(brief_architecture, num_classes=CLASSES, seed=3)
        settle(network, recipe)
        assert {parameter.name.partition(".")[0] for parameter in network.trainable_params()} == {
            "blocks",
            "norm",
            "head",
        }
        step = TrainStep(network, recipe)
        losses = train(step, batches(3, 4))
        runs.append((losses, arrays_of(step.network)))
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-4)
    assert largest_difference(runs[0][1], runs[1][1]) < 1e-4
