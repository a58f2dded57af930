"""What no branch of a cached model needs is removed: old revisions, and what killed processes left."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.files import remove_stale, remove_unfinished
from xcit_hub.hub.cache.layout import Layout, below, listed
from xcit_hub.hub.cache.listing import models
from xcit_hub.hub.cache.scan import deletion, shared_by

HOUR = 3600.0
_UNFINISHED = (".incomplete", ".tmp")
_ASIDE = re.compile(r"\..*\.tmp")


def prune(
    root: Path,
    *,
    dry_run: bool = False,
    age: float = HOUR,
    folders: Iterable[Path] = (),
    on_spared: Callable[[str], None] = lambda _: None,
) -> list[tuple[Path, int]]:
    """Remove what no branch of an XCiT model needs: old revisions, blobs without links, what a killed process left.

    Args:
        folders: where trainings, conversions and exports wrote. What killed ones left in them and below goes as well:
            hidden files and folders that nobody holds; the next one that writes there would remove them, too.
        age: seconds for which a revision must have been without a branch; its readers may take so long.
        on_spared: told the name of each model that is not touched, or not to the end: somebody writes to it, or it
            cannot be locked, or changed.

    Returns:
        Each removed file or folder and its bytes.

    Raises:
        InputError: one of ``folders`` is not a folder; nothing was removed.
    """
    for folder in (folders := list(folders)):
        if not folder.is_dir():
            raise InputError("That is not a folder.", where=folder, fix="Name the folder that was written to.")
    if not dry_run:
        remove_stale(Path(tempfile.gettempdir()))  # what killed publications left, which is not of this folder
    removed: list[tuple[Path, int]] = []
    for folder in folders:
        removed += remove_unfinished(folder, below=True, dry_run=dry_run)
    for repository in models(root):
        try:
            repository.check_inside()
            old, left = _old(repository, age), _left(repository)
            if dry_run:
                removed += [*_clear_left(left, dry_run=True), *_clear_old(repository, old, dry_run=True)]
                continue
            with repository.alone() as is_alone:
                if is_alone:
                    # What is unneeded now and was so before the locks were taken, nobody was about to need.
                    still = set(_left(repository))
                    left = [path for path in left if path in still]
                    removed += _clear_left(left)  # first, as it may make the room that the rest needs
                    removed += _clear_old(repository, old & _old(repository, age))
                    removed += _clear_views(root / Path(repository.name).parent)
            if not is_alone or any(map(os.path.lexists, left)):
                on_spared(repository.name)
        except (OSError, XcitHubError):
            on_spared(repository.name)
    return removed


def _old(repository: Layout, age: float) -> set[str]:
    """Name the revisions that have been without a branch for so many seconds; none where there is no branch."""
    wanted = set(repository.branches().values())
    if not wanted:
        return set()
    # When the last branch moved, a revision lost its own, at the latest.
    moved = max(map(_changed, below(repository.folder / "refs")), default=0.0)
    now, snapshots = time.time(), repository.folder / "snapshots"
    return {
        commit
        for commit in repository.revisions()
        if commit not in wanted and now - max(moved, _changed(snapshots / commit)) >= age
    }


def _left(repository: Layout) -> list[Path]:
    """Name what no revision has: unfinished snapshots, blobs and branches, and blobs without links."""
    refs, snapshots, blobs = (repository.folder / part for part in ("refs", "snapshots", "blobs"))
    commits = repository.revisions()
    linked = {repository.blob_of(path) for commit in commits for path in below(snapshots / commit)}
    return [
        *(path for path in listed(snapshots) if path.name not in commits),
        *(blob for blob in listed(blobs) if blob.name.endswith(_UNFINISHED) or repository.blob_of(blob) not in linked),
        *(path for path in below(refs) if path.name.startswith(".") and path.name.endswith(_UNFINISHED)),
    ]


def _clear_left(left: list[Path], *, dry_run: bool = False) -> list[tuple[Path, int]]:
    sizes = [(path, _size(path)) for path in left]
    for path in () if dry_run else left:
        with suppress(OSError):
            _remove(path)
    return [(path, size) for path, size in sizes if dry_run or not os.path.lexists(path)]


def _clear_old(repository: Layout, old: set[str], *, dry_run: bool = False) -> list[tuple[Path, int]]:
    if not old:
        return []
    plan = deletion(repository, old)
    sizes = [(path, _size(path)) for path in (*sorted(plan.snapshots), *sorted(plan.blobs))]
    if dry_run:
        return sizes
    sizes += [(path, _size(path)) for path in sorted(shared_by(repository, plan.blobs))]  # gone if nobody else has them
    asides = {path: _aside(path) for path in plan.snapshots}
    for path, aside in asides.items():
        path.rename(aside)
    replace(plan, snapshots=frozenset(asides.values())).execute()
    return [(path, size) for path, size in sizes if not os.path.lexists(path)]


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    path.rename(_aside(path))
    shutil.rmtree(_aside(path))


def _aside(path: Path) -> Path:
    # What is removed is renamed first: whoever is killed meanwhile leaves no half of a revision.
    return path.with_name(f".{path.name}.tmp")


def _clear_views(folder: Path) -> list[tuple[Path, int]]:
    # A folder hub's plain view is a link that is made beside its place.
    found = [path for path in listed(folder) if path.is_symlink() and _ASIDE.fullmatch(path.name)]
    for path in found:
        path.unlink(missing_ok=True)
    return [(path, 0) for path in found]


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # it is gone
        return 0.0


def _size(path: Path) -> int:
    return path.lstat().st_size if not path.is_dir() else 0
