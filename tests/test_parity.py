"""MindSpore's network and PyTorch's compute the same, and nothing wrong passes for equal."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import mindspore
import numpy as np
import pytest

from xcit_hub import create_model, parity, variants
from xcit_hub.errors import UnknownNameError
from xcit_hub.models import load_weights
from xcit_hub.parameters import parameter_shapes

_NANO = "xcit_nano_12_p16_224"
_TINY = "xcit_tiny_12_p16_224"
# Enough blocks for a mistake in the middle, and quick.
_SMALL = variants.Architecture(
    "xcit_custom", patch_size=16, embed_dim=64, depth=4, num_heads=4, eta=1e-5, tokens_norm=True, image_size=64
)
# Names that end in 384 mean the networks of 224 at another resolution; here they run on other random weights.
_NETWORKS = sorted(variants.ARCHITECTURES)


def _weights(architecture: variants.Architecture = _SMALL) -> dict[str, np.ndarray]:
    return parity.random_weights(parameter_shapes(architecture))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dialect"),
    [(name, "paper") for name in _NETWORKS] + [(name, "mindcv") for name in _NETWORKS if name.endswith("224")],
)
def test_every_architecture_equals_pytorchs_in_both_dialects(name: str, dialect: str) -> None:
    result = parity.verify_random(name, dialect, seed=_NETWORKS.index(name))
    assert result.passed, str(result)
    assert len(result.checks) == 2 + variants.architecture(name).depth


@pytest.mark.slow
@pytest.mark.usefixtures("operations")
def test_the_largest_network_equals_pytorchs_whatever_computes() -> None:
    result = parity.verify_random("xcit_large_24_p8_224", seed=2)
    assert result.passed, str(result)


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
@pytest.mark.parametrize("name", [_NANO, _TINY])
def test_nano_and_tiny_equal_pytorchs_at_their_own_resolution(name: str, dialect: str) -> None:
    result = parity.verify_random(name, dialect, image_size=224)
    assert result.passed, str(result)
    assert result.image_size == (224, 224)


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_every_gradient_equals_pytorchs(dialect: str) -> None:
    result = parity.verify_random(_NANO, dialect, gradients=True)
    assert result.passed, str(result)
    compared = {check.what for check in result.checks if check.what.startswith("gradient of")}
    assert len(compared) == len(create_model(_NANO, init=False).trainable_params())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xcit_tiny_24_p8_224", "xcit_small_12_p16_224", "xcit_medium_24_p16_224"])
def test_every_gradient_of_the_wider_and_deeper_networks_equals_pytorchs(name: str) -> None:
    result = parity.verify_random(name, gradients=True)
    assert result.passed, str(result)


def test_graph_mode_equals_pytorch_too() -> None:
    weights = _weights()
    ours = create_model(_SMALL, init=False)
    load_weights(ours, weights)
    ours.set_train(False)
    theirs = parity.torch_network(weights, _SMALL, "paper")
    images = parity.random_images(2, 3, 96, 64)
    expected = parity.compare(ours, theirs, images)
    assert expected.passed, str(expected)
    plain = ours(mindspore.Tensor(images)).asnumpy()
    compiled = mindspore.jit(ours.construct)(mindspore.Tensor(images)).asnumpy()
    assert np.abs(compiled - plain).max() <= parity.LOGITS_BAR * plain.std()


def _without_l2_norm() -> tuple:
    dialect = dataclasses.replace(variants.DIALECTS["paper"], normalize_qk=False)
    return dialect, lambda weights: weights


def _with_tanh_gelu() -> tuple:
    dialect = dataclasses.replace(variants.DIALECTS["paper"], gelu="tanh")
    return dialect, lambda weights: weights


def _with_query_and_key_swapped() -> tuple:
    def swap(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for kind in ("weight", "bias"):
            query, key, value = np.split(weights[f"blocks.2.attn.qkv.{kind}"], 3)
            weights[f"blocks.2.attn.qkv.{kind}"] = np.concatenate([key, query, value])
        return weights

    return variants.DIALECTS["paper"], swap


def _with_one_matrix_transposed() -> tuple:
    def transpose(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        weights["blocks.1.attn.proj.weight"] = weights["blocks.1.attn.proj.weight"].T.copy()
        return weights

    return variants.DIALECTS["paper"], transpose


def _with_two_layer_scales_swapped() -> tuple:
    def swap(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        first, second = weights["blocks.3.gamma2"], weights["blocks.3.gamma3"]
        weights["blocks.3.gamma2"], weights["blocks.3.gamma3"] = second, first
        return weights

    return variants.DIALECTS["paper"], swap


def _with_one_norm_statistic_missing() -> tuple:
    def reset(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        weights["blocks.2.local_mp.bn.moving_variance"] = np.ones_like(weights["blocks.2.local_mp.bn.moving_variance"])
        return weights

    return variants.DIALECTS["paper"], reset


@pytest.mark.parametrize(
    ("mistake", "departs_at"),
    [
        (_without_l2_norm, "blocks.0.attn"),
        (_with_tanh_gelu, "patch_embed"),
        (_with_query_and_key_swapped, "blocks.2.attn"),
        (_with_one_matrix_transposed, "blocks.1.attn"),
        (_with_two_layer_scales_swapped, "blocks.3.norm2"),
        (_with_one_norm_statistic_missing, "blocks.2.local_mp"),
    ],
)
def test_a_mistake_is_caught_and_the_first_wrong_layer_named(mistake, departs_at: str) -> None:
    from xcit_hub.models import XCiT

    dialect, change = mistake()
    right = _weights()
    wrong = XCiT(_SMALL, dialect)
    load_weights(wrong, change(dict(right)))
    theirs = parity.torch_network(right, _SMALL, "paper")
    result = parity.compare(wrong, theirs, parity.random_images(2, 3, 64, 64))
    assert not result.passed
    assert result.departure is not None
    assert result.departure.layer == departs_at
    assert all(error <= 10 * parity.LOGITS_BAR for _, error in result.departure.before)
    assert departs_at in str(result)


def test_freshly_initialised_weights_would_hide_a_missing_norm() -> None:
    """The reason why every parameter is randomised: with layer scales of 1e-5 the mistake is nearly invisible."""
    from xcit_hub.models import XCiT

    network = create_model(_SMALL, seed=0)
    fresh = {key: value.asnumpy() for key, value in network.parameters_dict().items()}
    wrong = XCiT(_SMALL, dataclasses.replace(variants.DIALECTS["paper"], normalize_qk=False))
    load_weights(wrong, fresh)
    images = mindspore.Tensor(parity.random_images(1, 3, 64, 64))
    network.set_train(False)
    wrong.set_train(False)
    right, other = network(images).asnumpy(), wrong(images).asnumpy()
    assert np.abs(right - other).max() < 1e-3 * right.std()


def test_the_two_dialects_are_far_apart_on_the_same_weights() -> None:
    weights = _weights(variants.architecture(_TINY))
    images = mindspore.Tensor(parity.random_images(2, 3, 64, 64))
    logits = []
    for dialect in ("paper", "mindcv"):
        network = create_model(_TINY, dialect=dialect, init=False)
        load_weights(network, weights)
        network.set_train(False)
        logits.append(network(images).asnumpy())
    assert np.abs(logits[0] - logits[1]).max() > 0.5


def test_nan_is_never_equal() -> None:
    assert not parity.Check("logits", float("nan"), 1.0).passed
    weights = _weights()
    weights["head.bias"][0] = np.nan
    assert not parity.verify_weights(weights, _SMALL, "paper").passed


def test_a_network_whose_outputs_never_vary_proves_nothing() -> None:
    weights = {name: np.zeros_like(value) for name, value in _weights().items()}
    assert not parity.verify_weights(weights, _SMALL, "paper").passed


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        parity.verify_random("xcit_nano_12_p16_225")


def test_the_command_prints_a_table_and_writes_figures(tmp_path: Path, run_cli) -> None:
    target = tmp_path / "parity.json"
    done = run_cli("parity", _NANO, "--json", str(target))
    assert done.returncode == 0, done.stderr
    assert "1 of 1 equal" in done.stdout
    (figures,) = json.loads(target.read_text())
    assert figures["passed"] is True
    assert 0 < figures["relative_error"] <= figures["bar"] == parity.LOGITS_BAR
    assert done.stderr == ""


def test_the_command_refuses_unknown_names_without_a_traceback(run_cli) -> None:
    done = run_cli("parity", "xcit_huge")
    assert done.returncode == 2
    assert "There is no XCiT architecture called 'xcit_huge'" in done.stderr
    assert "Traceback" not in done.stderr
