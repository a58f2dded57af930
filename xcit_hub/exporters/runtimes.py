"""Run a file by the runtime that users deploy it with, in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub.errors import InputError, XcitHubError

Array = NDArray[Any]
Outputs = dict[str, Array]

_LONGEST = 1800  # seconds


def _onnxruntime(file: Path, image: Array) -> Outputs:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


def _openvino(file: Path, image: Array) -> Outputs:
    import openvino

    # OpenVINO computes in bfloat16 where the processor can, unless it is told not to.
    compiled = openvino.compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled({"image": image})
    return {output.any_name: np.asarray(results[output]) for output in compiled.outputs}


def _mindspore(file: Path, image: Array) -> Outputs:
    import mindspore

    network = mindspore.nn.GraphCell(mindspore.load(str(file)))
    found = network(mindspore.Tensor(image))
    values = found if isinstance(found, tuple) else (found,)
    return {f"output.{index}": value.float().asnumpy() for index, value in enumerate(values)}


RUNTIMES: Mapping[str, Callable[[Path, Array], Outputs]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "mindspore": _mindspore,
}


def installed(runtime: str) -> bool:
    """Whether a runtime can be imported."""
    return importlib.util.find_spec(runtime) is not None


def run(runtime: str, file: str | os.PathLike[str], image: Array) -> Outputs:
    """Run a file on a batch in a fresh process and return its outputs by name.

    Args:
        runtime: a key of :data:`RUNTIMES`.
        image: what the file's input ``image`` takes.

    Raises:
        InputError: the runtime is not installed.
        XcitHubError: the process failed; its last line is told.
    """
    if not installed(runtime):
        raise InputError(f"{runtime} is not installed.", fix=f"pip install {runtime}")
    with tempfile.TemporaryDirectory(prefix="xcit-hub-") as scratch:
        given, found = Path(scratch) / "image.npy", Path(scratch) / "outputs.npz"
        np.save(given, image)
        command = [
            sys.executable,
            "-m",
            "xcit_hub.exporters.runtimes",
            runtime,
            os.fspath(file),
            str(given),
            str(found),
        ]
        done = subprocess.run(  # noqa: S603  (our own module)
            command, capture_output=True, text=True, timeout=_LONGEST, check=False, env={**os.environ, "GLOG_v": "3"}
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise XcitHubError(
                f"{runtime} could not run the file: {last}", where=file, fix="Report it with the command that was run."
            )
        with np.load(found) as archive:
            return {name: archive[name] for name in archive.files}


if __name__ == "__main__":
    _runtime, _file, _given, _found = sys.argv[1:]
    np.savez(_found, **RUNTIMES[_runtime](Path(_file), np.load(_given)))
    sys.stdout.flush()
    os._exit(0)  # MindSpore prints hundreds of lines when the interpreter takes its cells down
