"""What a cache holds of XCiT, and whether it is what it was. Other libraries' models in it are not looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xcit_hub.errors import HubError
from xcit_hub.files import open_regular
from xcit_hub.hub.cache.digests import digest_like
from xcit_hub.hub.cache.layout import Layout, listed
from xcit_hub.hub.cache.repository import Repository
from xcit_hub.hub.cache.scan import scan

_LARGEST_CONFIG = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One cached revision of one model.

    Args:
        name: ``org/name``.
        commit: the revision; empty where a model has none, and something else that its faults name.
        branches: the branches that point at it.
        size: bytes of all its files that are there.
        folder: where it is.
        faults: what is wrong in it, and in what its model's revisions share.
    """

    name: str
    commit: str
    branches: tuple[str, ...]
    size: int
    folder: Path
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Damage:
    """A cached file whose bytes are not the ones its name promises."""

    name: str
    file: Path
    expected: str
    found: str


def entries(root: Path) -> list[Entry]:
    """List the XCiT models in a cache, those too that something is wrong with; one bad entry hides no other."""
    return [entry for model in models(root) for entry in _entries(model)]


def _entries(model: Layout) -> Iterator[Entry]:
    snapshots, commits, shared = model.folder / "snapshots", model.revisions(), tuple(_odd(model))
    if not commits:
        if shared:
            yield Entry(model.name, "", (), 0, model.folder, shared)
        return
    try:
        found = scan(model)
        sizes = {each.commit_hash: each.size_on_disk for repo in found.repos for each in repo.revisions}
        shared += tuple(map(str, found.warnings))
    except OSError as error:  # it went while it was looked at
        sizes, shared = {}, (*shared, error.strerror or str(error))
    for commit in commits:
        at = tuple(branch for branch, here in model.branches().items() if here == commit)
        faults = (*_faults(model, commit), *shared)
        yield Entry(model.name, commit, at, sizes.get(commit, 0), snapshots / commit, faults)


def _odd(model: Layout) -> Iterator[str]:
    """Say what stands among branches and revisions and is neither; hidden is what is being written, or pruned."""
    commits = model.revisions()
    for branch, commit in model.refs().items():
        if commit not in commits:
            yield f"refs/{branch} {'does not hold a commit' if commit is None else 'is at a revision that is not here'}"
    for path in listed(model.folder / "snapshots"):
        if path.name not in commits and not path.name.startswith("."):
            yield f"snapshots/{path.name} is not a revision"


def _faults(model: Layout, commit: str) -> list[str]:
    try:
        files = model.files(commit)
    except HubError as error:
        return [error.what]
    return [f"{path} is a link that leads to no file." for path, file in files.items() if not file.exists()]


def names(root: Path) -> list[str]:
    """Name the XCiT models that have a revision without a link out, a loop, or what is not a file."""
    return [model.name for model in models(root) if any(_is_sound(model, commit) for commit in model.revisions())]


def _is_sound(model: Layout, commit: str) -> bool:
    try:
        model.files(commit)
    except HubError:
        return False
    return True


def verify(root: Path) -> tuple[int, list[Damage]]:
    """Hash every blob of every XCiT model in a cache: how many were read, and which are damaged."""
    count, damaged = 0, []
    for repository in models(root):
        for blob in listed(repository.folder / "blobs"):
            digest_of = digest_like(blob.name)
            if digest_of is None or not blob.is_file():
                continue
            count += 1
            try:
                found = digest_of(blob)
            except OSError as error:
                found = error.strerror or "it cannot be read"
            if found != blob.name:
                damaged.append(Damage(repository.name, blob, blob.name, found))
    return count, damaged


def models(root: Path) -> Iterator[Repository]:
    """Find the XCiT models in a cache: called so, or described as one by a configuration."""
    if not root.is_dir():
        return
    for folder in sorted(root.glob("models--*")):
        repository = Repository(root, folder.name.removeprefix("models--").replace("--", "/"))
        is_sound = repository.name.isprintable() and not folder.is_symlink()
        if is_sound and (folder / "snapshots").is_dir() and (folder / "blobs").is_dir() and _is_xcit(folder):
            yield repository


def _is_xcit(folder: Path) -> bool:
    snapshots = folder / "snapshots"
    if "xcit" in folder.name.lower() or any(snapshots.glob("*/xcit_hub.json")):
        return True
    return any(_describes_xcit(path) for path in snapshots.glob("*/config.json"))


def _describes_xcit(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            described = json.loads(stream.read(_LARGEST_CONFIG).decode("utf-8"))
        return str(described["architecture"]).startswith("xcit_")
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
