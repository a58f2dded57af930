"""How long a training takes on many cards: closed forms, and a simulation of what they leave out.

A step of n cards is the slowest card's computing and the exchange of gradients; it begins when the last one has ended
and its batch is ready. Between checkpoints a card may fail; what was done since the last one is then done again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]
_MANY_PIECES = 5000


@dataclass(frozen=True)
class Cluster:
    """What is known or assumed of the cards, of one another and of what feeds them.

    Args:
        compute: seconds of a step on a card, without exchange and waiting.
        jitter: mean of the seconds, exponentially distributed, that a card takes longer at a step.
        gradient_bytes: that every card has to sum with the others' at each step.
        bandwidth: bytes a second that a card sends.
        latency: seconds of one hop of the ring.
        batch: images a step on each card.
        images_a_core: images that one core makes ready in a second.
        cores: that make images ready for each card.
        input_jitter: mean of the seconds, exponentially distributed, that a batch takes longer.
        ahead: batches that are kept ready.
        card_hours: mean time between two failures of one card, in hours.
        restart: seconds from a failure to the first step: start, compilation, reading the state.
        checkpoint: seconds for which all cards wait while the state is written.
    """

    compute: float
    jitter: float
    gradient_bytes: float
    bandwidth: float
    latency: float
    batch: int
    images_a_core: float
    cores: float
    input_jitter: float
    ahead: int
    card_hours: float
    restart: float
    checkpoint: float


# ---- closed forms --------------------------------------------------------------------------------


def ring_bytes(size: float, cards: int) -> float:
    """Return the bytes that each card sends to sum ``size`` bytes over a ring: 2 · (n − 1) / n of them.

    Every card sends n − 1 pieces of 1/n while sums are made, and as many while they are handed round (Patarasu and
    Yuan, 2009).
    """
    return 2 * (cards - 1) / cards * size


def exchange_seconds(cluster: Cluster, cards: int) -> float:
    """Return the seconds of one ring all-reduce: its bytes, and 2 · (n − 1) hops."""
    return ring_bytes(cluster.gradient_bytes, cards) / cluster.bandwidth + 2 * (cards - 1) * cluster.latency


def harmonic(count: int) -> float:
    """Return 1 + 1/2 + … + 1/n: the expected largest of n exponential variables of mean 1."""
    return math.fsum(1 / number for number in range(1, count + 1))


def step_seconds(cluster: Cluster, cards: int) -> float:
    """Return the expected seconds of a step whose batch is ready: computing, the slowest card's delay, the exchange."""
    return cluster.compute + cluster.jitter * harmonic(cards) + exchange_seconds(cluster, cards)


def input_seconds(cluster: Cluster, cards: int) -> float:
    """Return the expected seconds in which every card's next batch becomes ready."""
    each = cluster.batch / (cluster.images_a_core * cluster.cores)
    return each + cluster.input_jitter * harmonic(cards)


def failure_seconds(cluster: Cluster, cards: int) -> float:
    """Return the mean seconds between two failures of any of the cards; infinite where none fails."""
    return cluster.card_hours * 3600 / cards


def young(checkpoint: float, between_failures: float) -> float:
    """Return the best seconds between two checkpoints: √(2δM) (Young, 1974)."""
    return math.sqrt(2 * checkpoint * between_failures)


def daly(checkpoint: float, between_failures: float) -> float:
    """Return the same to a higher order (Daly, 2006, equation 37); M itself where checkpoints take 2M or longer."""
    if checkpoint >= 2 * between_failures:
        return between_failures
    part = checkpoint / (2 * between_failures)
    return young(checkpoint, between_failures) * (1 + math.sqrt(part) / 3 + part / 9) - checkpoint


def wall_seconds(work: float, between: float, checkpoint: float, restart: float, between_failures: float) -> float:
    """Return the expected seconds for ``work`` seconds of steps with a checkpoint after every ``between`` of them.

    M · e^(R/M) · (e^((τ+δ)/M) − 1) for each of them (Daly, 2006, equation 20): failures come without memory, in
    checkpoints and restarts, too. Without failures it is the work and its checkpoints.
    """
    pieces = work / between
    if math.isinf(between_failures):
        return pieces * (between + checkpoint)
    exponent = (between + checkpoint) / between_failures
    if max(exponent, restart / between_failures) > 500:
        return math.inf  # such a piece never ends
    return between_failures * math.exp(restart / between_failures) * math.expm1(exponent) * pieces


# ---- simulation ----------------------------------------------------------------------------------


def slowest(rng: np.random.Generator, mean: float, cards: int, count: int) -> Seconds:
    """Draw the largest of ``cards`` exponential variables, ``count`` times; by its distribution (1 − e^(−x/mean))ⁿ."""
    # 1 − U^(1/n), exact where n is large and the root is near 1.
    return -mean * np.log(-np.expm1(np.log1p(-rng.random(count)) / cards))


