"""``xcit-hub card``: write, check, show and translate model cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cards.forms import FORMS, LANGUAGES, Form, Language
from xcit_hub.cli.shared import Dialect, refuse_beside, refuse_without
from xcit_hub.process import answer_in_json

if TYPE_CHECKING:
    from rich.console import Console

    from cards.faults import Fault
    from cards.gather import FileSays
    from xcit_hub.checkpoints.weights import Weights

app = typer.Typer(name="card", help="Write, check, show and translate model cards.", no_args_is_help=True)


_Word = TypeVar("_Word", bound=str)

_CardFile = Annotated[
    Path,
    typer.Argument(metavar="CARD", help="A card in either form, or a published checkpoint's name.", show_default=False),
]


@app.command()
def new(
    context: typer.Context,
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="CHECKPOINT", help="The weights the card is about.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="The run.json of training or evaluation.")] = None,
    meta: Annotated[Path | None, typer.Option(help="card.yaml: author, licence, links.")] = None,
    conversion: Annotated[Path | None, typer.Option(help="The report of the converter.")] = None,
    lang: Annotated[str, typer.Option(help="Languages, separated by commas: en, zh.")] = "en",
    form: Annotated[
        str, typer.Option(help="Forms, separated by commas: hugging-face, mindspore-hub, modelers, modelscope.")
    ] = "hugging-face",
    model: Annotated[str | None, typer.Option(help="The architecture, where the file leaves a choice.")] = None,
    dialect: Dialect = None,
    name: Annotated[str | None, typer.Option(help="The card's title; default: the architecture.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace cards that exist.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print a card.yaml to fill in, and exit.")] = False,
) -> None:
    """Write cards from what was measured. Exits 1 if a hub would refuse one of them; it then says why.

    Examples:

        xcit-hub card new --template > card.yaml

        xcit-hub card new model.ckpt --run run.json --meta card.yaml

        xcit-hub card new model.safetensors --lang en,zh --form hugging-face,mindspore-hub --out cards
    """
    from cards.facts import CardYaml

    if template:
        refuse_beside("--template", context)
        typer.echo(CardYaml.template(), nl=False)
        return
    if checkpoint is None:
        raise typer.BadParameter("name the checkpoint that the card is about", param_hint="CHECKPOINT")
    from rich.console import Console

    from cards.check import check
    from cards.gather import of_checkpoint
    from cards.write import write
    from xcit_hub.files import check_folders
    from xcit_hub.run_record import RunRecord

    check_folders({"--out": out})
    forms, langs = _listed(form, FORMS, "--form"), _listed(lang, LANGUAGES, "--lang")
    facts = of_checkpoint(
        checkpoint,
        architecture=model,
        dialect=dialect,
        meta=None if meta is None else CardYaml.read(meta),
        run=None if run is None else RunRecord.read(run),
        conversion=conversion,
        name=name,
        own=_said,
    )
    console = Console(highlight=False, soft_wrap=True)
    written = write(facts, out, forms=forms, langs=langs, force=force)
    for note in facts.assumed:
        console.print(f"note: {note}", style="yellow", markup=False)
    refused = 0
    for path in written:
        faults = check(path)
        console.print(f"wrote {path}", markup=False)
        refused += _print_faults(console, faults)
    if refused:
        raise typer.Exit(1)


@app.command()
def check(
    places: Annotated[list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Cards, or folders of cards.")],
    form: Annotated[Form | None, typer.Option(help="Whose rules; default: the form that each card has.")] = None,
    as_json: Annotated[bool, typer.Option("--json", callback=answer_in_json, help="Print the faults as JSON.")] = False,
) -> None:
    """Hold cards of any form against their hub's rules. Exits 1 if any has an error; warnings do not count.

    Examples:

        xcit-hub card check README.md

        xcit-hub card check cards --json

        xcit-hub card check README.md --form modelscope
    """
    from rich.console import Console

    from cards import check as checker

    found = {path: checker.check(path, form) for path in checker.cards_in(places)}
    errors = sum(fault.severity == "error" for faults in found.values() for fault in faults)
    if as_json:
        listed = [
            {"file": str(path), "faults": [fault.as_dict() for fault in faults]} for path, faults in found.items()
        ]
        typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for path, faults in found.items():
            if faults:
                console.print(str(path), markup=False)
                _print_faults(console, faults)
        warnings = sum(map(len, found.values())) - errors
        console.print(f"{_count(len(found), 'card')}, {_count(errors, 'error')}, {_count(warnings, 'warning')}")
    if errors:
        raise typer.Exit(1)


@app.command()
def show(card: _CardFile) -> None:
    """Show a card in the terminal.

    Examples:

        xcit-hub card show README.md

        xcit-hub card show timm/xcit_tiny_12_p16_224.fb_in1k
    """
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.table import Table
    from rich.text import Text

    from cards.page import fields
    from cards.translate import opened

    found = opened(card)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in fields(found.metadata):
        table.add_row(Text(name, style="bold"), Text(value))
    console = Console()
    console.rule(Text(found.title or str(card)))
    console.print(table)
    console.print(Markdown(found.prose))


@app.command()
def translate(
    context: typer.Context,
    card: _CardFile,
    form: Annotated[Form | None, typer.Option(help="The form to write; default: the card's own.")] = None,
    lang: Annotated[Language | None, typer.Option(help="The language to write; default: the card's own.")] = None,
    facts: Annotated[Path | None, typer.Option(help="The facts.json that `card new` wrote beside the card.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; default: the terminal.")] = None,
) -> None:
    """Write a card in the other hub's form, or in the other language.

    Between forms the metadata is mapped and the prose kept; what a form cannot hold is named on stderr. In the other
    language the prose is written again from the facts, so nothing is guessed; they stand in facts.json beside every
    generated card.

    Examples:

        xcit-hub card translate README.md --form mindspore-hub --out model.md

        xcit-hub card translate README.md --lang zh --out README_zh.md
    """
    from cards.translate import left
    from cards.translate import translate as translated
    from xcit_hub.files import check_outputs, write_text

    refuse_without("--lang", lang, context, "facts")
    check_outputs({"--out": out}, [card, *([] if facts is None else [facts])])
    text = translated(card, form=form, lang=lang, facts=facts)
    for name, why in left(card, form=form, lang=lang).items():
        typer.echo(f"left: {name}: {why}", err=True)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)


@app.command()
def html(
    card: _CardFile,
    out: Annotated[Path | None, typer.Option(help="The page; default: the card's name with .html.")] = None,
    lang: Annotated[
        Language | None, typer.Option(help="Of the page's own words; default: the card's language.")
    ] = None,
    run: Annotated[
        list[Path] | None, typer.Option(help="A run.json, whose curves, confusion and images to show; may be repeated.")
    ] = None,
) -> None:
    """Write a card as one self-contained HTML page: what was measured, then its place among the published models.

    Examples:

        xcit-hub card html README.md --out model.html

        xcit-hub card html README.md --run run/run.json --run evaluation/run.json
    """
    from cards.page import html as page
    from cards.translate import opened
    from xcit_hub.files import check_outputs, write_text
    from xcit_hub.run_record import RunRecord

    target = out or (card.with_suffix(".html") if card.suffix == ".md" else Path(f"{card.name}.html"))
    check_outputs({"--out": target}, [card, *(run or [])])
    runs = [RunRecord.read(path) for path in run or []]
    write_text(target, page(opened(card), lang, runs))
    typer.echo(f"wrote {target}")


def _said(weights: Weights) -> FileSays:
    """Read the strings of the file's own, as loading it does; what they leave out is nobody's word."""
    from cards.gather import FileSays
    from xcit_hub.checkpoints.strings import PREPROCESSING
    from xcit_hub.hub.metadata import assumed_of_images
    from xcit_hub.hub.read import of_weights

    described = of_weights(weights)
    is_told = PREPROCESSING in weights.file.metadata or weights.normalization is not None
    seen = described.preprocessing
    return FileSays(seen if is_told else None, described.labels, assumed_of_images(weights.file.metadata, seen))


def _listed(text: str, known: tuple[_Word, ...], option: str) -> list[_Word]:
    parts = [part.strip() for part in text.split(",")]
    if not set(parts) <= set(known):
        raise typer.BadParameter(f"{text!r} is not a list of: {', '.join(known)}", param_hint=option)
    return [word for word in dict.fromkeys(parts) if word in known]


def _print_faults(console: Console, faults: list[Fault]) -> int:
    for fault in faults:
        console.print(f"  {fault}", style="red" if fault.severity == "error" else "yellow", markup=False)
    return sum(fault.severity == "error" for fault in faults)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
