"""The assembled application: which groups of commands there are."""

from __future__ import annotations

import typer

from xcit_hub._version import __version__

app = typer.Typer(
    name="xcit-hub",
    help="XCiT for MindSpore: convert, prove, publish, load, train.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool | None = typer.Option(
        None, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass
