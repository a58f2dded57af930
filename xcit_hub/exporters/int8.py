"""int8 for an ONNX file: activations calibrated on images, weights per channel, as QuantizeLinear pairs (QDQ)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import onnx
from numpy.typing import NDArray

from xcit_hub.files import scratch_folder

# The products of attention have no weights, and their operands are what int8 rounds worst (a softmax, unit vectors).
# The stem stays in float, too: its rounding costs most of the accuracy that int8 loses, and OpenVINO (2026.4) drops the
# bias of its last convolution, which no activation follows.
_IN_FLOAT = ("cross_covariance", "mix", "scores", "gather", "project_y", "project_x")


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave the program's own log as it is.

    onnxruntime's quantisation sets up the root logger when it is imported, and advises there to run a preprocessing
    first, which our graphs do not need.
    """
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    root.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        root.setLevel(level)
        for added in [each for each in root.handlers if each not in handlers]:
            root.removeHandler(added)


@_quiet()
def quantised(model: onnx.ModelProto, images: Iterable[NDArray[Any]], in_float: Iterable[str] = ()) -> onnx.ModelProto:
    """Return the model with affine maps and convolutions behind the stem in int8.

    Args:
        model: a float32 graph of :func:`xcit_hub.exporters.onnx_graph.build`.
        images: calibration batches as the model's input takes them; some 100 images serve.
        in_float: further nodes, or scopes such as ``blocks.3``, that stay in float.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    batches = iter(images)

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(batches, None)
            return None if batch is None else {"image": batch}

    with scratch_folder() as scratch:
        # By files: handed a model in memory, it moves the weights of that very model to a file and forgets them.
        source, target = scratch / "float.onnx", scratch / "int8.onnx"
        onnx.save(model, str(source))
        quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Conv"],
            nodes_to_exclude=list(_excluded(model, tuple(in_float))),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # 7 bits: processors without VNNI add products of 8 in 16 bits, which overflow
        )
        return onnx.load(str(target))


def _excluded(model: onnx.ModelProto, in_float: tuple[str, ...]) -> Iterator[str]:
    kept = {"patch_embed", *in_float}
    for node in model.graph.node:
        scopes = node.name.split("/")
        if scopes[-1] in _IN_FLOAT or kept & {node.name, scopes[0]}:
            yield node.name
