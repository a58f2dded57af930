"""Classify images with an exported XCiT: numpy, Pillow and onnxruntime, no framework.

    xcit-hub export timm/xcit_tiny_12_p16_224.fb_in1k xcit.onnx
    python classify.py xcit.onnx cat.jpg dog.jpg

Everything it needs to know (labels, preprocessing) stands in the file's metadata. Where onnxruntime-cann is installed
it runs on Ascend; that was written by its documentation and not run.
"""

import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is imported, or it tells its makers what it runs

import onnxruntime
from images import load_batch, print_answers

PREFERRED = ("CANNExecutionProvider", "CPUExecutionProvider")


def main(file, *paths):
    """Print the five likeliest classes of every image."""
    providers = [name for name in PREFERRED if name in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(file, providers=providers)
    facts = session.get_modelmeta().custom_metadata_map
    batch = load_batch(paths, facts, normalised=session.get_inputs()[0].type == "tensor(float)")
    (logits,) = session.run(["logits"], {"image": batch})
    print_answers(paths, logits, facts)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
