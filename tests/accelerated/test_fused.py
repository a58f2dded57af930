"""A fused network computes what the network computes, and can do nothing but infer."""

from __future__ import annotations

from dataclasses import replace

import mindspore
import numpy as np
import pytest
from mindspore import Tensor

from xcit_hub import create_model, parity, variants
from xcit_hub.errors import InputError
from xcit_hub.models import XCiT, load_weights
from xcit_hub.parameters import parameter_shapes

pytestmark = pytest.mark.usefixtures("operations")

_COARSE = variants.Architecture(
    "xcit_coarse", patch_size=16, embed_dim=72, depth=3, num_heads=3, eta=1.0, tokens_norm=True, image_size=64
)
_FINE = variants.Architecture(
    "xcit_fine", patch_size=8, embed_dim=64, depth=2, num_heads=4, eta=1e-5, tokens_norm=False, image_size=64
)


def _network(architecture: variants.Architecture, dialect: str = "paper", **options) -> XCiT:
    network = create_model(architecture, dialect=dialect, init=False, **options)
    shapes = parameter_shapes(
        architecture, num_classes=options.get("num_classes", 1000), in_chans=options.get("in_chans", 3)
    )
    load_weights(network, parity.random_weights(shapes, temperature=1.0 if dialect == "paper" else 0.03))
    return network.set_train(False)


def _far(found: Tensor, expected: Tensor) -> float:
    wanted = expected.asnumpy()
    return float(np.abs(found.asnumpy() - wanted).max() / wanted.std())


@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
@pytest.mark.parametrize(
    ("architecture", "height", "width", "batch"), [(_COARSE, 96, 64, 3), (_FINE, 40, 56, 1), (_COARSE, 16, 16, 5)]
)
def test_every_output_is_that_of_the_network_also_at_the_borders(
    dialect: str, architecture: variants.Architecture, height: int, width: int, batch: int
) -> None:
    network = _network(architecture, dialect)
    fused = network.fuse()
    image = Tensor(parity.random_images(batch, 3, height, width))
    assert _far(fused(image), network(image)) <= parity.LOGITS_BAR
    features, maps = network.forward_intermediates(image)
    fused_features, fused_maps = fused.forward_intermediates(image)
    # Element by element: a shift folded across the zeros around an image shows in its outermost tokens.
    assert _far(fused_features, features) <= parity.LOGITS_BAR
    for fused_map, expected in zip(fused_maps, maps, strict=True):
        assert _far(fused_map, expected) <= parity.LOGITS_BAR


def test_threads_that_share_the_class_attention_of_a_large_image_change_nothing() -> None:
    wide = replace(_COARSE, name="xcit_wide", embed_dim=768, depth=1, num_heads=16, eta=1e-5)
    network = _network(wide)
    image = Tensor(parity.random_images(1, 3, 592, 608))
    features = network.forward_features(image)
    assert _far(network.fuse().forward_features(image), features) <= parity.LOGITS_BAR


def test_graph_mode_runs_it_too() -> None:
    network = _network(_FINE)
    image = Tensor(parity.random_images(2, 3, 24, 40))
    expected = network(image)
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    assert _far(network.fuse()(image), expected) <= parity.LOGITS_BAR


def test_other_heads_and_channels_are_kept() -> None:
    network = _network(_FINE, num_classes=7, in_chans=1, global_pool="avg")
    image = Tensor(parity.random_images(2, 1, 32, 32))
    fused = network.fuse()
    assert fused(image).shape == (2, 7)
    assert _far(fused(image), network(image)) <= parity.LOGITS_BAR


def test_feature_pyramids_fuse_too() -> None:
    network = create_model(_COARSE, features_only=True, out_indices=(0, 2), seed=3).set_train(False)
    image = Tensor(parity.random_images(1, 3, 48, 32))
    for found, expected in zip(network.fuse()(image), network(image), strict=True):
        assert _far(found, expected) <= parity.LOGITS_BAR


def test_the_network_itself_stays_as_it_was() -> None:
    network = _network(_FINE)
    before = {name: parameter.asnumpy().copy() for name, parameter in network.parameters_dict().items()}
    fused = network.fuse()
    for parameter in fused.get_parameters():
        parameter.set_data(Tensor(np.zeros(parameter.shape, np.float32)))
    after = network.parameters_dict()
    assert list(after) == list(before)
    assert all(np.array_equal(after[name].asnumpy(), array) for name, array in before.items())
    network.set_train(True)


def test_training_a_fused_network_is_refused() -> None:
    fused = _network(_FINE).fuse()
    assert not fused.trainable_params()
    with pytest.raises(InputError, match="cannot be trained"):
        fused.set_train()


def test_casting_copying_or_taking_apart_a_fused_network_is_refused() -> None:
    fused = _network(_FINE).fuse()
    with pytest.raises(InputError, match="cannot be cast"):
        fused.cast(mindspore.float16)
    with pytest.raises(InputError, match="cannot be taken apart"):
        fused.take_apart()
    for copy in (fused.fuse, fused.portable):
        with pytest.raises(InputError, match="cannot be copied"):
            copy()


def test_a_half_precision_network_fuses_to_what_it_is() -> None:
    network = _network(_FINE)
    image = Tensor(parity.random_images(1, 3, 32, 32))
    expected = network(image)
    network.cast(mindspore.float16)
    assert _far(network.fuse()(image), expected) < 0.01


def test_a_fused_network_is_no_checkpoint() -> None:
    fused = _network(_FINE).fuse()
    assert set(fused.parameters_dict()) != set(parameter_shapes(_FINE))
