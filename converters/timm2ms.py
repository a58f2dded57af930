"""``python -m converters.timm2ms SRC OUT``: a timm checkpoint, or a timm model's name, for MindSpore."""

from converters.doors import open_door

if __name__ == "__main__":
    open_door("timm", "xcit-hub", example="python -m converters.timm2ms xcit_tiny_12_p16_224.fb_in1k tiny.ckpt")
