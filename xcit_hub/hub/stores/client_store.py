"""What the hubs have in common that are reached through clients of their own, run in a process (:mod:`.clients`).

The files they list are kept in the same cache as Hugging Face's, under the hub's own name (``models--modelers.cn--…``),
so that no hub's model is taken for another's. A revision is the hub's commit; where its client names none, it is named
by what it holds, as a folder hub's is, and every file is held against the digest that the hub lists.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar
from urllib.parse import urlsplit

from xcit_hub.errors import CardError, HubError, InputError, XcitHubError
from xcit_hub.files import sha256_of
from xcit_hub.hub import answers, cache, guard, transport
from xcit_hub.hub.clients import client as clients
from xcit_hub.hub.clients.client import Client, MissingError, WrongBytesError
from xcit_hub.hub.sites import Site
from xcit_hub.hub.stores import (
    DESCRIPTIONS,
    Context,
    File,
    Receipt,
    Snapshot,
    Visibility,
    check_private,
    outdated,
    publishing_is_offline,
)
from xcit_hub.hub.stores.cached import cached_snapshot
from xcit_hub.hub.stores.tokens import token_for_site
from xcit_hub.hub.transport import TRIES, UnreachableError, retrying

_SLACK = 1 << 20
# What a reader looks at first comes last, where a hub makes more than one commit of a publication.
_LAST = ("config.json", "xcit_hub.json", "README_zh.md", "README.md")
_LICENSE = re.compile(r"^license: *['\"]?([^'\"\n]+)", re.MULTILINE)


class ClientStore:
    """One hub, through its client.

    Args:
        location: its address, ``SCHEME://OWNER`` for one owner's models there, or None for the configured one.
    """

    site: ClassVar[Site]
    module: ClassVar[str]

    def __init__(self, location: str | None, context: Context) -> None:
        scheme, _, rest = (location or "").partition("://")
        is_owner = scheme == self.site.scheme
        self.owner = rest.strip("/") or None if is_owner else None
        self.endpoint = self._checked(self.site.configured if location is None or is_owner else location)
        self.context = context
        self.token, login = token_for_site(self.site, self.endpoint, context.token)
        self.client = Client(self.site, self.module, self.endpoint, self.environment(), self.token, login=login)
        self._asked: dict[str, str] = {}

    def environment(self) -> dict[str, str]:
        """Return the client's own settings."""
        raise NotImplementedError

    def beside(self, context: Context) -> ClientStore:
        """Return a store of the same hub and token with another cache, which asks through the same process."""
        other = copy.copy(self)
        other.context, other._asked = context, {}
        return other

    def resolve(self, name: str, revision: str | None = None) -> Snapshot:
        """Ask the hub what a revision holds; where it cannot be reached, the cache answers, and says so."""
        self._check_name(name, revision)
        if self.context.offline:
            return self._cached(name, revision, ())
        try:
            return self._listed(name, revision)
        except UnreachableError as error:
            note = f"{self.endpoint} could not be reached ({error.reason}); this is the revision in the cache"
            with contextlib.suppress(HubError):
                return self._cached(name, revision, (note,))
            raise

    def fetch(self, snapshot: Snapshot, path: str) -> Path:
        """Return the file from the cache, fetched if need be, with the digest that the hub lists."""
        commit = snapshot.revision or ""
        file = snapshot.files[path]
        repository = self._repository(snapshot.name)
        obtain = partial(
            repository.obtain,
            commit,
            path,
            file.digest if file.digest and len(file.digest) == 64 else "",
            partial(self._write, snapshot, path, repository),
            offline=self.context.offline,
        )
        found = obtain(force=self.context.force)
        # It has just been held against the SHA-256 that it is kept by.
        if repository.digest(found) != file.digest and not self._is_right(found, file.digest):
            found = found if self.context.offline else obtain(force=True)
        if repository.digest(found) != file.digest and not self._is_right(found, file.digest):
            raise cache.wrong_bytes(f"{snapshot.name}/{path}", file.digest or "", sha256_of(found))
        if path not in DESCRIPTIONS:
            repository.set_lacking(commit, snapshot.lacking)
            # Offline, a branch means the last revision whose weights arrived whole.
            branch = self._asked.get(commit)
            if branch is not None and repository.commit_of(branch) != commit:
                with contextlib.suppress(OSError, XcitHubError):  # a cache that may not be written is still one
                    repository.set_branch(branch, commit)
        return found

    def check_asked(self, *, revision: str | None = None, private: bool = False, create_pr: bool = False) -> None:
        """Refuse what this hub or its client cannot do."""
        del private
        if create_pr:
            raise InputError(
                f"{self.site.own} client opens no pull requests.",
                where="create_pr=… (--create-pr)",
                fix=f"Use --revision for a branch of its own, and open it on {self.site.own} page."
                if self.site.makes_branches
                else f"Open it on {self.site.own} page.",
            )
        if revision is not None and cache.is_commit(revision):
            raise InputError(
                f"{revision} is a commit, and commits cannot be published to.",
                where="revision=… (--revision)",
                fix="Name a branch.",
            )

    def check_publish(
        self, name: str, *, revision: str | None = None, private: bool = False, create_pr: bool = False
    ) -> None:
        """Refuse what this hub or its client cannot do, before anything is sent.

        Raises:
            InputError: it cannot.
            HubError: nobody is logged in, or the network is forbidden.
        """
        self._check_name(name, revision)
        self.check_asked(revision=revision, private=private, create_pr=create_pr)
        if self.context.offline:
            raise publishing_is_offline(self.endpoint)
        if self.token is None and not self.client.may_log_in:
            variables = " or ".join(self.site.token_variables)
            raise HubError(
                f"Nobody is logged in to {self.site.title}.",
                where=self.endpoint,
                fix=f"Put a token into {variables}, or name a variable that holds one: --token-env.",
            )
        if revision not in (None, self.site.branch) and not self.site.makes_branches:
            self._call("branch", name, branch=revision)
        if private:
            check_private(self._visibility(name), self._url(name), made=False)

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
        """Create the repository if need be, send what differs, and look whether it is there."""
        self.check_publish(name, revision=revision, private=private, create_pr=create_pr)
        branch = revision or self.site.branch
        card = files["README.md"].read_text(encoding="utf-8") if "README.md" in files else ""
        fault = self._once("check_card", "", text=card) if card else None
        if fault is not None:
            raise CardError(
                f"{self.site.own} client cannot read the card: {fault}.",
                where="README.md",
                fix="Write it with `xcit-hub card new`. Nothing was published.",
            )
        found = _LICENSE.search(card)
        self._call("create", name, private=private, license=found.group(1) if found else "other")
        if private:
            check_private(self._visibility(name), self._url(name), made=True)
        if revision not in (None, self.site.branch) and self.site.makes_branches:
            self._call("branch", name, branch=revision)
        url = self._url(name)
        removed: dict[str, None] = {}  # in several attempts, too
        for attempt in range(TRIES):
            present = self._present(name, revision)
            add, delete = _difference(present, files)
            if not add and not delete:
                # Also the end of an attempt whose answer was lost: what was sent is there.
                return self._receipt(present, url, branch, changed=attempt > 0, removed=removed)
            removed |= dict.fromkeys(delete)
            try:
                self._upload(name, branch, add, delete, message)
                break
            except UnreachableError as error:
                if attempt == TRIES - 1 or not error.is_transient:
                    raise
                time.sleep(error.wait(attempt))
        for attempt in range(TRIES):  # a hub may need a moment to list what it has
            present = self._present(name, revision)
            add, delete = _difference(present, files)
            if not add and not delete:
                return self._receipt(present, url, branch, changed=True, removed=removed)
            time.sleep(transport.FIRST_WAIT * 2**attempt)
        raise HubError(
            f"The hub does not list what it was sent: {', '.join([*add, *delete])}.",
            where=url,
            fix="Publish again: what is there already is not sent again.",
        )

    def _url(self, name: str) -> str:
        page = self.site.page.replace(self.site.endpoint, self.endpoint) if self.endpoint != self.site.endpoint else ""
        return f"{page or self.site.page}/{name}"

    def _visibility(self, name: str) -> Visibility:
        try:
            found = self._call("is_private", name)
        except MissingError:
            return "absent"
        return "unsaid" if found is None else "private" if found is True else "public"

    def _receipt(self, present: Snapshot, url: str, branch: str, *, changed: bool, removed: Iterable[str]) -> Receipt:
        kept = None if self.site.has_commits else branch
        return Receipt(present.revision, url, changed, branch=kept, removed=tuple(removed))

    def list(self) -> builtins.list[str]:
        """Name an owner's models, or what is called XCiT there."""
        found = self._call("list", "", owner=self.owner)
        is_sound = isinstance(found, list) and all(isinstance(name, str) and name.isprintable() for name in found)
        if not is_sound:
            raise HubError(f"{self.endpoint} does not answer as a hub.", where=self.endpoint, fix="Check the address.")
        return sorted(found)

    def _listed(self, name: str, revision: str | None) -> Snapshot:
        branch = revision or self.site.branch
        if self.site.has_commits or not cache.is_commit(branch):
            return self._snapshot(name, branch)
        # A revision that was named by what it holds: the default branch may be at it, or the cache have it.
        present = self._snapshot(name, self.site.branch)
        if present.revision == branch:
            return present
        with contextlib.suppress(HubError):
            return self._cached(name, branch, ("this revision is the cache's; its hub names none",))
        return self._snapshot(name, branch)

    def _snapshot(self, name: str, branch: str) -> Snapshot:
        where = f"{self.endpoint}/{name}"
        found = self._call("describe", name, revision=branch)
        listing = answers.read(answers.Listing, found, place=self.endpoint, where=where)
        files = {_safe(each.path, name): File(each.size, each.digest) for each in listing.files}
        commit = listing.commit
        notes: tuple[str, ...] = ()
        bare = [path for path in files if files[path].digest is None]
        if bare:
            shown = ", ".join(bare[:3]) + ("" if len(bare) < 4 else f" and {len(bare) - 3} more")
            notes = (f"the hub lists no digest of {shown}: nothing but the length shows whether they came whole",)
        if commit is None:
            commit = cache.revision_of({path: f"{file.digest or ''} {file.size}" for path, file in files.items()})
        self._asked[commit] = branch
        return Snapshot(name, commit, files, origin=where, notes=notes)

    def _present(self, name: str, revision: str | None) -> Snapshot:
        try:
            return self._listed(name, revision)
        except MissingError:  # a new repository may have no commit yet
            return Snapshot(name, None, {}, origin=self.endpoint)

    def _write(self, snapshot: Snapshot, path: str, repository: cache.Repository, into: BinaryIO) -> None:
        file = snapshot.files[path]
        most = guard.JSON_BYTES if path in DESCRIPTIONS else guard.FILE_BYTES
        limit = min(most, guard.FILE_BYTES if file.size is None else file.size + _SLACK)
        # Of a hub without commits, what the branch holds now is asked for, and held against what it listed.
        revision = snapshot.revision if self.site.has_commits else self._asked.get(snapshot.revision or "")
        start, found = into.tell(), ""
        for _ in range(2):
            with self._aside(repository) as folder:
                try:
                    arrived = self._call(
                        "fetch", snapshot.name, seconds=guard.FILE_SECONDS, rate=guard.RATE, total=file.size,
                        shown=None if path in DESCRIPTIONS else path, revision=revision or self.site.branch,
                        path=path, folder=str(folder), limit=limit, size=file.size, digest=file.digest or "",
                    )  # fmt: skip
                except WrongBytesError:
                    continue  # its client looked before us
                if self._is_right(Path(arrived), file.digest):
                    into.seek(start)
                    cache.copy_into(Path(arrived))(into)
                    return
                found = sha256_of(arrived)
        raise cache.wrong_bytes(f"{snapshot.name}/{path}", file.digest or "", found or "otherwise")

    def _upload(
        self, name: str, branch: str, add: Mapping[str, Path], delete: builtins.list[str], message: str
    ) -> None:
        self._once(
            "upload", name, seconds=guard.FILE_SECONDS, branch=branch, delete=delete, message=message,
            add={path: str(file.resolve()) for path, file in add.items()},
            total=sum(file.stat().st_size for file in add.values()), shown=name,
        )  # fmt: skip

    @contextlib.contextmanager
    def _aside(self, repository: cache.Repository) -> Iterator[Path]:
        """Give a folder among a model's blobs, which pruning removes where a killed process left it."""
        blobs = repository.folder / "blobs"
        try:
            repository.check_inside()
            blobs.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=".", suffix=".incomplete", dir=blobs))
        except OSError as error:
            raise HubError(
                f"Cannot keep the file: {error.strerror or error}.",
                where=self.context.cache,
                fix="Make room, or give cache_dir a folder that may be written.",
            ) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _cached(self, name: str, revision: str | None, notes: tuple[str, ...]) -> Snapshot:
        return cached_snapshot(
            self._repository(name), name, revision or self.site.branch, f"{self.endpoint}/{name}", notes
        )

    def _repository(self, name: str) -> cache.Repository:
        return cache.Repository(self.context.cache, f"{urlsplit(self.endpoint).netloc.replace(':', '_')}/{name}")

    def _call(self, call: str, name: str, **arguments: Any) -> Any:
        return retrying(lambda: self._once(call, name, **arguments))

    def _once(
        self, call: str, name: str, *, seconds: float = guard.SECONDS, rate: float = 0.0, total: int | None = None,
        shown: str | None = None, **arguments: Any,
    ) -> Any:  # fmt: skip
        where = f"{self.endpoint}/{name}" if name else self.endpoint
        if name:
            # A third part stands before the owner, as GitCode's client writes it.
            arguments["name"] = name.replace("/", "%2F", 1) if name.count("/") == 2 else name
        return self.client.call(call, where, arguments, seconds=seconds, rate=rate, total=total, shown=shown)

    def _check_name(self, name: str, revision: str | None) -> None:
        owner, _, model = name.rpartition("/")
        if not self.site.owner.fullmatch(owner) or not self.site.model.fullmatch(model):
            raise InputError(
                f"{name!r} is not the name of a model on {self.site.title}.",
                where="the name of the model",
                fix=f"There: {self.site.rules}.",
            )
        if revision is not None and not self.site.revision.fullmatch(revision):
            raise InputError(
                f"{self.site.own} client takes no revision {revision!r}.",
                where="revision=… (--revision)",
                fix=f"There: {self.site.rules}.",
            )

    def _checked(self, endpoint: str) -> str:
        from xcit_hub.hub.spelling import parsed, without_secret

        parts = parsed(without_secret(endpoint))
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host:
            raise InputError(
                f"{endpoint!r:.200} is not the address of a hub.",
                where="the address of the hub",
                fix="Write https://HOST.",
            )
        if not self.site.admits(host) or (parts.scheme != "https" and not self.site.takes_any_endpoint):
            raise InputError(
                f"{self.site.own} client goes to no endpoint {endpoint!r:.200}; nothing was sent.",
                where="the address of the hub",
                fix=f"It takes https addresses of {', '.join(self.site.domains)} alone: set "
                f"{self.site.endpoint_variable} to one of them. A mirror that speaks Hugging Face's protocol is "
                "given by its address: --hub https://HOST.",
            )
        return endpoint.rstrip("/")

    @staticmethod
    def _is_right(file: Path, digest: str | None) -> bool:
        digest_of = cache.digest_like(digest) if digest else None
        return digest_of is None or digest_of(file) == digest


def sockets() -> str:
    """Return the seconds that a client is to wait for a byte, as it reads them."""
    return str(clients.SOCKET_SECONDS)


def _difference(present: Snapshot, files: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """Say what makes a repository hold ``files``: what to send, in the order to show it, and what to delete."""
    differing = [
        path
        for path, file in files.items()
        if path not in present.files or present.files[path].digest not in (sha256_of(file), cache.git_sha1_of(file))
    ]
    ordered = sorted(differing, key=lambda path: (path in _LAST, _LAST.index(path) if path in _LAST else 0, path))
    return {path: files[path] for path in ordered}, outdated(present.files, files)


def _safe(path: str, name: str) -> str:
    parts = path.replace("\\", "/").split("/")
    if (
        path.startswith("/")
        or "\\" in path
        or ":" in parts[0]
        or not path.isprintable()
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise HubError(
            f"The hub lists a path that leaves its folder: {path!r}.",
            where=name,
            fix="Do not use this repository; tell its owner.",
        )
    return path
