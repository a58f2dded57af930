from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from xcit_hub.data.oversampling import OversampledTransform, Views, averaged
from xcit_hub.data.transforms import EvalTransform
from xcit_hub.variants import Preprocessing

transforms = pytest.importorskip("torchvision.transforms")

SEEN = Preprocessing(image_size=32, crop_pct=0.8, interpolation="bicubic")
TORCHVISIONS: dict[int, Callable[[Image.Image], list[Image.Image]]] = {
    2: lambda image: [image, transforms.functional.hflip(image)],
    5: transforms.FiveCrop((32, 24)),
    10: transforms.TenCrop((32, 24)),
}


def photograph(height: int = 60, width: int = 47) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("views", [5, 10])
def test_views_are_torchvisions_crops_in_their_order(views: Views) -> None:
    seen = Preprocessing(image_size=32, image_width=24, crop_pct=0.8)
    transform = OversampledTransform(seen, views)
    pixels = transform(photograph()).reshape(views, 3, 32, 24)
    scaled = transform.resized(photograph())
    assert scaled.height > 32 and scaled.width > 24
    for found, crop in zip(pixels, TORCHVISIONS[views](scaled), strict=True):
        expected = np.empty((3, 32, 24), np.float32)
        EvalTransform(seen).finish(crop, expected)
        np.testing.assert_array_equal(found, expected)


def test_two_views_are_what_evaluation_sees_and_its_mirror_image() -> None:
    first, second = OversampledTransform(SEEN, 2)(photograph()).reshape(2, 3, 32, 32)
    np.testing.assert_array_equal(first, EvalTransform(SEEN)(photograph()))
    np.testing.assert_array_equal(second, first[:, :, ::-1])


def test_an_image_that_is_smaller_than_its_crops_gets_borders() -> None:
    seen = Preprocessing(image_size=32, crop_mode="border", crop_pct=1.0)
    pixels = OversampledTransform(seen, 5)(photograph(64, 8)).reshape(5, 3, 32, 32)
    for view in pixels:
        np.testing.assert_array_equal(view, EvalTransform(seen)(photograph(64, 8)))


def test_logits_of_views_are_averaged() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, 7)).astype(np.float32)
    images = rng.standard_normal((4, 10 * 3, 8, 8)).astype(np.float32)
    seen = []

    def answer(batch: np.ndarray) -> np.ndarray:
        seen.append(batch.shape)
        return batch.mean((2, 3)) @ weights

    expected = images.reshape(4, 10, 3, 8, 8).mean((1, 3, 4)) @ weights
    np.testing.assert_allclose(averaged(answer, 10)(images), expected, rtol=1e-4, atol=1e-6)
    assert seen == [(4, 3, 8, 8)] * 10
