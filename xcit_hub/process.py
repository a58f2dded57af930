"""A command as a whole process: quiet frameworks, exit codes, and no traceback for what a user can mend."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from xcit_hub.errors import XcitHubError

# What a function's argument is called in a piece of advice → what its option is.
_OPTIONS = (
    (r"ignore_fields=\[[^\]]*\], (?=--ignore-field)", ""),
    (r"ignore_fields \((--ignore-field)\)", r"\1"),
    (r"token=,? or (?=--token-env)", ""),
    (r"\bloads with offline=True\b", "loads with --offline"),
    (r"\bcache_dir (?=(?:a|the) folder\b)", "--cache-dir "),
    (r"\bdialect='([\w-]+)'", r"--dialect \1"),
    (r"\bhub=(?=FOLDER\b)", "--hub "),
)


class _Answers:
    are_json = False


def answer_in_json(asked: bool) -> bool:
    """Note that a command answers in JSON, so that its error is JSON, too; the callback of an option ``--json``."""
    _Answers.are_json = _Answers.are_json or asked
    return asked


def run(command: Callable[[], object]) -> NoReturn:
    """Run a command as a whole process and end it.

    Exit codes: 0 done, 1 a check failed or the user interrupted, 2 the user can mend something, 70 a fault of ours (the
    only case with a traceback). Frameworks' noise is kept away. Where a command was asked for JSON
    (:func:`answer_in_json`), what was wrong is ``{"error": {"what", "where", "fix"}}``, on the error output, too.

    Args:
        command: a Typer application, or anything else that parses ``sys.argv`` and does what it says.
    """
    _silence_frameworks()
    code = _exit_code(command)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # closed by the caller (`>&-`)
                stream.flush()
        except OSError:
            code = code or 2
    # MindSpore's Cell.__del__ prints hundreds of lines when the interpreter tears down modules before cells.
    os._exit(code)


def _exit_code(command: Callable[[], object]) -> int:
    from rich.console import Console

    try:
        command()
    except SystemExit as end:
        # Typer ends every command this way, after it has printed what was wrong with the arguments.
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except XcitHubError as error:
        error.fix = None if error.fix is None else in_options(error.fix)
        if _Answers.are_json:
            answer = {"error": {"what": error.what, "where": error.where, "fix": error.fix}}
            sys.stderr.write(json.dumps(answer, ensure_ascii=False) + "\n")
            return 2
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


def in_options(advice: str) -> str:
    """Return a piece of advice in the words of the command line, where it has a function's."""
    for argument, option in _OPTIONS:
        advice = re.sub(argument, option, advice)
    return advice


def _silence_frameworks() -> None:
    import warnings

    os.environ.setdefault("GLOG_v", "3")  # MindSpore: errors only; read once, when it is imported
    os.environ.setdefault("HF_HUB_DISABLE_SYMLINKS_WARNING", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
