"""``python -m converters.facebook2ms SRC OUT``: a facebookresearch/xcit checkpoint for MindSpore."""

from converters.doors import open_door

if __name__ == "__main__":
    open_door("facebook", "xcit-hub", example="python -m converters.facebook2ms xcit_small_12_p8_224.pth small.ckpt")
