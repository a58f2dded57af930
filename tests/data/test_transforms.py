"""Images reach the network exactly as they reach timm's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from xcit_hub.data.transforms import EvalTransform
from xcit_hub.errors import InputError
from xcit_hub.variants import Preprocessing

_PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "camera")


def _photograph(name: str) -> Image.Image:
    from skimage import data

    return Image.fromarray(getattr(data, name)())


@pytest.mark.parametrize("image_size", [224, 384])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_eval_pixels_equal_timms_on_photographs_of_odd_sizes(image_size: int, crop_pct: float) -> None:
    from timm.data import create_transform

    preprocessing = Preprocessing(image_size=image_size, crop_pct=crop_pct)
    ours = EvalTransform(preprocessing)
    theirs = create_transform(
        (3, image_size, image_size),
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=crop_pct,
    )
    for name in _PHOTOGRAPHS:
        photograph = _photograph(name)
        for size in (photograph.size, (387, 511), (301, 224), (225, 640), (97, 61)):
            image = photograph.resize(size)
            difference = np.abs(ours(image) - theirs(image.convert("RGB")).numpy())
            assert difference.max() < 1e-3, (name, size)


def test_a_wrong_interpolation_would_be_seen() -> None:
    photograph = _photograph("coffee")
    bicubic = EvalTransform(Preprocessing())(photograph)
    bilinear = EvalTransform(Preprocessing(interpolation="bilinear"))(photograph)
    assert np.abs(bicubic - bilinear).max() > 1e-2


def test_a_file_that_is_not_an_image_is_named(tmp_path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("not an image")
    with pytest.raises(InputError, match=r"notes\.jpg"):
        EvalTransform(Preprocessing())(path)


def test_a_truncated_image_is_refused(tmp_path) -> None:
    path = tmp_path / "half.jpg"
    _photograph("coffee").save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"half\.jpg"):
        EvalTransform(Preprocessing())(path)


def test_an_unknown_interpolation_is_refused() -> None:
    with pytest.raises(InputError, match="cubist"):
        EvalTransform(Preprocessing(interpolation="cubist"))
