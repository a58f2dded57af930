"""The process of ``modelscope_hub``, the light client of ModelScope (0.5.1).

What it does not do: it names no commit (its listing drops them), makes no branch and no pull request.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from xcit_hub.hub.clients.channel import Channel, Guard, Missing, Refused

# Where it would keep a number that tells its installations apart; it goes without.
_NOWHERE = Path(os.devnull)
_PAGE = 100
_PIECE = 1 << 20
_DELETION = {"action": "delete", "type": "normal", "size": 0, "sha256": "", "content": "", "encoding": ""}
_MOST_MODELS = 3000  # its client asks for no more


class ModelScope:
    """What is asked of the client."""

    def __init__(self, channel: Channel, guard: Guard, token: str | None, endpoint: str) -> None:
        self.client: Any = importlib.import_module("modelscope_hub")
        self.errors: Any = importlib.import_module("modelscope_hub.errors")
        self.channel, self.guard = channel, guard
        # An empty token is none: the client then looks for no login of its own.
        config = self.client.HubConfig(
            endpoint=endpoint, cache_dir=_NOWHERE / "cache", config_dir=_NOWHERE / "config", token=token or ""
        )
        self.client.set_default_config(config)
        self.api: Any = self.client.HubApi(config, user_agent="xcit-hub")

    def describe(self, name: str, revision: str) -> dict[str, Any]:
        """List a revision's files; which commit it is at, the client does not say."""
        found = self.api.list_repo_files(name, "model", revision=revision)
        files = [
            {"path": each.path, "size": each.size, "digest": each.sha256 or None} for each in found if not each.is_dir
        ]
        return {"commit": None, "files": files}

    def fetch(self, name: str, revision: str, path: str, folder: str, limit: int, size: int | None, digest: str) -> str:
        """Write a file into a folder; return its path. The hash is for who asked to check, who asks again at once."""
        del digest
        self.guard.begin(limit)
        channel = self.channel

        class Told(self.client.ProgressCallback):  # type: ignore[name-defined]  # the client wants a class
            done = 0

            def update(self, size: int) -> None:
                self.done += size
                channel.progress(self.done)

        found = self.api.downloader.download_file(
            name,
            "model",
            path,
            revision=revision,
            local_dir=Path(folder),
            cache_dir=Path(folder),
            file_size=size,
            progress_callbacks=[Told],
        )
        return str(found)

    def check_card(self, text: str) -> str | None:
        """Say nothing against a card: the client has no class for one."""
        del text
        return None

    def is_private(self, name: str) -> bool | None:
        """Say whether a repository is private; None where the hub tells neither."""
        found = self.api.get_repo(name, "model").visibility
        return found == self.client.Visibility.PRIVATE if isinstance(found, self.client.Visibility) else None

    def create(self, name: str, private: bool, license: str) -> None:  # noqa: A002
        """Create a repository, if there is none."""
        try:
            self.api.create_repo(name, "model", visibility="private" if private else "public", license=license)
        except self.errors.HubError as error:
            if not self.errors.is_repo_exists_error(error):
                raise

    def branch(self, name: str, branch: str) -> None:
        """Look for a branch.

        Raises:
            Missing: there is none, and the client cannot make one.
        """
        found = self.api.list_repo_revisions(name, "model")
        if branch not in {each.get("Revision") or each.get("name") for each in found}:
            raise Missing("revision")

    def upload(self, name: str, branch: str, add: dict[str, str], delete: list[str], message: str) -> None:
        """Send the large files, then commit everything at once.

        The client's own ``upload_folder`` commits what arrived where something else did not, and readers would see half
        of a publication; what it is made of is called instead.

        Args:
            add: each path there and the file here.
        """
        actions = []
        sent = 0
        for path, file in add.items():
            size, digest = os.path.getsize(file), _sha256(file)  # noqa: PTH202
            action = {"action": "create", "path": path, "size": size, "sha256": "", "content": "", "encoding": ""}
            if self._is_large(path, size):
                # The answer names only what has to be sent.
                link = self.api.legacy.validate_blobs(name, "model", [{"oid": digest, "size": size}]).get(digest)
                if link is not None:
                    with open(file, "rb") as stream:  # noqa: PTH123
                        self.api.legacy.upload_blob(link, _Told(stream, self.channel, sent), size)
                action |= {"type": "lfs", "sha256": digest}
            else:
                content = base64.b64encode(Path(file).read_bytes()).decode()
                action |= {"type": "normal", "content": content, "encoding": "base64"}
            sent += size
            actions.append(action)
        actions += [{**_DELETION, "path": path} for path in delete]
        self.api.legacy.create_commit(name, "model", actions, message, branch)

    def _is_large(self, path: str, size: int) -> bool:
        constants = importlib.import_module("modelscope_hub.constants")
        if Path(path).name.upper() in {each.upper() for each in constants.UPLOAD_INLINE_METADATA_PATHS}:
            return False
        is_binary = Path(path).suffix.lower() in constants.MODEL_LFS_SUFFIX
        return is_binary or size > constants.UPLOAD_LFS_FORCE_THRESHOLD_BYTES

    def list(self, owner: str | None) -> list[str]:
        """Name an owner's models; without one, what is called XCiT."""
        names: list[str] = []
        for number in range(1, _MOST_MODELS // _PAGE + 1):
            page = self.api.list_repos(
                "model", owner=owner, search=None if owner else "xcit", page_number=number, page_size=_PAGE
            )
            names += [f"{each.owner}/{each.name}" for each in page.items]
            if not page.items or len(names) >= page.total_count:
                return names
        raise Refused(f"has more than {_MOST_MODELS} models of that kind, and its client reads no further")

    def reasons(self, error: BaseException) -> dict[str, Any] | None:
        """Turn the client's own errors into answers."""
        if isinstance(error, self.errors.FileIntegrityError):
            return {"kind": "bytes", "what": "the bytes received are not the ones that the hub lists"}
        if isinstance(error, self.errors.APIError) and error.status_code:
            waits = getattr(error, "retry_after", None)
            return {
                "kind": "status",
                "status": int(error.status_code),
                "retry_after": None if waits is None else str(int(waits)),
                "what": str(error.message or ""),
            }
        return None


class _Told:
    """A file whose reader is told of; it has what the client's own wrapper has."""

    def __init__(self, file: BinaryIO, channel: Channel, before: int) -> None:
        self._file, self._channel, self._done = file, channel, before

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(_PIECE if size < 0 else min(size, _PIECE))
        self._done += len(piece)
        self._channel.progress(self._done)
        return piece


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:  # noqa: PTH123
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _own_login(home: Path) -> str | None:
    """Return the token of the client's own login.

    The client keeps it pickled, and reads it so. It is read only where the file and its folders are nobody else's to
    write.
    """
    kept = home / ".modelscope" / "credentials" / "cookies"
    try:
        for path in (kept, kept.parent, kept.parent.parent):
            found = path.lstat()
            if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or path.is_symlink():
                return None
    except OSError:
        return None
    client: Any = importlib.import_module("modelscope_hub")
    token = client.HubConfig(config_dir=home / ".modelscope", token="").load_token()
    return token if isinstance(token, str) else None


_METHODS = ("describe", "fetch", "check_card", "is_private", "create", "branch", "upload", "list")


def main() -> None:
    """Serve until nobody asks."""
    channel = Channel()
    settings = channel.settings
    guard = Guard(settings["endpoint"], settings["domains"], settings["storages"])
    guard.install()
    token = _own_login(Path.home()) if settings["login"] else settings["token"]
    served = ModelScope(channel, guard, token, settings["endpoint"])
    methods = {name: getattr(served, name) for name in _METHODS}
    channel.serve(guard, methods, served.reasons)


if __name__ == "__main__":
    main()
