"""A checkpoint on disk: one file, or a folder that holds one. No hub, no history; the simplest store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xcit_hub.errors import HubError, InputError
from xcit_hub.hub.stores import Context, File, Receipt, Snapshot
from xcit_hub.variants import CHECKPOINTS


class LocalStore:
    """Files below one path of this machine."""

    def __init__(self, location: str | None, context: Context) -> None:
        del location, context  # the name is the whole address

    def resolve(self, name: str, revision: str | None = None) -> Snapshot:
        """Describe a file as a snapshot of one, or a folder as it is now."""
        del revision
        path = Path(name)
        if path.is_dir():
            return snapshot_of_folder(path, name)
        if path.exists() and not path.is_file():
            raise HubError("This is not a file: a pipe or a device.", where=path, fix="Give a file or a folder.")
        if not path.is_file():
            raise HubError("There is no such file or folder.", where=path.absolute(), fix=_elsewhere(name))
        return Snapshot(name, None, {path.name: File(path.stat().st_size)}, origin=str(path))

    def fetch(self, snapshot: Snapshot, path: str) -> Path:
        """Return the file in place."""
        root = Path(snapshot.name)
        return file_inside(root, path) if root.is_dir() else root

    def publish(
        self,
        name: str,
        files: Mapping[str, Path],
        *,
        message: str,
        revision: str | None = None,
        private: bool = False,
        create_pr: bool = False,
    ) -> Receipt:
        """Refuse: a path is not a hub."""
        del files, message, revision, private, create_pr
        raise InputError(f"{name} is a path, not a hub.", fix="Publish to a folder hub: --to FOLDER.")

    def list(self) -> list[str]:
        """Name nothing: there is no hub to list."""
        return []


def _elsewhere(name: str) -> str:
    published = next((entry for entry in CHECKPOINTS.values() if entry.file == name), None)
    if published is not None:
        return (
            f"A published file is called so: {published.name}, at {published.url}. `xcit-hub info {name}` tells of it."
        )
    parts = name.split("/")
    if len(parts) == 3 and all(parts) and parts[0] not in (".", "..", "~"):
        return f"Check the path. A file of a hub's model is written with the hub: hf://{name}."
    return "Check the path. A model of a hub is written org/name, without ./ before it."


def snapshot_of_folder(folder: Path, name: str) -> Snapshot:
    """Describe a plain folder's own files; hidden ones are left out.

    Raises:
        HubError: a link leads out of the folder.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        is_named = str(relative).isprintable()  # other names are not UTF-8, and no file of a model has one
        if is_named and not path.is_dir() and not any(part.startswith(".") for part in relative.parts):
            files[relative.as_posix()] = File(file_inside(folder, relative.as_posix()).stat().st_size)
    return Snapshot(name, None, files, origin=str(folder))


def file_inside(folder: Path, relative: str) -> Path:
    """Return a file of ``folder`` that stays inside when its links are followed; the name is kept, for its suffix.

    A revision in huggingface_hub's layout may link to its model's blobs.

    Raises:
        HubError: it is not there, or it leads out of the folder.
    """
    root = folder.resolve()
    boundary = root.parent.parent if root.parent.name == "snapshots" else root
    path = root / relative
    try:
        is_inside = path.resolve().is_relative_to(boundary)
    except (OSError, RuntimeError):
        raise HubError(f"The file {relative} is a link that leads in a circle.", where=path, fix="Remove it.") from None
    if not is_inside:
        raise HubError(
            f"The file {relative} is a link that leaves its folder.", where=path, fix="Replace the link by the file."
        )
    if path.exists() and not path.is_file():
        raise HubError(f"{relative} is not a file: a pipe or a device.", where=path, fix="Remove that entry.")
    if not path.is_file():
        raise HubError(f"The file {relative} is missing.", where=path, fix="Publish or copy the model again.")
    return path
