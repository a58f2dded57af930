"""``xcit-hub cache list|verify|prune``: the models that were fetched."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xcit_hub.cli.shared import AsJson, CacheDir, console, working

if TYPE_CHECKING:
    from xcit_hub.hub.cache import Entry

app = typer.Typer(
    help="The models that were fetched, in huggingface_hub's cache. Other libraries' are never touched.",
    no_args_is_help=True,
)


def _folder(given: Path | None) -> Path:
    """Return the cache that is meant: the default one may not be there yet, a named one has to be."""
    from xcit_hub.errors import InputError
    from xcit_hub.files import is_folder
    from xcit_hub.hub import address, cache

    folder = cache.default_folder() if given is None else address.expanded(given)
    if given is not None and not is_folder(folder):
        raise InputError("There is no such folder.", where=given, fix="Name a cache, or leave --cache-dir out.")
    return folder


@app.command("list")
def cache_list(cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    """List the cached models, and what is wrong with any.

    Examples:

        xcit-hub cache list --json
    """
    from xcit_hub.hub import cache

    found = cache.entries(_folder(cache_dir))
    if as_json:
        rows = [
            {
                "name": entry.name,
                "revision": entry.commit,
                "branches": list(entry.branches),
                "bytes": entry.size,
                "path": str(entry.folder),
                "faults": list(entry.faults),
            }
            for entry in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    table = Table("model", "revision", "branches", "bytes", box=None)
    for entry in found:
        table.add_row(entry.name, entry.commit[:12], ", ".join(entry.branches), f"{entry.size:,}")
    console().print(table if found else "The cache holds no XCiT models.")
    _tell(_faulty(found))


def _faulty(entries: Iterable[Entry]) -> list[tuple[str, str]]:
    """Return each model's faults with its name; what its revisions share once."""
    return list(dict.fromkeys((entry.name, fault) for entry in entries for fault in entry.faults))


def _tell(faulty: Iterable[tuple[str, str]]) -> None:
    for name, fault in faulty:
        typer.echo(f"faulty: {name}: {fault}")
        typer.echo("  do:    load it again, which fetches what is missing; remove what does not belong")


@app.command("verify")
def cache_verify(cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    """Hash every cached file, and look for what is missing. Exits 1 if anything is damaged or faulty.

    Examples:

        xcit-hub cache verify
    """
    from xcit_hub.hub import cache

    folder = _folder(cache_dir)
    with working("hashing"):
        count, damaged = cache.verify(folder)
    faulty = _faulty(cache.entries(folder))
    if as_json:
        rows = [{"name": d.name, "path": str(d.file), "expected": d.expected, "found": d.found} for d in damaged]
        faults = [{"name": name, "fault": fault} for name, fault in faulty]
        typer.echo(json.dumps({"checked": count, "damaged": rows, "faulty": faults}, indent=2))
    else:
        for damage in damaged:
            typer.echo(
                f"damaged: {damage.name}: {damage.file}\n"
                "  do:    load it again, which fetches it again; in a folder hub, publish it again"
            )
        _tell(faulty)
        typer.echo(f"{count - len(damaged)} of {count} files are what their names promise")
    if damaged or faulty:
        raise typer.Exit(1)


@app.command("prune")
def cache_prune(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Folders of trainings, conversions or exports to clear as well."),
    ] = None,
    cache_dir: CacheDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove revisions that no branch names, blobs that no revision needs, and what killed processes left.

    A revision that lost its branch within the hour stays, as somebody may be reading it. In other FOLDERs, and below
    them, hidden unfinished files go that nobody is writing any more.

    Examples:

        xcit-hub cache prune --dry-run

        xcit-hub cache prune runs converted
    """
    from xcit_hub.hub import cache

    spared: list[str] = []
    removed = cache.prune(_folder(cache_dir), dry_run=dry_run, folders=folders or (), on_spared=spared.append)
    total = sum(size for _, size in removed)
    if as_json:
        record: dict[str, Any] = {
            "removed": [str(path) for path, _ in removed],
            "bytes": total,
            "dry_run": dry_run,
            "spared": spared,
        }
        typer.echo(json.dumps(record, indent=2))
        return
    for path, size in removed:
        typer.echo(f"{size:>14,}  {path}")
    for name in spared:
        typer.echo(f"spared: {name}: somebody is writing to it, or it cannot be locked or changed")
    typer.echo(f"{'would free' if dry_run else 'freed'} {total:,} bytes")
