"""``xcit-hub parity``: prove that MindSpore's network and PyTorch's compute the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xcit_hub.variants import DialectName

if TYPE_CHECKING:
    from xcit_hub.parity import ParityResult


def parity(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|FILE]...", help="Architectures (random weights), or checkpoints' own weights."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All 28 architectures.")] = False,
    dialect: Annotated[
        DialectName | None, typer.Option(help="For names the default is paper; files know theirs.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=8, help="Side of the input in pixels; default 64 for names, a file's own for files."),
    ] = None,
    gradients: Annotated[bool, typer.Option(help="Also compare every parameter's gradient, in training mode.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Compare logits, tokens and every block with timm on the same weights. Exits 1 if any comparison fails.

    Examples:

        xcit-hub parity xcit_nano_12_p16_224 --image-size 224 --gradients

        xcit-hub parity --all --json parity.json

        xcit-hub parity converted.safetensors
    """
    from rich.console import Console
    from rich.progress import Progress

    from xcit_hub import files, variants
    from xcit_hub.errors import InputError
    from xcit_hub.parity import require_timm

    require_timm()
    wanted = [*(names or []), *(variants.list_models() if every else [])]
    if not wanted:
        raise InputError("There is nothing to compare.", fix="Give names or files, or --all.")
    console = Console()
    results = []
    terminal = Console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task("comparing", total=len(wanted))
        for name in wanted:
            progress.update(task, description=name)
            results.append(_compare(name, dialect, image_size, gradients))
            progress.advance(task)
    console.print(_table(results))
    failed = [result for result in results if not result.passed]
    for result in failed:
        console.print(str(result), style="red", highlight=False)
    console.print(f"{len(results) - len(failed)} of {len(results)} equal")
    if json_file is not None:
        files.write_text(json_file, json.dumps([result.as_dict() for result in results], indent=2) + "\n")
    if failed:
        raise typer.Exit(1)


def _compare(name: str, dialect: DialectName | None, image_size: int | None, gradients: bool) -> ParityResult:
    from xcit_hub import parity, variants
    from xcit_hub.checkpoints.checkpoint import SUFFIXES

    if Path(name).suffix not in SUFFIXES:
        published = variants.CHECKPOINTS.get(name)
        dialect = dialect or (published.dialect if published else "paper")
        return parity.verify_random(name, dialect, image_size=image_size or 64, gradients=gradients)
    from xcit_hub.checkpoints.weights import load

    weights = load(name, dialect=dialect)
    return parity.verify_weights(
        {key: tensor.numpy() for key, tensor in weights.tensors.items()},
        weights.architecture,
        weights.dialect,
        num_classes=weights.num_classes,
        in_chans=weights.in_chans,
        image_size=image_size,
        gradients=gradients,
    )


def _table(results: list[ParityResult]) -> object:
    from rich.table import Table

    table = Table("architecture", "dialect", "input", "logits", "worst check", "error", "bar", "")
    for result in results:
        table.add_row(*_row(result), style=None if result.passed else "red")
    return table


def _row(result: ParityResult) -> Iterator[str]:
    yield result.architecture
    yield result.dialect
    yield "×".join(map(str, result.image_size))
    yield f"{result.relative_error:.1e}"
    yield result.worst.what
    yield f"{result.worst.error:.1e}"
    yield f"{result.worst.bar:.0e}"
    yield "equal" if result.passed else "NOT equal"
