"""Badly conditioned networks, where rounding is all there is to see: none is refused wrongly, mutated ones are found.

Each seed draws a small architecture, a dialect, and weights of one kind; then one mutation. The default run takes a few
of the networks, ``pytest -m slow tests/parity`` five hundred. Outputs are judged, not gradients: those of weights that
are all positive cancel nearly whole, and what remains of them is the order in which each framework adds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from xcit_hub import parity, variants
from xcit_hub.accelerated import accelerate
from xcit_hub.models import XCiT, load_weights
from xcit_hub.parameters import parameter_shapes
from xcit_hub.parity.networks import _torch_outputs, our_outputs

torch = pytest.importorskip("torch")

Weights = dict[str, np.ndarray]
Generator = np.random.Generator

_NETWORKS = 500
_AT_ONCE = 50
_SAMPLE = 15
_CLASSES = 10
_CERTAIN = 10.0


def _all_positive(weights: Weights, generator: Generator) -> Weights:
    return {
        name: np.abs(generator.standard_normal(value.shape)) * 0.05 if not name.endswith("moving_variance") else value
        for name, value in weights.items()
    }


def _layer_scales_of_one(weights: Weights, _: Generator) -> Weights:
    return {
        name: np.ones_like(value) if name[-6:] in ("gamma1", "gamma2", "gamma3") else value
        for name, value in weights.items()
    }


def _variances_near_zero(weights: Weights, generator: Generator) -> Weights:
    return {
        name: value * 10.0 ** generator.uniform(-8, -3) if name.endswith("moving_variance") else value
        for name, value in weights.items()
    }


def _huge_temperatures(weights: Weights, generator: Generator) -> Weights:
    return {
        name: value * 10.0 ** generator.uniform(1, 4) if name.endswith("temperature") else value
        for name, value in weights.items()
    }


def _any_scale(weights: Weights, generator: Generator) -> Weights:
    return {name: value * 10.0 ** generator.uniform(-2, 1) for name, value in weights.items()}


_KINDS: dict[str, Callable[[Weights, Generator], Weights]] = {
    "all positive": _all_positive,
    "24 layers with eta 1": _layer_scales_of_one,
    "variances near zero": _variances_near_zero,
    "huge temperatures": _huge_temperatures,
    "tensors of any scale": _any_scale,
}


def _mutated(weights: Weights, generator: Generator) -> Weights:
    """Permute a row, exchange two rows, or move one element by a thousandth, of any parameter that has as many."""
    name = str(generator.choice([name for name, value in weights.items() if value.shape[0] > 1]))
    value = weights[name].copy()
    one, other = generator.choice(value.shape[0], 2, replace=False)
    match generator.integers(3):
        case 0:
            value[one] = generator.permutation(value[one].ravel()).reshape(value[one].shape)
        case 1:
            value[[one, other]] = value[[other, one]]
        case 2:
            value[one] += 1e-3
    return weights | {name: value}


def _drawn(seed: int) -> tuple[str, variants.Architecture, str, Weights, Generator]:
    generator = np.random.default_rng(seed)
    kind = list(_KINDS)[seed % len(_KINDS)]
    heads = int(generator.choice([2, 4]))
    architecture = variants.Architecture(
        "xcit_custom",
        patch_size=int(generator.choice([8, 16])),
        embed_dim=heads * int(generator.choice([4, 8, 12, 16])) * 2,
        depth=24 if kind.startswith("24") else int(generator.integers(1, 5)),
        num_heads=heads,
        eta=1.0,
        tokens_norm=bool(generator.integers(2)),
        image_size=64,
    )
    dialect = str(generator.choice(["paper", "mindcv"]))
    weights = parity.random_weights(
        parameter_shapes(architecture, num_classes=_CLASSES), seed, temperature=1.0 if dialect == "paper" else 1 / 16
    )
    changed = {name: value.astype(np.float32) for name, value in _KINDS[kind](weights, generator).items()}
    return kind, architecture, dialect, changed, generator


def _judge(seeds: range) -> Counter[str]:
    from xcit_hub.timm import in_double

    counts: Counter[str] = Counter()
    refused, missed = [], []
    for seed in seeds:
        kind, architecture, dialect, weights, generator = _drawn(seed)
        images = parity.random_images(2, 3, 4 * architecture.patch_size, 3 * architecture.patch_size, seed)
        ours = accelerate(XCiT(architecture, variants.dialect(dialect), num_classes=_CLASSES))
        load_weights(ours, weights)
        theirs = parity.torch_network(weights, architecture, dialect, num_classes=_CLASSES)
        result = parity.compare(ours, theirs, images)
        counts[f"PyTorch ran {'once' if result.pytorch_runs == 1 else 'again'}"] += 1
        if not result.passed:
            refused.append(f"seed {seed}, {kind}: {result}")
        wrong = _mutated(weights, generator)
        load_weights(ours, wrong)
        ours.set_train(False)
        reference = parity.Reference(theirs, images, _torch_outputs)
        found = not all(check.passed for check in reference.check(our_outputs(ours, images)))
        theirs = parity.torch_network(wrong, architecture, dialect, num_classes=_CLASSES)
        with in_double(theirs):
            moved = {
                what: value.numpy() for what, value in _torch_outputs(theirs, torch.from_numpy(images).double()).items()
            }
        certain = max(check.of_tolerance for check in reference.check(moved)) >= _CERTAIN
        counts[f"mutation {'beyond' if certain else 'below'} ten tolerances, {'found' if found else 'not found'}"] += 1
        if certain and not found:
            missed.append(f"seed {seed}, {kind}")
    print(dict(counts))
    assert not refused and not missed, "\n".join((*refused, *missed))
    return counts


def test_badly_conditioned_networks_are_judged_rightly() -> None:
    assert _judge(range(_SAMPLE))["mutation beyond ten tolerances, found"] >= 2


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.parametrize("first", range(0, _NETWORKS, _AT_ONCE))
def test_five_hundred_badly_conditioned_networks_are_judged_rightly(first: int) -> None:
    _judge(range(first, first + _AT_ONCE))


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize("seed", range(len(_KINDS)))
def test_each_kind_is_judged_rightly_whatever_computes(seed: int) -> None:
    _judge(range(_NETWORKS + seed, _NETWORKS + seed + 1))
