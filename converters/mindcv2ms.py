"""``python -m converters.mindcv2ms SRC OUT``: MindCV's checkpoint for this project's network."""

from converters.doors import open_door

if __name__ == "__main__":
    open_door(
        "mindcv",
        "xcit-hub",
        example="python -m converters.mindcv2ms xcit_tiny_12_p16_224-bd90776e-910v2.ckpt tiny.safetensors",
    )
