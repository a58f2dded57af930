"""Every architecture as ONNX: every dialect, folded and plain, three shapes of one dynamic file, both runtimes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from xcit_hub import parity, variants
from xcit_hub.exporters import onnx_file, onnx_graph
from xcit_hub.exporters.form import Form
from xcit_hub.exporters.proof import OPENVINO_FLOOR
from xcit_hub.parameters import parameter_shapes
from xcit_hub.parity.rule import FLOOR
from xcit_hub.variants import DIALECTS, Architecture

onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

Run = Callable[[NDArray[Any]], NDArray[Any]]


def _in_onnxruntime(file: Path) -> Run:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda image: session.run(["logits"], {"image": image})[0]


def _in_openvino(file: Path) -> Run:
    compiled = openvino.compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: np.array(compiled({"image": image})["logits"])


RUNTIMES = {"onnxruntime": (_in_onnxruntime, FLOOR), "OpenVINO": (_in_openvino, OPENVINO_FLOOR)}


def _prove(architecture: Architecture, dialect: str, folder: Path) -> None:
    """Judge one dynamic file at three shapes, one of them of sides that the patch does not divide."""
    patch = architecture.patch_size
    shapes = [(1, 4 * patch, 4 * patch), (2, 3 * patch, 6 * patch), (1, 4 * patch + 3, 3 * patch + 1)]
    temperature = 1.0 if DIALECTS[dialect].normalize_qk else 1.0 / 16
    arrays = parity.random_weights(parameter_shapes(architecture), temperature=temperature)
    network = parity.torch_network(arrays, architecture, dialect)
    images = [parity.random_images(batch, 3, height, width) for batch, height, width in shapes]
    references = [parity.Reference(network, image) for image in images]
    for fuse in (True, False):
        model = onnx_graph.build(arrays, architecture, DIALECTS[dialect], Form(fuse=fuse), {})
        file = onnx_file.write(model, folder / "network.onnx")[0]  # ONNX's full check is passed there
        for runtime, (start, floor) in RUNTIMES.items():
            run = start(file)
            for shape, image, reference in zip(shapes, images, references, strict=True):
                (check,) = reference.check({"logits": run(image)})
                check = replace(check, floor=floor)
                assert check.passed, (runtime, "folded" if fuse else "plain", shape, check)


@pytest.mark.parametrize(
    ("name", "dialect"), [("xcit_nano_12_p16_224", "mindcv"), ("xcit_nano_12_p8_224", "mindcv-mint")]
)
def test_a_dynamic_file_is_proven_by_both_runtimes_folded_and_plain(name: str, dialect: str, tmp_path: Path) -> None:
    # Two blocks are folded, written and run as twelve are, which the campaign proves.
    _prove(replace(variants.architecture(name), depth=2), dialect, tmp_path)


@pytest.mark.campaign
@pytest.mark.gigabytes(8)  # the largest networks, their graphs and both runtimes
@pytest.mark.parametrize("dialect", list(DIALECTS))
@pytest.mark.parametrize("name", list(variants.ARCHITECTURES))
def test_every_architecture_is_proven_by_both_runtimes(
    name: str, dialect: str, tmp_path: Path, memory_back: None
) -> None:
    _prove(variants.architecture(name), dialect, tmp_path)
