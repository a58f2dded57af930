"""The network offers what timm's offers, plain and accelerated, in PyNative and in graph mode, and refuses the rest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mindspore
import numpy as np
import pytest
from mindspore import Tensor
from mindspore.common.api import _CellGraphExecutor

from xcit_hub import parity, variants
from xcit_hub.accelerated import accelerate, available, build
from xcit_hub.checkpoints.families import LAYOUTS
from xcit_hub.errors import InputError, UnknownNameError, WeightsError
from xcit_hub.models import XCiT, XCiTFeatures, create_model, load_weights
from xcit_hub.parameters import parameter_shapes

_NANO = "xcit_nano_12_p16_224"
# Small enough to be quick, and like no published network: custom shapes are promised too.
_SMALL = variants.Architecture(
    "xcit_custom", patch_size=16, embed_dim=48, depth=4, num_heads=4, eta=1.0, tokens_norm=False, image_size=64
)
# A block of each kind and three convolutions, for what is about graphs: each takes seconds to compile.
_LEAST = replace(_SMALL, patch_size=8, depth=1, cls_attn_layers=1)

Form = Callable[[Any], Any]


@pytest.fixture(params=["plain", "accelerated"])
def form(request) -> Form:
    """Make a network computed in each way of a plain one."""
    if request.param == "plain":
        return lambda network: network
    if not available():
        pytest.skip(build.absence())
    return accelerate


def _weights(architecture: variants.Architecture = _SMALL, **options) -> dict[str, np.ndarray]:
    return parity.random_weights(parameter_shapes(architecture, **options))


def _network(form: Form, architecture: variants.Architecture = _SMALL, **options) -> Any:
    """Return a small network of random weights, in evaluation mode."""
    network = create_model(architecture, init=False, **options)
    shape = {name: options[name] for name in ("num_classes", "in_chans") if name in options}
    load_weights(network, _weights(network.architecture, **shape))
    return form(network.set_train(False))


def _pair(form: Form, architecture: variants.Architecture = _SMALL, **options):
    """Our network and timm's with the same random weights."""
    shape = {name: options[name] for name in ("num_classes", "in_chans") if name in options}
    theirs = parity.torch_network(_weights(architecture, **shape), architecture, "paper", **shape)
    return _network(form, architecture, **options), theirs


def _images(height: int = 64, width: int = 64, in_chans: int = 3) -> np.ndarray:
    return parity.random_images(2, in_chans, height, width)


def _close(found: Any, theirs: Any, images: np.ndarray, run: Any = None) -> bool:
    """Whether ours agrees, by the rule of the proof, with what ``run`` asks timm's network for."""
    several = isinstance(found, (list, tuple))
    values = [each.asnumpy() for each in (found if several else [found])]
    return not parity.failed_checks(values if several else values[0], theirs, images, run)


@pytest.mark.parametrize("pool", ["token", "avg", ""])
@pytest.mark.parametrize("num_classes", [7, 0])
def test_heads_and_pools_give_timms_values(form: Form, pool: str, num_classes: int) -> None:
    ours, theirs = _pair(form, num_classes=num_classes, global_pool=pool)
    theirs.global_pool = pool
    images = _images()
    assert _close(ours(Tensor(images)), theirs, images)
    features = ours.forward_features(Tensor(images))
    assert _close(features, theirs, images, lambda network, batch: network.forward_features(batch))
    for pre_logits in (False, True):

        def head(network: Any, batch: Any, pre_logits: bool = pre_logits) -> Any:
            return network.forward_head(network.forward_features(batch), pre_logits)

        assert _close(ours.forward_head(features, pre_logits), theirs, images, head)


@pytest.mark.parametrize("size", [(32, 96), (112, 16), (224, 160), (60, 65), (8, 8), (1, 47)])
def test_any_size_is_taken_and_rounded_up_to_whole_patches(form: Form, size: tuple[int, int]) -> None:
    ours, theirs = _pair(form)
    images = _images(*size)
    assert _close(ours(Tensor(images)), theirs, images)


def test_other_input_channels_are_taken(form: Form) -> None:
    ours, theirs = _pair(form, in_chans=5)
    images = _images(in_chans=5)
    assert _close(ours(Tensor(images)), theirs, images)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"indices": 3},
        {"indices": [0, -1, 2]},
        {"indices": (1, 3), "norm": True},
        {"indices": [1, 2], "stop_early": True, "intermediates_only": True},
        {"indices": 2, "output_fmt": "NLC"},
    ],
)
def test_intermediates_are_timms(form: Form, options: dict) -> None:
    ours, theirs = _pair(form)
    images = _images(64, 96)

    def flat(found: Any) -> list[Any]:
        return found if options.get("intermediates_only") else [found[0], *found[1]]

    found = flat(ours.forward_intermediates(Tensor(images), **options))
    assert _close(found, theirs, images, lambda network, batch: flat(network.forward_intermediates(batch, **options)))


