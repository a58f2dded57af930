from __future__ import annotations

import random

import numpy as np
import pytest
from same_distribution import same_distribution

from xcit_hub.data.erasing import RandomErasing


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("count", [1, 3])
def test_erased_rectangles_are_distributed_as_timms(count: int) -> None:
    import torch

    timms_erasing = pytest.importorskip("timm.data.random_erasing").RandomErasing
    random.seed(1)
    torch.manual_seed(1)
    timms = timms_erasing(
        probability=0.25, min_area=0.02, max_area=1 / 3, min_aspect=0.3, mode="pixel", device="cpu", max_count=count
    )
    ours = RandomErasing(0.25, (0.02, 1 / 3), (0.3, 1 / 0.3), "pixel", count=count)
    rng = generator(1)
    found, expected = [], []
    for _ in range(4000):
        found.append(float((ours(np.full((3, 32, 32), 9, np.float32), rng) != 9).mean()))
        expected.append(float((timms(torch.full((3, 32, 32), 9.0)) != 9).float().mean()))
    assert np.mean(np.array(found) > 0) == pytest.approx(0.25, abs=0.03)
    assert same_distribution(found, expected)


@pytest.mark.parametrize("value", [0, 7, (1, 2, 3), "random"])
def test_a_mindcv_recipes_rectangles_are_mindspores(value: object) -> None:
    from mindspore.dataset import vision

    random.seed(2)
    np.random.seed(2)
    ratio = (0.3, 3.3)
    theirs = vision.RandomErasing(prob=0.5, scale=(0.02, 0.33), ratio=ratio, value=value, max_attempts=3)
    filling = "pixel" if value == "random" else value
    ours = RandomErasing(0.5, (0.02, 0.33), ratio, filling, attempts=3, mindspores=True)  # type: ignore[arg-type]
    rng = generator(2)
    sides: list[list[tuple[int, int]]] = [[], []]
    for _ in range(3000):
        whole = np.full((3, 32, 48), 9, np.float32)
        for which, erased in enumerate((ours(whole.copy(), rng), theirs(whole))):
            changed = (erased != 9).any(0)
            sides[which].append((int(changed.any(1).sum()), int(changed.any(0).sum())))
            if changed.any() and value != "random":
                assert np.array_equal(np.unique(erased[:, changed]), np.unique(np.float32(value)))
    for axis in (0, 1):
        assert same_distribution([side[axis] for side in sides[0]], [side[axis] for side in sides[1]])


def test_what_is_erased_is_filled_as_the_mode_says() -> None:
    whole = np.full((3, 64, 64), 9, np.float32)
    noise = RandomErasing(1.0, (0.3, 0.33), (1.0, 1.0), "pixel")(whole.copy(), generator())
    erased = noise[noise != 9]
    assert erased.mean() == pytest.approx(0, abs=0.1)
    assert erased.std() == pytest.approx(1, abs=0.1)
    plain = RandomErasing(1.0, (0.3, 0.33), (1.0, 1.0), 0.0)(whole.copy(), generator())
    assert set(np.unique(plain)) == {0.0, 9.0}
    colour = RandomErasing(1.0, (0.3, 0.33), (1.0, 1.0), "color")(whole.copy(), generator())
    assert [len(np.unique(channel)) for channel in colour] == [2, 2, 2]
    assert len(np.unique(colour)) == 4
    three = RandomErasing(1.0, (0.3, 0.33), (1.0, 1.0), (1.0, 2.0, 3.0))(whole.copy(), generator())
    assert [set(np.unique(channel)) for channel in three] == [{1.0, 9.0}, {2.0, 9.0}, {3.0, 9.0}]
