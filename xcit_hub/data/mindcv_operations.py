"""The operations of MindCV's augmentation policies: ``mindspore.dataset.vision`` called as MindCV 0.5 calls it.

Source: ``mindcv/data/auto_augment.py``. Where it differs from timm it is followed: a shear is of degrees and so of next
to nothing, TrivialAugment shifts to one side only. Each call is given ranges of one value, so that chance has no part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from mindspore.dataset import vision
from mindspore.dataset.vision import Inter
from PIL import Image

from xcit_hub.data.operations import Canvas, Operation, signed

_RESAMPLING = {
    Image.Resampling.BICUBIC: Inter.BICUBIC,
    Image.Resampling.BILINEAR: Inter.BILINEAR,
    Image.Resampling.NEAREST: Inter.NEAREST,
    Image.Resampling.LANCZOS: Inter.BILINEAR,  # MindCV's choice where MindSpore has no such interpolation
}
_BLUR = 3  # pixels of the kernel

_Argument = Callable[[float, float, Canvas], Any]


def _computed(make: Callable[[Any], Any], argument: _Argument) -> Operation:
    """Make an operation of a transform, and of what it is given for (level, chance, canvas)."""

    def operation(image: Image.Image, level: float, chance: float, canvas: Canvas) -> Image.Image:
        return _on_array(make(argument(level, chance, canvas)), image)

    return operation


def _geometric(make: Callable[..., Any], argument: _Argument) -> Operation:
    """The same of one that fills what it uncovers."""

    def operation(image: Image.Image, level: float, chance: float, canvas: Canvas) -> Image.Image:
        settings = {"fill_value": canvas.fill, "resample": _RESAMPLING[canvas.resample]}
        return _on_array(make(argument(level, chance, canvas), **settings), image)

    return operation


def _on_array(transform: Any, image: Image.Image) -> Image.Image:
    # Of a Pillow image MindSpore would compute something else.
    return Image.fromarray(np.asarray(transform(np.asarray(image))))


def _affine(key: str, degrees: Any, **settings: Any) -> Any:
    return vision.RandomAffine(degrees=0, **{key: degrees}, **settings)


def _rotation(degrees: float, **settings: Any) -> Any:
    return vision.RandomRotation(degrees=(degrees, degrees), **settings)


def _posterize(kept: int) -> Any:
    bits = max(8 - kept, 1)
    return vision.RandomPosterize(bits=(bits, bits))


def _adjust(key: str, factor: float) -> Any:
    return vision.RandomColorAdjust(**{key: (factor, factor)})


def _increasing(level: float, chance: float, _: Canvas) -> float:
    return max(0.1, 1.0 + signed(level * 0.9, chance))


def _shift_x(level: float, chance: float, canvas: Canvas) -> tuple[float, float]:
    return (signed(level * canvas.shift, chance),) * 2


def _shift_y(level: float, chance: float, canvas: Canvas) -> tuple[float, ...]:
    return (0, 0, *_shift_x(level, chance, canvas))


# Operations that are given an enhancement's factor.
_ENHANCERS: dict[str, Callable[[float], Any]] = {
    "Color": lambda factor: vision.RandomColor(degrees=(factor, factor)),
    "Contrast": partial(_adjust, "contrast"),
    "Brightness": partial(_adjust, "brightness"),
    "Sharpness": lambda factor: vision.RandomSharpness(degrees=(factor, factor)),
}


def _solarize(threshold: int) -> Any:
    return vision.RandomSolarize(threshold=(threshold, threshold))


_PLAIN: dict[str, Operation] = {
    "AutoContrast": lambda image, *_: _on_array(vision.AutoContrast(), image),
    "Equalize": lambda image, *_: _on_array(vision.Equalize(), image),
    "Invert": lambda image, *_: _on_array(vision.Invert(), image),
}


def _common(angle: float, shear: float, factor: Callable[[float], float]) -> dict[str, Operation]:
    """Return the operations that have their range from the policy: the angles at level 1, and enhancement's factor."""
    return {
        **_PLAIN,
        "Rotate": _geometric(_rotation, lambda level, chance, _: signed(level * angle, chance)),
        "ShearX": _geometric(partial(_affine, "shear"), lambda level, chance, _: (-signed(level * shear, chance),) * 2),
        "ShearY": _geometric(
            partial(_affine, "shear"), lambda level, chance, _: (0, 0, *((signed(level * shear, chance),) * 2))
        ),
        **{name: _computed(make, lambda level, *_: factor(level)) for name, make in _ENHANCERS.items()},
    }


# By MindCV's names; those of TrivialAugment's wide ranges apart.
OPERATIONS: dict[str, Operation] = {
    **_common(30.0, 0.3, lambda level: level * 1.8 + 0.1),
    **{f"{name}Increasing": _computed(make, _increasing) for name, make in _ENHANCERS.items()},
    "TranslateX": _geometric(partial(_affine, "translate"), _shift_x),
    "TranslateY": _geometric(partial(_affine, "translate"), _shift_y),
    "Posterize": _computed(_posterize, lambda level, *_: int(level * 4)),
    "PosterizeIncreasing": _computed(_posterize, lambda level, *_: 4 - int(level * 4)),
    "PosterizeOriginal": _computed(_posterize, lambda level, *_: int(level * 4) + 4),
    "Solarize": _computed(_solarize, lambda level, *_: int(level * 255)),
    "SolarizeIncreasing": _computed(_solarize, lambda level, *_: 255 - int(level * 255)),
    "Desaturate": _computed(_ENHANCERS["Color"], lambda level, *_: 1.0 - max(0.5, min(1.0, 0.5 + 0.5 * level))),
    "GaussianBlurRand": _computed(
        lambda sigma: vision.GaussianBlur(kernel_size=_BLUR, sigma=sigma),
        lambda level, chance, _: 0.1 + (2.0 * max(0.0, min(1.0, level)) - 0.1) * chance,
    ),
}
WIDE: dict[str, Operation] = {
    **_common(135.0, 0.99, lambda level: level * 1.99 + 0.01),
    "TranslateX": _geometric(partial(_affine, "translate"), lambda level, _, canvas: _shift_x(level, 0.0, canvas)),
    "TranslateY": _geometric(partial(_affine, "translate"), lambda level, _, canvas: _shift_y(level, 0.0, canvas)),
    "Posterize": _computed(_posterize, lambda level, *_: int(level * 6) + 2),
    "Solarize": _computed(_solarize, lambda level, *_: int(level * 255)),
}
