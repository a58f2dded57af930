from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from xcit_hub.data.mixing import Mixing, cutmix, cutmix_box, dense_targets, mixup

torch = pytest.importorskip("torch")
timm_mixup = pytest.importorskip("timm.data.mixup")

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((6, 3, 24, 16)).astype(np.float32)
LABELS = RNG.integers(0, 5, 6)


def timms(share: float, *, cut: bool, center: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
    mixer = timm_mixup.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=5)
    with (
        mock.patch.object(mixer, "_params_per_batch", return_value=(share, cut)),
        mock.patch("numpy.random.randint", side_effect=center),
    ):
        images, targets = mixer(torch.from_numpy(IMAGES.copy()), torch.from_numpy(LABELS))
    return images.numpy(), targets.numpy()


def test_smoothed_targets_are_timms() -> None:
    expected = timm_mixup.mixup_target(torch.from_numpy(LABELS), 5, lam=1.0, smoothing=0.1).numpy()
    np.testing.assert_allclose(dense_targets(LABELS, 5, 0.1), expected, atol=1e-7)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_mixup_is_timms_for_the_same_draw(share: float) -> None:
    images, targets = mixup(IMAGES, dense_targets(LABELS, 5, 0.1), share)
    expected_images, expected_targets = timms(share, cut=False)
    np.testing.assert_allclose(images, expected_images, atol=1e-6)
    np.testing.assert_allclose(targets, expected_targets, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("center", [(0, 0), (12, 8), (23, 15)])
def test_cutmix_is_timms_for_the_same_draw(share: float, center: tuple[int, int]) -> None:
    box = cutmix_box((24, 16), share, center)
    images, targets = cutmix(IMAGES, dense_targets(LABELS, 5, 0.1), box)
    expected_images, expected_targets = timms(share, cut=True, center=center)
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_allclose(targets, expected_targets, atol=1e-6)


def test_batches_switch_between_the_two_as_often_as_asked() -> None:
    mixing, rng = Mixing(0.8, 1.0, probability=0.8, switch=0.5), np.random.default_rng(0)
    targets = dense_targets(LABELS, 5, 0.0)
    counts = {"whole": 0, "cut": 0, "blend": 0}
    for _ in range(1000):
        mixed, _ = mixing(IMAGES, targets, rng)
        if mixed is IMAGES:
            counts["whole"] += 1
        else:
            counts["cut" if np.isin(mixed, IMAGES).all() else "blend"] += 1
    assert counts["whole"] == pytest.approx(200, abs=50)
    assert counts["cut"] == pytest.approx(400, abs=60)


def test_nothing_happens_with_both_off() -> None:
    targets = dense_targets(LABELS, 5, 0.0)
    images, unchanged = Mixing(0.0, 0.0, 1.0, 0.5)(IMAGES, targets, np.random.default_rng(0))
    assert images is IMAGES
    assert unchanged is targets


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("minmax", [None, (0.2, 0.8)])
@pytest.mark.parametrize("alphas", [(0.8, 1.0), (0.8, 0.0), (0.0, 1.0)], ids=["both", "mixup", "cutmix"])
def test_every_mode_is_timms_for_the_same_draws(
    mode: str, minmax: tuple[float, float] | None, alphas: tuple[float, float]
) -> None:
    """timm draws from numpy's global numbers: here it is given those of a generator, and ours one like it."""
    theirs, ours = np.random.default_rng(5), np.random.default_rng(5)
    mixer = timm_mixup.Mixup(
        *alphas, cutmix_minmax=minmax, prob=0.7, switch_prob=0.4, mode=mode, label_smoothing=0.1, num_classes=5
    )
    mixing = Mixing(*alphas, probability=0.7, switch=0.4, mode=mode, minmax=minmax)  # type: ignore[arg-type]
    draws = {
        "rand": lambda *size: theirs.random(*size),
        "beta": lambda a, b, size=None: theirs.beta(a, b, size),
        "randint": lambda low, high, size=None: theirs.integers(low, high, size),
    }
    mixed = 0
    with mock.patch.multiple("numpy.random", **draws):
        for _ in range(20):
            images, targets = mixing(IMAGES, dense_targets(LABELS, 5, 0.1), ours)
            expected_images, expected_targets = mixer(torch.from_numpy(IMAGES.copy()), torch.from_numpy(LABELS))
            np.testing.assert_allclose(images, expected_images.numpy(), atol=1e-6)
            np.testing.assert_allclose(targets, expected_targets.numpy(), atol=1e-6)
            mixed += not np.array_equal(images, IMAGES)
    assert mixed > 5
    assert ours.random() == theirs.random(), "both have drawn as many numbers"


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_after_the_last_mixed_epoch_batches_are_left_alone(mode: str) -> None:
    mixing = Mixing(0.8, 1.0, 1.0, 0.5, mode=mode, until=2)  # type: ignore[arg-type]
    targets = dense_targets(LABELS, 5, 0.1)
    for epoch in range(4):
        images, _ = mixing(IMAGES, targets, np.random.default_rng(0), epoch)
        assert (images is IMAGES) == (epoch >= 2)


def test_the_middle_image_of_an_odd_batch_has_no_partner() -> None:
    images, targets = IMAGES[:5], dense_targets(LABELS[:5], 5, 0.0)
    mixed, shares = Mixing(0.8, 0.0, 1.0, 0.5, mode="pair")(images, targets, np.random.default_rng(0))
    np.testing.assert_array_equal(mixed[2], images[2])
    np.testing.assert_array_equal(shares[2], targets[2])
    assert np.abs(mixed - images).reshape(5, -1).max(1)[[0, 1, 3, 4]].min() > 0.1
