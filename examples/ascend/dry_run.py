"""Compile every recipe for 1, 8 and 64 Ascend cards without a card, and read what its graphs and its memory are.

    python examples/ascend/dry_run.py OUTPUT [--recipe NAME]... [--cards N]...    # compile, then read
    python examples/ascend/dry_run.py OUTPUT --read                               # only read what is there

MindSpore's dry run (MS_SIMULATION_LEVEL=1) stands for one worker of so many and computes nothing; it needs CANN, see
the Dockerfile beside this file. Written by MindSpore's documentation; on Ascend NOT RUN. With --device CPU --cards 1 a
recipe is compiled and run on a CPU, which writes graphs of the same form, and no memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

CARDS = (1, 8, 64)
_PATIENCE_SECONDS = 3600.0
_LARGEST_LOG = 4 << 30  # bytes; info messages of a compilation are many
_LARGEST_GRAPH = 256 << 20
# What MindSpore prints of a device's memory when a process ends (MS_MEMORY_STATISTIC, or GLOG_v=1 in a dry run).
_MEMORY = {
    "device_mb": re.compile(r"Device (?:MOC|HBM) memory size: (\d{1,12})M"),
    "usable_mb": re.compile(r"MindSpore Used memory size: (\d{1,12})M"),
    "peak_mb": re.compile(r"Used peak memory usage \(without fragments\): (\d{1,12})M"),
    "peak_with_fragments_mb": re.compile(r"Actual peak memory usage \(with fragments\): (\d{1,12})M"),
}
_GRAPH = re.compile(r"(\d+_)?(?:validate|execute)_\d+\.ir")  # a graph as it goes to the device's compiler
_OPERATOR = re.compile(r"^\s*%\d+\([^)]*\) = (?:PrimFunc_)?([A-Za-z_]\w*)\(", re.MULTILINE)


def compile_one(name: str, device: str, distribute: bool) -> None:
    """Compile a recipe's step and its evaluation, in this process; nothing is read of what they would compute."""
    import numpy as np
    from mindspore import Tensor

    from xcit_hub.training.device import compile_at, prepare
    from xcit_hub.training.precision import mix_precision
    from xcit_hub.training.recipe_file import load_recipe
    from xcit_hub.training.start import copy_of, evaluation_network, start
    from xcit_hub.training.step import TrainStep

    other = {"device_target": device, "distribute": distribute, "pretrained": False, "ckpt_path": ""}
    recipe = load_recipe(name, other)
    worker = prepare(recipe, distribute=distribute)
    classes = recipe.num_classes or 1000
    network = start(recipe, [str(number) for number in range(classes)]).network
    average = copy_of(network) if recipe.ema else None
    mix_precision(network, recipe.amp_level, recipe.amp_dtype)
    if recipe.recompute:
        network.set_grad_checkpointing()
    step = TrainStep(network, recipe, ema=average, worker=worker)
    images = Tensor(np.zeros((recipe.batch_size, recipe.in_channels, *recipe.input_size), np.float32))
    targets = Tensor(np.full((recipe.batch_size, classes), 1 / classes, np.float32))
    step(images, targets, recipe.lr)
    judged = evaluation_network(
        recipe.model,
        classes,
        network.dialect.name,
        recipe.val_amp_level,
        recipe.amp_dtype,
        channels=recipe.in_channels,
    )
    compile_at(judged, recipe)
    judged(images)


