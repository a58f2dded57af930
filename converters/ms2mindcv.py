"""``python -m converters.ms2mindcv SRC OUT``: a MindSpore checkpoint for MindCV."""

from converters.doors import open_door

if __name__ == "__main__":
    open_door("xcit-hub", "mindcv", example="python -m converters.ms2mindcv tiny.safetensors tiny.ckpt")
