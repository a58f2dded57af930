"""What the commands about hubs share: their options, and how they print."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from xcit_hub.errors import InputError, readable
from xcit_hub.process import answer_in_json
from xcit_hub.variants import DialectName

if TYPE_CHECKING:
    from rich.console import Console

Hub = Annotated[
    str | None,
    typer.Option(
        help="Look only there: a folder, hugging-face, modelers, modelscope, gitcode (or modelscope://ORG), an "
        "endpoint's address, mindspore-hub[:FOLDER]."
    ),
]
CacheDir = Annotated[Path | None, typer.Option(help="Folder for fetched files; huggingface_hub's cache by default.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
AsJson = Annotated[bool, typer.Option("--json", callback=answer_in_json, help="Print JSON.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit.")]
TokenEnv = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The variable that holds this hub's token; HF_TOKEN is for HF_ENDPOINT alone."),
]
IgnoreField = Annotated[
    list[str] | None,
    typer.Option(help="A field of the model's description to read as if it were not there; may be given again."),
]
Dialect = Annotated[DialectName | None, typer.Option(help="Which network, where the file does not say.")]


class Address(NamedTuple):
    """Which model is meant, as the options say it."""

    model_id: str
    revision: str | None
    hub: str | None
    cache_dir: Path | None
    offline: bool
    token_env: str | None
    dialect: DialectName | None


def refuse_without(needed: str, given: object, context: typer.Context, *names: str) -> None:
    """Refuse options that mean nothing without another one.

    Args:
        needed: the other option, as it is written.
        given: its value.
        names: of the options' parameters.

    Raises:
        InputError: one of them was given without it.
    """
    for name in names if not given else ():
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} means nothing without {needed}.", where=option, fix=f"Give {needed}, too.")


def refuse_beside(option: str, context: typer.Context) -> None:
    """Refuse whatever was given beside an option that prints something and ends.

    Raises:
        InputError: something was.
    """
    given = list(context.args)
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name != "DEFAULT" and option not in parameter.opts:
            given.append(parameter.opts[0] if parameter.param_type_name == "option" else str(parameter.metavar))
    if given:
        raise InputError(
            f"{option} prints and ends; {', '.join(given)} would mean nothing.", where=option, fix="Give it alone."
        )


def token_in(variable: str | None) -> str | None:
    """Return the token that an environment variable holds; None where none was named.

    Raises:
        InputError: the variable is not set.
    """
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise InputError(f"The variable {variable} is not set.", where="--token-env", fix="Export it.")
    return token


def console(*, stderr: bool = False) -> Console:
    """Return a console that neither wraps nor, in a pipe, cuts what is printed, and takes no name for markup."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False)
    if not made.is_terminal:
        made.width = 1 << 16  # a pipe has no edge to cut a table at
    return made


def print_notes(notes: tuple[str, ...], *, stderr: bool = False) -> None:
    """Print what the reader has to know, one line a note."""
    for note in notes:
        console(stderr=stderr).print(f"note: {readable(note)}", style="yellow", markup=False)


def short(digest: str | None) -> str:
    """Return the beginning of a digest."""
    return "" if digest is None else digest if len(digest) <= 16 else f"{digest[:16]}…"


def working(what: str) -> AbstractContextManager[Callable[[str], None]]:
    """Show on standard error what is going on; the value is called with the name of each stage."""

    @contextmanager
    def show() -> Iterator[Callable[[str], None]]:
        from rich.console import Console

        with Console(stderr=True).status(what) as status:
            yield lambda stage: status.update(f"{what}: {stage}")

    return show()
