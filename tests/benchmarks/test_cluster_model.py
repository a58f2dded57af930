"""The simulation of many cards: its formulae by hand, its limits by the closed forms."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from benchmarks.cluster_model import (
    Cluster,
    daly,
    exchange_seconds,
    failure_seconds,
    harmonic,
    input_seconds,
    outcome,
    ring_bytes,
    simulate_steps,
    simulate_wall,
    simulated_walls,
    slowest,
    step_seconds,
    wall_seconds,
    young,
)

CALM = Cluster(
    compute=0.2, jitter=0.0, gradient_bytes=8e6, bandwidth=1e9, latency=1e-5, batch=100, images_a_core=250.0, cores=4.0,
    input_jitter=0.0, ahead=2, card_hours=math.inf, restart=100.0, checkpoint=1.0,
)  # fmt: skip


def changed(**values: float) -> Cluster:
    return dataclasses.replace(CALM, **values)


def test_a_ring_sends_what_is_counted_by_hand() -> None:
    # Two cards: each sends half of it to be summed and half of the sum. Four: three quarters, twice.
    assert ring_bytes(8e6, 2) == 8e6
    assert ring_bytes(8e6, 4) == 12e6
    assert ring_bytes(8e6, 1) == 0.0
    assert exchange_seconds(CALM, 2) == pytest.approx(8e6 / 1e9 + 2 * 1e-5)
    assert exchange_seconds(CALM, 4) == pytest.approx(0.012 + 6e-5)
    assert exchange_seconds(CALM, 1) == 0.0


def test_the_slowest_of_several_is_what_order_statistics_say() -> None:
    assert harmonic(1) == 1.0
    assert harmonic(4) == pytest.approx(25 / 12)
    assert step_seconds(changed(jitter=0.012), 4) == pytest.approx(0.2 + 0.012 * 25 / 12 + 0.01206)
    for cards in (1, 8, 1024):
        drawn = slowest(np.random.default_rng(0), 2.0, cards, 40_000)
        # Its standard deviation is below mean · π/√6: six of them by √40,000.
        assert abs(drawn.mean() - 2.0 * harmonic(cards)) < 6 * 2.0 * math.pi / math.sqrt(6 * 40_000)
        assert drawn.min() >= 0.0
    assert not slowest(np.random.default_rng(0), 0.0, 8, 5).any()


def test_input_is_the_batch_over_the_cores() -> None:
    assert input_seconds(CALM, 8) == pytest.approx(0.1)
    assert input_seconds(changed(input_jitter=0.03), 2) == pytest.approx(0.1 + 0.045)


@pytest.mark.parametrize("cores", [1.0, 4.0], ids=["slow input", "slow cards"])
def test_without_jitter_the_slower_of_both_sets_the_pace_to_the_last_step(cores: float) -> None:
    calm = changed(cores=cores)
    made, takes = input_seconds(calm, 8), step_seconds(calm, 8)
    ended = simulate_steps(calm, 8, 50, np.random.default_rng(0))
    np.testing.assert_allclose(ended, made + takes + np.arange(50) * max(made, takes), rtol=1e-12)


def test_a_queue_of_one_batch_makes_the_next_while_this_one_is_computed() -> None:
    ended = simulate_steps(changed(ahead=1, cores=1.0), 8, 3, np.random.default_rng(0))
    takes = step_seconds(CALM, 8)
    # Batches at 0.4, 0.8 and 1.2 seconds: each is begun when the one before is taken.
    np.testing.assert_allclose(ended, [0.4 + takes, 0.8 + takes, 1.2 + takes], rtol=1e-12)


def test_jitter_costs_what_the_closed_form_says_where_input_is_quick() -> None:
    restless = changed(jitter=0.02, cores=1e9)
    gaps = np.diff(simulate_steps(restless, 64, 20_000, np.random.default_rng(1)))
    expected = step_seconds(restless, 64)
    assert abs(gaps.mean() - expected) < 6 * 0.02 * math.pi / math.sqrt(6 * 20_000)


def test_failures_add_up_over_cards_and_the_best_interval_is_youngs_and_dalys() -> None:
    assert failure_seconds(changed(card_hours=1000.0), 10) == 360_000.0
    assert young(2.0, 3600.0) == 120.0
    # By hand: √(2·2·3600) = 120; δ/2M = 1/3600, its root 1/60: 120 · (1 + 1/180 + 1/32400) − 2.
    assert daly(2.0, 3600.0) == pytest.approx(120 * (1 + 1 / 180 + 1 / 32_400) - 2)
    assert daly(7200.0, 3600.0) == 3600.0
    costs = {
        factor: wall_seconds(1e5, factor * daly(2.0, 3600.0), 2.0, 60.0, 3600.0) for factor in (0.5, 0.9, 1, 1.1, 2)
    }
    assert min(costs, key=costs.__getitem__) == 1


def test_without_failures_a_training_is_its_work_and_its_checkpoints() -> None:
    assert wall_seconds(1000.0, 100.0, 3.0, 50.0, math.inf) == 1030.0
    assert simulate_wall(1000.0, 100.0, 3.0, 50.0, math.inf, np.random.default_rng(0)) == (1030.0, 0)
    # Rarer and rarer failures: the same in the limit.
    assert wall_seconds(1000.0, 100.0, 3.0, 50.0, 1e12) == pytest.approx(1030.0)


def test_a_failure_costs_the_restart_and_what_was_done_since_the_checkpoint() -> None:
    class Scripted:
        """Failures at moments that are counted by hand."""

        def __init__(self, *times: float) -> None:
            self.times = iter((*times, math.inf))

        def exponential(self, _: float) -> float:
            return next(self.times)

    # 103 s to the first checkpoint; 47 s into the second piece it fails: 50 + 100 + 3 again.
    assert simulate_wall(200.0, 100.0, 3.0, 50.0, 1.0, Scripted(150.0)) == (150.0 + 153.0, 1)  # type: ignore[arg-type]
    # It fails in the restart, too, and begins it anew.
    assert simulate_wall(200.0, 100.0, 3.0, 50.0, 1.0, Scripted(150.0, 49.0)) == (199.0 + 153.0, 2)  # type: ignore[arg-type]


def test_the_mean_of_simulated_trainings_is_dalys_expectation() -> None:
    rng = np.random.default_rng(3)
    drawn = [simulate_wall(20_000.0, 500.0, 5.0, 60.0, 4000.0, rng)[0] for _ in range(3000)]
    expected = wall_seconds(20_000.0, 500.0, 5.0, 60.0, 4000.0)
    error = np.std(drawn) / math.sqrt(len(drawn))
    assert abs(np.mean(drawn) - expected) < 6 * error


def test_a_training_that_never_ends_is_given_up() -> None:
    assert simulate_wall(100.0, 100.0, 1.0, 100.0, 1.0, np.random.default_rng(0))[0] == math.inf
    assert wall_seconds(1e6, 1e6, 1.0, 1.0, 1.0) == math.inf


def test_a_training_of_very_many_pieces_is_its_mean_and_so_is_one_that_never_ends() -> None:
    rng = np.random.default_rng(5)
    few = simulated_walls(1000.0, 1.0, 0.1, 1.0, 300.0, rng, 50)
    many = simulated_walls(10_000.0, 1.0, 0.1, 1.0, 300.0, rng, 50)
    assert few[1] < few[0] < few[2]
    assert many == (wall_seconds(10_000.0, 1.0, 0.1, 1.0, 300.0),) * 3
    assert many[0] / few[0] == pytest.approx(10, rel=0.01)
    assert simulated_walls(1e6, 1e6, 1.0, 1.0, 1.0, rng, 10**9) == (math.inf,) * 3
    assert wall_seconds(1.0, 1.0, 0.0, 1e6, 1.0) == math.inf, "a restart that never ends"


def test_an_outcome_follows_from_its_seed_and_without_disturbance_from_arithmetic() -> None:
    calm = outcome(CALM, 8, images=80_000, epochs=3, seed=1, drawn=100, trainings=3)
    assert calm == outcome(CALM, 8, images=80_000, epochs=3, seed=1, drawn=100, trainings=3)
    step = max(step_seconds(CALM, 8), 0.1)
    assert calm.steps == 100
    assert calm.simulated == pytest.approx((step, step, step))
    assert calm.images == pytest.approx(800 / step)
    assert calm.undisturbed == pytest.approx(300 * step)
    assert calm.each_epoch == pytest.approx((300 * step + 3,) * 3)
    assert (calm.failures, calm.expected) == (0.0, pytest.approx(300 * step + 1))
    restless = changed(jitter=0.01, card_hours=1.0)
    assert outcome(restless, 8, images=80_000, epochs=3, seed=1) != outcome(
        restless, 8, images=80_000, epochs=3, seed=2
    )
