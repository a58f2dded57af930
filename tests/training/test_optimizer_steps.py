"""Every step of every optimizer is its library's: MindCV's stored by ``fixtures/write_mindcv.py``, timm's run here."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import pytest
from mindcv_inputs import DECAY, RUNS, SHAPES, STEPS, drawn
from mindspore import Parameter, Tensor

from xcit_hub.training.optimizers import Optimizer, ParameterSetting, create_optimizer
from xcit_hub.training.optimizers.settings import _without_decay
from xcit_hub.training.recipe_file import load_recipe

Arrays = dict[str, np.ndarray]
FIRST, GRADIENTS, RATES = drawn()
# What MindSpore and MindCV call what they keep.
_THEIRS = {
    "sgd": {"velocity": "accum"},
    "momentum": {"velocity": "moments"},
    "nesterov": {"velocity": "moments"},
    "adam": {"adam_m": "moment1", "adam_v": "moment2"},
    "adamw": {"adam_m": "adam_m", "adam_v": "adam_v"},
    "nadam": {"adam_m": "nadam_m", "adam_v": "nadam_v"},
    "lamb": {"adam_m": "lamb_m", "adam_v": "lamb_v"},
    "lion": {"lion_m": "lion_m"},
    "rmsprop": {"mean_square": "mean_square", "velocity": "moment"},
    "adan": {"adan_m": "moment1", "adan_v": "moment2", "adan_n": "moment3", "previous": "prev_gradient"},
}


@pytest.fixture(autouse=True)
def graph() -> None:
    """A graph takes half a second to compile, a hundred steps without one take several."""
    mindspore.set_context(mode=mindspore.GRAPH_MODE)


PYNATIVE = (0, 1, STEPS // 2, STEPS - 1)  # steps that are taken without a graph, too


@lru_cache(maxsize=1)
def stored() -> Arrays:
    with np.load(Path(__file__).parent / "fixtures" / "mindcv_optimizers.npz") as file:
        loaded = {name: file[name] for name in file.files}
    for run, settings in RUNS.items():
        if settings["opt"] == "lamb":
            loaded |= lamb_by_its_definition(run, settings.get("weight_decay_filter", "disable"))
        if run == "momentum nesterov":
            loaded |= momentum_by_its_definition(run, settings["momentum"])
    return loaded


def lamb_by_its_definition(run: str, decay_filter: str) -> Arrays:
    """``mindspore.nn.Lamb`` in float64; MindSpore has no such operation on CPU that could be run."""
    beta1, beta2, eps = 0.9, 0.999, 1e-6
    rest1, rest2 = (
        float(np.float32(1) - np.float32(beta)) for beta in (beta1, beta2)
    )  # its graph subtracts in float32
    found: dict[str, list[np.ndarray]] = {}
    for name, first in FIRST.items():
        decay = 0.0 if decay_filter == "norm_and_bias" and not name.endswith("weight") else DECAY
        weight, m, v = first.astype(np.float64), np.zeros(first.shape), np.zeros(first.shape)
        for index, (rate, gradients) in enumerate(zip(RATES, GRADIENTS, strict=True), 1):
            gradient = gradients[name].astype(np.float64)
            m, v = beta1 * m + rest1 * gradient, beta2 * v + rest2 * gradient**2
            change = m / (1 - beta1**index) / (np.sqrt(v / (1 - beta2**index)) + eps) + decay * weight
            weight = weight - rate * np.linalg.norm(weight) / np.linalg.norm(change) * change
            for kept, value in ((name, weight), (f"lamb_m.{name}", m), (f"lamb_v.{name}", v)):
                found.setdefault(f"{run}/{kept}", []).append(value.astype(np.float32))
    return {name: np.stack(values) for name, values in found.items()}


def made(**keys: Any) -> Optimizer:
    """Build an optimizer as a recipe says, for the shapes of the stored runs."""
    recipe = load_recipe(None, {"model": "xcit_nano_12_p16_224", "weight_decay": DECAY, **keys})
    settings = []
    for name, value in FIRST.items():
        parameter = Parameter(Tensor(value), name=name)
        settings.append(ParameterSetting(parameter, 1.0, 0.0 if _without_decay(parameter, recipe) else DECAY))
    return create_optimizer(settings, recipe)


def step(optimizer: Optimizer, index: int) -> None:
    # A tuple that is not said to change is a constant of the graph, which would be compiled at every step.
    gradients = mindspore.mutable(tuple(Tensor(GRADIENTS[index][weight.name]) for weight in optimizer.weights))
    optimizer(gradients, Tensor(RATES[index], mindspore.float32))


def momentum_by_its_definition(run: str, momentum: float) -> Arrays:
    """``mindspore.nn.Momentum`` with ``use_nesterov`` in float64; MindSpore's operation on CPU leaves Nesterov out."""
    found: dict[str, list[np.ndarray]] = {}
    for name, first in FIRST.items():
        weight, velocity = first.astype(np.float64), np.zeros(first.shape)
        for rate, gradients in zip(RATES, GRADIENTS, strict=True):
            gradient = gradients[name] + DECAY * weight
            velocity = momentum * velocity + gradient
            weight = weight - rate * (gradient + momentum * velocity)
            for kept, value in ((name, weight), (f"moments.{name}", velocity)):
                found.setdefault(f"{run}/{kept}", []).append(value.astype(np.float32))
    return {name: np.stack(values) for name, values in found.items()}