def simulate_steps(cluster: Cluster, cards: int, count: int, rng: np.random.Generator) -> Seconds:
    """Return the moment at which each of ``count`` steps ends; the first batch begins to be made at 0."""
    made = cluster.batch / (cluster.images_a_core * cluster.cores) + slowest(rng, cluster.input_jitter, cards, count)
    takes = cluster.compute + exchange_seconds(cluster, cards) + slowest(rng, cluster.jitter, cards, count)
    started, ended = np.zeros(count), np.zeros(count)
    ready = end = 0.0
    for number in range(count):
        # A batch is begun when the one before is made and its place in the queue is free.
        free = started[number - cluster.ahead] if number >= cluster.ahead else 0.0
        ready = max(ready, free) + made[number]
        started[number] = max(ready, end)
        ended[number] = end = started[number] + takes[number]
    return ended


def simulate_wall(
    work: float, between: float, checkpoint: float, restart: float, between_failures: float, rng: np.random.Generator
) -> tuple[float, int]:
    """Return the seconds of one training, and how often it failed.

    Failures come at any time, also during checkpoints and restarts; then the restart, and the piece since the last
    checkpoint, begin anew. A training that fails more than 100 times a piece is given up: infinite.
    """
    clock, failures, done = 0.0, 0, 0.0
    until = rng.exponential(between_failures) if math.isfinite(between_failures) else math.inf
    owed = 0.0  # of a restart
    while done < work:
        piece = min(between, work - done)
        needed = owed + piece + checkpoint
        if until >= needed:
            clock, until, done, owed = clock + needed, until - needed, done + piece, 0.0
            continue
        clock, failures, owed = clock + until, failures + 1, restart
        until = rng.exponential(between_failures)
        if failures > 100 * (1 + work / between):
            return math.inf, failures
    return clock, failures


def simulated_walls(
    work: float,
    between: float,
    checkpoint: float,
    restart: float,
    between_failures: float,
    rng: np.random.Generator,
    trainings: int,
) -> tuple[float, float, float]:
    """Return the median, the 5th and the 95th of a hundred of so many trainings' seconds.

    One of more than 5,000 pieces differs little from its mean, which then stands for all three; so it does where it
    is infinite.
    """
    expected = wall_seconds(work, between, checkpoint, restart, between_failures)
    if work / between > _MANY_PIECES or math.isinf(expected):
        return expected, expected, expected
    each = (checkpoint, restart, between_failures)
    return spread([simulate_wall(work, between, *each, rng)[0] for _ in range(trainings)])


@dataclass(frozen=True)
class Outcome:
    """What a number of cards make of a training.

    Args:
        step, exchange, made: expected seconds of a step whose batch is ready, of the exchange in it, and of the batch.
        simulated: median, and the 5th and 95th of a hundred, of the simulated seconds from step to step.
        images: a second, by the simulation.
        failures: expected in a day.
        interval: seconds between checkpoints, by Daly.
        steps, epochs: of the training.
        undisturbed: its seconds by the simulated mean step, without failure or checkpoint.
        each_epoch, at_interval: median, 5th and 95th of a hundred, of its simulated seconds with failures, a
            checkpoint after each epoch or by ``interval``.
        expected: what the closed form says of the latter.
    """

    cards: int
    step: float
    exchange: float
    made: float
    simulated: tuple[float, float, float]
    images: float
    failures: float
    interval: float
    steps: int
    epochs: int
    undisturbed: float
    each_epoch: tuple[float, float, float]
    at_interval: tuple[float, float, float]
    expected: float


def outcome(
    cluster: Cluster, cards: int, *, images: int, epochs: int, seed: int, drawn: int = 4000, trainings: int = 200
) -> Outcome:
    """Say what ``cards`` make of ``epochs`` epochs of ``images`` images.

    Args:
        seed: of everything drawn; the same seed gives the same outcome.
        drawn: steps that are simulated for the time of one.
        trainings: that are simulated for the time of all.
    """
    rng = np.random.default_rng([seed, cards])
    steps = max(images // (cluster.batch * cards), 1)
    ended = simulate_steps(cluster, cards, drawn, rng)
    gaps = np.diff(ended[drawn // 10 :])  # the queue is full at the beginning, which no long training notices
    mean = float(gaps.mean())
    work = mean * steps * epochs
    between_failures = failure_seconds(cluster, cards)
    interval = daly(cluster.checkpoint, between_failures) if math.isfinite(between_failures) else work
    interval = max(interval, mean)  # a step is whole

    def walls(between: float) -> tuple[float, float, float]:
        return simulated_walls(work, between, cluster.checkpoint, cluster.restart, between_failures, rng, trainings)

    return Outcome(
        cards=cards,
        step=step_seconds(cluster, cards),
        exchange=exchange_seconds(cluster, cards),
        made=input_seconds(cluster, cards),
        simulated=spread(gaps.tolist()),
        images=cluster.batch * cards / mean,
        failures=86_400 / between_failures,
        interval=interval,
        steps=steps,
        epochs=epochs,
        undisturbed=work,
        each_epoch=walls(mean * steps),
        at_interval=walls(min(interval, work)),
        expected=wall_seconds(work, min(interval, work), cluster.checkpoint, cluster.restart, between_failures),
    )


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, and the 5th and 95th of a hundred."""
    median, low, high = np.percentile(values, [50, 5, 95])
    return float(median), float(low), float(high)
