"""A wrong network fails: every mutation that float64 shows far beyond the tolerance is found, and its place named.

Each mutation changes weights, or the dialect, of a right network. What it does is measured on PyTorch's side in double
precision: where that is at least ten times the tolerance of some output, the proof must find it in ours, in both
dialects, plain and compiled. What does less is counted and shown, not asserted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import mindspore
import numpy as np
import pytest

from xcit_hub import parity, variants
from xcit_hub.accelerated import accelerate, available, is_accelerated
from xcit_hub.models import XCiT, load_weights
from xcit_hub.parameters import parameter_shapes
from xcit_hub.parity.networks import _in_timms_parts, _torch_outputs, our_outputs

torch = pytest.importorskip("torch")

Weights = dict[str, np.ndarray]

_CERTAIN = 10.0
# Enough blocks for a mistake in the middle, and quick.
_SMALL = variants.Architecture(
    "xcit_custom", patch_size=16, embed_dim=64, depth=4, num_heads=4, eta=1e-5, tokens_norm=True, image_size=64
)
_TOKENS = 16


def _query_and_key_swapped(weights: Weights) -> Weights:
    for kind in ("weight", "bias"):
        query, key, value = np.split(weights[f"blocks.2.attn.qkv.{kind}"], 3)
        weights[f"blocks.2.attn.qkv.{kind}"] = np.concatenate([key, query, value])
    return weights


def _matrix_transposed(weights: Weights) -> Weights:
    weights["blocks.1.attn.proj.weight"] = weights["blocks.1.attn.proj.weight"].T.copy()
    return weights


def _one_row_permuted(weights: Weights) -> Weights:
    matrix = weights["blocks.3.mlp.fc1.weight"]
    matrix[5] = np.roll(matrix[5], 1)
    return weights


def _two_rows_swapped(weights: Weights) -> Weights:
    matrix = weights["blocks.0.mlp.fc2.weight"]
    matrix[[3, 4]] = matrix[[4, 3]]
    return weights


def _layer_scales_swapped(weights: Weights) -> Weights:
    first, second = weights["blocks.3.gamma2"], weights["blocks.3.gamma3"]
    weights["blocks.3.gamma2"], weights["blocks.3.gamma3"] = second, first
    return weights


def _statistic_missing(weights: Weights) -> Weights:
    name = "blocks.2.local_mp.bn.moving_variance"
    weights[name] = np.ones_like(weights[name])
    return weights


def _statistic_off(weights: Weights) -> Weights:
    weights["blocks.2.local_mp.bn.moving_mean"][7] += 1e-3
    return weights


def _variance_off(weights: Weights) -> Weights:
    weights["patch_embed.proj.0.1.moving_variance"][3] += 1e-3
    return weights


# What is wrong → what changes it, whether of the weights or of the dialect, and the layer that must be named.
_ON_WEIGHTS: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "query and key swapped": (_query_and_key_swapped, "blocks.2.attn"),
    "square matrix transposed": (_matrix_transposed, "blocks.1.attn"),
    "one row permuted": (_one_row_permuted, "blocks.3.mlp"),
    "two rows swapped": (_two_rows_swapped, "blocks.0.mlp"),
    "two layer scales swapped": (_layer_scales_swapped, "blocks.3.norm2"),
    "a statistic missing": (_statistic_missing, "blocks.2.local_mp"),
    "one running mean off by 1e-3": (_statistic_off, "blocks.2.local_mp"),
    "one running variance off by 1e-3": (_variance_off, "patch_embed"),
}
_ON_DIALECTS = {
    "L2 norm left out, or put in": (
        {"paper": {"normalize_qk": False}, "mindcv": {"normalize_qk": True}},
        "blocks.0.attn",
    ),
    "the other GELU": ({"paper": {"gelu": "tanh"}, "mindcv": {"gelu": "erf"}}, "patch_embed"),
}


def _weights(dialect: str, architecture: variants.Architecture = _SMALL) -> Weights:
    temperature = 1.0 if dialect == "paper" else 1.0 / _TOKENS
    return parity.random_weights(parameter_shapes(architecture), temperature=temperature)


def _judged(dialect: variants.Dialect, weights: Weights, right: Weights, right_dialect: str) -> parity.ParityResult:
    ours = accelerate(XCiT(_SMALL, dialect))
    load_weights(ours, weights)
    theirs = parity.torch_network(right, _SMALL, right_dialect)
    return parity.compare(ours, theirs, parity.random_images(2, 3, 64, 64))


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
@pytest.mark.parametrize("mistake", _ON_WEIGHTS)
def test_wrong_weights_are_found_and_the_first_wrong_layer_named(mistake: str, dialect: str) -> None:
    change, layer = _ON_WEIGHTS[mistake]
    right = _weights(dialect)
    wrong = change({name: value.copy() for name, value in right.items()})
    result = _judged(variants.dialect(dialect), wrong, right, dialect)
    assert not result.passed
    assert result.departure is not None and result.departure.layer == layer, str(result)
    assert all(check.of_tolerance <= _CERTAIN for check in result.departure.before)
    assert result.failed[0].what in str(result) and layer in str(result)


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
@pytest.mark.parametrize("mistake", _ON_DIALECTS)
def test_another_computation_is_found_and_the_first_wrong_layer_named(mistake: str, dialect: str) -> None:
    changes, layer = _ON_DIALECTS[mistake]
    wrong = dataclasses.replace(variants.dialect(dialect), **changes[dialect])
    result = _judged(wrong, _weights(dialect), _weights(dialect), dialect)
    assert not result.passed
    assert result.departure is not None and result.departure.layer == layer, str(result)


def _effect(reference: parity.Reference, network: Any, name: str, wrong: np.ndarray, images: np.ndarray) -> float:
    """Return how far another value of a parameter moves float64, in tolerances of the output where that is most."""
    from xcit_hub.timm import in_double

    parts = _in_timms_parts(name, wrong)
    held = {part: value for part, value in network.state_dict(keep_vars=True).items() if part in parts}
    assert held.keys() == parts.keys()
    before = {part: value.data for part, value in held.items()}
    for part, value in held.items():
        value.data = torch.from_numpy(parts[part].copy())
    with in_double(network):
        moved = {
            what: value.numpy() for what, value in _torch_outputs(network, torch.from_numpy(images).double()).items()
        }
    for part, value in held.items():
        value.data = before[part]
    return max(check.of_tolerance for check in reference.check(moved))


@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_whatever_float64_shows_ten_times_beyond_the_tolerance_is_found(dialect: str, capsys) -> None:
    """Every kind of parameter, one element of it off by 1e-6 to 1e-2 of the parameter's size; plain and compiled."""
    architecture = dataclasses.replace(_SMALL, depth=3)  # a third of its parameters has each of a block's kinds once
    right = _weights(dialect, architecture)
    images = parity.random_images(2, 3, 64, 64)
    theirs = parity.torch_network(right, architecture, dialect)
    reference = parity.Reference(theirs, images, _torch_outputs)
    while reference.runs < parity.PYTORCH_RUNS:
        reference._run_again()  # the same tolerance for what float64 shows and for what ours is judged by
    plain = XCiT(architecture, variants.dialect(dialect)).set_train(False)
    ours = [plain, accelerate(plain)] if available() else [plain]  # of the same parameters
    generator = np.random.default_rng(3)
    counts = {"found": 0, "too small, found": 0, "too small, not found": 0}
    chosen = list(right)[::3]
    kinds = [
        {name.partition(".")[2].partition(".")[2] for name in names if name[:7] == "blocks."}
        for names in (right, chosen)
    ]
    assert kinds[0] == kinds[1]
    for name in chosen:
        wrong = dict(right)
        flat = wrong[name].ravel().copy()
        index = generator.integers(flat.size)
        flat[index] += np.float32(10.0 ** generator.uniform(-6, -2) * (np.abs(flat).max() + 1e-3))
        wrong[name] = flat.reshape(right[name].shape)
        certain = _effect(reference, theirs, name, wrong[name], images) >= _CERTAIN
        load_weights(plain, wrong)
        for network in ours:
            found = not all(check.passed for check in reference.check(our_outputs(network, images)))
            assert found or not certain, (name, is_accelerated(network))
            counts["found" if certain else f"too small, {'found' if found else 'not found'}"] += 1
    with capsys.disabled():
        print(f"\n{dialect}: {counts}")
    least = len(ours)
    assert counts["found"] >= 5 * least and counts["too small, not found"] >= least, counts


def test_float16_too_finds_what_is_wrong() -> None:
    right = _weights("paper")
    ours = XCiT(_SMALL, variants.dialect("paper"))
    load_weights(ours, _matrix_transposed(dict(right)))
    ours.cast(mindspore.float16)
    theirs = parity.torch_network(right, _SMALL, "paper").half()
    result = parity.compare(ours, theirs, parity.random_images(2, 3, 64, 64))
    assert not result.passed
    assert result.failed[0].what in ("logits", "features", "blocks.1")


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_a_gradient_that_is_missing_is_found(dialect: str) -> None:
    right = _weights(dialect)
    ours = accelerate(XCiT(_SMALL, variants.dialect(dialect)))
    load_weights(ours, right)
    ours.blocks[1].attn.temperature.requires_grad = False
    theirs = parity.torch_network(right, _SMALL, dialect)
    result = parity.compare(ours, theirs, parity.random_images(2, 3, 64, 64), gradients=True)
    assert result.worst.what == "gradient of blocks.1.attn.temperature"
    assert result.worst.remark == "is PyTorch's alone" and result.worst.remark in str(result)
