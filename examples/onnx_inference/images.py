"""What both examples share: an image as the exported file wants it, and its answer in words. numpy and Pillow alone."""

import json
import math

import numpy as np
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


def load_batch(paths, facts, *, normalised):
    """Images as the file's input takes them: float32 (B, 3, H, W); or uint8 (B, H, W, 3) where the file normalises."""
    preprocessing = json.loads(facts["xcit_hub.preprocessing"])
    batch = np.stack([load_pixels(path, preprocessing) for path in paths])
    if normalised:
        mean, std = (np.array(preprocessing[name], np.float32) for name in ("mean", "std"))
        batch = ((batch.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(batch)


def print_answers(paths, logits, facts):
    """Print the five likeliest classes of every image."""
    labels = json.loads(facts.get("xcit_hub.labels", "[]"))
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    for path, row in zip(paths, shares, strict=True):
        print(path)
        for index in np.argsort(row)[::-1][:5]:
            print(f"{row[index]:7.1%}  {labels[index] if labels else index}")
