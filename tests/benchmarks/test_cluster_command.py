"""``python -m benchmarks.cluster``: what it prints, what it refuses, and what it counts of real workers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cluster, cluster_measure
from benchmarks.cluster_model import exchange_seconds
from xcit_hub.errors import InputError

_CHECKOUT = Path(__file__).parents[2]


def printed(*words: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.cluster", *words]
    environment = {**os.environ, "PYTHONPATH": str(_CHECKOUT)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, cwd=_CHECKOUT, env=environment, check=False
    )


def test_one_command_prints_the_table_and_the_same_again(tmp_path: Path) -> None:
    first = printed("--json", str(tmp_path / "a.json"), "--epochs", "5")
    assert first.returncode == 0, first.stderr
    assert "8 cards | 64 cards | 1,024 cards" in first.stdout
    assert "`link_bandwidth`" in first.stdout
    outcomes = json.loads((tmp_path / "a.json").read_text())["outcomes"]
    assert [each["steps"] for each in outcomes] == [1251, 156, 9]
    assert printed("--epochs", "5").stdout == first.stdout


def test_the_page_holds_what_the_command_prints() -> None:
    page = (_CHECKOUT / "docs" / "scaling.md").read_text("utf-8")
    rows = [line for line in printed().stdout.splitlines() if line.startswith("|")]
    assert len(rows) > 30
    assert [row for row in rows if row not in page] == []


def test_the_cards_step_is_the_cards_where_nothing_disturbs() -> None:
    figures = cluster.changed(cluster.read_figures(cluster.FIGURES), ["jitter=0"])
    built = cluster.cluster_of(figures, "xcit_tiny_12_p16_224", 128)
    assert built.compute + exchange_seconds(built, 8) == pytest.approx(0.23386)
    assert built.gradient_bytes == 4 * 6_716_272


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "speed=3"), "'speed=3' is not a figure"),
        (("--set", "jitter=nan"), "is not a figure"),
        (("--set", "jitter=-1"), "is not a figure"),
        (("--set", "link_bandwidth=0"), "is 0"),
        (("--set", "batches_ahead=inf"), "is not a figure"),
        (("--measure", "--figures", "/no/where"), "Cannot read the file"),
        (("--cards", "0"), "not a number from 1"),
        (("--model", "xcit_nano_12_p16"), "did you mean"),
        (("--figures", "README.md"), "not a file of figures"),
        (("--figures", "/no/where"), "Cannot read the file"),
    ],
)
def test_a_mistake_is_answered_in_words(words: tuple[str, ...], says: str) -> None:
    ended = printed(*words)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def outcome_of(*settings: str, cards: int = 8, epochs: int = 500) -> cluster.Outcome:
    figures = cluster.changed(cluster.read_figures(cluster.FIGURES), settings)
    built = cluster.cluster_of(figures, "xcit_tiny_12_p16_224", 128)
    return cluster.outcome(built, cards, images=cluster.IMAGES, epochs=epochs, seed=0)


def test_cards_that_never_fail_and_an_exchange_that_takes_no_time_are_taken() -> None:
    found = outcome_of("card_mtbf=inf", "link_bandwidth=inf", "hop_latency=0")
    assert (found.failures, found.exchange) == (0.0, 0.0)
    assert found.at_interval[0] == pytest.approx(found.undisturbed, rel=1e-3)


def test_a_checkpoint_that_costs_nothing_is_written_after_every_step() -> None:
    found = outcome_of("checkpoint_write=0", epochs=1)
    assert found.interval == pytest.approx(found.undisturbed / found.steps)


def test_cards_that_fail_all_the_time_never_end_and_that_is_known_at_once() -> None:
    found = outcome_of("card_mtbf=0.001")
    assert [found.each_epoch[0], cluster._time(found.each_epoch[0])] == [math.inf, "never ends"]
    assert found.at_interval[0] == found.expected


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"figures": []}', '{"figures": {"jitter": 3}}', "[" * 99_999,
        '{"figures": {"jitter": {"value": 1}}}',
        '{"figures": {"jitter": {"value": NaN, "what": "", "unit": "", "source": ""}}}',
        '{"figures": {"jitter": {"value": -1, "what": "", "unit": "", "source": ""}}}',
        '{"figures": {"jitter": {"value": 1, "what": 2, "unit": "", "source": ""}}}',
    ],
)  # fmt: skip
def test_a_file_that_is_none_of_figures_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "figures.json").write_text(content)
    with pytest.raises(InputError, match="not a file of figures"):
        cluster.read_figures(tmp_path / "figures.json")


@pytest.mark.campaign
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_send_what_the_model_says_or_what_the_page_says(tmp_path: Path, workers: int) -> None:
    counted = cluster_measure.run_workers(workers, tmp_path, steps=4)
    figures = cluster.read_figures(cluster.FIGURES)
    ring = workers * cluster_measure.ring_bytes(counted["gradient_bytes"], workers)
    if counted["alone"]:  # on the host's own loopback others send, too
        assert counted["sent_a_step"] / ring == pytest.approx(figures[f"sent_by_{workers}"]["value"], rel=0.02)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_one_command_measures_what_can_be_and_then_prints(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text(cluster.FIGURES.read_text("utf-8"), "utf-8")
    ended = printed("--measure", "--figures", str(path), timeout=3500)
    assert ended.returncode == 0, ended.stderr
    before, after = cluster.read_figures(cluster.FIGURES), cluster.read_figures(path)
    assert before.keys() == after.keys()
    measured = {name for name, figure in after.items() if figure["source"] == "[here]"}
    assert measured == {"sent_by_2", "sent_by_4", "images_a_core", "checkpoint_write", "resume_read"}
    for name in measured & {"images_a_core", "checkpoint_write", "resume_read"}:
        assert 0 < after[name]["low"] <= after[name]["value"] <= after[name]["high"]
        assert f"({after[name]['low']:g} to {after[name]['high']:g})" in ended.stdout
    assert [after[name] for name in before.keys() - measured] == [before[name] for name in before.keys() - measured]
    assert json.loads(path.read_text())["machine"]["cores"] >= 1
