"""Classify images with an exported XCiT: numpy, Pillow and OpenVINO, no framework.

    xcit-hub export timm/xcit_tiny_12_p16_224.fb_in1k xcit.onnx
    python classify_openvino.py xcit.onnx cat.jpg dog.jpg

Everything it needs to know (labels, preprocessing) stands in the file's metadata.
"""

import sys

import openvino
from images import load_batch, print_answers


def main(file, *paths):
    """Print the five likeliest classes of every image."""
    core = openvino.Core()
    model = core.read_model(file)
    names = model.get_rt_info("framework").value  # ONNX's metadata
    facts = {name: model.get_rt_info(["framework", name]).astype(str) for name in names}
    batch = load_batch(paths, facts, normalised=model.input().element_type == openvino.Type.f32)
    # OpenVINO computes in bfloat16 where the processor can, unless it is told not to.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    print_answers(paths, compiled([batch])["logits"], facts)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
