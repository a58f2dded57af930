"""The process of ``openmind_hub``, the client of Modelers and GitCode (1.3.0).

Files are handed to it open: by path it writes and reads below its own white-listed folders alone. Three things of it
that are worked around here:

- of several large files it uploads none once the hub holds the first (``_upload_lfs_files`` returns): one call a file;
- a file that the hub wants inside the commit is cut at 5 MiB (``b64content``): such a file is refused;
- it reads one page of a hub's list of models, and says nothing of others: a full page is refused.
"""

from __future__ import annotations

import importlib
from typing import Any

from xcit_hub.hub.clients.channel import Channel, Counting, Guard, Refused

_INLINE = 5 << 20
_PAGE = 100


class OpenMind:
    """What is asked of the client."""

    def __init__(self, channel: Channel, guard: Guard, token: str | None) -> None:
        self.client: Any = importlib.import_module("openmind_hub")
        self.channel, self.guard, self.token = channel, guard, token
        self.api: Any = self.client.OmApi(library_name="xcit-hub")

    def describe(self, name: str, revision: str) -> dict[str, Any]:
        """Say which commit a revision is at, and what files it has."""
        commit = self.api.get_repo_last_commit(name, revision=revision, token=self.token).oid
        if not isinstance(commit, str):
            raise Refused("does not say which commit a revision is at")
        found = self.api.list_repo_tree(name, revision=commit, recursive=True, token=self.token)
        files = [
            {"path": each.path, "size": each.size, "digest": each.blob_id}
            for each in found
            if isinstance(each, self.client.RepoFile)
        ]
        return {"commit": commit, "files": files}

    def fetch(self, name: str, revision: str, path: str, folder: str, limit: int, size: int | None, digest: str) -> str:
        """Write a file into a folder; return its path. The hash is for who asked to check."""
        del digest
        self.guard.begin(limit)
        url = self.client.om_hub_url(name, path, revision=revision)
        target = f"{folder}/file"
        with open(target, "wb") as file:  # noqa: PTH123
            headers = self.client.build_om_headers(token=self.token)
            self.client.http_get(url, Counting(file, self.channel), headers=headers, expected_size=size)
        return target

    def check_card(self, text: str) -> str | None:
        """Read a card's head as the client's own class for it does; return what it says against it."""
        cards: Any = importlib.import_module("openmind_hub.plugins.openmind.repocard_data")
        yaml: Any = importlib.import_module("yaml")
        try:
            cards.ModelCardData(**yaml.safe_load(text.split("---", 2)[1]))
        except Exception as error:  # whatever it raises, it does not take the card
            return f"{type(error).__name__}: {error}"
        return None

    def is_private(self, name: str) -> bool | None:
        """Say whether a repository is private; None where the hub tells neither."""
        found: bool | None = self.api.model_info(name, token=self.token).private
        return found

    def create(self, name: str, private: bool, license: str) -> None:  # noqa: A002
        """Create a repository, if there is none."""
        self.api.create_repo(name, token=self.token, private=private, exist_ok=True, license=license)

    def branch(self, name: str, branch: str) -> None:
        """Create a branch, if there is none."""
        self.api.create_branch(name, branch=branch, token=self.token, exist_ok=True)

    def upload(self, name: str, branch: str, add: dict[str, str], delete: list[str], message: str) -> None:
        """Commit files, the large ones sent before; one request makes the commit.

        Args:
            add: each path there and the file here; in the order in which a reader may see them.
        """
        additions = []
        opened = [(path, open(file, "rb")) for path, file in add.items()]  # noqa: PTH123, SIM115
        try:
            for path, file in opened:
                addition = self.client.CommitOperationAdd(path, file)
                additions.append(addition)
                self.api.preupload_lfs_files(name, [addition], token=self.token, revision=branch, free_memory=False)
                if addition.upload_mode != "lfs" and addition.upload_info.size > _INLINE:
                    raise Refused(f"wants {path} inside the commit, where its client cuts it at {_INLINE} bytes")
                self.channel.progress(sum(each.upload_info.size for each in additions))
            deletions = [self.client.CommitOperationDelete(path) for path in delete]
            self.api.create_commit(
                name, [*additions, *deletions], commit_message=message, token=self.token, revision=branch
            )
        finally:
            for _, file in opened:
                file.close()

    def list(self, owner: str | None) -> list[str]:
        """Name an owner's models; without one, what is called XCiT and runs on MindSpore."""
        wanted = self.client.ModelFilter(author=owner) if owner else self.client.ModelFilter(
            model_name="xcit", library=["MindSpore"]
        )  # fmt: skip
        found = list(self.api.list_models(wanted, limit=_PAGE, token=self.token))
        if len(found) >= _PAGE:
            raise Refused(f"has {_PAGE} models or more of that kind, and its client reads no further")
        return [f"{each.owner}/{each.name}" for each in found]

    def reasons(self, error: BaseException) -> dict[str, Any] | None:
        """Turn the client's own errors into answers."""
        requests: Any = importlib.import_module("requests")
        if isinstance(error, self.client.RevisionNotFoundError):
            return {"kind": "missing", "what": "revision"}
        if isinstance(error, requests.HTTPError) and error.response is not None:
            status, waits = error.response.status_code, error.response.headers.get("Retry-After")
            said = getattr(error, "server_message", None) or ""
            return {"kind": "status", "status": status, "retry_after": waits, "what": said}
        if isinstance(error, EnvironmentError) and "size check failed" in str(error):
            return {"kind": "unreachable", "what": "the file came with another length", "is_transient": True}
        if isinstance(error, ValueError) and ("white list" in str(error) or "not HTTPS" in str(error)):
            return {"kind": "refused", "what": "leads to an address where its client does not go"}
        if isinstance(error, ValueError) and "license" in str(error):
            return {"kind": "refused", "what": "does not take the card's licence"}
        return None


_METHODS = ("describe", "fetch", "check_card", "is_private", "create", "branch", "upload", "list")


def main() -> None:
    """Serve until nobody asks."""
    channel = Channel()
    settings = channel.settings
    guard = Guard(settings["endpoint"], settings["domains"], settings["storages"])
    guard.install()
    served = OpenMind(channel, guard, settings["token"])
    methods = {name: getattr(served, name) for name in _METHODS}
    channel.serve(guard, methods, served.reasons)


if __name__ == "__main__":
    main()
