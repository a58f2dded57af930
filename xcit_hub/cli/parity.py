"""``xcit-hub parity``: prove that MindSpore's network and PyTorch's compute the same, or compare two networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from xcit_hub.cli.shared import IgnoreField, console, print_notes, working
from xcit_hub.variants import DialectName

if TYPE_CHECKING:
    from xcit_hub.compare import Comparison
    from xcit_hub.junit import Case
    from xcit_hub.parity import ParityResult

_BLIND = (
    "A file beside its own copy in PyTorch: what is compared is how two frameworks compute it, not whether the file "
    "holds the weights that it should; for that, give --against what it should equal."
)


_NOT_FETCHED = (
    "the architecture was compared, on random weights. Published weights are not fetched: give their file, or compare "
    "them with --against."
)


def parity(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|FILE]...", help="Architectures (random weights), or files (their own)."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="B", help="Compare the one network named before with this one: a file, id, folder, timm name."
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All architectures: timm's 28 and RobustBench's 5.")] = False,
    dialect: Annotated[
        DialectName | None, typer.Option(help="For names the default is paper; files know theirs.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=8, max=4096, help="Side of the input in pixels; default 64 for names, a file's own for files."
        ),
    ] = None,
    ignore_field: IgnoreField = None,
    gradients: Annotated[bool, typer.Option(help="Also compare every parameter's gradient, in training mode.")] = False,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        typer.Option(help="In which both frameworks compute; bfloat16 on a CPU with AVX512-BF16, fused."),
    ] = "float32",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a JUnit report, which CI services show.")
    ] = None,
) -> None:
    """Compare logits, tokens and every block with timm on the same weights. Exits 1 if any comparison fails.

    The truth is PyTorch's network in double precision; ours may be twice as far from it as PyTorch's own float32.
    With --against, compare two networks instead: tensors, preprocessing, and what they compute; one of them may be an
    exported file (.onnx, .mindir), which its own runtimes run.

    Examples:

        xcit-hub parity xcit_nano_12_p16_224 --image-size 224 --gradients

        xcit-hub parity --all --json parity.json

        xcit-hub parity converted.safetensors

        xcit-hub parity converted.safetensors --against timm/xcit_tiny_12_p16_224.fb_in1k

        xcit-hub parity exported.onnx --against best.ckpt

        xcit-hub parity released.safetensors --against ORG/NAME --junit parity.xml --json parity.json
    """
    from xcit_hub import variants
    from xcit_hub.errors import InputError
    from xcit_hub.files import check_outputs

    wanted = [*(names or []), *(variants.list_models() if every else [])]
    if not wanted:
        raise InputError("There is nothing to compare.", where="the command line", fix="Give names or files, or --all.")
    check_outputs({"--json": json_file, "--junit": junit}, [*wanted, *([] if against is None else [against])])
    if against is not None:
        if len(wanted) != 1 or gradients or dtype != "float32":
            raise InputError(
                "--against compares two networks, in float32 and without gradients.",
                where="--against",
                fix="Give one network before it, and neither --gradients nor --dtype.",
            )
        with _reporting(json_file, junit, f"{wanted[0]} against {against}"):
            _against(wanted[0], against, dialect, image_size, ignore_field or (), json_file, junit)
        return
    if ignore_field:
        raise InputError(
            "A file beside its own copy is compared without any description.",
            where="--ignore-field",
            fix="Leave it out, or compare two networks: --against.",
        )
    from xcit_hub.parity import require_timm
    from xcit_hub.parity.named import is_file, verify

    with _reporting(json_file, junit, ", ".join(wanted)), working("comparing") as show:
        for name in (each for each in wanted if not is_file(each)):
            variants.architecture(name)  # what is wrong is said before the others are compared
        require_timm()
        results = [
            verify(name, dialect, image_size=image_size, gradients=gradients, dtype=dtype, stage=_naming(name, show))
            for name in wanted
        ]
    out = console()
    out.print(_table(results))
    for weights in dict.fromkeys(result.weights for result in results):
        out.print(f"weights: {weights}", markup=False)
    if published := [name for name in wanted if name in variants.CHECKPOINTS]:
        out.print(f"note: {', '.join(published)}: {_NOT_FETCHED}", style="yellow", markup=False)
    if any(is_file(name) for name in wanted):
        out.print(f"note: {_BLIND}", style="yellow")
    failed = [result for result in results if not result.passed]
    for result in failed:
        out.print(str(result), style="red", markup=False)
    notes = tuple(f"{name}: {note}" for name, each in zip(wanted, results, strict=True) for note in each.notes)
    print_notes(notes)
    out.print(f"{len(results) - len(failed)} of {len(results)} equal")
    _write(json_file, [result.as_dict() for result in results])
    cases = [case for name, result in zip(wanted, results, strict=True) for case in _cases(name, result)]
    _write_junit(junit, cases, notes)
    if failed:
        raise typer.Exit(1)


def _cases(name: str, result: ParityResult) -> tuple[Case, ...]:
    """The cases of one network, under a published checkpoint's name none: its weights were not there."""
    from xcit_hub.variants import CHECKPOINTS

    return result.cases(result.architecture if name in CHECKPOINTS else name)


