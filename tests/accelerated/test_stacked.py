"""Blocks trained as one cell are trained as they are one by one."""

from __future__ import annotations

import mindspore
import numpy as np
import pytest
from mindspore import Tensor, nn
from modes import in_pynative

from xcit_hub import variants
from xcit_hub.accelerated import accelerate, build
from xcit_hub.accelerated.stacked import StackedXCiT, by_layer, fill, stacked
from xcit_hub.models import XCiT, create_model
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.step import TrainStep

pytestmark = pytest.mark.skipif(build.library() is None, reason=build.absence())

_SMALL = variants.Architecture(
    "xcit_custom", patch_size=16, embed_dim=48, depth=3, num_heads=4, eta=0.5, tokens_norm=True, image_size=64
)


def _network(**options) -> XCiT:
    network = accelerate(create_model(_SMALL, num_classes=10, seed=0, **options))
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        # No two layers alike, and all that begins with zeros or ones away from them.
        value = parameter.asnumpy() + 0.1 * rng.standard_normal(parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(np.abs(value) if parameter.name.endswith("moving_variance") else value))
    return network


class _Scalar(nn.Cell):
    """A number that depends on the network's logits."""

    def __init__(self, network: XCiT) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, images: Tensor) -> Tensor:
        return self.network(images)[:, 3].sum()


class _Drawn(nn.Cell):
    """Factors of stochastic depth that are known."""

    def __init__(self, factors: np.ndarray) -> None:
        super().__init__()
        self.factors = Tensor(factors)
        self.rate = 0.5

    def construct(self, count: int) -> Tensor:
        assert count == len(self.factors)
        return self.factors


def _gradients(network: XCiT, images: Tensor) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    weights = network.trainable_params()
    run = mindspore.value_and_grad(_Scalar(network), None, mindspore.ParameterTuple(weights))
    value, slopes = run(images)
    for parameter, slope in zip(weights, slopes, strict=True):
        parameter.set_data(slope)
    return value.asnumpy(), by_layer(network.get_parameters())


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("training", [True, False])
def test_values_gradients_and_statistics_are_those_of_the_blocks_one_by_one(training: bool) -> None:
    images = Tensor(np.random.default_rng(1).standard_normal((4, 3, 64, 48), np.float32))
    network = _network()
    form = StackedXCiT(network)
    assert len(network.trainable_params()) - len(form.trainable_params()) == 24 * (_SMALL.depth - 1)
    found, found_slopes = _gradients(form.set_train(training), images)
    network = _network()  # the form above shares cells with the first one, which hold gradients now
    with in_pynative():
        expected, slopes = _gradients(network.set_train(training), images)
    assert found == pytest.approx(expected, abs=1e-6)
    assert found_slopes.keys() == slopes.keys()
    for name, slope in slopes.items():
        assert np.abs(found_slopes[name] - slope).max() <= 1e-6 * max(1.0, np.abs(slope).max()), name


def test_stochastic_depth_drops_in_every_layer_what_it_drew_for_it() -> None:
    network = _network(drop_path_rate=0.5)
    form = StackedXCiT(network).set_train(True)
    (stack,), samples = form.blocks, 4
    drawn = 2.0 * np.random.default_rng(2).integers(0, 2, (_SMALL.depth, 3 * samples)).astype(np.float32)
    for cell, factors in ((stack, drawn), *zip(network.blocks, drawn, strict=True)):
        cell._cells["drop_path"] = _Drawn(factors.reshape(-1))
        cell.set_train(True)
    tokens = Tensor(np.random.default_rng(1).standard_normal((samples, 6, 48), np.float32))
    expected = tokens
    for block in network.blocks:
        expected = block(expected, 2, 3)
    assert np.abs(stack(tokens, 2, 3).asnumpy() - expected.asnumpy()).max() <= 1e-6


def test_the_network_is_brought_up_to_date_and_keeps_its_names() -> None:
    network = _network()
    names = list(network.parameters_dict())
    form = StackedXCiT(network)
    fill(form.get_parameters(), {name: value + 1.0 for name, value in by_layer(form.get_parameters()).items()})
    before = {name: parameter.asnumpy() for name, parameter in _network().parameters_dict().items()}
    form.spread()
    assert list(network.parameters_dict()) == names
    for name, parameter in network.parameters_dict().items():
        assert np.array_equal(parameter.asnumpy(), before[name] + 1.0), name


def test_blocks_that_are_to_be_trained_differently_stay_apart() -> None:
    network = _network()
    alike = dict.fromkeys(network.parameters_dict(), 1.0)
    assert isinstance(stacked(network, alike), StackedXCiT)
    assert stacked(network, {**alike, "blocks.1.gamma1": 0.5}) is network
    assert isinstance(stacked(network, {**alike, "head.weight": 0.5}), StackedXCiT)
    network.blocks[2].norm1.gamma.requires_grad = False
    frozen = {parameter.name: 1.0 for parameter in network.trainable_params()}
    assert stacked(network, frozen) is network


class _Doubled(XCiT):
    def construct(self, image: Tensor) -> Tensor:
        return 2.0 * super().construct(image)


def test_a_network_that_is_more_than_an_xcit_stays_as_it_is() -> None:
    computes_more = accelerate(_Doubled(_SMALL, variants.dialect("paper")))
    holds_more = _network()
    holds_more.bias = mindspore.Parameter(Tensor(np.zeros(3, np.float32)), name="bias")
    drops_more = _network()
    drops_more.blocks[2].drop_path.rate = 0.9
    for network in (computes_more, holds_more, drops_more):
        assert stacked(network, dict.fromkeys(network.parameters_dict(), 1.0)) is network


def test_blocks_that_are_no_single_operation_or_keep_nothing_stay_apart() -> None:
    recomputed, in_part = _network(), _network()
    recomputed.set_grad_checkpointing(True)
    in_part.blocks[1].recompute()
    plain, seen = create_model(_SMALL, seed=0), _network()
    seen.blocks[1].mlp.register_forward_hook(lambda *_: None)
    for network in (recomputed, in_part, plain, seen, _network(proj_drop_rate=0.1)):
        assert stacked(network, dict.fromkeys(network.parameters_dict(), 1.0)) is network


def test_what_was_trained_as_one_cell_is_written_back_to_whoever_reads() -> None:
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    network = _network()
    step = TrainStep(network, Recipe.model_validate({"model": "xcit_nano_12_p16_224", "dialect": "paper"}))
    images = Tensor(np.random.default_rng(1).standard_normal((2, 3, 32, 32), np.float32))
    untouched = "blocks.1.mlp.fc1.weight"
    for reader in ("checkpoint", "evaluation", "leaving training"):
        before = network.parameters_dict()[untouched].asnumpy().copy()
        step(images, Tensor(np.eye(10, dtype=np.float32)[:2]), 0.1)
        assert isinstance(step._trained, StackedXCiT)
        written = step._network.parameters_dict()
        assert np.array_equal(written[untouched].asnumpy(), before), reader
        if reader == "leaving training":
            step._trained.set_train(False)
        elif reader == "checkpoint":
            state = step.state()
            assert all(
                np.array_equal(state[name], value.asnumpy()) for name, value in step.network.parameters_dict().items()
            )
        else:
            assert step.network is step._network
        trained = by_layer(step._trained.get_parameters())
        assert all(np.array_equal(value.asnumpy(), trained[name]) for name, value in written.items()), reader
        assert not np.array_equal(written[untouched].asnumpy(), before), reader