@pytest.mark.parametrize("out_indices", [3, (0, 2), (-1,)])
def test_features_only_returns_timms_maps(form: Form, out_indices) -> None:
    import timm

    weights = _weights()
    ours = create_model(_SMALL, features_only=True, out_indices=out_indices, init=False)
    assert isinstance(ours, XCiTFeatures)
    load_weights(ours, {name: weights[name] for name in ours.parameters_dict()})
    ours = form(ours.set_train(False))
    shape = {"embed_dim": _SMALL.embed_dim, "depth": _SMALL.depth, "num_heads": _SMALL.num_heads}
    theirs = timm.create_model(_NANO, features_only=True, out_indices=out_indices, **shape).eval()
    state = parity.torch_network(weights, _SMALL, "paper").state_dict()
    theirs.model.load_state_dict({name: state[name] for name in theirs.model.state_dict()})
    images = _images(64, 96)
    assert _close(ours(Tensor(images)), theirs, images)
    assert ours.channels == theirs.feature_info.channels()
    assert ours.reductions == theirs.feature_info.reduction()


def test_a_reset_classifier_is_new_trainable_and_used_in_both_modes(form: Form) -> None:
    network = form(create_model(_LEAST, seed=0).set_train(False))
    images = Tensor(_images())
    assert network(images).shape == (2, 1000)
    network.reset_classifier(7, "avg")
    assert network(images).shape == (2, 7)
    assert network.get_classifier().weight.name == "head.weight"
    assert 0.017 < network.head.weight.asnumpy().std() < 0.023
    assert {"head.weight", "head.bias"} <= {parameter.name for parameter in network.trainable_params()}
    network.reset_classifier(0)
    assert network(images).shape == (2, 48)
    assert mindspore.jit(network.construct)(images).shape == (2, 48)


def test_layers_for_layer_decay_are_timms() -> None:
    import timm
    from timm.models import group_parameters

    model = timm.create_model(_NANO)
    their_layers = group_parameters(model, model.group_matcher(), reverse=True)
    ours = create_model(_NANO, init=False).parameter_layers()
    assert {part: layer for name, layer in ours.items() for part in LAYOUTS["timm"].names(name)} == {
        name: layer for name, layer in their_layers.items() if name in dict(model.named_parameters())
    }


def test_parameters_without_decay_are_timms() -> None:
    import fnmatch

    import timm

    model = timm.create_model(_NANO)
    theirs = {
        name
        for name, _ in model.named_parameters()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in model.no_weight_decay())
    }
    ours = create_model(_NANO, init=False).no_weight_decay()
    assert {part for name in ours for part in LAYOUTS["timm"].names(name)} == theirs


def _gradients(network, images: Tensor) -> dict[str, np.ndarray]:
    parameters = network.trainable_params()
    gradients = mindspore.grad(lambda batch: (network(batch) ** 2).sum(), None, parameters)(images)
    return {parameter.name: gradient.asnumpy() for parameter, gradient in zip(parameters, gradients, strict=True)}


def test_recomputation_runs_blocks_again_without_changing_a_gradient_and_can_be_switched_off(form: Form) -> None:
    images = Tensor(_images())
    network = _network(form)
    runs = []
    network.blocks[2].attn.register_forward_hook(lambda *_: runs.append(1))
    plain = _gradients(network, images)
    assert len(runs) == 1
    for enabled, expected_runs in ((True, 2), (False, 1)):
        network.set_grad_checkpointing(enabled)
        runs.clear()
        recomputed = _gradients(network, images)
        assert len(runs) == expected_runs
        for name, value in plain.items():
            assert np.abs(recomputed[name] - value).max() <= 1e-5 * max(np.abs(value).max(), 1e-3), (enabled, name)


def test_integer_images_are_refused_and_any_floating_ones_are_taken(form: Form) -> None:
    network = form(create_model(_SMALL, seed=0).set_train(False))
    image = np.arange(3 * 32 * 32).reshape(1, 3, 32, 32) % 256
    for dtype in (np.int32, np.uint8, bool):
        with pytest.raises(InputError, match="floating-point"):
            network(Tensor(image.astype(dtype)))
    expected = network(Tensor(image.astype(np.float32))).asnumpy()
    assert np.array_equal(network(Tensor(image.astype(np.float64))).asnumpy(), expected)


