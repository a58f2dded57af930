"""``python -m converters.ms2timm SRC OUT``: a MindSpore checkpoint for timm."""

from converters.doors import open_door

if __name__ == "__main__":
    open_door("xcit-hub", "timm", example="python -m converters.ms2timm tiny.ckpt tiny.safetensors")
