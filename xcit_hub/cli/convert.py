"""``xcit-hub convert`` and ``xcit-hub inspect``: checkpoints from any family and format into any other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from xcit_hub.variants import Family

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from converters.convert import Done, Options
    from xcit_hub.checkpoints.description import Inspection
    from xcit_hub.checkpoints.rewrite import Report


# The options that every door has.
Model = Annotated[
    str | None, typer.Option(help="The architecture it must be; decides between 224 and 384, which are alike.")
]
Dialect = Annotated[Literal["paper", "mindcv"] | None, typer.Option(help="Which network, for files that do not tell.")]
Ema = Annotated[bool, typer.Option("--ema", help="Take the averaged weights, not the plain ones.")]
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


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A file, a timm name, or with --all a folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help=".safetensors, .ckpt or .pth; with --all a folder.")],
    to: Annotated[Family, typer.Option(help="Whose names and layout to write.")] = "xcit-hub",
    model: Model = None,
    dialect: Dialect = None,
    ema: Ema = False,
    num_classes: NumClasses = None,
    in_chans: InChans = None,
    dtype: Dtype = None,
    verify: Verify = None,
    report: ReportFile = None,
    every: Annotated[bool, typer.Option("--all", help="Convert every checkpoint of a folder.")] = False,
    suffix: Annotated[
        Literal[".safetensors", ".ckpt", ".pth"], typer.Option(help="With --all: the format to write.")
    ] = ".safetensors",
) -> None:
    """Convert a checkpoint from whatever family and format it has. Exits 1 if verifying fails, 2 if it cannot be done.

    Examples:

        xcit-hub convert xcit_tiny_12_p16_224-bd90776e-910v2.ckpt tiny.safetensors

        xcit-hub convert xcit_small_12_p8_224.pth small.ckpt --dtype float16

        xcit-hub convert mine.ckpt mine.safetensors --to timm --report mine.json

        xcit-hub convert --all downloads/ converted/ --suffix .ckpt
    """
    from converters.convert import Options

    options = Options(
        to=to,
        model=model,
        dialect=dialect,
        ema=ema,
        num_classes=num_classes,
        in_chans=in_chans,
        dtype=dtype,
    )
    if every:
        _convert_folder(Path(source), target, options, suffix, verify, report)
    else:
        convert_file(source, target, options, verify, report)


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint of any family and format.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="Also list and hash every tensor.")] = False,
    json_form: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is in a checkpoint: family, architecture, dialect and how it is known, sizes, hashes, training state.

    Examples:

        xcit-hub inspect xcit_tiny_12_p16_224-bd90776e-910v2.ckpt

        xcit-hub inspect model.safetensors --tensors --json
    """
    import json

    from rich.console import Console

    from xcit_hub.checkpoints.description import inspect as look

    found = look(file, tensors=tensors)
    if json_form:
        typer.echo(json.dumps(found.as_dict(), indent=2))
        return
    _print_inspection(Console(highlight=False, soft_wrap=True), found)


def convert_file(source: str, target: Path, options: Options, verify: bool | None, report_file: Path | None) -> None:
    """Convert one file, tell what was read, mapped and written, and exit 1 if it computes something else."""
    from rich.console import Console

    from converters.convert import check_report, convert_one, failed_proof, write_report

    if report_file is not None:
        check_report(report_file, source, target)
    with _progress() as progress:
        task = progress.add_task(source, total=None)
        report = convert_one(
            source,
            target,
            options,
            verify=verify,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            stage=lambda words: progress.update(task, description=words, total=None),
        )
    if report_file is not None:
        write_report(report_file, report, options)
    _print_report(Console(highlight=False, soft_wrap=True), report)
    if failed_proof(report):
        raise typer.Exit(1)


def _convert_folder(
    source: Path, target: Path, options: Options, suffix: str, verify: bool | None, report_file: Path | None
) -> None:
    from rich.console import Console

    from converters.convert import convert_all, failed_proof, pairs
    from xcit_hub.errors import InputError

    if report_file is not None:
        raise InputError("With --all every result has its own report beside it.", fix="Leave out --report.")
    planned = pairs(source, target, suffix)
    done: list[Done] = []
    with _progress() as progress:
        task = progress.add_task(f"{len(planned)} files", total=len(planned))
        for entry in convert_all(planned, options, verify=verify):
            progress.update(task, advance=1, description=entry.source.name)
            done.append(entry)
    console = Console(highlight=False, soft_wrap=True)
    for entry in done:
        if entry.report is not None and not failed_proof(entry.report):
            console.print(f"{entry.source} → {entry.target}: {_summary(entry.report)}", markup=False)
    failed = [entry for entry in done if entry.error is not None]
    unequal = [entry for entry in done if entry.report is not None and failed_proof(entry.report)]
    before = sum(entry.report is None and entry.error is None for entry in done)
    faulty = len(failed) + len(unequal)
    console.print(f"{len(done) - faulty - before} converted, {before} done before, {faulty} failed")
    for entry in failed:
        console.print(f"{entry.source}: {entry.error}", style="red", markup=False)
    for entry in unequal:
        console.print(
            f"{entry.source}: {_told(entry.report)}; {entry.target} was not written.",
            style="red",
            markup=False,
        )
    if failed or unequal:
        raise typer.Exit(2 if failed else 1)


