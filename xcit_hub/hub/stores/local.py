"""A checkpoint on disk: one file, or a folder that holds one. No hub, no history; the simplest store."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from xcit_hub.errors import HubError, InputError, OutOfReachError
from xcit_hub.files import is_file, is_folder, is_there
from xcit_hub.hub.stores import Context, File, Receipt, Snapshot
from xcit_hub.variants import CHECKPOINTS

_MOST_FILES = 10_000


class LocalStore:
    """Files below one path of this machine."""

    def __init__(self, location: str | None, context: Context) -> None:
        del location, context  # the name is the whole address

    def resolve(self, name: str, revision: str | None = None) -> Snapshot:
        """Describe a file as a snapshot of one, or a folder as it is now."""
        del revision
        path = Path(name)
        if is_folder(path):
            return snapshot_of_folder(path, name)
        if is_there(path) and not is_file(path):
            raise HubError("This is not a file: a pipe or a device.", where=path, fix="Give a file or a folder.")
        if not is_file(path):
            raise _absent(path, name)
        return Snapshot(name, None, {path.name: File(path.stat().st_size)}, origin=str(path))

    def fetch(self, snapshot: Snapshot, path: str) -> Path:
        """Return the file in place."""
        root = Path(snapshot.name)
        return file_inside(root, path) if is_folder(root) else root

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
        raise InputError(
            f"{name} is a path, not a hub.", where="the name of the model", fix="Publish to a folder hub: --to FOLDER."
        )

    def list(self) -> list[str]:
        """Name nothing: there is no hub to list."""
        return []


def _absent(path: Path, name: str) -> HubError:
    """Say why nothing is found there: what may not be looked at, or cannot be, is not the same as what is missing."""
    try:
        path.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            return HubError(f"It cannot be reached: {error.strerror}.", where=path.absolute(), fix="Check the path.")
    except ValueError:  # a NUL inside the name
        return HubError("No file can be called so.", where=repr(name), fix="Check the path.")
    return OutOfReachError("There is no such file or folder.", where=path.absolute(), fix=_elsewhere(name))


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
        HubError: a link leads out of the folder, or it holds more files than a model has.
    """
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".")]
        below = (Path(place, each).relative_to(folder).as_posix() for each in names if not each.startswith("."))
        found += [each for each in below if each.isprintable()]  # other names are not UTF-8: no file of a model's
        if len(found) > _MOST_FILES:
            raise HubError(
                f"More than {_MOST_FILES:,} files lie below this folder, which no model has.",
                where=folder,
                fix="Name the model's own folder.",
            )
    files = {each: File(file_inside(folder, each).stat().st_size) for each in sorted(found, key=PurePosixPath)}
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
