from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from xcit_hub import parity, variants
from xcit_hub.exporters import onnx_graph, proof
from xcit_hub.exporters.form import ATTENTION, OPSETS, Form
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import DIALECTS, Architecture

onnxruntime = pytest.importorskip("onnxruntime")

NANO = variants.architecture("xcit_nano_12_p16_224")
SHORT = replace(NANO, name="short", depth=2)


def weights(
    architecture: Architecture, dialect: str = "paper", tokens: int = 24, num_classes: int = 1000
) -> dict[str, NDArray]:
    temperature = 1.0 if DIALECTS[dialect].normalize_qk else 1.0 / tokens
    return parity.random_weights(parameter_shapes(architecture, num_classes=num_classes), temperature=temperature)


def run(model: onnx.ModelProto, image: NDArray) -> dict[str, NDArray]:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the other worker's core is not ours
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


def judged(architecture: Architecture, dialect: str, form: Form, *shapes: tuple[int, ...]) -> list[parity.Check]:
    """Every output at every shape by the rule of the proof."""
    arrays = weights(architecture, dialect)
    model = onnx_graph.build(arrays, architecture, DIALECTS[dialect], form, {})
    onnx.checker.check_model(model, full_check=True)
    network = parity.torch_network(arrays, architecture, dialect)
    checks: list[parity.Check] = []
    for shape in shapes:
        images = parity.random_images(*shape)
        checks += parity.Reference(network, images).check(run(model, images))
    return checks


@pytest.fixture(scope="module")
def references() -> dict[str, list[tuple[NDArray, parity.Reference]]]:
    """What PyTorch computes in each dialect, at three shapes; of 24 blocks another test has one of each."""
    batches = [parity.random_images(*shape) for shape in ((1, 3, 64, 64), (2, 3, 48, 96), (1, 3, 75, 50))]
    networks = {dialect: parity.torch_network(weights(SHORT, dialect), SHORT, dialect) for dialect in DIALECTS}
    return {
        name: [(batch, parity.Reference(network, batch)) for batch in batches] for name, network in networks.items()
    }


@pytest.mark.parametrize("opset", [17, 18, 20, OPSETS.stop - 1])
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
@pytest.mark.parametrize("fuse", [True, False], ids=["folded", "plain"])
def test_the_graph_computes_what_pytorch_does_at_any_batch_and_size(
    dialect: str, opset: int, fuse: bool, references: dict[str, list[tuple[NDArray, parity.Reference]]]
) -> None:
    form = Form(opset=opset, fuse=fuse)
    model = onnx_graph.build(weights(SHORT, dialect), SHORT, DIALECTS[dialect], form, {})
    onnx.checker.check_model(model, full_check=True)
    for images, reference in references[dialect]:
        checks = reference.check(run(model, images))
        assert all(check.passed for check in checks), checks


@pytest.mark.parametrize("fuse", [True, False], ids=["folded", "plain"])
@pytest.mark.parametrize(("batch", "size"), [(1, (64, 64)), (3, (48, 96)), (None, (64, 64)), (1, None)])
def test_sizes_may_be_fixed_one_by_one_and_all_together(batch, size, fuse: bool) -> None:
    checks = judged(SHORT, "paper", Form(batch=batch, image_size=size, fuse=fuse), (batch or 2, 3, *(size or (48, 64))))
    assert all(check.passed for check in checks), checks


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
# Of the second the width is what is new; whole, as test_onnx_campaign.py has it, it takes half a gigabyte more.
@pytest.mark.parametrize(("name", "depth"), [("xcit_tiny_24_p8_224", 24), ("xcit_small_12_p16_224", 3)])
def test_other_architectures_of_the_table_are_built_alike(name: str, depth: int, dialect: str) -> None:
    architecture = replace(variants.architecture(name), depth=depth)
    checks = judged(architecture, dialect, Form(), (2, 3, 64, 64))
    assert all(check.passed for check in checks), checks


def test_strides_and_position_are_the_architectures() -> None:
    robust = replace(SHORT, name="robust", patch_size=4, strides=(1, 2, 1, 2), use_pos_embed=False)
    arrays = {n: a for n, a in weights(robust).items() if not n.startswith("pos_embed")}
    model = onnx_graph.build(arrays, robust, DIALECTS["paper"], Form(), {})
    images = parity.random_images(1, 3, 32, 32)
    (check,) = parity.Reference(parity.torch_network(arrays, robust, "paper"), images).check(run(model, images))
    assert check.passed, check


