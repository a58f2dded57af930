"""Measure what docs/performance.md shows, keep it under benchmarks/results/, and write the page's tables from there.

    python benchmarks/performance.py                              # everything; hours
    python benchmarks/performance.py inference training           # some of it
    python benchmarks/performance.py zoo --model xcit_nano_12_p16_224
    python benchmarks/performance.py compile --work training      # what it does not know goes on to xcit-hub bench
    python benchmarks/performance.py --write                      # only the tables, from what is kept

Results lie in a folder for each MindSpore version, one JSON file and one plot for each name; measuring a case again
replaces it. Run it with the interpreter of the environment that is to be measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks import plot, tables
from benchmarks.case import Case
from benchmarks.result import Result
from xcit_hub.files import write_text
from xcit_hub.variants import ARCHITECTURES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"

# What ``benchmarks/alternatives.py`` printed, beside the other results.
ALTERNATIVES = "alternatives"

_TINY = ["xcit_tiny_12_p16_224"]

# What is measured under each name: the models, each in a run of its own, and the command's other arguments.
RUNS: dict[str, tuple[list[str], list[str]]] = {
    "inference": (_TINY, ["inference", "--rounds", "7"]),
    "training": (_TINY, ["training", "--rounds", "5"]),
    "compile": ([*_TINY, "xcit_tiny_24_p16_224"], ["compile", "--rounds", "3"]),
    "load": (_TINY, ["load", "--rounds", "7"]),
    "convert": (["xcit_large_24_p8_224"], ["convert", "--rounds", "5"]),
    "start": (_TINY, ["start", "--rounds", "7"]),
    "input": (_TINY, ["input", "--rounds", "7"]),
    "scaling": (["xcit_tiny_12_p16_224"], ["scaling", "--rounds", "3"]),
    "photograph": (
        ["xcit_nano_12_p16_224"],
        [
            *("scaling", "--size", "4000x6000", "--rounds", "3", "--seconds", "0"),
            *("--contender", "timm, eager", "--contender", "xcit-hub, graph", "--contender", "xcit-hub, graph, fused"),
            *("--contender", "xcit-hub, PyNative", "--contender", "limit*"),
        ],
    ),
    "zoo": (list(ARCHITECTURES), ["zoo", "--rounds", "3"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(RUNS))
    parser.add_argument("--model", action="append", help="only this one; may be repeated")
    parser.add_argument("--write", action="store_true", help="measure nothing")
    options, others = parser.parse_known_args()
    unknown = set(options.names) - set(RUNS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(RUNS)}")
    if not options.write:
        for name in options.names or RUNS:
            models, arguments = RUNS[name]
            for model in options.model or models:
                keep(name, measured(model, [*arguments, *others]))
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))


def measured(model: str, arguments: list[str]) -> Result:
    """Run ``xcit-hub bench`` and read what it found."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        suite, *rest = arguments
        command = [sys.executable, "-c", "from xcit_hub.cli import main; main()", "bench", suite, model, *rest]
        subprocess.run([*command, "--json", str(file)], check=True, cwd=ROOT)
        return Result.from_dict(json.loads(file.read_text(encoding="utf-8")))


def keep(name: str, result: Result) -> None:
    """Write a result and its plot, with the cases of earlier ones that were not measured again."""
    file = RESULTS / f"mindspore-{version('mindspore')}" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        again = [comparison.case for comparison in result.comparisons]
        earlier = Result.from_dict(json.loads(file.read_text(encoding="utf-8"))).comparisons
        result.comparisons += [comparison for comparison in earlier if comparison.case not in again]
    result.comparisons.sort(key=lambda comparison: _place(comparison.case))
    write_text(file, json.dumps(result.as_dict(), indent=1, ensure_ascii=False) + "\n")
    plot.draw(result, file.with_suffix(".svg"))


def _place(case: Case) -> tuple[int | str, ...]:
    return list(ARCHITECTURES).index(case.model), case.work, case.workers, case.batch, case.height


def page(text: str) -> str:
    """Replace every table of the page, between its marks, by what the kept results say."""
    for name in (*RUNS, ALTERNATIVES):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in text or end not in text:
            raise SystemExit(f"{PAGE} has no place for {name}: put {begin} and {end} there")
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        shown = [f"\n{_shown(file)}" for file in sorted(RESULTS.glob(f"*/{name}.[jm]*"))]
        text = "\n".join([before + begin, *shown, end + after])
    return text


def _shown(file: Path) -> str:
    if file.suffix == ".md":
        return file.read_text(encoding="utf-8")
    result = Result.from_dict(json.loads(file.read_text(encoding="utf-8")))
    picture = file.with_suffix(".svg").relative_to(ROOT)
    return f"{tables.markdown(result)}\n![{file.stem}: time and memory](../{picture})\n"


if __name__ == "__main__":
    main()
