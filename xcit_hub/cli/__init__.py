"""``xcit-hub``: the command line. One file a group of commands; each parses, calls, prints, and holds no logic."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer


def run(app: typer.Typer) -> NoReturn:
    """Run a Typer application as a whole process and end it.

    Exit codes: 0 done, 1 a check failed, 2 the user can mend something, 130 interrupted. No traceback for any of them,
    and no framework noise.
    """
    _silence_frameworks()
    code = _exit_code(app)
    sys.stdout.flush()
    sys.stderr.flush()
    # MindSpore's Cell.__del__ prints hundreds of lines when the interpreter tears down modules before cells.
    os._exit(code)


def main() -> NoReturn:
    """Entry point of the ``xcit-hub`` script."""
    from xcit_hub.cli.app import app

    run(app)


def _exit_code(app: typer.Typer) -> int:
    import click
    from rich.console import Console

    from xcit_hub.errors import XcitHubError

    try:
        result = app(standalone_mode=False)
        return result if isinstance(result, int) else 0
    except XcitHubError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", style="red", markup=False)
        return 2
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`); nothing is left to say.
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        return 0


def _silence_frameworks() -> None:
    import warnings

    os.environ.setdefault("GLOG_v", "3")  # MindSpore: errors only; read once, when it is imported
    os.environ.setdefault("HF_HUB_DISABLE_SYMLINKS_WARNING", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
