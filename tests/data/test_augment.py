from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from xcit_hub.data import augment
from xcit_hub.data.augment import Canvas, RandAugment, RandomErasing, TrainTransform, color_jitter, crop_box
from xcit_hub.errors import InputError

auto_augment = pytest.importorskip("timm.data.auto_augment")

FILL = (124, 116, 104)


def photograph() -> Image.Image:
    from skimage.data import astronaut

    return Image.fromarray(astronaut()[:300, 100:340])


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def older_pillow() -> Iterator[None]:
    """Let timm posterize to 0 bits as older versions of Pillow do; newer ones raise."""

    def posterize(image: Image.Image, bits: int) -> Image.Image:
        return image.point([value & ~(2 ** (8 - bits) - 1) for value in range(256)] * 3)

    with mock.patch.object(auto_augment.ImageOps, "posterize", posterize):
        yield


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0.0, 3.3, 9.0, 10.0, 14.0])
def test_every_operation_is_timms_to_the_pixel(increasing: bool, sign: int, magnitude: float) -> None:
    image = photograph()
    canvas = Canvas(FILL, Image.Resampling.BICUBIC)
    for name, operation in (augment.INCREASING if increasing else augment.FALLING).items():
        rises = increasing and name not in augment._ALWAYS
        theirs = f"{name}Increasing" if rises else name
        level_of = auto_augment.LEVEL_TO_ARG[theirs]
        with mock.patch("random.random", return_value=0.9 if sign < 0 else 0.1):
            arguments = level_of(magnitude, {}) if level_of else ()
        expected = auto_augment.NAME_TO_OP[theirs](image, *arguments, fillcolor=FILL, resample=Image.Resampling.BICUBIC)
        found = operation(image, magnitude / 10, sign, canvas)
        assert np.array_equal(np.asarray(found), np.asarray(expected)), name


def test_mindcvs_policy_is_read_as_timm_reads_it() -> None:
    policy = RandAugment.parse("randaug-m9-mstd0.5-inc1")
    assert policy == RandAugment(magnitude=9, deviation=0.5, layers=2, probability=0.5, increasing=True)
    timms = auto_augment.rand_augment_transform("rand-m9-mstd0.5-inc1", {})
    assert len(timms.ops) == len(augment.INCREASING)
    assert timms.num_layers == policy.layers
    assert {operation.prob for operation in timms.ops} == {policy.probability}


def test_mindcvs_name_brings_mindcvs_deviation() -> None:
    assert RandAugment.parse("rand-m9").deviation == 0.0
    assert RandAugment.parse("randaug-m9").deviation == 0.5


@pytest.mark.parametrize(
    "text",
    [
        *("autoaug-m9", "randaug-m9-z3", "randaug-m", "trivialaugwide", ""),
        *("rand-m9.5", "rand-m9-m9", "rand-mstd", "rand-mstdinf", "rand-inc2", "rand-w0", "rand-t3a", "rand-n1e9"),
        *("rand-p1.5", "rand-mmax0", "rand--m9", "rand-m-9", "rand-m9-", "rand-n16-tweights", "rand-m\uff19"),
    ],
)
def test_a_policy_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        RandAugment.parse(text)


@pytest.mark.parametrize(
    "text",
    ["m9-mstd0.5-inc1", "m9-mstd101", "m9-mstd101-inc1", "m12-mmax20-mstd1", "n3-p0.3-m4", "m9-mstd0.5-tweights"],
)
def test_operations_are_drawn_as_often_as_timm_draws_them(text: str) -> None:
    """Count how often an image stays untouched, and the mean change: both must agree with timm's own transform."""
    image = photograph().resize((32, 32))
    ours, theirs = [], []
    policy, canvas, rng = (
        RandAugment.parse(f"rand-{text}"),
        Canvas(FILL, Image.Resampling.BICUBIC),
        generator(),
    )
    random.seed(0)
    np.random.seed(0)
    timms = auto_augment.rand_augment_transform(
        f"rand-{text}", {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    )
    before = np.asarray(image, np.float32)
    for _ in range(1500):
        ours.append(np.abs(np.asarray(policy(image, canvas, rng), np.float32) - before).mean())
        theirs.append(np.abs(np.asarray(timms(image), np.float32) - before).mean())
    assert _same_distribution(ours, theirs)


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
        assert _same_distribution(found, expected)


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


def test_erased_rectangles_are_distributed_as_timms() -> None:
    import torch
    from timm.data.random_erasing import RandomErasing as TimmErasing

    random.seed(1)
    torch.manual_seed(1)
    timms = TimmErasing(probability=0.25, min_area=0.02, max_area=1 / 3, min_aspect=0.3, mode="pixel", device="cpu")
    ours = RandomErasing(0.25, (0.02, 1 / 3), (0.3, 1 / 0.3), noise=True)
    rng = generator(1)
    found, expected = [], []
    for _ in range(4000):
        found.append(float((ours(np.full((3, 32, 32), 9, np.float32), rng) != 9).mean()))
        expected.append(float((timms(torch.full((3, 32, 32), 9.0)) != 9).float().mean()))
    assert np.mean(np.array(found) > 0) == pytest.approx(0.25, abs=0.03)
    assert _same_distribution(found, expected)


def test_erasing_fills_with_noise_or_with_the_mean() -> None:
    whole = np.full((3, 64, 64), 9, np.float32)
    noise = RandomErasing(1.0, (0.3, 0.33), (1.0, 1.0), noise=True)(whole.copy(), generator())
    erased = noise[noise != 9]
    assert erased.mean() == pytest.approx(0, abs=0.1)
    assert erased.std() == pytest.approx(1, abs=0.1)
    plain = RandomErasing(1.0, (0.3, 0.33), (1.0, 1.0), noise=False)(whole.copy(), generator())
    assert set(np.unique(plain)) == {0.0, 9.0}


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
        "policy": RandAugment.parse("randaug-m9-mstd0.5-inc1"),
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "erasing": RandomErasing(0.25, (0.02, 1 / 3), (0.3, 3.3), noise=True),
    }
    return TrainTransform(**{**settings, **changes})


def _view(transform: TrainTransform, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    pixels = np.full(transform.shape, np.nan, np.float32)
    transform.finish(transform.cut(image, rng), rng, pixels)
    return pixels


def _same_distribution(left: list[Any], right: list[Any]) -> bool:
    """Two-sample Kolmogorov-Smirnov test at the 0.1% level."""
    values = np.sort(np.concatenate([left, right]))
    distance = np.abs(
        np.searchsorted(np.sort(left), values, "right") / len(left)
        - np.searchsorted(np.sort(right), values, "right") / len(right)
    ).max()
    return bool(distance < 1.95 * math.sqrt((len(left) + len(right)) / (len(left) * len(right))))
