"""Export what make_entry.py wrote, and write a photograph beside it: what the examples are then tried on."""

import sys
from pathlib import Path

from PIL import Image
from skimage import data

import xcit_hub

folder = Path(sys.argv[1])
xcit_hub.export(folder / "timm.safetensors", folder / "nano.onnx", proof=False)
Image.fromarray(data.astronaut()).save(folder / "photograph.png")