def _against(
    first: str,
    second: str,
    dialect: DialectName | None,
    image_size: int | None,
    ignore_fields: Sequence[str],
    json_file: Path | None,
    junit: Path | None,
) -> None:
    from xcit_hub.compare import compare

    with working("comparing") as show:
        found = compare(first, second, dialect=dialect, image_size=image_size, ignore_fields=ignore_fields, stage=show)
    out = console()
    out.print(_outputs(found))
    for difference in found.differences:
        out.print(str(difference), style="red", markup=False)
    print_notes(found.remarks())
    out.print(str(found), style=None if found.equal else "red", markup=False)
    _write(json_file, found.as_dict())
    _write_junit(junit, found.cases(), found.remarks())
    if not found.equal:
        raise typer.Exit(1)


@contextmanager
def _reporting(json_file: Path | None, junit: Path | None, what: str) -> Iterator[None]:
    """Write into the reports, too, why nothing could be compared: earlier ones would be taken for today's."""
    from xcit_hub.errors import XcitHubError
    from xcit_hub.junit import Case

    try:
        yield
    except XcitHubError as error:
        with suppress(XcitHubError):  # what went wrong first is what is said
            _write(json_file, error.as_dict())
        with suppress(XcitHubError):
            _write_junit(junit, [Case(what, "comparison", error=str(error))])
        raise


def _naming(name: str, show: Callable[[str], None]) -> Callable[[str], None]:
    return lambda words: show(f"{name}: {words}")


def _write(json_file: Path | None, figures: object) -> None:
    from xcit_hub import files

    if json_file is not None:
        files.write_text(json_file, json.dumps(figures, indent=2) + "\n")


def _write_junit(junit: Path | None, cases: Sequence[Case], notes: Sequence[str] = ()) -> None:
    from xcit_hub import files
    from xcit_hub.junit import text

    if junit is not None:
        files.write_text(junit, text("xcit-hub parity", cases, notes))


def _table(results: Sequence[ParityResult]) -> object:
    from rich.table import Table

    table = Table(
        *("architecture", "dialect", "image", "nearest to its tolerance, or beyond", "distance by"),
        *("ours", "PyTorch's", "ratio", "tolerance", ""),
        caption="distances from float64, relative to the output's root mean square",
        caption_justify="left",
    )
    for result in results:
        check = result.worst
        table.add_row(
            result.architecture,
            result.dialect,
            "×".join(map(str, result.image_size)),
            check.what,
            check.measure,
            *(f"{value:.1e}" for value in (check.error, check.pytorch_error)),
            f"{check.ratio:.2f}",
            f"{check.bar:.1e}",
            "equal" if result.passed else "NOT equal",
            style=None if result.passed else "red",
        )
    return table


def _outputs(found: Comparison) -> object:
    from rich.table import Table

    table = Table("output", "distance, rms", "largest")
    for output in found.outputs:
        table.add_row(output.what, f"{output.rms:.1e}", f"{output.largest:.1e}")
    return table