# What keeps graphs apart is one decorator, whichever computes: of each test one form takes seconds less.
_PLAIN_FIRST, _TWIN_FIRST = (
    pytest.mark.parametrize("form", [first, pytest.param(other, marks=pytest.mark.campaign)], indirect=True)
    for first, other in (("plain", "accelerated"), ("accelerated", "plain"))
)


@_PLAIN_FIRST
def test_graphs_of_several_sizes_and_owners_do_not_disturb_one_another(form: Form) -> None:
    network = form(create_model(_LEAST, seed=0).set_train(False))
    images = [Tensor(_images(height=side)) for side in (32, 48)]
    expected = [network(image).asnumpy() for image in images]
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    owner = mindspore.nn.SequentialCell([network]).set_train(False)
    for cell, which in ((network, 0), (owner, 1), (network, 1), (network, 0), (owner, 0), (network, 1), (owner, 1)):
        assert np.abs(cell(images[which]).asnumpy() - expected[which]).max() <= 1e-5
    network.compile_cache.clear()
    assert np.abs(network(images[0]).asnumpy() - expected[0]).max() <= 1e-5


def _one_more(cell: mindspore.nn.Cell, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output + 1


@_TWIN_FIRST
def test_mindspore_is_asked_for_a_graph_once_and_again_when_it_would_be_another(form: Form, monkeypatch) -> None:
    asked = []
    ask = _CellGraphExecutor.compile

    def record(self: _CellGraphExecutor, cell: mindspore.nn.Cell, *args: Any, **options: Any) -> Any:
        asked.append(cell)
        return ask(self, cell, *args, **options)

    monkeypatch.setattr(_CellGraphExecutor, "compile", record)
    network = form(create_model(_LEAST, seed=0).set_train(False))
    image = Tensor(_images())
    expected = network(image).asnumpy()
    mindspore.set_context(mode=mindspore.GRAPH_MODE)

    def asks(cell: mindspore.nn.Cell, image: Tensor = image, expected: np.ndarray = expected) -> bool:
        before = len(asked)
        assert np.abs(cell(image).asnumpy() - expected).max() <= 1e-5
        return len(asked) > before

    assert asks(network) and not asks(network)
    assert asks(network, Tensor(_images()[:1]), expected[:1]) and not asks(network)
    for value in (image, -image):  # a constant's graph holds its value
        with monkeypatch.context() as patch:
            patch.setattr(value, "const_arg", True)
            mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
            of_value = network(value).asnumpy()
            mindspore.set_context(mode=mindspore.GRAPH_MODE)
            assert asks(network, value, of_value)
    assert asks(copy.deepcopy(network)) and not asks(network)
    network.reset_classifier(3)
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    changed = network(image).asnumpy()
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    assert asks(network, expected=changed) and not asks(network, expected=changed)
    hook = network.head.register_forward_hook(_one_more)
    before = len(asked)
    network(image)  # MindSpore 2.10 leaves hooks out of graphs
    assert len(asked) > before
    hook.remove()
    assert asks(network, expected=changed)


@pytest.mark.parametrize("compiled", [True, False])
def test_drop_path_drops_each_branch_of_whole_samples_on_its_own(compiled: bool) -> None:
    from xcit_hub.accelerated.cells import make_accelerated
    from xcit_hub.models.xcit import XCABlock
    from xcit_hub.training.randomness import seed_dropout

    rate, samples = 0.4, 300
    fine = replace(variants.architecture("xcit_nano_12_p16_224"), embed_dim=16, num_heads=2)
    block = XCABlock(fine, variants.dialect("paper"), proj_drop=0.0, attn_drop=0.0, drop_path=rate)
    if compiled:
        if not available():
            pytest.skip(build.absence())
        make_accelerated(block)
    for name, parameter in block.parameters_dict().items():
        # Each branch adds its last bias alone: 1, 10 or 100 to every number.
        added = {"attn.proj.bias": 1.0, "local_mp.conv2.bias": 10.0, "mlp.fc2.bias": 100.0}.get(name, 0.0)
        value = 1.0 if name.startswith(("gamma", "local_mp.bn.moving_variance")) else added
        parameter.set_data(Tensor(np.full(parameter.shape, value, np.float32)))
    seed_dropout(block, seed=0, rank=0)
    block.set_train(True)
    block.local_mp.bn.set_train(False)
    out = block(Tensor(np.zeros((samples, 4, 16), np.float32)), 2, 2).asnumpy() * (1.0 - rate)
    assert np.ptp(out, axis=(1, 2)).max() < 1e-3, "a branch is kept or dropped for all tokens and channels"
    kinds, counts = np.unique(out[:, 0, 0].round().astype(int), return_counts=True)
    assert kinds.tolist() == [0, 1, 10, 11, 100, 101, 110, 111], "the three branches do not drop together"
    for added in (1, 10, 100):
        kept = counts[kinds // added % 10 == 1].sum() / samples
        assert abs(kept - (1.0 - rate)) < 0.1
    block.set_train(False)
    assert np.allclose(block(Tensor(np.zeros((2, 4, 16), np.float32)), 2, 2).asnumpy(), 111.0)


@pytest.mark.parametrize("rate", ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"])
def test_every_drop_rate_acts_in_training_and_not_in_evaluation(form: Form, rate: str) -> None:
    network = _network(form, **{rate: 0.5})
    images = Tensor(_images())
    assert np.array_equal(network(images).asnumpy(), network(images).asnumpy())
    network.set_train(True)
    assert not np.array_equal(network(images).asnumpy(), network(images).asnumpy())


def test_the_positional_encoding_is_computed_once_for_a_resolution() -> None:
    from xcit_hub.models import xcit

    xcit._fourier_features.cache_clear()
    network = create_model(_SMALL, seed=0)
    for _ in range(3):
        network(Tensor(_images()))
    assert xcit._fourier_features.cache_info().misses == 1


_OTHERS = {
    "no position": {"use_pos_embed": False},
    "robust strides": {"patch_size": 4, "strides": (1, 1, 2, 2)},
    "three convolutions": {"patch_size": 8},
    "another ratio": {"mlp_ratio": 2.5},
    "three class blocks": {"cls_attn_layers": 3, "tokens_norm": True},
    "other widths": {"embed_dim": 64, "depth": 2, "num_heads": 2, "eta": 0.1},
}


@pytest.mark.parametrize("change", _OTHERS.values(), ids=_OTHERS)
def test_shapes_beside_the_name_compute_what_timm_computes(form: Form, change: dict[str, Any]) -> None:
    architecture = variants.reshaped(_SMALL, change)
    ours, theirs = _pair(form, architecture)
    assert create_model(_SMALL, init=False, **change).architecture == architecture
    images = _images(37, 48)
    assert _close(ours(Tensor(images)), theirs, images)
    features = ours.forward_features(Tensor(images))
    assert _close(features, theirs, images, lambda network, batch: network.forward_features(batch))


@pytest.mark.parametrize(
    "change",
    [
        *({"depth": 0}, {"num_heads": 5}, {"embed_dim": 44, "num_heads": 4}, {"mlp_ratio": 0.0}, {"eta": -1.0}),
        *({"depth": True}, {"use_pos_embed": 1}, {"patch_size": 4}, {"strides": (1, 1, 1, 1)}, {"qkv_bias": False}),
    ],
)
def test_shapes_that_no_network_has_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        create_model(_SMALL, init=False, **change)


def test_every_argument_of_timms_xcit_is_taken_but_for_those_that_the_readme_names() -> None:
    import inspect

    from timm.models.xcit import Xcit

    theirs = set(inspect.signature(Xcit.__init__).parameters) - {"self"}
    ours = set(inspect.signature(create_model).parameters) | set(variants.Shape.__annotations__)
    assert theirs - ours == {"img_size", "act_layer", "norm_layer", "qkv_bias", "device", "dtype"}


def test_mindcvs_newest_network_neither_normalises_queries_and_keys_nor_approximates_gelu(form: Form) -> None:
    weights = parity.random_weights(parameter_shapes(_SMALL), temperature=0.02)
    ours = create_model(_SMALL, dialect="mindcv-mint", init=False)
    load_weights(ours, weights)
    ours = form(ours.set_train(False))
    images = _images()
    found = ours(Tensor(images))
    twins = {name: parity.torch_network(weights, _SMALL, name) for name in variants.DIALECTS}
    assert _close(found, twins.pop("mindcv-mint"), images)
    for other in twins.values():
        assert not _close(found, other, images)


def test_a_dialect_of_batch_statistics_normalises_by_the_batch_in_evaluation_too(form: Form) -> None:
    dialect = replace(variants.dialect("paper"), statistics="batch")
    network = XCiT(_SMALL, dialect, num_classes=7)
    load_weights(network, _weights(num_classes=7))
    images = Tensor(_images())
    in_training = _network(lambda network: network, num_classes=7).set_train(True)(images).asnumpy()
    found = form(network.set_train(False))(images).asnumpy()
    assert np.abs(found - in_training).max() <= 1e-5 * in_training.std()


def test_impossible_options_are_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean xcit_nano_12_p16"):
        create_model("xcit_nano_12_p16")
    with pytest.raises(UnknownNameError, match="Choose one of: paper"):
        create_model(_NANO, dialect="torch")
    with pytest.raises(InputError, match="pooling 'max'"):
        create_model(_NANO, global_pool="max")
    network = create_model(_SMALL, seed=0)
    with pytest.raises(InputError, match="takes \\(batch, 3, height, width\\)"):
        network(Tensor(_images(in_chans=4)))
    with pytest.raises(InputError, match="no block 4"):
        network.forward_intermediates(Tensor(_images()), [4])
    with pytest.raises(InputError, match="last 5 blocks"):
        network.forward_intermediates(Tensor(_images()), 5)
    with pytest.raises(InputError, match="'NHWC'"):
        network.forward_intermediates(Tensor(_images()), output_fmt="NHWC")


def test_a_published_name_brings_its_dialect_and_allows_no_other() -> None:
    assert create_model("xcit_tiny_12_p16_224.ms_in1k", init=False).dialect.name == "mindcv"
    assert create_model("xcit_nano_12_p16_224.fb_in1k", init=False).dialect.name == "paper"
    with pytest.raises(InputError, match="trained in the mindcv dialect"):
        create_model("xcit_tiny_12_p16_224.ms_in1k", dialect="paper")
    with pytest.raises(UnknownNameError, match="did you mean"):
        create_model("xcit_nano_12_p16_224.ms_in1k")


@pytest.mark.parametrize(
    "option",
    [
        *({"num_classes": -1}, {"num_classes": "10"}, {"num_classes": 1.5}, {"num_classes": True}, {"in_chans": 0}),
        *({"seed": -1}, {"seed": 0.5}, {"drop_path_rate": 1.5}, {"drop_rate": -0.1}),
        {"out_indices": (), "features_only": True},
    ],
)
def test_impossible_numbers_are_refused_by_name(option: dict) -> None:
    with pytest.raises(InputError) as caught:
        create_model(_SMALL, **option)
    assert next(iter(option)) in str(caught.value)


def test_a_classifier_that_cannot_be_leaves_the_network_as_it_was() -> None:
    network = create_model(_SMALL, num_classes=4, seed=0)
    for number in (-1, "10", True):
        with pytest.raises(InputError, match="num_classes is"):
            network.reset_classifier(number, "avg")
    assert (network.num_classes, network.head.out_channels, network.global_pool) == (4, 4, "token")


def test_loading_is_strict_and_lists_every_fault_before_touching_anything() -> None:
    network = create_model(_SMALL, seed=0)
    before = network.head.weight.asnumpy().copy()
    weights = _weights()
    del weights["norm.gamma"]
    weights["extra"] = np.zeros(1, np.float32)
    weights["head.bias"] = np.zeros(7, np.float32)
    with pytest.raises(WeightsError) as error:
        load_weights(network, weights)
    assert "missing: norm.gamma (48,)" in str(error.value)
    assert "unexpected: extra (1,)" in str(error.value)
    assert "shape: head.bias is (7,), the network has (1000,)" in str(error.value)
    assert np.array_equal(network.head.weight.asnumpy(), before)


def test_loaded_weights_are_copies() -> None:
    weights = _weights()
    network = create_model(_SMALL, init=False)
    load_weights(network, weights)
    weights["head.bias"][:] = 9.0
    assert network.head.bias.asnumpy().max() < 9.0


def test_an_official_style_checkpoint_loads_strictly_with_mindspores_own_loader(tmp_path) -> None:
    network = create_model(_SMALL, dialect="mindcv", seed=0)
    path = str(tmp_path / "mindcv.ckpt")
    entries = [{"name": name, "data": Tensor(value)} for name, value in _weights().items()]
    mindspore.save_checkpoint(entries, path)
    missing, unexpected = mindspore.load_param_into_net(network, mindspore.load_checkpoint(path), strict_load=True)
    assert not missing
    assert not unexpected


def test_weights_of_another_network_are_told_in_one_sentence_with_its_name():
    network = create_model("xcit_nano_12_p16_224", init=False)
    tiny = {
        name: np.zeros(shape, np.float32)
        for name, shape in parameter_shapes(variants.architecture("xcit_tiny_12_p16_224"), num_classes=7).items()
    }
    with pytest.raises(WeightsError, match="likely those of xcit_tiny_12_p16_224 with 7 classes") as caught:
        load_weights(network, tiny)
    assert "\n" not in caught.value.what
    assert caught.value.fix.endswith("--model xcit_tiny_12_p16_224.")
    with pytest.raises(WeightsError, match=r"missing: .* and no XCiT's whole"):
        load_weights(network, {"conv.weight": np.zeros((3, 3), np.float32)})
