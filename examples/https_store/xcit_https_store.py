"""A store for plain web servers: each model is a folder of files and a ``manifest.json`` that lists them.

Put a folder hub's entry behind any web server and name it::

    python xcit_https_store.py my-hub/org/name      # writes my-hub/org/name/manifest.json
    xcit-hub load web+https://models.example.org/org/name
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from xcit_hub.errors import HubError, InputError
from xcit_hub.files import sha256_of, write_text
from xcit_hub.hub.cache import Repository, revision_of
from xcit_hub.hub.guard import netloc
from xcit_hub.hub.spelling import parsed
from xcit_hub.hub.stores import Context, File, Receipt, Snapshot
from xcit_hub.hub.transport import download

MANIFEST = "manifest.json"


class WebStore:
    """Reads models from ``location``, an https address; a web server takes no uploads.

    The manifest is fetched anew each time, the files once: they are kept in huggingface_hub's cache by their hashes.
    """

    def __init__(self, location: str, context: Context) -> None:
        self.location = location.rstrip("/")
        # The server that the user named may be on this machine; one that it leads to may not.
        self._trusted = frozenset([netloc(parsed(location))])
        self.context = context

    def resolve(self, name: str, revision: str | None = None) -> Snapshot:
        """Read the manifest; offline, the one that was read last."""
        repository = Repository(self.context.cache, name)
        if self.context.offline:
            commit = repository.commit_of("main")
            held = repository.files(commit).get(MANIFEST) if commit else None
            if held is None:
                raise HubError(f"{name} is not in the cache.", where=self.context.cache, fix="Load it once online.")
            text = held.read_text(encoding="utf-8")
        else:
            stream = io.BytesIO()
            download(f"{self.location}/{name}/{MANIFEST}", stream, name, trusted=self._trusted)
            text = stream.getvalue().decode("utf-8", errors="replace")
        digests = _digests(text, f"{self.location}/{name}")
        commit = revision_of(digests)
        if revision not in (None, "main", commit):
            raise HubError(f"{name} is now at {commit}.", where=self.location, fix="Leave the revision out.")
        if not self.context.offline:
            repository.obtain(commit, MANIFEST, "", lambda into: into.write(text.encode()) and None)
            repository.set_branch("main", commit)
        files = {path: File(None, digest) for path, digest in digests.items()}
        return Snapshot(name, commit, files, origin=f"{self.location}/{name}")

    def fetch(self, snapshot: Snapshot, path: str) -> Path:
        """Return the file, hashed, from the cache or the server."""
        return Repository(self.context.cache, snapshot.name).obtain(
            snapshot.revision or "",
            path,
            snapshot.files[path].digest or "",
            lambda stream: download(f"{snapshot.origin}/{path}", stream, snapshot.name, trusted=self._trusted),
            offline=self.context.offline,
            force=self.context.force,
        )

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
        """Refuse: files get onto a web server by other ways."""
        del name, files, message, revision, private, create_pr
        raise InputError(
            "A web server takes no uploads.",
            where=self.location,
            fix="Publish to a folder, write its manifest, and copy the folder to the server.",
        )

    def list(self) -> list[str]:
        """Name nothing: a web server does not say what it holds."""
        return []


def _digests(text: str, where: str) -> dict[str, str]:
    try:
        listed = json.loads(text)["files"]
        digests = {str(path): str(digest) for path, digest in listed.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise HubError("That is no manifest.", where=where, fix="Write it again.") from None
    for path, digest in digests.items():
        is_inside = "\\" not in path and not any(part in ("", ".", "..") for part in path.split("/"))
        if not is_inside or not re.fullmatch("[0-9a-f]{64}", digest):
            raise HubError(f"The manifest lists {path!r}, which is not usable.", where=where, fix="Write it again.")
    return digests


def write_manifest(folder: Path) -> None:
    """List every file of ``folder`` with its SHA-256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    listed = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    write_text(folder / MANIFEST, json.dumps({"files": listed}, indent=1) + "\n")


if __name__ == "__main__":
    write_manifest(Path(sys.argv[1]))
