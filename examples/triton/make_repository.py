"""Make a model repository for Triton Inference Server of an exported XCiT. Needs onnxruntime.

    xcit-hub export timm/xcit_tiny_12_p16_224.fb_in1k xcit.onnx
    python make_repository.py xcit.onnx models --name xcit
    docker run --rm -p8000:8000 -v $PWD/models:/models nvcr.io/nvidia/tritonserver:<release>-py3 \\
        tritonserver --model-repository=/models

Names, types and sides of inputs and outputs are read from the file. A file with a dynamic batch gets dynamic batching.
Written by Triton's documentation of config.pbtxt; the server itself was **not run**.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is imported, or it tells its makers what it runs

import onnxruntime

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(uint8)": "TYPE_UINT8"}


def config(name, session, *, largest_batch, microseconds, labels):
    """The text of config.pbtxt for an onnxruntime session."""
    dynamic = not isinstance(session.get_inputs()[0].shape[0], int)
    text = (
        f'name: {json.dumps(name)}\nplatform: "onnxruntime_onnx"\nmax_batch_size: {largest_batch if dynamic else 0}\n'
    )
    for kind, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        entries = [tensor(value, dynamic=dynamic, labels=labels and kind == "output") for value in values]
        text += f"{kind} [\n{','.join(entries)}]\n".replace("},  {", "},\n  {")
    if dynamic:
        text += f"dynamic_batching {{\n  max_queue_delay_microseconds: {microseconds}\n}}\n"
    return text + "instance_group [\n  {\n    kind: KIND_AUTO\n    count: 1\n  }\n]\n"


def tensor(value, *, dynamic, labels):
    """One input or output; the batch is not among the sides where Triton makes batches."""
    sides = [side if isinstance(side, int) else -1 for side in value.shape[1 if dynamic else 0 :]]
    lines = [f"name: {json.dumps(value.name)}", f"data_type: {TYPES[value.type]}", f"dims: {sides}"]
    lines += ['label_filename: "labels.txt"'] if labels else []
    return "  {\n" + "".join(f"    {line}\n" for line in lines) + "  }\n"


def main():
    """Write NAME/config.pbtxt, NAME/1/model.onnx and the labels into a repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="an exported .onnx file")
    parser.add_argument("repository", type=Path, help="the model repository; made if need be")
    parser.add_argument("--name", help="the model's name; the file's by default")
    parser.add_argument("--largest-batch", type=int, default=16)
    parser.add_argument("--delay", type=int, default=5000, help="microseconds that an image waits for others")
    asked = parser.parse_args()
    session = onnxruntime.InferenceSession(str(asked.file), providers=["CPUExecutionProvider"])
    labels = json.loads(session.get_modelmeta().custom_metadata_map.get("xcit_hub.labels", "[]"))
    name = asked.name or asked.file.stem
    folder = asked.repository / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(asked.file, folder / "1" / "model.onnx")
    data = asked.file.with_name(f"{asked.file.name}.data")
    if data.exists():  # weights above 2 GiB; the model names their file
        shutil.copyfile(data, folder / "1" / data.name)
    if labels:
        (folder / "labels.txt").write_text("".join(f"{' '.join(label.split())}\n" for label in labels), "utf-8")
    text = config(name, session, largest_batch=asked.largest_batch, microseconds=asked.delay, labels=bool(labels))
    (folder / "config.pbtxt").write_text(text, "utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
