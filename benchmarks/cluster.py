"""What 8, 64 and 1,024 cards would make of a training, from measured, published and assumed figures.

    python -m benchmarks.cluster                        # the table of docs/scaling.md
    python -m benchmarks.cluster --cards 16 --set link_bandwidth=50e9 --set card_mtbf=20000
    python -m benchmarks.cluster --measure              # first what can be measured here: minutes, on a quiet machine

Figures stand in ``benchmarks/cluster.json``, each with its unit and where it comes from; ``--measure`` writes those of
this machine into it. The simulation is that of :mod:`benchmarks.cluster_model`; the same seed prints the same.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cluster_model import Cluster, Outcome, exchange_seconds, outcome
from xcit_hub import variants
from xcit_hub.errors import InputError
from xcit_hub.files import read_bounded, write_text
from xcit_hub.parameters import parameter_count
from xcit_hub.process import run

FIGURES = Path(__file__).with_suffix(".json")
IMAGES = 1_281_167  # ImageNet-1k's training images
_CARDS = (8, 64, 1024)
_CARD_COUNT = 8  # of the card's own measurement
_LARGEST_FILE = 1 << 20
_LARGEST = 1e15  # of any figure
_MAY_BE_INFINITE = ("link_bandwidth", "card_mtbf")  # an exchange that takes no time, cards that never fail


def read_figures(path: Path) -> dict[str, dict[str, Any]]:
    """Read the file of figures: of each name a value, its unit, and where it comes from.

    Raises:
        InputError: it is not such a file.
    """
    try:
        written = json.loads(read_bounded(path, _LARGEST_FILE))["figures"]
        for name, figure in written.items():
            figure["value"] = float(figure["value"])
            told = [figure[part] for part in ("what", "unit", "source")]
            if not (_may_be(name, figure["value"]) and all(isinstance(part, str) for part in told)):
                raise ValueError(name)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError("This is not a file of figures.", where=path, fix="See benchmarks/cluster.json.") from error
    figures: dict[str, dict[str, Any]] = written
    return figures


def _may_be(name: str, value: float) -> bool:
    return 0 <= value <= _LARGEST or (name in _MAY_BE_INFINITE and value == math.inf)


def changed(figures: Mapping[str, dict[str, Any]], settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return figures with some of the user's own, ``name=value``."""
    found = {name: dict(figure) for name, figure in figures.items()}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in found or not _may_be(name, number):
            raise InputError(
                f"{setting!r} is not a figure.", where="--set", fix=f"Give name=value, of {', '.join(found)}."
            )
        found[name] |= {"value": number, "source": "[yours]"}
    return found


def cluster_of(figures: Mapping[str, Mapping[str, Any]], model: str, batch: int) -> Cluster:
    """Put the figures together; the card's step is that of its 8 cards, so their exchange is taken off it."""
    value = {name: float(figure["value"]) for name, figure in figures.items()}
    parameters = parameter_count(variants.architecture(model))
    card = parameter_count(variants.architecture("xcit_tiny_12_p16_224"))
    if min(value[name] for name in ("link_bandwidth", "images_a_core", "cores_a_card", "card_mtbf", "card_batch")) <= 0:
        raise InputError("A bandwidth, rate, count or time of the figures is 0.", where="--set", fix="Give more.")
    # What is not the example network's is scaled by its parameters: the state, and roughly the computing.
    share = parameters / card
    whole = Cluster(
        compute=value["card_step"] * share * batch / value["card_batch"],
        jitter=value["jitter"],
        gradient_bytes=4.0 * parameters,
        bandwidth=value["link_bandwidth"],
        latency=value["hop_latency"],
        batch=batch,
        images_a_core=value["images_a_core"],
        cores=value["cores_a_card"],
        input_jitter=value["input_jitter"],
        ahead=max(int(value["batches_ahead"]), 1),
        card_hours=value["card_mtbf"],
        restart=value["compilation"] + value["start"] + value["resume_read"] * share,
        checkpoint=value["checkpoint_write"] * share,
    )
    own = exchange_seconds(whole, _CARD_COUNT)
    return whole if own >= whole.compute else Cluster(**{**asdict(whole), "compute": whole.compute - own})


