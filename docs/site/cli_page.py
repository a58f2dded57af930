"""The page ``cli.md``, written from the program itself each time the site is built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from xcit_hub.cli.app import app


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site's files."""
    files.append(File.generated(config, "cli.md", content=page()))
    return files


def page() -> str:
    """Return every command with its help, arguments and options, as Markdown."""
    program = typer.main.get_command(app)
    sections = [_section(words, command) for words, command in _commands((), program)]
    return "\n\n".join(["# Command line", "Made from `xcit-hub` itself; `--help` prints the same.", *sections]) + "\n"


def _commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield words, command
        return
    for name, each in below.items():
        yield from _commands((*words, name), each)


def _section(words: tuple[str, ...], command: Any) -> str:
    kinds = get_type_hints(inspect.unwrap(command.callback))
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    usage = " ".join(["xcit-hub", *words, *map(_metavar, arguments), *(["[OPTIONS]"] if options else [])])
    rows = [(f"`{_metavar(each)}`", each.help) for each in arguments]
    rows += [(_spelled(each, kinds[each.name]), each.help) for each in options]
    table = "\n".join(["| what | meaning |", "|---|---|", *(f"| {name} | {_cell(text)} |" for name, text in rows)])
    parts = [f"## {' '.join(words)}", f"```text\n{usage}\n```", inspect.cleandoc(command.help or ""), table]
    return "\n\n".join(parts if rows else parts[:-1])


def _metavar(argument: Any) -> str:
    name: str = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _spelled(option: Any, kind: object) -> str:
    value = "" if option.is_flag else f" {option.metavar or _value(kind)}"
    names = [f"{name}{value if name.startswith('--') else ''}" for name in (*option.opts, *option.secondary_opts)]
    return ", ".join(f"`{name}`".replace("|", "\\|") for name in names)


def _value(kind: object) -> str:
    """Say what an option takes, as `--help` does: `str | None` is a TEXT, a Literal its words."""
    inner = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) is Literal:
        return "|".join(map(str, inner))
    if inner:
        return _value(inner[0])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(each.value) for each in kind)
    return {str: "TEXT", int: "INTEGER", float: "FLOAT"}.get(kind, "PATH")  # type: ignore[call-overload]


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