def put(optimizer: Optimizer, run: str, kind: str, index: int) -> None:
    """Set an optimizer to the state that the reference had after the step ``index``."""
    for weight in optimizer.weights:
        weight.set_data(Tensor(stored()[f"{run}/{weight.name}"][index]))
    for ours, theirs in _THEIRS[kind].items():
        for parameter in getattr(optimizer, ours):
            parameter.set_data(Tensor(stored()[f"{run}/{theirs}{parameter.name.removeprefix(ours)}"][index]))
    if kind == "nadam":
        optimizer.mu_product.set_data(Tensor(stored()[f"{run}/mu_schedule"][index].reshape(()), mindspore.float32))
    optimizer.updates.set_data(Tensor(float(index + 1), mindspore.float32))


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / (np.abs(expected).max() + 1e-30))


@pytest.mark.parametrize("run", RUNS)
def test_every_step_from_mindcvs_state_is_mindcvs_step(run: str) -> None:
    settings = {"use_nesterov" if key == "nesterov" else key: value for key, value in RUNS[run].items()}
    kind, optimizer = settings["opt"], made(**settings)
    for index in range(STEPS):
        step(optimizer, index)
    # The run of its own, whose rounding adds up.
    for weight in optimizer.weights:
        assert relative(weight.asnumpy(), stored()[f"{run}/{weight.name}"][-1]) < 1e-5
    worst = 0.0
    graph = [(mindspore.GRAPH_MODE, index) for index in range(1, STEPS)]
    for mode, index in [*graph, *((mindspore.PYNATIVE_MODE, index) for index in PYNATIVE[1:])]:
        mindspore.set_context(mode=mode)
        put(optimizer, run, kind, index - 1)
        step(optimizer, index)
        for weight in optimizer.weights:
            worst = max(worst, relative(weight.asnumpy(), stored()[f"{run}/{weight.name}"][index]))
        for name, theirs in _THEIRS[kind].items():
            for parameter in getattr(optimizer, name):
                expected = stored()[f"{run}/{theirs}{parameter.name.removeprefix(name)}"][index]
                worst = max(worst, relative(parameter.asnumpy(), expected))
    assert worst < 1e-6


def _timms(opt: str, **keys: Any) -> Any:
    import torch
    from timm.optim import create_optimizer_v2

    parameters = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in FIRST.items()}
    groups = [
        {"params": [parameters[name] for name, shape in SHAPES.items() if len(shape) > 1], "weight_decay": DECAY},
        {"params": [parameters[name] for name, shape in SHAPES.items() if len(shape) == 1], "weight_decay": 0.0},
    ]
    return parameters, create_optimizer_v2(groups, opt=opt, lr=1.0, weight_decay=DECAY, **keys)


# What timm calls what it keeps; a sign where it keeps the negative.
_TIMMS = {
    "momentum_buffer": "velocity",
    "exp_avg": {"lion": "lion_m", "adan": "adan_m"},
    "exp_avg_sq": {"adan": "adan_n"},
    "exp_avg_diff": "adan_v",
    "square_avg": "mean_square",
}


