"""One suite, measured from the command line: who competes, over what, and where the result goes."""

from __future__ import annotations

import fnmatch
import math
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks import clock, machine, output, plot, tables
from benchmarks import rounds as turns
from benchmarks.conditions import conditions
from benchmarks.result import Result
from benchmarks.suites import Wanted
from benchmarks.suites import suite as suite_called
from xcit_hub.errors import InputError


def measure(
    context: typer.Context,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Architectures; the suite's own choice by default.")
    ] = None,
    work: Annotated[
        list[str] | None, typer.Option(help="Only inference, training or evaluation, of suites with several.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Images a call; may be repeated.")] = None,
    size: Annotated[
        list[str] | None, typer.Option(metavar="H[xW]", help="Size of the images in pixels; may be repeated.")
    ] = None,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="Decoding threads (ours) or processes (timm's); may be repeated.")
    ] = None,
    photographs: Annotated[
        Path | None, typer.Option(help="Photographs for the suite input: a folder with one folder for each class.")
    ] = None,
    contender: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only these, e.g. 'xcit-hub*'; may be repeated.")
    ] = None,
    python: Annotated[
        list[Path] | None,
        typer.Option(help="Run xcit-hub's contenders with this interpreter, too, of another environment."),
    ] = None,
    avx2: Annotated[
        bool, typer.Option("--avx2", help="Keep every library to AVX2 on a processor that has more.")
    ] = False,
    cores: Annotated[int | None, typer.Option(min=1, help="Keep to the first so many cores.")] = None,
    disturber: Annotated[
        bool, typer.Option("--disturber", help="Let another process compute on one of the cores meanwhile.")
    ] = False,
    quota: Annotated[
        float | None, typer.Option(min=0.05, help="Cores' worth of time that all may take, as of a container.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every contender, one after another.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.0, help="Length of a turn; at least one call is made.")] = 0.5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write what was measured.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Also draw it: a .svg or .png file.")] = None,
) -> None:
    """Measure one suite (the command's own name); its sentence in :mod:`benchmarks.suites` is the help."""
    suite = context.info_name or ""
    what = suite_called(suite)
    chosen = _matching(list(what.contenders), contender or ["*"])
    entrants = [turns.Entrant(name, name) for name in chosen]
    for interpreter in python or []:
        mindspore = _mindspore_of(interpreter)
        entrants += [
            turns.Entrant(f"{name}, MindSpore {mindspore}", name, str(interpreter))
            for name in chosen
            if name.startswith("xcit-hub")
        ]
    if avx2:
        _keep_to_avx2()
    if plot_file is not None:
        plot.check(plot_file)
    for target in (json_file, plot_file):
        output.check_folder(target)
    sizes = [_size(text) for text in size or []]
    wanted = Wanted(models or (), work or (), batch or (), sizes, workers or (), photographs)
    terminal = Console(stderr=True)
    with (
        conditions(cores=cores, disturber=disturber, quota=quota) as under,
        tempfile.TemporaryDirectory() as scratch,
        Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress,
    ):
        cases = what.cases(wanted, Path(scratch))
        task = progress.add_task("preparing", total=len(cases))
        if photographs is None:
            for case in {case.folder: case for case in cases}.values():
                turns.prepare(suite, case)
        comparisons = []
        for case in cases:

            def say(name: str, model: str = case.model) -> None:
                progress.update(task, description=f"{model}: {name}")

            quiet = math.inf if disturber else clock.QUIET
            comparisons.append(
                turns.compare(suite, case, entrants, rounds=rounds, turn_seconds=seconds, quiet=quiet, on_turn=say)
            )
            progress.advance(task)
        result = Result(suite, machine.description() | ({"conditions": under} if under else {}), comparisons)
    output.show(tables.rich_table(result))
    output.write_json(json_file, result.as_dict())
    if plot_file is not None:
        plot.draw(result, plot_file)
    if any(row.failed for comparison in comparisons for row in comparison.rows):
        raise typer.Exit(1)


def _keep_to_avx2() -> None:
    """Tell every library to be measured, in its own words, to leave wider instructions alone.

    Raises:
        InputError: the processor does not have AVX2 either.
    """
    if not machine.instruction_set().startswith("AVX"):
        raise InputError(f"This processor has {machine.instruction_set()} and no AVX2.", where="--avx2")
    os.environ.update(machine.AVX2_ALONE)


def _matching(names: list[str], patterns: list[str]) -> list[str]:
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise InputError(
                f"No contender is called {pattern!r}.", where="--contender", fix=f"There are: {'; '.join(names)}."
            )
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _mindspore_of(interpreter: Path) -> str:
    """Ask an interpreter for its MindSpore's version."""
    asked = "from importlib.metadata import version; import xcit_hub; print(version('mindspore'))"
    try:
        # The user's own interpreter, named on the command line.
        done = subprocess.run([interpreter, "-c", asked], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(
            "This is not a Python with MindSpore and xcit-hub.",
            where=interpreter,
            fix="Give the interpreter of an environment where both are installed, as .venv/bin/python.",
        ) from error
    return done.stdout.strip()


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text)
    if found is None:
        raise InputError(f"{text!r} is not a size.", where="--size", fix="Give pixels, as 224 or 4000x6000.")
    return int(found[1]), int(found[2] or found[1])
