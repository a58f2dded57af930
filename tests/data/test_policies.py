"""Policies are timm's and MindCV's, operation for operation and in how often they do what."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from same_distribution import same_distribution

from xcit_hub.data import mindcv_operations, operations
from xcit_hub.data.operations import Canvas
from xcit_hub.data.policies import RandAugment
from xcit_hub.data.policy_notation import read_policy
from xcit_hub.errors import InputError

TRAINING = Path(__file__).parents[1] / "training"
sys.path.insert(0, str(TRAINING))
from mindcv_inputs import FILL, drawn_image  # noqa: E402

CANVAS = Canvas(FILL, Image.Resampling.BICUBIC)


def photograph() -> Image.Image:
    from skimage.data import astronaut

    return Image.fromarray(astronaut()[:300, 100:340])


@pytest.fixture
def timms() -> Iterator[Any]:
    """timm's module, which may posterize to 0 bits as older versions of Pillow do; newer ones raise."""
    module = pytest.importorskip("timm.data.auto_augment")

    def posterize(image: Image.Image, bits: int) -> Image.Image:
        return image.point([value & ~(2 ** (8 - bits) - 1) for value in range(256)] * 3)

    with mock.patch.object(module.ImageOps, "posterize", posterize):
        yield module


def between(chance: float) -> Any:
    return lambda low, high: low + (high - low) * chance


@pytest.mark.parametrize("chance", [0.1, 0.9])
@pytest.mark.parametrize("magnitude", [0.0, 3.3, 9.0, 10.0, 14.0])
def test_every_operation_is_timms_to_the_pixel(timms: Any, chance: float, magnitude: float) -> None:
    image = photograph()
    assert operations.OPERATIONS.keys() == timms.NAME_TO_OP.keys() - {"TranslateX", "TranslateY"}
    for name, operation in operations.OPERATIONS.items():
        level_of = timms.LEVEL_TO_ARG[name]
        with mock.patch("random.random", return_value=chance), mock.patch("random.uniform", between(chance)):
            arguments = level_of(magnitude, {}) if level_of else ()
            expected = timms.NAME_TO_OP[name](image, *arguments, fillcolor=FILL, resample=Image.Resampling.BICUBIC)
        found = operation(image, magnitude / 10, chance, CANVAS)
        assert np.array_equal(np.asarray(found), np.asarray(expected)), name


def test_every_operation_of_mindcv_is_mindcvs() -> None:
    """What MindCV 0.5 makes of an image, by fixtures/write_mindcv.py; a grey level may be rounded the other way."""
    image, seen = Image.fromarray(drawn_image()), set()
    with np.load(TRAINING / "fixtures" / "mindcv_operations.npz") as stored:
        for case in stored.files:
            *wide, name, magnitude, chance = case.split()
            seen.add((bool(wide), name))
            table, full = (mindcv_operations.WIDE, 31) if wide else (mindcv_operations.OPERATIONS, 10)
            canvas = Canvas(FILL, Image.Resampling.BICUBIC, 0.15) if wide else CANVAS
            found = np.asarray(table[name](image, float(magnitude) / full, float(chance), canvas), np.int32)
            assert np.abs(found - stored[case]).max() <= 1, case
    assert {name for wide, name in seen if not wide} == mindcv_operations.OPERATIONS.keys()
    assert {name for wide, name in seen if wide} == mindcv_operations.WIDE.keys()


def changes(text: str, library: Any, image: Image.Image, count: int) -> list[float]:
    policy, rng, before = read_policy(text, library), np.random.default_rng(0), np.asarray(image, np.float32)
    return [float(np.abs(np.asarray(policy(image, CANVAS, rng), np.float32) - before).mean()) for _ in range(count)]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "rand-m9-mstd0.5-inc1",
            "rand-m9-mstd101",
            "rand-m9-mstd101-inc1",
            "rand-m12-mmax20-mstd1",
            "rand-n3-p0.3-m4",
        ),
        *("rand-m9-mstd0.5-tweights", "rand-m9-t3a-n1", "rand-m9-n3-t3aw", "original", "originalr-mstd0.5", "v0"),
        *("v0r-mstd0.5", "3a", "augmix-m5-w4-d2", "augmix-m3-mstd0.5-a0.5", "augmix-m5-b1"),
    ],
)
def test_images_change_as_much_as_timms_policy_changes_them(timms: Any, text: str) -> None:
    """Count how often an image stays untouched, and the mean change: both must agree with timm's own transform."""
    image = photograph().resize((32, 32))
    random.seed(0)
    np.random.seed(0)
    settings: dict[str, Any] = {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    if text.startswith("augmix"):
        theirs = timms.augment_and_mix_transform(text, {**settings, "translate_pct": 0.3})
    else:
        make = timms.rand_augment_transform if text.startswith("rand") else timms.auto_augment_transform
        theirs = make(text, settings)
    before = np.asarray(image, np.float32)
    expected = [float(np.abs(np.asarray(theirs(image), np.float32) - before).mean()) for _ in range(1000)]
    assert same_distribution(changes(text, "timm", image, 1000), expected)


MINDCVS: dict[str, list[float]] = json.loads((TRAINING / "fixtures" / "mindcv_policies.json").read_text())


@pytest.mark.parametrize("text", MINDCVS)
def test_images_change_as_much_as_mindcvs_policy_changes_them(text: str) -> None:
    found = changes(text, "mindcv", Image.fromarray(drawn_image()), 400)
    # Most policies change an image in a few ways only, and what is stored is rounded.
    ours, theirs = ([float(f"{value:.3g}") for value in values] for values in (found, MINDCVS[text]))
    assert same_distribution(ours, theirs)


def test_a_policy_is_that_of_the_library_that_its_name_is_of() -> None:
    timms, mindcvs = read_policy("rand-m9"), read_policy("randaug-m9")
    assert isinstance(timms, RandAugment)
    assert isinstance(mindcvs, RandAugment)
    assert (timms.library, timms.severity.deviation, len(timms.names)) == ("timm", 0.0, 15)
    assert (mindcvs.library, mindcvs.severity.deviation, len(mindcvs.names)) == ("mindcv", 0.5, 14)
    for text in ("3a", "augmix"):
        assert read_policy(text, "timm") != read_policy(text, "mindcv")
    assert math.isinf(read_policy("rand-mstd101").severity.deviation)  # type: ignore[attr-defined]


def test_mindcvs_parts_are_read_as_mindcv_runs_them() -> None:
    assert read_policy("randaug-m9-mstd3") == read_policy("randaug-m9-mstd0.5") == read_policy("randaug-m9")
    assert read_policy("randaug-m9-inc0") == read_policy("randaug-m9-inc1") != read_policy("randaug-m9")
    assert read_policy("autoaug-mstd3") == read_policy("autoaug")


@pytest.mark.parametrize(
    "text",
    [
        *("autoaug-m9", "randaug-m9-z3", "randaug-m", "trivialaugwide-n2", "", "augmix-b1", "augmix-w0", "augmix-a0"),
        *("rand-m9.5", "rand-m9-m9", "rand-mstd", "rand-mstdinf", "rand-inc2", "rand-w0", "rand-t3b", "rand-n1e9"),
        *("rand-p1.5", "rand-mmax0", "rand--m9", "rand-m-9", "rand-m9-", "rand-n16-tweights", "rand-m\uff19"),
        *("randaug-w1", "randaug-n14-w0", "v1", "originals", "3a-m3", "autoaugrr", "rand-n4-t3a4", "augmix-d0"),
    ],
)
def test_a_policy_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        read_policy(text)
