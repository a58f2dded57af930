from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from PIL import Image
from same_distribution import same_distribution

from xcit_hub.data.augment import SplitTransform, TrainTransform, color_jitter, crop_box
from xcit_hub.data.erasing import RandomErasing
from xcit_hub.data.policy_notation import read_policy

pytest.importorskip("timm")


def photograph() -> Image.Image:
    from skimage.data import astronaut

    return Image.fromarray(astronaut()[:300, 100:340])


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_crops_are_distributed_as_timms() -> None:
    from timm.data.transforms import RandomResizedCropAndInterpolation

    random.seed(0)
    rng, image = generator(), Image.new("RGB", (200, 150))
    scale, ratio = (0.08, 1.0), (0.75, 4 / 3)
    ours = [crop_box(image.size, scale, ratio, rng) for _ in range(2000)]
    theirs = [RandomResizedCropAndInterpolation.get_params(image, scale, ratio) for _ in range(2000)]
    for found, expected in (
        ([box[1] for box in ours], [box[0] for box in theirs]),
        ([box[0] for box in ours], [box[1] for box in theirs]),
        ([box[3] - box[1] for box in ours], [box[2] for box in theirs]),
        ([box[2] - box[0] for box in ours], [box[3] for box in theirs]),
    ):
        assert same_distribution(found, expected)


def test_an_image_too_narrow_for_any_crop_gives_its_middle() -> None:
    from timm.data.transforms import RandomResizedCropAndInterpolation

    image = Image.new("RGB", (400, 3))
    top, left, height, width = RandomResizedCropAndInterpolation.get_params(image, (1.0, 1.0), (0.75, 4 / 3))
    assert crop_box(image.size, (1.0, 1.0), (0.75, 4 / 3), generator()) == (left, top, left + width, top + height)


def test_jitter_is_torchvisions_given_its_draws() -> None:
    from torchvision.transforms import functional

    image, rng = photograph(), generator(5)
    found = color_jitter(image, (0.4, 0.4, 0.4), rng)
    rng = generator(5)
    factors, order = rng.uniform(0.6, 1.4, size=3), rng.permutation(3)
    adjust = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for which in order:
        image = adjust[which](image, factors[which])
    assert np.array_equal(np.asarray(found), np.asarray(image))


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.31])
def test_hue_is_turned_as_torchvision_turns_it(turn: float) -> None:
    from torchvision.transforms import functional

    image = photograph()

    class Drawn:
        def uniform(self, low: Any, _: Any) -> Any:
            return turn if np.isscalar(low) else np.ones(3)

        def permutation(self, count: int) -> Any:
            return np.arange(count)

    found = color_jitter(image, (0.4, 0.4, 0.4, 0.5), Drawn())  # type: ignore[arg-type]
    assert np.array_equal(np.asarray(found), np.asarray(functional.adjust_hue(image, turn)))


def test_a_turned_hue_leaves_the_alpha_channel_and_grey_images_as_they_are() -> None:
    strengths = (0.0, 0.0, 0.0, 0.5)
    image = photograph()
    alpha = image.convert("L")
    clear = image.copy()
    clear.putalpha(alpha)
    turned = color_jitter(clear, strengths, generator())
    assert turned.getchannel("A").tobytes() == alpha.tobytes()
    assert turned.convert("RGB").tobytes() == color_jitter(image, strengths, generator()).tobytes() != image.tobytes()
    assert color_jitter(alpha, strengths, generator()).tobytes() == alpha.tobytes()


def test_the_views_of_an_image_are_one_crop_the_first_untouched() -> None:
    split = SplitTransform(_transform(policy=read_policy("augmix-m5"), erasing=None), 3)
    pixels = np.full(split.shape, np.nan, np.float32)
    image, rng = photograph(), generator(3)
    split.finish(split.cut(image, rng), rng, pixels)
    rng = generator(3)
    clean = np.empty(split.shape[1:], np.float32)
    plain = _transform(policy=None, erasing=None)
    plain.finish(plain.cut(image, rng), rng, clean)
    assert np.array_equal(pixels[0], clean)
    assert np.isfinite(pixels).all()
    assert not np.array_equal(pixels[1], pixels[0])
    assert not np.array_equal(pixels[1], pixels[2])


def test_a_view_depends_on_its_generator_alone() -> None:
    transform = _transform()
    image = photograph()
    first, again, other = (_view(transform, image, generator(seed)) for seed in (1, 1, 2))
    assert np.isfinite(first).all(), "every pixel is written"
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_augmentation_a_view_is_the_resized_normalised_image() -> None:
    transform = _transform(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0, policy=None, erasing=None)
    image = photograph().crop((0, 0, 200, 200))
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC), np.float32) / 255
    expected = (expected - np.float32(transform.mean)) / np.float32(transform.std)
    np.testing.assert_array_equal(_view(transform, image, generator()), expected.transpose(2, 0, 1))
    flipped = _transform(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=1.0, policy=None, erasing=None)
    np.testing.assert_array_equal(_view(flipped, image, generator()), expected.transpose(2, 0, 1)[:, :, ::-1])


def _transform(**changes: Any) -> TrainTransform:
    settings: dict[str, Any] = {
        "size": 64,
        "scale": (0.08, 1.0),
        "ratio": (0.75, 4 / 3),
        "hflip": 0.5,
        "vflip": 0.0,
        "jitter": (0.0, 0.0, 0.0),
        "policy": read_policy("rand-m9-mstd0.5-inc1"),
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "erasing": RandomErasing(0.25, (0.02, 1 / 3), (0.3, 3.3), "pixel"),
    }
    return TrainTransform(**{**settings, **changes})


def _view(transform: TrainTransform, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    pixels = np.full(transform.shape, np.nan, np.float32)
    transform.finish(transform.cut(image, rng), rng, pixels)
    return pixels
