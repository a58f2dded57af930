"""Measure what the rule of the proof needs for a floor: every architecture, both dialects, five seeds.

    python tests/parity/floor.py --out tests/parity/floor-avx2.csv

Weights are random with gains near 1, the batch is 2; outputs are judged at 64 × 64 pixels, gradients at 4 × 4 patches.
Gradients are measured for the networks of 224 whose width is at most 384 at every seed, for the wider ones at seed 0.

Each row says, of the outputs and of the gradients: how many there are; the largest ratios of our distance from float64
to PyTorch's, for the root mean square and for the largest element, where PyTorch ran once; the floor (in unit
roundoffs of an output's root mean square) without which something would be refused after one run of PyTorch, and after
as many as the rule allows; and how many that took. Rows that the file already holds are not measured again.
"""

from __future__ import annotations

import argparse
import csv
import gc
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import torch

from xcit_hub import parity, variants
from xcit_hub.accelerated import accelerate, build
from xcit_hub.models import create_model, load_weights
from xcit_hub.parameters import parameter_shapes
from xcit_hub.parity import networks, rule

_SEEDS = 5
_KEY = ("architecture", "dialect", "seed")
_FIGURES = ("count", "rms_ratio", "largest_ratio", "floor_of_one_run", "floor", "runs")
COLUMNS = (*_KEY, "pytorch", *(f"{kind}_{figure}" for kind in ("outputs", "gradients") for figure in _FIGURES))


def floor_needed(checks: Iterable[rule.Check]) -> float:
    """Return the least floor with which all checks pass, in unit roundoffs; 0 where the factors alone allow them."""
    needed = [0.0]
    for check in checks:
        for distance, allowed in (
            (check.ours.rms, rule.RMS_FACTOR * check.pytorch.rms),
            (check.ours.largest, rule.LARGEST_FACTOR * check.pytorch.largest),
        ):
            if not distance <= allowed:
                needed.append(distance / (check.unit * check.scale))
    return max(needed)


def figures(reference: rule.Reference, found: Mapping[str, rule.Array]) -> dict[str, float]:
    """Judge without a floor, after one run of PyTorch and after as many as the rule allows."""
    once = dict(reference.pytorch)
    checks = reference.check(found, varying=False)
    assert not any(check.remark for check in checks), [check for check in checks if check.remark]
    first = [rule.Check(check.what, check.ours, once[check.what], check.scale, check.unit) for check in checks]
    return {
        "count": len(checks),
        "rms_ratio": max(check.ours.rms / check.pytorch.rms for check in first if check.pytorch.rms),
        "largest_ratio": max(check.ours.largest / check.pytorch.largest for check in first if check.pytorch.rms),
        "floor_of_one_run": floor_needed(first),
        "floor": floor_needed(checks),
        "runs": reference.runs,
    }


def measure(architecture: variants.Architecture, dialect: str, seed: int) -> dict[str, object]:
    """Return one row of the table."""
    # Names that end in 384 mean the networks of 224 at another resolution: other weights, or they would be the same.
    draw = _SEEDS * sorted(variants.ARCHITECTURES).index(architecture.name) + seed

    def pair(side: int) -> tuple:
        tokens = (side // architecture.patch_size) ** 2
        temperature = 1.0 if variants.dialect(dialect).normalize_qk else 1.0 / tokens
        weights = parity.random_weights(parameter_shapes(architecture), draw, temperature=temperature)
        ours = accelerate(create_model(architecture, dialect=dialect, init=False))
        load_weights(ours, weights)
        images = parity.random_images(2, 3, side, side, seed=draw + 1)
        return ours.set_train(False), parity.torch_network(weights, architecture, dialect), images

    ours, theirs, images = pair(64)
    reference = rule.Reference(theirs, images, networks._torch_outputs, floor=0.0)
    found = {"outputs": figures(reference, networks.our_outputs(ours, images))}
    if architecture.name.endswith("224") and (architecture.embed_dim <= 384 or seed == 0):
        del ours, theirs, reference
        gc.collect()
        ours, theirs, images = pair(4 * architecture.patch_size)
        names = tuple(ours.parameters_dict())
        reference = rule.Reference(theirs, images, partial(networks._torch_gradients, names=names), floor=0.0)
        found["gradients"] = figures(reference, networks._our_gradients(ours, images))
    row: dict[str, object] = dict(zip(_KEY, (architecture.name, dialect, seed), strict=True))
    row["pytorch"] = networks._instruction_set()
    for kind, values in found.items():
        row |= {f"{kind}_{figure}": f"{value:.3g}" for figure, value in values.items()}
    return row


def main() -> None:
    """Measure what the file lacks, the narrow networks first, and print what the table says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="every Nth row from I on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # two wait for each other longer than they compute
    print(f"compiled operations: {build.library() or build.absence()}")
    rows = read(arguments.out) if arguments.out.exists() else []
    done = {tuple(row[key] for key in _KEY) for row in rows}
    entries = sorted(variants.ARCHITECTURES.values(), key=lambda each: (each.embed_dim * each.depth, each.name))
    wanted = [(each, dialect, seed) for seed in range(_SEEDS) for each in entries for dialect in ("paper", "mindcv")]
    with arguments.out.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if not rows:
            writer.writeheader()
        for architecture, dialect, seed in wanted[arguments.part[0] :: arguments.part[1]]:
            if (architecture.name, dialect, str(seed)) not in done:
                writer.writerow(measure(architecture, dialect, seed))
                stream.flush()
    print(summary(read(arguments.out)))


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def summary(rows: list[dict[str, str]]) -> str:
    """Return the largest figures of a table."""
    lines = [f"{len(rows)} networks"]
    for kind in ("outputs", "gradients"):
        told = [row for row in rows if row[f"{kind}_count"]]
        largest = {figure: max((float(row[f"{kind}_{figure}"]) for row in told), default=0.0) for figure in _FIGURES}
        lines.append(f"{kind} of {len(told)}: " + ", ".join(f"{name} {value:g}" for name, value in largest.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
