"""``python -m converters.inspect FILE``, for one release: ``xcit-hub inspect`` says what is in a checkpoint."""

import warnings

import typer

from converters.command import inspect
from xcit_hub.process import run

if __name__ == "__main__":
    warnings.warn(
        "Say `xcit-hub inspect FILE`: this name goes with the next release.", DeprecationWarning, stacklevel=1
    )
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    app.command()(inspect)
    run(app)
