"""The assembled application: which groups of commands there are."""

from __future__ import annotations

from typing import Annotated

import typer

from xcit_hub._version import __version__
from xcit_hub.cli import bench, cache, card, convert, doctor, export, models, parity, predict, publish, serve, train

app = typer.Typer(
    name="xcit-hub",
    help="XCiT for MindSpore: convert, prove, publish, load, train.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command("list")(models.list_models)
app.command()(models.info)
app.command()(models.load)
app.command()(predict.predict)
app.command()(convert.convert)
app.command()(convert.inspect)
app.command()(parity.parity)
app.command()(export.export)
app.command()(serve.serve)
app.command(context_settings=bench.SETTINGS)(bench.bench)
app.command()(publish.publish)
app.command()(publish.whoami)
app.command(context_settings=train.SETTINGS)(train.train)
app.command("eval", context_settings=train.SETTINGS)(train.evaluate)
app.command()(doctor.doctor)
app.add_typer(card.app)
app.add_typer(cache.app, name="cache")
