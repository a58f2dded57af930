from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xcit_hub import parity, variants
from xcit_hub.exporters import int8, onnx_file, onnx_graph, runtimes
from xcit_hub.exporters.form import Form
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import DIALECTS

onnxruntime = pytest.importorskip("onnxruntime")
SHORT = replace(variants.architecture("xcit_nano_12_p16_224"), name="short", depth=2)


def answer(model, images: NDArray) -> NDArray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def test_int8_answers_nearly_alike_from_a_third_of_the_bytes() -> None:
    arrays = parity.random_weights(parameter_shapes(SHORT, num_classes=10))
    model = onnx_graph.build(arrays, SHORT, DIALECTS["paper"], Form(num_classes=10), {})
    images = parity.random_images(16, 3, 64, 64)
    small = int8.quantised(model, [images[:8], images[8:]])
    exact, rounded = answer(model, images), answer(small, images)
    assert small.ByteSize() < 0.4 * model.ByteSize()
    assert np.sqrt(np.mean((exact - rounded) ** 2)) < 0.2 * exact.std()
    assert not np.array_equal(exact, rounded)


def test_a_programs_own_log_is_afterwards_as_it_was() -> None:
    """In a process of its own, as pytest sets up the log, too; onnxruntime does so when it is imported."""
    code = (
        "import logging; from xcit_hub import parity; from xcit_hub.exporters import int8, onnx_graph; "
        "from xcit_hub.exporters.form import Form; from xcit_hub.parameters import parameter_shapes; "
        "from xcit_hub.variants import DIALECTS, architecture; from dataclasses import replace; "
        "short = replace(architecture('xcit_nano_12_p16_224'), name='short', depth=1); "
        "arrays = parity.random_weights(parameter_shapes(short, num_classes=2)); "
        "model = onnx_graph.build(arrays, short, DIALECTS['paper'], Form(num_classes=2), {}); "
        "int8.quantised(model, [parity.random_images(1, 3, 32, 32)]); "
        "print(logging.getLogger().level, logging.getLogger().handlers)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{logging.WARNING} []\n"
    assert "WARNING" not in done.stderr


def test_both_runtimes_compute_alike_from_a_folded_file(tmp_path: Path) -> None:
    """OpenVINO drops the bias of the stem's last convolution in int8; the stem stays in float."""
    arrays = parity.random_weights(parameter_shapes(SHORT, num_classes=10))
    model = onnx_graph.build(arrays, SHORT, DIALECTS["paper"], Form(num_classes=10), {})
    images = parity.random_images(4, 3, 64, 64)
    exact = answer(model, images)
    (file,) = onnx_file.write(int8.quantised(model, [images]), tmp_path / "int8.onnx")
    for runtime in ("onnxruntime", "openvino"):
        (found,) = runtimes.run(runtime, file, [images])
        assert np.sqrt(np.mean((exact - found["logits"]) ** 2)) < 0.04 * exact.std(), runtime


def test_weights_have_a_scale_for_each_channel() -> None:
    arrays = parity.random_weights(parameter_shapes(SHORT, num_classes=10))
    model = onnx_graph.build(arrays, SHORT, DIALECTS["paper"], Form(num_classes=10), {})
    small = int8.quantised(model, [parity.random_images(4, 3, 64, 64)])
    scales = {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer if tensor.name.endswith("_scale")}
    assert scales["blocks.1.mlp.fc1.weight_scale"] == (512,)
    assert scales["blocks.1.local_mp.conv1.weight_scale"] == (128,)


def test_attentions_products_and_named_scopes_stay_in_float() -> None:
    arrays = parity.random_weights(parameter_shapes(SHORT, num_classes=10))
    model = onnx_graph.build(arrays, SHORT, DIALECTS["paper"], Form(num_classes=10), {})
    small = int8.quantised(model, [parity.random_images(4, 3, 64, 64)], in_float=["blocks.0"])
    made = {name for node in small.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    in_int8 = {node.name for node in small.graph.node if node.op_type in ("MatMul", "Conv") and set(node.input) & made}
    assert any(name.startswith("blocks.1/mlp") for name in in_int8)
    assert not any(name.startswith("blocks.0/") for name in in_int8)
    assert not any(name.startswith("patch_embed/") for name in in_int8)
    assert "blocks.1/xca/cross_covariance" not in in_int8
