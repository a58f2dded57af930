"""The exported file under the runtimes that users deploy it with, timm's own export of its network beside it.

float32 or int8 as the file says, on the processors that this process may use; OpenVINO is told not to compute in
bfloat16, but where that is what is measured. Weights are random, as everywhere in the benchmarks; int8 is calibrated
on noise, which costs no speed.
"""

from __future__ import annotations

import os
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.case import Case, Contender, NotHereError, Step
from benchmarks.networks import network_flops, random_batch

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is imported, as in xcit_hub.exporters

ONNXRUNTIME = "onnxruntime"
OPENVINO = "OpenVINO"

_OURS, _INT8, _TIMMS = "ours.onnx", "int8.onnx", "timm.onnx"
_LARGEST_TRACED = 1024 * 1024  # pixels: a trace keeps all activations, 20 GB and more at 1792²


def prepare(case: Case) -> None:
    """Write our file in float32 and int8, and timm's; what cannot be written here is left out."""
    from xcit_hub import parity
    from xcit_hub.exporters import onnx_file
    from xcit_hub.exporters.int8 import quantised

    folder = Path(case.folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = write_ours(case, folder / _OURS)
    side = case.architecture.image_size  # not the case's: what calibrates 1792² takes more memory than there is
    noise = [parity.random_images(4, 3, side, side)]
    onnx_file.write(quantised(model, noise), folder / _INT8)
    _write_timms(case, folder / _TIMMS)


def write_ours(case: Case, target: Path) -> Any:
    """Write the network in float32 and return its graph."""
    from xcit_hub import parity, variants
    from xcit_hub.exporters import onnx_file, onnx_graph
    from xcit_hub.exporters.form import Form
    from xcit_hub.parameters import parameter_shapes

    architecture = variants.architecture(case.model)
    arrays = parity.random_weights(parameter_shapes(architecture))
    model = onnx_graph.build(arrays, architecture, variants.DIALECTS["paper"], Form(), {})
    onnx_file.write(model, target)
    return model


def _write_timms(case: Case, target: Path) -> None:
    import warnings

    if case.height * case.width > _LARGEST_TRACED:
        return
    try:
        import timm
        import torch
    except ImportError:
        return
    image = torch.zeros(case.batch, 3, case.height, case.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is traced stays as it is for this size
        torch.onnx.export(
            timm.create_model(case.model).eval(), (image,), str(target), dynamo=False, opset_version=18,
            input_names=["image"], dynamic_axes={"image": {0: "batch"}},
        )  # fmt: skip


def in_onnxruntime(case: Case, *, file: str) -> Step:
    """Run a file with onnxruntime, which cannot be kept to AVX2."""
    if machine.kept_to_avx2():
        raise NotHereError("onnxruntime has no switch that keeps it to AVX2")
    try:
        import onnxruntime
    except ImportError as error:
        raise NotHereError("not installed (pip install 'xcit-hub[onnx]')") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(_path(case, file), options, providers=["CPUExecutionProvider"])
    image, _ = random_batch(case)
    return _step(case, lambda: session.run(None, {"image": image}))


def in_openvino(case: Case, *, file: str, precision: str = "f32") -> Step:
    """Run a file with OpenVINO, told to answer soon; more than one image in one stream where that is quicker.

    ``precision`` is what it is told to compute float32 in.
    """
    try:
        import openvino
    except ImportError as error:
        raise NotHereError("not installed (pip install 'xcit-hub[onnx]')") from error
    if precision == "bf16" and machine.kept_to_avx2():
        raise NotHereError("kept to AVX2, OpenVINO has no softmax in bfloat16")
    always: dict[str, object] = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
    }
    told: list[dict[str, object]] = [{"PERFORMANCE_HINT": "LATENCY"}]
    if case.batch > 1:
        told.append({"NUM_STREAMS": 1})
    image, _ = random_batch(case)
    path, steps = _path(case, file), []
    for settings in told:
        compiled = openvino.compile_model(path, "CPU", always | settings)
        done = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if done != precision:
            raise NotHereError(f"OpenVINO computes in {done} on this processor")
        steps.append(_step(case, partial(compiled, [image])))
    return min(steps, key=_seconds)


def _path(case: Case, file: str) -> str:
    path = Path(case.folder) / file
    if not path.exists():
        raise NotHereError(
            "not exported: timm is missing (pip install 'xcit-hub[timm]'), or the image too large to trace"
        )
    return str(path)


def _seconds(step: Step) -> float:
    """Return the least of a few calls' seconds."""
    step()
    return min(timeit.repeat(step, number=1, repeat=5))


def _step(case: Case, run: Callable[[], Any]) -> Step:
    def step() -> int:
        run()
        return case.batch

    return step


EXPORTED: dict[str, Contender] = {
    ONNXRUNTIME: Contender(partial(in_onnxruntime, file=_OURS), network_flops),
    OPENVINO: Contender(partial(in_openvino, file=_OURS), network_flops),
    f"{OPENVINO}, bfloat16": Contender(partial(in_openvino, file=_OURS, precision="bf16"), network_flops),
    f"{ONNXRUNTIME}, int8": Contender(partial(in_onnxruntime, file=_INT8), network_flops),
    f"{OPENVINO}, int8": Contender(partial(in_openvino, file=_INT8), network_flops),
    f"{ONNXRUNTIME}, timm's export": Contender(partial(in_onnxruntime, file=_TIMMS), network_flops),
    f"{OPENVINO}, timm's export": Contender(partial(in_openvino, file=_TIMMS), network_flops),
}
