"""The command that every door and ``xcit-hub convert`` is: its options, what it calls, and ``inspect`` beside it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from converters.printing import print_inspection, print_left_out, print_report, summary, verdict
from xcit_hub.process import answer_in_json
from xcit_hub.variants import DialectName

if TYPE_CHECKING:
    from rich.progress import Progress

    from converters.convert import Options
    from converters.folders import Done

# The options that every door has.
Model = Annotated[
    str | None, typer.Option(help="The architecture it must be; decides between 224 and 384, which are alike.")
]
Dialect = Annotated[DialectName | None, typer.Option(help="Which network, for files that do not tell.")]
Ema = Annotated[bool, typer.Option("--ema", help="Take the averaged weights, not the plain ones.")]
Select = Annotated[
    str | None, typer.Option(help="Which of several networks in the file, by a part of its prefix: teacher, student.")
]
Prefix = Annotated[str | None, typer.Option(help="Under which prefix exactly the network is in the file.")]
NumClasses = Annotated[
    int | None,
    typer.Option(min=0, help="Fewer classes keep the first N rows, more begin an untrained classifier, 0 drops it."),
]
InChans = Annotated[int | None, typer.Option(min=1, help="Adapt the first convolution to N channels, as timm does.")]
Dtype = Annotated[
    Literal["float32", "float16", "bfloat16"] | None,
    typer.Option(help="Round the numbers; without it they stay as they are."),
]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify", help="Run the result beside PyTorch's network. Default: up to small, with timm."
    ),
]
ReportFile = Annotated[Path | None, typer.Option("--report", help="Write all that was done to this JSON file.")]


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint of any family and format.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="Also list and hash every tensor.")] = False,
    select: Select = None,
    prefix: Prefix = None,
    json_form: Annotated[bool, typer.Option("--json", callback=answer_in_json, help="Print JSON.")] = False,
) -> None:
    """Say what is in a checkpoint: family, architecture, dialect and how it is known, sizes, hashes, training state.

    Examples:

        xcit-hub inspect xcit_tiny_12_p16_224-bd90776e-910v2.ckpt

        xcit-hub inspect model.safetensors --tensors --json
    """
    import json

    from rich.console import Console

    from xcit_hub.checkpoints.inspection import inspect as look
    from xcit_hub.checkpoints.reading import Asked

    found = look(file, tensors=tensors, asked=Asked(select=select, prefix=prefix))
    if json_form:
        typer.echo(json.dumps(found.as_dict(), indent=2))
        return
    print_inspection(Console(highlight=False, soft_wrap=True), found)


def convert_file(source: str, target: Path, options: Options, verify: bool | None, report_file: Path | None) -> None:
    """Convert one file, tell what was read, mapped and written, and exit 1 if it computes something else."""
    from rich.console import Console

    from converters.convert import convert
    from converters.prove import has_failed

    with _progress() as progress:
        task = progress.add_task(source, total=None)
        report = convert(
            source,
            target,
            **asdict(options),
            verify=verify,
            report=report_file,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            stage=lambda words: progress.update(task, description=words, total=None),
        )
    print_report(Console(highlight=False, soft_wrap=True), report)
    if has_failed(report):
        raise typer.Exit(1)


def convert_folder(
    source: Path, target: Path, options: Options, suffix: str, verify: bool | None, report_file: Path | None
) -> None:
    """Convert every checkpoint of a folder, list the failures last; exit 2 if there are any, 1 if a proof failed."""
    from rich.console import Console

    from converters.folders import convert_all, left_out, pairs
    from converters.prove import has_failed
    from xcit_hub.errors import InputError

    if report_file is not None:
        raise InputError(
            "With --all every result has its own report beside it.", where="--report", fix="Leave out --report."
        )
    planned, left = pairs(source, target, suffix), left_out(source, target)
    done: list[Done] = []
    with _progress() as progress:
        task = progress.add_task(f"{len(planned)} files", total=len(planned))
        for entry in convert_all(planned, options, verify=verify):
            progress.update(task, advance=1, description=entry.source.name)
            done.append(entry)
    console = Console(highlight=False, soft_wrap=True)
    for entry in done:
        if entry.report is not None and not has_failed(entry.report):
            console.print(f"{entry.source} → {entry.target}: {summary(entry.report)}", markup=False)
    print_left_out(console, left)
    failed = [entry for entry in done if entry.error is not None]
    unequal = [entry for entry in done if entry.report is not None and has_failed(entry.report)]
    before = sum(entry.report is None and entry.error is None for entry in done)
    faulty = len(failed) + len(unequal)
    console.print(f"{len(done) - faulty - before} converted, {before} done before, {faulty} failed")
    for entry in failed:
        console.print(f"{entry.source}: {entry.error}", style="red", markup=False)
    for entry in unequal:
        console.print(
            f"{entry.source}: {verdict(entry.report)}; {entry.target} was not written.",
            style="red",
            markup=False,
        )
    if failed or unequal:
        raise typer.Exit(2 if failed else 1)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
