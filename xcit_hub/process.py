"""A command as a whole process: quiet frameworks, exit codes, and no traceback for what a user can mend."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from xcit_hub.errors import ComputingWarning, XcitHubError, readable
from xcit_hub.files import scratch_folder

_FAULT = 70

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


class _Interruption:
    """Whether the user has interrupted, which libraries turn into errors of their own."""

    CODE = 130  # as shells have it
    was = False

    @classmethod
    def note(cls) -> None:
        """Take note of interruptions from now on, and act on them as Python does."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where they are ignored

            def interrupted(number: int, frame: FrameType | None) -> None:
                if not cls.was:
                    _take_from_libraries()
                cls.was = True
                signal.default_int_handler(number, frame)

            signal.signal(signal.SIGINT, interrupted)


def _take_from_libraries() -> None:
    """Keep the error output to Python: compiled code tells of an interruption as of a fault, line after line."""
    with suppress(OSError):  # it is closed
        shown = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        sys.stderr = open(shown, "w", buffering=1, errors="backslashreplace")  # noqa: PTH123, SIM115  (until the end)


def answer_in_json(asked: bool) -> bool:
    """Note that a command answers in JSON, so that its error is JSON, too; the callback of an option ``--json``."""
    _Answers.are_json = _Answers.are_json or asked
    return asked


def run(command: Callable[[], object]) -> NoReturn:
    """Run a command as a whole process and end it.

    Exit codes: 0 done, 1 a check failed, 2 the user can mend something, 70 a fault of ours (the only case with a
    traceback), 130 the user interrupted. Frameworks' noise is kept away. Where a command was asked for JSON
    (:func:`answer_in_json`), what was wrong is ``{"error": {"what", "where", "fix"}}``, on the error output, too.

    Args:
        command: a Typer application, or anything else that parses ``sys.argv`` and does what it says.
    """
    _silence_frameworks()
    _Interruption.note()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a letter shows its number
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):  # a list of files' names is not always text
        sys.stdin.reconfigure(errors="surrogateescape")
    with _graphs_aside():
        code = _exit_code(command)
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:  # closed by the caller (`>&-`)
                    stream.flush()
            except OSError:
                code = code or 2
        if code == _FAULT:  # what MindSpore wrote of it stays
            os._exit(code)
    # MindSpore's Cell.__del__ prints hundreds of lines when the interpreter tears down modules before cells.
    os._exit(code)


def _exit_code(command: Callable[[], object]) -> int:
    try:
        _call(command)
    except SystemExit as end:
        # Typer ends every command this way, after it has printed what was wrong with the arguments.
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except XcitHubError as error:
        say(error)
        return 2
    except KeyboardInterrupt:
        return _Interruption.CODE
    except OSError as error:
        if _Interruption.was:
            return _Interruption.CODE
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            traceback.print_exc()
            return _FAULT
        sys.stderr.write(f"error: the output could not be written: {error.strerror}\n")
        return 2
    except Exception:
        if _Interruption.was:  # whatever broke on the way out: a half-imported framework says "initialization failed"
            return _Interruption.CODE
        traceback.print_exc()
        return _FAULT
    return 0


@contextmanager
def _graphs_aside() -> Iterator[None]:
    """Give MindSpore a folder, gone afterwards, for graphs it could not compile: an interrupted one would stay here."""
    with ExitStack() as stack:
        with suppress(OSError, XcitHubError):  # a machine without temporary files has other commands
            os.environ.setdefault("MS_OM_PATH", str(stack.enter_context(scratch_folder())))
        yield


def _call(command: Callable[[], object]) -> None:
    """Call a command; what is wrong with its words is said in JSON, too, where ``--json`` asks for it."""
    import typer

    if "--json" not in sys.argv or not isinstance(command, typer.Typer):
        command()
        return
    try:
        code = command(standalone_mode=False)
    except Exception as error:
        wrong: Any = error
        context = getattr(wrong, "ctx", None)  # of what the parser raises, whichever Click it comes from
        if context is None:
            raise
        if any("--json" in option.opts and getattr(option, "is_flag", False) for option in context.command.params):
            _say_in_json(XcitHubError(wrong.format_message(), where=context.command_path, fix="See --help."))
            raise SystemExit(2) from None
        command()  # its --json names a file: it shows what is wrong as ever
    else:
        raise SystemExit(code if isinstance(code, int) else 0)


def say(error: XcitHubError) -> None:
    """Write an error to the error output: as JSON where the command answers so, and in words otherwise."""
    from rich.console import Console

    error.fix = None if error.fix is None else in_options(error.fix)
    if _Answers.are_json:
        _say_in_json(error)
    else:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", style="red", markup=False)


def _say_in_json(error: XcitHubError) -> None:
    sys.stderr.write(json.dumps(error.as_dict(), ensure_ascii=False) + "\n")


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
        warnings.simplefilter("default", ComputingWarning)
        warnings.showwarning = _say


def _say(message: Warning | str, *_: object, **__: object) -> None:
    sys.stderr.write(f"note: {readable(str(message))}\n")
