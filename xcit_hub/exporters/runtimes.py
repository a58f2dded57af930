"""Run a file by the runtime that users deploy it with, in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub import child
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.files import scratch_folder

Array = NDArray[Any]
Outputs = dict[str, Array]
Run = Callable[[Array], Outputs]

_LONGEST = 1800  # seconds


def _onnxruntime(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given, names = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]
    return lambda image: dict(zip(names, session.run(names, {given: image}), strict=True))


def _openvino(file: Path) -> Run:
    import openvino

    # OpenVINO computes in bfloat16 where the processor can, unless it is told not to.
    compiled = openvino.compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(image: Array) -> Outputs:
        results = compiled([image])
        return {output.any_name: np.array(results[output]) for output in compiled.outputs}

    return run


def _mindspore(file: Path) -> Run:
    import mindspore

    network = mindspore.nn.GraphCell(mindspore.load(str(file)))

    def run(image: Array) -> Outputs:
        found = network(mindspore.Tensor(image))
        values = found if isinstance(found, tuple | list) else (found,)  # of maps a list, even of one
        return {f"output.{index}": value.float().asnumpy() for index, value in enumerate(values)}

    return run


RUNTIMES: Mapping[str, Callable[[Path], Run]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "mindspore": _mindspore,
}


def installed(runtime: str) -> bool:
    """Whether a runtime can be imported."""
    return importlib.util.find_spec(runtime) is not None


def run(runtime: str, file: str | os.PathLike[str], images: Sequence[Array]) -> list[Outputs]:
    """Run a file on a few batches, in one fresh process, and return the outputs of each by name.

    Args:
        runtime: a key of :data:`RUNTIMES`.
        images: what the file's input takes.

    Raises:
        InputError: the runtime is not installed.
        XcitHubError: the process failed, and its last line is told; or it took too long.
    """
    if not installed(runtime):
        raise InputError(f"{runtime} is not installed.", where=sys.executable, fix=f"pip install {runtime}")
    with scratch_folder() as scratch:
        given, found = scratch / "images.npz", scratch / "outputs.npz"
        np.savez(given, *images)
        command = child.command("xcit_hub.exporters.runtimes", runtime, os.fspath(file), str(given), str(found))
        environment = {**os.environ, "GLOG_v": "3"}
        try:
            done = subprocess.run(  # noqa: S603  (our own module)
                command, capture_output=True, text=True, timeout=_LONGEST, check=False, env=environment
            )
        except subprocess.TimeoutExpired as error:
            raise XcitHubError(
                f"{runtime} did not run the file within {_LONGEST:,} seconds.",
                where=file,
                fix="Try it on a machine that is less busy, or with smaller images.",
            ) from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise XcitHubError(
                f"{runtime} could not run the file: {last}", where=file, fix="Report it with the command that was run."
            )
        with np.load(found) as archive:
            outputs: list[Outputs] = [{} for _ in images]
            for key in archive.files:
                number, _, name = key.partition(":")
                outputs[int(number)][name] = archive[key]
            return outputs


def _main(runtime: str, file: str, given: str, found: str) -> None:
    run = RUNTIMES[runtime](Path(file))
    with np.load(given) as images:
        outputs = [run(images[key]) for key in images.files]
    np.savez(
        found, **{f"{number}:{name}": value for number, each in enumerate(outputs) for name, value in each.items()}
    )


if __name__ == "__main__":
    _main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # MindSpore prints hundreds of lines when the interpreter takes its cells down
