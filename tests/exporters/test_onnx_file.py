from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xcit_hub import parity, variants
from xcit_hub.errors import XcitHubError
from xcit_hub.exporters import onnx_file, onnx_graph, runtimes, writing
from xcit_hub.exporters.form import Form
from xcit_hub.files import sha256_of
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import DIALECTS

pytest.importorskip("onnxruntime")
SHORT = replace(variants.architecture("xcit_nano_12_p16_224"), name="short", depth=1)


@pytest.fixture(scope="module")
def model():
    return onnx_graph.build(parity.random_weights(parameter_shapes(SHORT)), SHORT, DIALECTS["paper"], Form(), {})


def test_large_weights_stand_beside_the_model_and_answer_alike(tmp_path: Path, model) -> None:
    whole = onnx_file.write(model, tmp_path / "whole.onnx")
    parts = onnx_file.write(model, tmp_path / "parts.onnx", largest=1000)
    assert [path.name for path in whole + parts] == ["whole.onnx", "parts.onnx", "parts.onnx.data"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.onnx", "parts.onnx.data", "whole.onnx"]
    image = parity.random_images(1, 3, 32, 32)
    first, second = (runtimes.run("onnxruntime", files[0], [image])[0]["logits"] for files in (whole, parts))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("is_ours", [True, False])
def test_weights_beside_a_model_of_ours_go_with_it_and_strangers_stay(tmp_path: Path, is_ours) -> None:
    target, arrays = tmp_path / "x.onnx", parity.random_weights(parameter_shapes(SHORT))
    told = {"xcit_hub.architecture": "short"} if is_ours else {}
    former = onnx_graph.build(arrays, SHORT, DIALECTS["paper"], Form(), told)
    assert len(onnx_file.write(former, target, largest=1000)) == 2
    done = writing.write(target, arrays, SHORT, "paper", Form(), {}, proof=False)
    assert [path.name for path in done.files] == ["x.onnx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.onnx"] + (["x.onnx.data"] * (not is_ours))
    assert done.sha256 == sha256_of(target)


def test_what_is_called_like_the_weights_of_no_model_stays(tmp_path: Path) -> None:
    target, arrays = tmp_path / "x.onnx", parity.random_weights(parameter_shapes(SHORT))
    for former in (None, b"not a model", b""):
        (tmp_path / "x.onnx.data").write_bytes(b"a stranger's")
        if former is not None:
            target.write_bytes(former)
        writing.write(target, arrays, SHORT, "paper", Form(), {}, proof=False)
        assert (tmp_path / "x.onnx.data").read_bytes() == b"a stranger's"


def test_every_runtime_calls_the_outputs_alike(tmp_path: Path, model) -> None:
    (path,) = onnx_file.write(model, tmp_path / "short.onnx")
    images = [parity.random_images(1, 3, 32, 32)]
    found = [runtimes.run(name, path, images) for name in ("onnxruntime", "openvino")]
    assert [list(outputs) for (outputs,) in found] == [["logits"], ["logits"]]


def test_a_file_that_a_runtime_cannot_read_is_an_error_with_its_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x00" * 100)
    with pytest.raises(XcitHubError, match="onnxruntime could not run the file"):
        runtimes.run("onnxruntime", broken, [np.zeros((1, 3, 32, 32), np.float32)])


def test_mindspore_can_be_imported_after_onnx_was_written() -> None:
    code = "import xcit_hub.exporters.onnx_graph, onnx, mindspore; assert onnx.ModelProto().ByteSize() == 0"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("module", ["xcit_hub.exported", "xcit_hub.exporters.int8", "benchmarks.deploying"])
def test_what_uses_onnxruntime_keeps_it_from_telling_its_makers(module: str) -> None:
    code = f"import {module}, os, sys; print('onnxruntime' in sys.modules, os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "False 1\n"