@pytest.mark.parametrize(
    "keys",
    [
        {"opt": "sgd", "momentum": 0.9},
        {"opt": "momentum", "momentum": 0.8},
        {"opt": "adam"},
        {"opt": "adam", "eps": 1e-3, "betas": (0.8, 0.95)},
        {"opt": "adamw", "betas": (0.9, 0.95)},
        {"opt": "nadam"},
        {"opt": "lamb"},
        {"opt": "lion"},
        {"opt": "rmsprop", "momentum": 0.9},
        {"opt": "rmsprop", "momentum": 0.0, "alpha": 0.99, "eps": 1e-3},
        {"opt": "rmsproptf", "momentum": 0.9, "eps": 1e-3},
        {"opt": "adan"},
    ],
    ids=lambda keys: " ".join(map(str, keys.values())),
)
def test_every_step_from_timms_state_is_timms_step(keys: dict[str, Any]) -> None:
    import torch

    pytest.importorskip("timm")
    parameters, reference = _timms(**keys)
    optimizer = made(library="timm", **keys)
    first = [parameter.asnumpy().copy() for parameter in optimizer.kept()]
    for index in range(STEPS):
        step(optimizer, index)
    own = {weight.name: weight.asnumpy().copy() for weight in optimizer.weights}
    for parameter, value in zip(optimizer.kept(), first, strict=True):
        parameter.set_data(Tensor(value))
    worst = 0.0
    for index in range(STEPS):
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE if index in PYNATIVE else mindspore.GRAPH_MODE)
        _put_timms(optimizer, parameters, reference, keys["opt"], index)
        step(optimizer, index)
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(GRADIENTS[index][name])
        for group in reference.param_groups:
            group["lr"] = RATES[index]
        reference.step()
        for weight in optimizer.weights:
            worst = max(worst, relative(weight.asnumpy(), parameters[weight.name].detach().numpy()))
    assert worst < 1e-6
    for name, value in own.items():
        assert relative(value, parameters[name].detach().numpy()) < 1e-5


def _put_timms(optimizer: Optimizer, parameters: Any, reference: Any, kind: str, index: int) -> None:
    for weight in optimizer.weights:
        weight.set_data(Tensor(parameters[weight.name].detach().numpy().copy()))
        state = reference.state.get(parameters[weight.name], {})
        for theirs, value in state.items():
            ours: Any = _TIMMS.get(theirs, {})
            name = (
                ours.get(kind, {"exp_avg": "adam_m", "exp_avg_sq": "adam_v"}.get(theirs))
                if isinstance(ours, dict)
                else ours
            )
            if theirs == "neg_pre_grad":
                name, value = "previous", -value
            if theirs == "mu_product":
                optimizer.mu_product.set_data(Tensor(float(value), mindspore.float32))
            elif name is not None and value is not None:
                kept = {parameter.name: parameter for parameter in getattr(optimizer, name)}
                kept[f"{name}.{weight.name}"].set_data(Tensor(value.numpy().copy()))
    optimizer.updates.set_data(Tensor(float(index), mindspore.float32))


@pytest.mark.parametrize(
    "keys",
    [
        *({"opt": name} for name in ("sgd", "adam", "adamw", "nadam", "lamb", "lion", "rmsprop", "adan")),
        *({"opt": name, "library": "timm"} for name in ("lamb", "rmsprop", "adan")),
    ],
    ids=lambda keys: " ".join(keys.values()),
)
def test_a_stack_of_layers_is_trained_as_its_layers_are(keys: dict[str, str]) -> None:
    """Norms are those of each layer, and so is the gradient that sums to nothing."""
    recipe = load_recipe(None, {"model": "xcit_nano_12_p16_224", **keys})
    names = [name for name in SHAPES if name.startswith("blocks.0.")]

    def stacked(values: Arrays, name: str) -> np.ndarray:
        return np.stack([values[name], values[name.replace(".0.", ".1.")]])

    single = [ParameterSetting(Parameter(Tensor(FIRST[name]), name=name), 0.5, DECAY) for name in SHAPES]
    together = [
        ParameterSetting(Parameter(Tensor(stacked(FIRST, name)), name=name.replace(".0.", ".*.")), 0.5, DECAY)
        for name in names
    ]
    together.append(ParameterSetting(Parameter(Tensor(FIRST["head.bias"]), name="head.bias"), 0.5, DECAY))
    apart, whole = create_optimizer(single, recipe), create_optimizer(together, recipe)
    for index in range(3):
        gradients = dict(GRADIENTS[index])
        if index == 0:
            gradients["blocks.1.fc.weight"] = np.zeros((3, 2), np.float32)
        rate = Tensor(RATES[index], mindspore.float32)
        apart(mindspore.mutable(tuple(Tensor(gradients[name]) for name in SHAPES)), rate)
        of_stack = (*(Tensor(stacked(gradients, name)) for name in names), Tensor(gradients["head.bias"]))
        whole(mindspore.mutable(of_stack), rate)
    found = {weight.name: weight.asnumpy() for weight in whole.weights}
    for weight in apart.weights:
        head, _, rest = weight.name.partition(".")
        expected = weight.asnumpy()
        if head == "blocks":
            layer, _, path = rest.partition(".")
            np.testing.assert_allclose(found[f"blocks.*.{path}"][int(layer)], expected, rtol=1e-6)
        else:
            np.testing.assert_allclose(found[weight.name], expected, rtol=1e-6)
