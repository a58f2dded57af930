"""``python -m converters.ms2facebook SRC OUT``: a MindSpore checkpoint for facebookresearch/xcit."""

from converters.doors import open_door

if __name__ == "__main__":
    open_door("xcit-hub", "facebook", example="python -m converters.ms2facebook small.ckpt small.pth")
