"""Evaluate: ``python validate.py -c configs/xcit/….yaml --data_dir DIR --ckpt_path FILE``, as ``xcit-hub eval``."""

import typer

from xcit_hub.cli import run
from xcit_hub.cli.train import SETTINGS, evaluate

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command(context_settings=SETTINGS)(evaluate)

if __name__ == "__main__":
    run(app)
