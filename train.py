"""Train a network: ``python train.py --config configs/xcit/….yaml --data_dir DIR``. The same as ``xcit-hub train``."""

import typer

from xcit_hub.cli import run
from xcit_hub.cli.train import SETTINGS, train

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command(context_settings=SETTINGS)(train)

if __name__ == "__main__":
    run(app)
