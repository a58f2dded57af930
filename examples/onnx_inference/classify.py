"""Classify images with an exported XCiT: numpy, Pillow and onnxruntime, no framework.

    xcit-hub export timm/xcit_tiny_12_p16_224.fb_in1k xcit.onnx
    python classify.py xcit.onnx cat.jpg dog.jpg

Everything it needs to know (labels, preprocessing) stands in the file's metadata.
"""

import json
import math
import sys

import numpy as np
import onnxruntime
from PIL import Image

RESAMPLING = {"bicubic": Image.BICUBIC, "bilinear": Image.BILINEAR, "nearest": Image.NEAREST, "lanczos": Image.LANCZOS}


def load_pixels(path, preprocessing):
    """Resize the shorter side, keep the centre: uint8 (H, W, 3), as the network was evaluated."""
    channels, height, width = preprocessing["input_size"]
    if (channels, preprocessing["crop_mode"]) != (3, "center") or height != width:
        raise SystemExit(f"This example prepares square RGB centre crops; the file wants {preprocessing}.")
    image = Image.open(path).convert("RGB")
    shorter = math.floor(height / preprocessing["crop_pct"])
    if image.width <= image.height:
        size = (shorter, int(shorter * image.height / image.width))
    else:
        size = (int(shorter * image.width / image.height), shorter)
    image = image.resize(size, RESAMPLING[preprocessing["interpolation"]])
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return np.asarray(image.crop((left, top, left + width, top + height)))


def main(file, *paths):
    """Print the five likeliest classes of every image."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    preprocessing = json.loads(facts["xcit_hub.preprocessing"])
    labels = json.loads(facts.get("xcit_hub.labels", "[]"))
    batch = np.stack([load_pixels(path, preprocessing) for path in paths])
    if session.get_inputs()[0].type == "tensor(float)":  # else the file scales and normalises by itself
        mean, std = (np.array(preprocessing[name], np.float32) for name in ("mean", "std"))
        batch = ((batch.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    (logits,) = session.run(["logits"], {"image": np.ascontiguousarray(batch)})
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    for path, row in zip(paths, shares, strict=True):
        print(path)
        for index in np.argsort(row)[::-1][:5]:
            print(f"{row[index]:7.1%}  {labels[index] if labels else index}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
