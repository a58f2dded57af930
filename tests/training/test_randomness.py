from __future__ import annotations

import mindspore
import numpy as np
import pytest
from mindspore import Tensor, nn

from xcit_hub.training.randomness import SeededDropout, seed_dropout


class Two(nn.Cell):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.first = nn.Dropout(p=p)
        self.second = nn.Dropout(p=p)
        self.never = nn.Dropout(p=0.0)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.first(x), self.second(self.never(x))


def masks(seed: int = 1, rank: int = 0, step: int = 0, p: float = 0.3) -> list[np.ndarray]:
    network = Two(p)
    counter = seed_dropout(network, seed, rank)
    assert counter is not None
    counter.set_data(Tensor(step, mindspore.int32))
    network.set_train(True)
    return [out.asnumpy().ravel() for out in network(Tensor(np.ones((40, 500), np.float32)))]


@pytest.mark.parametrize("mode", ["pynative", "graph"])
def test_a_mask_is_decided_by_seed_worker_cell_and_step_alone(mode: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(mode)
    first, second = masks()
    np.testing.assert_array_equal(first, masks()[0])
    assert set(np.unique(first).tolist()) == {0.0, np.float32(1 / 0.7)}
    for other in (second, masks(seed=2)[0], masks(rank=1)[0], masks(step=1)[0]):
        assert (other == 0).mean() == pytest.approx(0.3, abs=0.015)
        # Two independent masks agree where both keep or both drop.
        assert (other == first).mean() == pytest.approx(0.7**2 + 0.3**2, abs=0.02)


@pytest.mark.usefixtures("pynative")
def test_neighbouring_elements_are_independent() -> None:
    dropped = masks()[0] == 0
    for distance in (1, 2, 500):
        assert (dropped[:-distance] & dropped[distance:]).mean() == pytest.approx(0.09, abs=0.01)


@pytest.mark.usefixtures("pynative")
def test_evaluation_drops_nothing_and_what_never_drops_stays_what_it_is() -> None:
    network = Two(0.5)
    seed_dropout(network, 1, 0)
    assert not network.parameters_dict(), "the step is not a weight"
    assert isinstance(network.first, SeededDropout)
    assert isinstance(network.never, nn.Dropout)
    network.set_train(False)
    assert all((out.asnumpy() == 1).all() for out in network(Tensor(np.ones((3, 4), np.float32))))
    assert seed_dropout(Two(0.0), 1, 0) is None
