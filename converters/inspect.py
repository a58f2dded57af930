"""``python -m converters.inspect FILE``: what is in a checkpoint."""

import typer

from xcit_hub.cli import run
from xcit_hub.cli.convert import inspect

if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    app.command()(inspect)
    run(app)
