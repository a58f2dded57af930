"""A fused network computes what the network computes, and can do nothing but infer."""

from __future__ import annotations

from dataclasses import replace

import mindspore
import numpy as np
import pytest
from mindspore import Tensor, nn

from xcit_hub import parity, variants
from xcit_hub.accelerated import accelerate, fuse, is_accelerated, is_fused, portable
from xcit_hub.errors import InputError
from xcit_hub.models import XCiT, create_model, load_weights
from xcit_hub.parameters import parameter_shapes

pytestmark = pytest.mark.usefixtures("operations")

_COARSE = variants.Architecture(
    "xcit_coarse", patch_size=16, embed_dim=72, depth=3, num_heads=3, eta=1.0, tokens_norm=True, image_size=64
)
_FINE = variants.Architecture(
    "xcit_fine", patch_size=8, embed_dim=64, depth=2, num_heads=4, eta=1e-5, tokens_norm=False, image_size=64
)

# Of the deviation. Both sides are ours and round differently; what PyTorch says of either is the proof's affair.
_TOLERANCE = 1e-5


def _network(architecture: variants.Architecture, dialect: str = "paper", **options) -> XCiT:
    network = create_model(architecture, dialect=dialect, init=False, **options)
    shapes = parameter_shapes(
        architecture, num_classes=options.get("num_classes", 1000), in_chans=options.get("in_chans", 3)
    )
    load_weights(network, parity.random_weights(shapes, temperature=1.0 if dialect == "paper" else 0.03))
    return accelerate(network.set_train(False))


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
    fused = fuse(network)
    image = Tensor(parity.random_images(batch, 3, height, width))
    assert _far(fused(image), network(image)) <= _TOLERANCE
    features, maps = network.forward_intermediates(image)
    fused_features, fused_maps = fused.forward_intermediates(image)
    # Element by element: a shift folded across the zeros around an image shows in its outermost tokens.
    assert _far(fused_features, features) <= _TOLERANCE
    for fused_map, expected in zip(fused_maps, maps, strict=True):
        assert _far(fused_map, expected) <= _TOLERANCE


def test_graph_mode_runs_it_too() -> None:
    network = _network(_FINE)
    image = Tensor(parity.random_images(2, 3, 24, 40))
    expected = network(image)
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    assert _far(fuse(network)(image), expected) <= _TOLERANCE


def test_other_heads_and_channels_are_kept() -> None:
    network = _network(_FINE, num_classes=7, in_chans=1, global_pool="avg")
    image = Tensor(parity.random_images(2, 1, 32, 32))
    fused = fuse(network)
    assert fused(image).shape == (2, 7)
    assert _far(fused(image), network(image)) <= _TOLERANCE


class _Tenfold(nn.Dense):
    def construct(self, x: Tensor) -> Tensor:
        return super().construct(x) * 10


@pytest.mark.parametrize(
    ("kind", "options"), [(nn.Dense, {"activation": "sigmoid"}), (nn.Dense, {"has_bias": False}), (_Tenfold, {})]
)
@pytest.mark.parametrize("accelerated", [True, False])
def test_a_classifier_of_another_kind_computes_what_it_did(kind: type, options: dict, accelerated: bool) -> None:
    network = _network(_FINE)
    network.head = kind(network.num_features, 4, **options)
    network.head.update_parameters_name("head.")
    if accelerated:
        accelerate(network)
    image = Tensor(parity.random_images(2, 3, 24, 40))
    assert _far(fuse(network)(image), network(image)) <= _TOLERANCE


@pytest.mark.parametrize("part", ["pos_embeder", "patch_embed", "blocks", "cls_attn_blocks"])
def test_a_part_of_a_derived_class_is_refused_and_not_folded_away(part: str) -> None:
    network = _network(_FINE)
    if part == "pos_embeder" and not is_accelerated(network):
        return  # it stays as it is
    found = getattr(network, part)
    cell = found[0] if isinstance(found, nn.CellList) else found
    cell.__class__ = type("Derived", (type(cell),), {})
    with pytest.raises(InputError, match="one is a Derived"):
        fuse(network)


def test_feature_pyramids_fuse_too() -> None:
    network = accelerate(create_model(_COARSE, features_only=True, out_indices=(0, 2), seed=3).set_train(False))
    image = Tensor(parity.random_images(1, 3, 48, 32))
    for found, expected in zip(fuse(network)(image), network(image), strict=True):
        assert _far(found, expected) <= _TOLERANCE


def test_the_network_itself_stays_as_it_was() -> None:
    network = _network(_FINE)
    before = {name: parameter.asnumpy().copy() for name, parameter in network.parameters_dict().items()}
    fused = fuse(network)
    for parameter in fused.get_parameters():
        parameter.set_data(Tensor(np.zeros(parameter.shape, np.float32)))
    after = network.parameters_dict()
    assert list(after) == list(before)
    assert all(np.array_equal(after[name].asnumpy(), array) for name, array in before.items())
    network.set_train(True)


def test_training_a_fused_network_is_refused() -> None:
    fused = fuse(_network(_FINE))
    assert not fused.trainable_params()
    with pytest.raises(InputError, match="cannot be trained"):
        fused.set_train()


def test_casting_recomputing_or_copying_a_fused_network_is_refused() -> None:
    fused = fuse(_network(_FINE))
    assert is_fused(fused)
    with pytest.raises(InputError, match="cannot be cast"):
        fused.cast(mindspore.float16)
    with pytest.raises(InputError, match="cannot be recomputed"):
        fused.set_grad_checkpointing()
    for copied, what in ((fuse, "fused again"), (portable, "made portable"), (accelerate, "accelerated")):
        with pytest.raises(InputError, match=f"cannot be {what}"):
            copied(fused)


def test_a_fused_network_is_of_the_networks_class_and_keeps_what_is_attached_to_it() -> None:
    class Own(XCiT):
        def construct(self, image: Tensor) -> Tensor:
            return 2.0 * super().construct(image)

    own = Own(_FINE, variants.dialect("paper"), num_classes=5)
    load_weights(own, parity.random_weights(parameter_shapes(_FINE, num_classes=5)))
    own.config = "what it is"
    fused = fuse(accelerate(own.set_train(False)))
    image = Tensor(parity.random_images(1, 3, 32, 32))
    assert isinstance(fused, Own)
    assert fused.config == "what it is"
    assert _far(fused(image), own(image)) <= _TOLERANCE


def test_a_portable_network_fuses_to_mindspores_own_operations() -> None:
    network = _network(_FINE)
    fused = fuse(portable(network))
    assert not is_accelerated(fused)
    image = Tensor(parity.random_images(1, 3, 32, 40))
    assert _far(fused(image), network(image)) <= _TOLERANCE


@pytest.mark.parametrize("change", [{"use_pos_embed": False}, {"patch_size": 4, "strides": (1, 1, 2, 2)}])
def test_other_stems_and_no_position_fuse_too(change: dict) -> None:
    network = _network(replace(_COARSE, **change))
    image = Tensor(parity.random_images(2, 3, 35, 24))
    assert _far(fuse(network)(image), network(image)) <= _TOLERANCE


def test_a_network_that_normalises_by_each_batch_is_refused() -> None:
    by_batch = replace(variants.dialect("mindcv"), statistics="batch")
    with pytest.raises(InputError, match="statistics of each batch"):
        fuse(XCiT(_FINE, by_batch).set_train(False))


def test_a_half_precision_network_fuses_to_what_it_is() -> None:
    network = _network(_FINE)
    image = Tensor(parity.random_images(1, 3, 32, 32))
    expected = network(image)
    network.cast(mindspore.float16)
    assert _far(fuse(network)(image), expected) < 0.01


def test_a_fused_network_is_not_a_checkpoint() -> None:
    fused = fuse(_network(_FINE))
    assert set(fused.parameters_dict()) != set(parameter_shapes(_FINE))