def test_maps_of_chosen_blocks_are_the_outputs() -> None:
    arrays = weights(SHORT)
    model = onnx_graph.build(arrays, SHORT, DIALECTS["paper"], Form(features=(0, 1)), {})
    network = parity.torch_network(arrays, SHORT, "paper")
    images = parity.random_images(2, 3, 64, 96)
    found = run(model, images)

    def maps(net, batch):
        return dict(zip(found, net.forward_intermediates(batch, indices=[0, 1], intermediates_only=True), strict=True))

    assert list(found) == ["features.0", "features.1"]
    assert found["features.0"].shape == (2, 128, 4, 6)
    assert all(check.passed for check in parity.Reference(network, images, maps).check(found))


_SIZES = ({}, {"batch": 2, "image_size": (64, 96)}, {"global_pool": "avg"}, {"num_classes": 0}, {"dtype": "float16"})


@pytest.mark.parametrize("options", _SIZES, ids=["any size", "fixed size", "avg", "headless", "half"])
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_what_it_attends_to_is_what_hooks_see_in_pytorchs_network(dialect: str, options: dict) -> None:
    form = Form(attention=True, **options)
    arrays = {name: each for name, each in weights(SHORT, dialect).items() if form.num_classes or name[:5] != "head."}
    model = onnx_graph.build(arrays, SHORT, DIALECTS[dialect], form, {})
    onnx.checker.check_model(model, full_check=True)
    network = parity.torch_network(arrays, SHORT, dialect, num_classes=form.num_classes)
    for block in network.cls_attn_blocks:
        block.attn.fused_attn = False
    images = parity.random_images(2, 3, 64, 96)
    found = run(model, images)
    assert {name: value.shape for name, value in found.items() if name in ATTENTION} == {
        "attention.classes": (2, 2, 4, 4, 6),
        "attention.class_token": (2, 2, 4),
        "attention.channels": (2, 2, 4, 32, 32),
    }
    network = network.half() if form.dtype == "float16" else network
    reference = parity.Reference(network, images, lambda net, batch: proof._outputs(net, batch, form))
    checks = reference.check(found)
    assert len(checks) == 4 and all(check.passed for check in checks), checks
    swapped = {**found, "attention.classes": found["attention.classes"][:, :, ::-1]}
    assert [check.what for check in reference.check(swapped) if not check.passed] == ["attention.classes"]


@pytest.mark.parametrize("options", [{"batch": 1, "image_size": (64, 48)}, {"image_size": (40, 64)}, {"batch": 1}])
def test_fixed_sizes_are_computed_as_any_are(options: dict) -> None:
    checks = judged(SHORT, "paper", Form(**options), (1, 3, *options.get("image_size", (64, 64))))
    assert all(check.passed for check in checks), checks


def test_uint8_pixels_are_scaled_and_normalised_in_the_graph() -> None:
    arrays, mean, std = weights(SHORT), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    pixels = ((image / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    raw, normalised = (
        run(onnx_graph.build(arrays, SHORT, DIALECTS["paper"], form, {}), given)["logits"]
        for form, given in ((Form(mean=mean, std=std), image), (Form(), pixels))
    )
    np.testing.assert_allclose(raw, normalised, atol=1e-4)


def test_half_precision_passes_by_its_own_rounding() -> None:
    arrays = weights(SHORT)
    model = onnx_graph.build(arrays, SHORT, DIALECTS["paper"], Form(dtype="float16"), {})
    images = parity.random_images(2, 3, 64, 64)
    reference = parity.Reference(parity.torch_network(arrays, SHORT, "paper").half(), images)
    (check,) = reference.check(run(model, images))
    assert check.passed, check


def test_a_changed_parameter_is_found_in_the_file() -> None:
    arrays = weights(SHORT)
    permuted = {**arrays, "blocks.1.attn.proj.weight": arrays["blocks.1.attn.proj.weight"][::-1]}
    model = onnx_graph.build(permuted, SHORT, DIALECTS["paper"], Form(), {})
    images = parity.random_images(1, 3, 64, 64)
    (check,) = parity.Reference(parity.torch_network(arrays, SHORT, "paper"), images).check(run(model, images))
    assert not check.passed


def test_nodes_have_names_that_a_person_recognises_and_only_one_each() -> None:
    model = onnx_graph.build(weights(SHORT), SHORT, DIALECTS["paper"], Form(), {"xcit_hub.dialect": "paper"})
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {"blocks.1/xca/softmax", "blocks.0/lpi/conv1", "cls_attn_blocks.0/attn/softmax", "head"} <= set(names)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"xcit_hub.dialect": "paper"}
    assert [axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch", 3, "height", "width",
    ]  # fmt: skip
