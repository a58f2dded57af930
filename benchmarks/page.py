"""What docs/performance.md shows: measured here, kept under ``benchmarks/results/``, written into the page's tables.

Results lie in a folder for each MindSpore version and in that one for each instruction set and maker of processors, one
JSON file and one plot for each name; measuring a case again replaces it. The page's tables are all of one commit, the
one that most of what is kept was measured at; what is kept of others is on docs/performance-earlier.md. README's table
(:mod:`benchmarks.summary`) is written with them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import plot, summary, tables
from benchmarks.case import Case
from benchmarks.deploying import OPENVINO
from benchmarks.networks import FUSED, OURS, TIMM, TIMM_COMPILED, TORCH_LIMIT
from benchmarks.result import Result
from xcit_hub.errors import InputError, UnknownNameError, closest
from xcit_hub.files import write_text
from xcit_hub.variants import ARCHITECTURES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
EARLIER = ROOT / "docs" / "performance-earlier.md"
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"

# What ``python -m benchmarks.NAME`` printed for alternatives, operators and parts, beside the other results.
PRINTED = {"alternatives": "*/alternatives.md", "operators": "*/operators.md", "parts": "*/*/parts.md"}

# What is not an option of the page goes on to the suite.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}

_TINY = ["xcit_tiny_12_p16_224"]

_BESIDE_OPENVINO = [
    *("deployment", "--rounds", "7"),
    *("--contender", TIMM, "--contender", TIMM_COMPILED, "--contender", FUSED, "--contender", OPENVINO),
]

# What is measured under each name: the models, each in a run of its own, and the command's other arguments.
RUNS: dict[str, tuple[list[str], list[str]]] = {
    "inference": (_TINY, ["inference", "--rounds", "7"]),
    "training": (_TINY, ["training", "--rounds", "5"]),
    "compile": ([*_TINY, "xcit_tiny_24_p16_224"], ["compile", "--rounds", "2"]),
    "load": (_TINY, ["load", "--rounds", "7"]),
    "convert": (["xcit_large_24_p8_224"], ["convert", "--rounds", "5"]),
    "start": (_TINY, ["start", "--rounds", "7"]),
    "input": (_TINY, ["input", "--rounds", "7"]),
    "deployment": (_TINY, ["deployment", "--rounds", "7"]),
    "disturbed": (_TINY, [*_BESIDE_OPENVINO, "--disturber"]),
    "quota": (_TINY, [*_BESIDE_OPENVINO, "--quota", "0.5", "--rounds", "3"]),
    "one-core": (_TINY, [*_BESIDE_OPENVINO, "--cores", "1"]),
    "photograph": (
        ["xcit_nano_12_p16_224"],
        [
            *("scaling", "--size", "4000x6000", "--rounds", "3", "--seconds", "0"),
            *("--contender", "timm, eager", "--contender", "xcit-hub, graph", "--contender", "xcit-hub, graph, fused"),
            *("--contender", "xcit-hub, PyNative", "--contender", "limit*"),
        ],
    ),
    "growth": (["xcit_nano_12_p16_224"], ["growth", "--rounds", "3"]),
    "large": (
        ["xcit_small_24_p8_224"],
        [
            *("deployment", "--size", "1792", "--batch", "1", "--rounds", "3", "--seconds", "0"),
            *("--contender", FUSED, "--contender", OPENVINO),
        ],
    ),
    # torch.compile would take half a minute and more for each.
    "zoo": (
        list(ARCHITECTURES),
        [
            "zoo",
            "--rounds",
            "3",
            *(word for name in (TIMM, OURS, FUSED, TORCH_LIMIT) for word in ("--contender", name)),
        ],
    ),
}


def page(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help=f"{', '.join(RUNS)}.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this architecture; may be repeated.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Measure nothing: only the tables, from what is kept.")
    ] = False,
) -> None:
    """Measure what docs/performance.md shows, all of it (hours) or some, keep it, and write the page's tables.

    Options that it does not know go on to the suite.

    Examples:

        python -m benchmarks page inference training

        python -m benchmarks page zoo --model xcit_nano_12_p16_224

        python -m benchmarks page compile --work training

        python -m benchmarks page inference training deployment --avx2

        python -m benchmarks page --write
    """
    words = names or []
    chosen = list(takewhile(lambda word: not word.startswith("-"), words))
    others = words[len(chosen) :]
    for name in chosen:
        if name not in RUNS:
            raise UnknownNameError(
                f"The page has no table {name!r}.", fix=closest(name, RUNS) or f"It has: {', '.join(RUNS)}."
            )
    if not write:
        for name in chosen or RUNS:
            models, arguments = RUNS[name]
            for each in model or models:
                keep(name, measured(each, [*arguments, *others]))
    write_text(PAGE, written(PAGE.read_text(encoding="utf-8")))
    write_text(EARLIER, between(EARLIER.read_text(encoding="utf-8"), "earlier", earlier()))
    write_text(README, between(README.read_text(encoding="utf-8"), "speed", summed_up()))


def measured(model: str, arguments: list[str]) -> Result:
    """Run a suite in a process of its own and read what it found."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        suite, *rest = arguments
        command = [sys.executable, "-m", "benchmarks", suite, model, *rest]
        subprocess.run([*command, "--json", str(file)], check=True, cwd=ROOT)
        return Result.from_dict(json.loads(file.read_text(encoding="utf-8")))