def table(outcomes: Sequence[Outcome], cluster: Cluster, batch: int) -> str:
    """Return the outcomes as a Markdown table, a column for each number of cards."""
    first = outcomes[0]

    def row(title: str, cell: Any) -> str:
        return f"| {title} | {' | '.join(cell(each) for each in outcomes)} |"

    lines = [
        f"| | {' | '.join(f'{each.cards:,} cards' for each in outcomes)} |",
        f"|---|{'---:|' * len(outcomes)}",
        row("Global batch", lambda each: f"{batch * each.cards:,}"),
        row("Steps an epoch", lambda each: f"{each.steps:,}"),
        row("Exchange of gradients, ms", lambda each: f"{1e3 * each.exchange:.2f}"),
        row("A step by the closed form, ms", lambda each: f"{1e3 * each.step:.1f}"),
        row("A batch by its input, ms", lambda each: f"{1e3 * each.made:.1f}"),
        row("A step simulated, ms: median (5 to 95 %)", lambda each: _spread(each.simulated, 1e3, ".1f")),
        row("Images/s", lambda each: f"{each.images:,.0f}"),
        row(
            f"Per card, of {first.cards:,} cards'",
            lambda each: f"{each.images / each.cards / (first.images / first.cards):.3f}",
        ),
        row(
            f"Cores for input, {cluster.images_a_core:.0f} images/s each",
            lambda each: f"{each.images / cluster.images_a_core:,.0f}",
        ),
        row("Failures a day", lambda each: f"{each.failures:.3g}"),
        row("Interval between checkpoints by Daly", lambda each: _time(each.interval)),
        row(f"{first.epochs} epochs, undisturbed", lambda each: _time(each.undisturbed)),
        row("… with failures, a checkpoint an epoch", lambda each: _times(each.each_epoch)),
        row("… with failures, by Daly's interval", lambda each: _times(each.at_interval)),
        row("… the latter by the closed form", lambda each: _time(each.expected)),
    ]
    return "\n".join(lines)


def _spread(values: tuple[float, float, float], factor: float, form: str) -> str:
    median, low, high = (format(factor * value, form) for value in values)
    return f"{median} ({low} to {high})"


def _time(seconds: float) -> str:
    if math.isinf(seconds):
        return "never ends"
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def _times(values: tuple[float, float, float]) -> str:
    median, low, high = map(_time, values)
    return f"{median} ({low} to {high})"


def listed(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| figure | value | source |", "|---|---:|---|"]
    for name, figure in figures.items():
        spread = f" ({figure['low']:g} to {figure['high']:g})" if "low" in figure else ""
        lines.append(
            f"| `{name}`: {figure['what']} | {figure['value']:g}{spread} {figure['unit']} | {figure['source']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cards", type=_count, action="append", help="may be repeated; 8, 64 and 1,024 by default")
    parser.add_argument("--model", default="xcit_tiny_12_p16_224", help="an architecture by timm's name")
    parser.add_argument("--batch", type=_count, default=128, help="images a step on each card")
    parser.add_argument("--epochs", type=_count, default=500, help="of the training")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a figure of your own")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="another file of figures")
    parser.add_argument("--measure", action="store_true", help="first measure here, and write it into that file")
    parser.add_argument("--json", type=Path, help="also write the outcome")
    asked = parser.parse_args()
    if asked.measure:
        read_figures(asked.figures)  # before minutes of work
        from benchmarks.cluster_measure import measure

        measure(asked.figures)
    figures = changed(read_figures(asked.figures), asked.set)
    try:
        cluster = cluster_of(figures, asked.model, asked.batch)
    except KeyError as error:
        raise InputError(
            f"The figure {error} is missing.", where=asked.figures, fix="See benchmarks/cluster.json."
        ) from error
    counts = sorted(set(asked.cards or _CARDS))
    outcomes = [outcome(cluster, cards, images=IMAGES, epochs=asked.epochs, seed=abs(asked.seed)) for cards in counts]
    print(f"{asked.model}, {asked.batch} images on each card, seed {asked.seed}\n")
    print(table(outcomes, cluster, asked.batch))
    print(f"\n{listed(figures)}")
    if asked.json is not None:
        record = {"figures": figures, "cluster": asdict(cluster), "outcomes": [asdict(each) for each in outcomes]}
        write_text(asked.json, json.dumps(record, indent=1) + "\n")


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 999,999")
    return number


if __name__ == "__main__":
    run(main)
