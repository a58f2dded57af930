"""A checkpoint on disk: one file, or a folder that holds one. No hub, no history; the simplest store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xcit_hub.errors import HubError, InputError
from xcit_hub.files import contained
from xcit_hub.hub.stores import Context, File, Receipt, Snapshot


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
        if not path.is_file():
            raise HubError(
                "There is no such file or folder.",
                where=path.absolute(),
                fix="Check the path. A model of a hub is written org/name, without ./ before it.",
            )
        return Snapshot(name, None, {path.name: File(path.stat().st_size)}, origin=str(path))

    def fetch(self, snapshot: Snapshot, path: str) -> Path:
        """Return the file in place."""
        root = Path(snapshot.name)
        return contained(root, path) if root.is_dir() else root

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


def snapshot_of_folder(folder: Path, name: str) -> Snapshot:
    """Describe a plain folder's own files, links that leave it left out of reach.

    Raises:
        HubError: a link leads out of the folder.
    """
    root = folder.resolve()
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_dir() or any(part.startswith(".") for part in relative.parts):
            continue
        if not path.resolve().is_relative_to(root):
            raise HubError(
                f"The file {relative} is a link that leaves its folder.",
                where=path,
                fix="Replace the link by the file.",
            )
        files[relative.as_posix()] = File(path.stat().st_size)
    return Snapshot(name, None, files, origin=str(folder))