def _print_report(console: Console, report: Report) -> None:
    weights = report.weights
    source, target = report.source, report.target
    console.print(
        f"read    {source['path']} ({source['family']}, {source['format']}, {_size(source['bytes'])})", markup=False
    )
    console.print(f"        {_summary(report)}", markup=False)
    console.print(f"        {weights.dialect} dialect: {weights.evidence}", markup=False)
    for note in weights.notes:
        console.print(f"note    {note}", style="yellow", markup=False)
    _print_grouped(console, "dropped", [(entry.name, entry.reason) for entry in weights.dropped])
    _print_grouped(console, "made up", [(entry["name"], entry["reason"]) for entry in report.made_up])
    if target is None:
        console.print("wrote   nothing: the result failed its proof; what was there before is untouched", style="red")
    else:
        console.print(
            f"wrote   {target['path']} ({target['family']}, {target['format']}, {_size(target['bytes'])})", markup=False
        )
        mapped = sum(bool(entry["source"]) for entry in report.tensors)
        console.print(f"        {mapped} parameters mapped, {report.seconds:.2f} s")
        console.print(f"        sha256 {target['sha256']}")
    if report.parity is not None:
        _print_parity(console, report.parity)


def _told(report: Report | None) -> str:
    from xcit_hub.parity import verdict

    return verdict((report and report.parity) or {})


def _print_parity(console: Console, parity: dict[str, Any]) -> None:
    from xcit_hub.parity import verdict

    console.print(f"proved  {verdict(parity)}", style=None if parity["passed"] else "red", markup=False)


def _print_grouped(console: Console, title: str, entries: list[tuple[str, str]]) -> None:
    by_reason: dict[str, list[str]] = {}
    for name, reason in entries:
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        listed = names[0] if len(names) == 1 else f"{len(names)} tensors ({names[0]} …)"
        console.print(f"{title:8}{listed}: {reason}", markup=False)


def _print_inspection(console: Console, found: Inspection) -> None:
    rows: list[tuple[str, object]] = [
        ("file", f"{found.path} ({found.format}, {_size(found.bytes)})"),
        ("sha256", found.sha256),
        ("family", found.family or "unknown"),
        ("architecture", found.architecture or "unknown"),
        ("dialect", f"{found.dialect}: {found.evidence}" if found.dialect else "unknown"),
    ]
    if found.parameters is not None:
        rows += [
            ("kind", f"{found.kind}, {found.num_classes} classes, {found.in_chans} input channels"),
            ("parameters", f"{found.parameters:,}"),
        ]
    rows += [
        ("tensors", f"{found.tensors}; " + ", ".join(f"{count} {dtype}" for dtype, count in found.dtypes.items())),
        ("averaged weights", "yes" if found.averaged else "no"),
        ("optimizer state", "yes" if found.optimizer else "no"),
    ]
    for flaw, counts in found.flaws.items():
        listed = ", ".join(f"{count} in {name}" for name, count in counts.items())
        rows.append((flaw.replace("_", " "), f"{sum(counts.values())}: {listed}"))
    rows += [("config", found.config)] if found.config else []
    rows += [(f"not taken: {count}", reason) for reason, count in found.dropped.items()]
    rows += [("metadata", f"{key} = {value}") for key, value in found.metadata.items()]
    rows += [("note", note) for note in found.notes]
    for title, value in rows:
        console.print(f"{title:20}{value}", markup=False)
    for entry in found.entries:
        shape = "×".join(map(str, entry.shape)) or "scalar"
        console.print(f"{entry.sha256[:16]}  {entry.dtype:9}{shape:16}{entry.name}", markup=False)
    if found.fault:
        console.print(found.fault, style="yellow", markup=False)


def _summary(report: Report) -> str:
    weights = report.weights
    parts = f"{weights.num_classes} classes" if weights.num_classes else f"{weights.kind} without a classifier"
    parts += " (not trained)" if weights.head_untrained else ""
    dtypes = sorted({entry["dtype"] for entry in report.tensors})
    return f"{weights.architecture.name}, {parts}, {weights.in_chans} channels, {' and '.join(dtypes)}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