def keep(name: str, result: Result) -> None:
    """Write a result and its plot, with the cases of earlier ones that were not measured again."""
    instructions = re.sub(r"\W", "", str(result.machine["instructions"])).lower()
    maker = re.split(r"\W", str(result.machine["processor"]))[0].lower()
    file = RESULTS / f"mindspore-{version('mindspore')}" / f"{instructions}-{maker}" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        again = [comparison.case for comparison in result.comparisons]
        earlier = _read(file).comparisons
        result.comparisons += [comparison for comparison in earlier if comparison.case not in again]
    result.comparisons.sort(key=lambda comparison: _place(comparison.case))
    write_text(file, json.dumps(result.as_dict(), indent=1, ensure_ascii=False) + "\n")
    plot.draw(result, file.with_suffix(".svg"))


def _place(case: Case) -> tuple[int | str, ...]:
    place = list(ARCHITECTURES).index(case.model)
    return place, case.work, case.workers, case.batch, case.height, case.depth, case.cores


def written(text: str) -> str:
    """Replace every table of the page, between its marks, by what the kept results of the page's commit say."""
    now = of_the_page()
    for name in (*RUNS, *PRINTED):
        here = [_shown(file) for file in kept(name) if commits(file) == {now}]
        text = between(text, name, "\n".join(here) if here or not kept(name) else _elsewhere(name))
    return text


def _elsewhere(name: str) -> str:
    return f"Not measured at the commit of this page's tables: [what was measured earlier]({EARLIER.name}#{name}).\n"


def earlier() -> str:
    """Return the tables of other commits than the page's, each name under a heading."""
    now = of_the_page()
    found = {name: [file for file in kept(name) if commits(file) != {now}] for name in (*RUNS, *PRINTED)}
    return "\n".join(
        f"## {name.capitalize()}\n\n" + "\n".join(map(_shown, files)) for name, files in found.items() if files
    )


def commits(file: Path) -> set[str]:
    """Return which commits a kept result names."""
    return set(re.findall(r'\bcommit"?:? "?([0-9a-f]{7,}\+?)', file.read_text(encoding="utf-8")))


def of_the_page() -> str:
    """Return the commit that most of what is kept was measured at, alone; empty where nothing says one."""
    said = [commits(file) for name in (*RUNS, *PRINTED) for file in kept(name)]
    counted = Counter(commit for each in said if len(each) == 1 for commit in each)
    return max(counted, key=lambda commit: (counted[commit], commit), default="")


def between(text: str, name: str, table: str) -> str:
    """Put a table between the marks of its name.

    Raises:
        InputError: there are no such marks.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if begin not in text or end not in text:
        raise InputError(f"The page has no place for {name}.", fix=f"Put {begin} and {end} there.")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return "\n".join([before + begin, *([f"\n{table}"] if table else []), end + after])


def kept(name: str) -> list[Path]:
    """Return the files of a table: a version of MindSpore, instruction set and maker each, the widest first."""
    return sorted(RESULTS.glob(PRINTED.get(name, f"*/*/{name}.json")), reverse=True)


def summed_up() -> str:
    """Return README's table, of what is kept."""
    return summary.markdown(*([_read(file) for file in kept(name)] for name in ("inference", "deployment", "training")))


def _read(file: Path) -> Result:
    return Result.from_dict(json.loads(file.read_text(encoding="utf-8")))


def _shown(file: Path) -> str:
    if file.suffix == ".md":
        return file.read_text(encoding="utf-8")
    result = _read(file)
    image = file.with_suffix(".svg").relative_to(ROOT)
    return f"{tables.markdown(result)}\n![{file.stem}: time and memory](../{image})\n"