def compile_apart(name: str, cards: int, device: str, folder: Path) -> None:
    """Compile a recipe in a process of its own, which keeps its log and its graphs in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "MS_DEV_SAVE_GRAPHS": "1", "MS_DEV_SAVE_GRAPHS_PATH": str(folder / "graphs")}
    if device == "Ascend":
        environment |= {"MS_SIMULATION_LEVEL": "1", "RANK_SIZE": str(cards), "RANK_ID": "0"}
        environment |= {"GLOG_v": "1", "MS_MEMORY_STATISTIC": "1"}
    command = [sys.executable, __file__, "--one", name, "--device", device, *(["--distribute"] if cards > 1 else [])]
    with (folder / "log.txt").open("wb") as log:
        try:
            code = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False, timeout=_PATIENCE_SECONDS
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    (folder / "exit_code").write_text(f"{code}\n")


def read(folder: Path) -> dict[str, object]:
    """Read what :func:`compile_apart` left: memory from the log, operators of the largest graph from its file.

    What is not there is not in the result.
    """
    found: dict[str, object] = {}
    code = folder / "exit_code"
    if code.is_file():
        found["compiled"] = code.read_text(errors="replace").strip() == "0"
    log = folder / "log.txt"
    if log.is_file() and log.stat().st_size <= _LARGEST_LOG:
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                for name, pattern in _MEMORY.items():
                    if value := pattern.search(line):
                        found[name] = max(int(value[1]), int(str(found.get(name, 0))))
    graphs = [path for path in sorted(folder.rglob("*.ir")) if _GRAPH.fullmatch(path.name)]
    if graphs:
        found["graphs"] = len(graphs)
        operators = [read_graph(path) for path in graphs if path.stat().st_size <= _LARGEST_GRAPH]
        largest = max(operators, key=lambda each: each.total(), default=Counter[str]())
        found["operators"] = largest.total()
        found["kinds"] = dict(largest.most_common())
    return found


def read_graph(path: Path) -> Counter[str]:
    """Count the operators of a graph in MindSpore's text form, by kind."""
    return Counter(_OPERATOR.findall(path.read_text("utf-8", errors="replace")))


def table(results: dict[str, dict[str, object]]) -> str:
    """Return what was read as a Markdown table."""
    titles = ("recipe", "cards", "compiled", "peak, MB", "with fragments", "operators", "AllReduce")
    lines = [f"| {' | '.join(titles)} |", "|---|---:|---|---:|---:|---:|---:|"]
    for key, found in results.items():
        name, _, cards = key.rpartition("/")
        kinds = found.get("kinds")
        reduced = kinds.get("AllReduce", 0) if isinstance(kinds, dict) else "?"
        shown = [found.get(field, "?") for field in ("compiled", "peak_mb", "peak_with_fragments_mb", "operators")]
        lines.append(f"| {name} | {cards} | {' | '.join(map(str, shown))} | {reduced} |")
    return "\n".join(lines)


def main() -> int:
    """Do what the command line asks for; 1 if a recipe does not compile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, nargs="?", help="a folder for logs, graphs and dry_run.json")
    parser.add_argument("--recipe", action="append", help="only this one; all of the library by default")
    parser.add_argument("--cards", type=int, action="append", help="only so many; 1, 8 and 64 by default")
    parser.add_argument("--device", choices=["Ascend", "CPU"], default="Ascend")
    parser.add_argument("--read", action="store_true", help="compile nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--distribute", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        compile_one(asked.one, asked.device, asked.distribute)
        sys.stdout.flush()
        os._exit(0)
    if asked.output is None:
        parser.error("name a folder for the output")
    counts = asked.cards or list(CARDS)
    if asked.device == "CPU" and counts != [1]:
        parser.error("a CPU has no dry run: say --cards 1")
    if not asked.read:
        for name in asked.recipe or recipes():
            for cards in counts:
                print(f"{name}, {cards} cards", file=sys.stderr)
                compile_apart(name, cards, asked.device, asked.output.resolve() / name / str(cards))
    results = {
        f"{folder.parent.name}/{folder.name}": read(folder)
        for folder in sorted(asked.output.glob("*/*"), key=lambda path: (path.parent.name, len(path.name), path.name))
        if (folder / "exit_code").is_file()
    }
    print(table(results))
    (asked.output / "dry_run.json").write_text(json.dumps(results, indent=1) + "\n")
    return int(not results or not all(found.get("compiled") for found in results.values()))


def recipes() -> list[str]:
    """Name the recipes that come with the library."""
    checkout = Path(__file__).parents[2] / "configs" / "xcit"
    return sorted(path.stem for path in checkout.glob("*.yaml"))


if __name__ == "__main__":
    sys.exit(main())
