"""``xcit-hub``: the command line. One file a group of commands; each parses, calls, prints, and holds no logic."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import NoReturn

import typer


def run(app: typer.Typer) -> NoReturn:
    """Run a Typer application as a whole process and end it.

    Exit codes: 0 done, 1 a check failed or the user interrupted, 2 the user can mend something, 70 a fault of ours (the
    only case with a traceback). Frameworks' noise is kept away.
    """
    _silence_frameworks()
    code = _exit_code(app)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # closed by the caller (`>&-`)
                stream.flush()
        except OSError:
            code = code or 2
    # MindSpore's Cell.__del__ prints hundreds of lines when the interpreter tears down modules before cells.
    os._exit(code)


def main() -> NoReturn:
    """Entry point of the ``xcit-hub`` script."""
    from xcit_hub.cli.app import app

    run(app)


def _exit_code(app: typer.Typer) -> int:
    from rich.console import Console

    from xcit_hub.errors import XcitHubError

    try:
        app()
    except SystemExit as end:
        # Typer ends every command this way, after it has printed what was wrong with the arguments.
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except XcitHubError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", style="red", markup=False)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            traceback.print_exc()
            return 70
        sys.stderr.write(f"error: the output could not be written: {error.strerror}\n")
        return 2
    except Exception:
        traceback.print_exc()
        return 70
    return 0


def _silence_frameworks() -> None:
    import warnings

    os.environ.setdefault("GLOG_v", "3")  # MindSpore: errors only; read once, when it is imported
    os.environ.setdefault("HF_HUB_DISABLE_SYMLINKS_WARNING", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
