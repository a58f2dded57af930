"""Hugging Face, or any endpoint that speaks its protocol. Transport, cache, locks and login are huggingface_hub's.

What this adds: one look at the revision instead of one for each file, a hash check of every file that is handed out, a
second fetch of a damaged one, errors that say what to do, and uploads to endpoints that have no Xet storage.
"""

from __future__ import annotations

import builtins
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
    get_token,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import hf_hub_download
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # its __all__ is made at run time
    build_hf_headers,
    hf_raise_for_status,
)

from xcit_hub._version import __version__
from xcit_hub.errors import HubError, InputError, XcitHubError, closest
from xcit_hub.files import sha256_of
from xcit_hub.hub import answers, cache, guard, spelling
from xcit_hub.hub.address import machine_hub
from xcit_hub.hub.stores import DESCRIPTIONS, Context, File, Receipt, Snapshot, Visibility, check_private, outdated
from xcit_hub.hub.stores.cached import CachedStore
from xcit_hub.hub.transport import TRIES, UnreachableError, retrying, root_of, said
from xcit_hub.variants import CHECKPOINTS

T = TypeVar("T")

_XET = threading.RLock()
_PATIENCE = 10  # seconds without a byte
_SLACK = 1 << 20  # bytes more than listed that are an accident, and told apart from a flood


class HuggingFaceStore:
    """One endpoint.

    Args:
        location: its address; ``None`` is ``HF_ENDPOINT`` or https://huggingface.co.

    Offline, :class:`xcit_hub.hub.stores.cached.CachedStore` stands in its place.
    """

    def __init__(self, location: str | None, context: Context) -> None:
        self.cached = CachedStore(location, context)
        self.endpoint = self.cached.endpoint
        self.context = context
        self.token = token_for(self.endpoint, context.token)
        self.api = HfApi(endpoint=self.endpoint, token=self.token, library_name="xcit-hub", library_version=__version__)
        self._branches: dict[str, str] = {}

    def resolve(self, name: str, revision: str | None = None) -> Snapshot:
        """Ask the endpoint which commit a branch is at; where it cannot be reached, the cache answers, and says so."""
        try:
            found = self._call(name, revision, lambda: self._listing(name, revision))
        except UnreachableError as error:
            note = f"{self.endpoint} could not be reached ({error.reason}); this is the revision in the cache"
            with contextlib.suppress(HubError):
                return self.cached.resolve(name, revision, (note,))
            raise
        files = {}
        for sibling in found.siblings:
            path = _safe(sibling.rfilename, name)
            if path in files:
                raise HubError(f"{self.endpoint} lists {path!r} twice.", where=name, fix="Do not use this repository.")
            files[path] = File(sibling.size, sibling.digest)
        self._branches[found.sha] = revision or constants.DEFAULT_REVISION
        return Snapshot(name, found.sha, files, origin=f"{self.endpoint}/{name}")

    def _listing(self, name: str, revision: str | None) -> answers.Revision:
        link = f"{self.endpoint}/api/models/{name}"
        if revision is not None:
            link += f"/revision/{quote(revision, safe='')}"
        headers = build_hf_headers(token=self.token, library_name="xcit-hub", library_version=__version__)
        answer = get_session().get(link, params={"blobs": True}, headers=headers, timeout=_PATIENCE)
        hf_raise_for_status(answer)
        return answers.read(answers.Revision, answer.content, place=self.endpoint, where=link)

    def fetch(self, snapshot: Snapshot, path: str) -> Path:
        """Return the file from the cache, fetched if need be; one that fails its hash is fetched once more."""
        commit = snapshot.revision or constants.DEFAULT_REVISION
        repository = cache.Repository(self.context.cache, snapshot.name)
        force = self.context.force
        found = ""
        for _ in range(2):
            file = self._download(snapshot.name, commit, path, snapshot.files[path].size, force)
            named = repository.digest(file)
            expected = snapshot.files[path].digest or named
            digest_of = cache.digest_like(expected) if expected else None
            found = digest_of(file) if digest_of is not None else ""
            # The listing, the file's own headers (which name the blob) and its bytes have to agree.
            if digest_of is None or (found == expected and named in (None, expected)):
                self._remember(repository, snapshot, commit, path)
                return file
            repository.drop(file.resolve())
            force = True
        raise cache.wrong_bytes(f"{snapshot.name}/{path}", expected or "", found if found != expected else named or "")

    def check_publish(
        self, name: str, *, revision: str | None = None, private: bool = False, create_pr: bool = False
    ) -> None:
        """Refuse a repository that is public where a private one is asked for."""
        del revision, create_pr
        if private:
            check_private(self._visibility(name), f"{self.endpoint}/{name}", made=False)

    def _visibility(self, name: str) -> Visibility:
        def ask() -> Visibility:
            try:
                found = self._listing(name, None).private
            except GatedRepoError:  # it is there
                raise
            except RepositoryNotFoundError:
                return "absent"
            return "unsaid" if found is None else "private" if found else "public"

        return self._call(name, None, ask)

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
        """Create the repository if need be, upload, and commit everything at once; the commit is the last request."""
        self.check_publish(name, revision=revision, private=private, create_pr=create_pr)
        created = self._call(name, None, lambda: self.api.create_repo(name, private=private or None, exist_ok=True))
        if created.repo_id.casefold() != name.casefold():
            raise HubError(
                f"{self.endpoint} made {created.repo_id!r:.100} where {name} was asked for.",
                where=self.endpoint,
                fix="Do not use this hub. Nothing was published.",
            )
        name = created.repo_id
        if private:
            check_private(self._visibility(name), f"{self.endpoint}/{name}", made=True)
        if revision is not None and not create_pr:
            self._call(name, revision, lambda: self.api.create_branch(name, branch=revision, exist_ok=True))
        branch = revision or constants.DEFAULT_REVISION
        url = f"{self.endpoint}/{name}"
        removed: tuple[str, ...] = ()
        with without_xet():
            for attempt in range(TRIES):
                present = self.resolve(name, revision)
                operations = _difference(present, files)
                if not operations:
                    # Also the end of an attempt whose answer was lost: the commit is there.
                    return Receipt(present.revision, url, changed=attempt > 0, removed=removed)
                removed = tuple(outdated(present.files, files))
                parent = None if create_pr else present.revision
                commit = partial(self._commit, name, operations, message, branch, create_pr, parent)
                try:
                    made = self._once(name, revision, commit, partial(self._exchange, name, seconds=guard.FILE_SECONDS))
                except UnreachableError as error:
                    # A pull request whose answer was lost cannot be told from one that was never made.
                    if attempt == TRIES - 1 or create_pr or not error.is_transient:
                        raise
                    time.sleep(error.wait(attempt))
                else:
                    return Receipt(made.oid, made.pr_url or f"{url}/tree/{branch}", changed=True, removed=removed)
        raise AssertionError("unreachable")

    def _commit(
        self,
        name: str,
        operations: builtins.list[CommitOperationAdd | CommitOperationDelete],
        message: str,
        branch: str,
        create_pr: bool,
        parent: str | None,
    ) -> CommitInfo:
        """Send the files one by one, then the commit: several at once the client sends in threads without the guard."""
        for operation in operations:
            if isinstance(operation, CommitOperationAdd):
                self.api.preupload_lfs_files(name, [operation], revision=branch, create_pr=create_pr, free_memory=False)
        return self.api.create_commit(
            name, operations, commit_message=message, revision=branch, create_pr=create_pr, parent_commit=parent
        )

    def list(self) -> list[str]:
        """Name the XCiT models for MindSpore there, as the tags of their cards say."""
        found = self._call("", None, lambda: list(self.api.list_models(filter=["xcit", "mindspore"], limit=1000)))
        return sorted(model.id for model in found if spelling.is_name(model.id))

    def _download(self, name: str, commit: str, path: str, size: int | None, force: bool) -> Path:
        repository = cache.Repository(self.context.cache, name)
        repository.check_inside(commit, path)
        download = partial(
            hf_hub_download,
            name,
            path,
            revision=commit,
            cache_dir=self.context.cache,
            endpoint=self.endpoint,
            token=self.token,
            library_name="xcit-hub",
            library_version=__version__,
            force_download=force,
        )
        # Inside, a digest or a commit that is none of the kind is refused before the client makes a path of it.
        body = guard.JSON_BYTES if path in DESCRIPTIONS else guard.FILE_BYTES
        exchange = partial(
            self._exchange,
            name,
            body=min(body, guard.FILE_BYTES if size is None else size + _SLACK),
            seconds=guard.FILE_SECONDS,
            rate=guard.RATE,
            commit=commit,
        )
        file = Path(self._call(name, commit, download, exchange))
        repository.check_inside(commit, path)
        return file

    def _remember(self, repository: cache.Repository, snapshot: Snapshot, commit: str, path: str) -> None:
        # Offline, a branch means the last commit whose weights arrived whole.
        branch = self._branches.get(commit)
        if path not in DESCRIPTIONS:
            repository.set_lacking(commit, snapshot.lacking)
        if branch is not None and path not in DESCRIPTIONS and repository.commit_of(branch) != commit:
            with contextlib.suppress(OSError, XcitHubError):  # a cache that may not be written is still a cache
                repository.set_branch(branch, commit)

    def _call(
        self,
        name: str,
        revision: str | None,
        request: Callable[[], T],
        exchange: Callable[[], guard.Exchange] | None = None,
    ) -> T:
        return retrying(lambda: self._once(name, revision, request, exchange))

    def _once(
        self,
        name: str,
        revision: str | None,
        request: Callable[[], T],
        exchange: Callable[[], guard.Exchange] | None = None,
    ) -> T:
        try:
            with guard.guarded(exchange() if exchange is not None else self._exchange(name)):
                return request()
        except Exception as error:
            raise self._said(name, revision, error) from None

    def _exchange(self, name: str, **bounds: Any) -> guard.Exchange:
        return guard.Exchange(self.endpoint, f"{self.endpoint}/{name}", home=self.endpoint, **bounds)

    def _said(self, name: str, revision: str | None, error: BaseException) -> BaseException:
        where = f"{self.endpoint}/{name}" if name else self.endpoint
        if isinstance(error, XcitHubError):
            return error
        if isinstance(error.__cause__, XcitHubError):  # the guard's, of an upload
            return error.__cause__
        root = root_of(error)
        if isinstance(root, LocalEntryNotFoundError):
            root = root.__cause__ or root
        if isinstance(error, HFValidationError):
            return HubError(f"{name!r} is not a repository's name.", where=where, fix="Write org/name.")
        if isinstance(root, GatedRepoError):
            return HubError(f"{name} is gated.", where=where, fix="Ask for access on its page, then log in.")
        if isinstance(root, RepositoryNotFoundError):
            known = closest(name, [entry.repository for entry in CHECKPOINTS.values() if entry.repository])
            return HubError(
                f"There is no model {name!r} there, or it is private and the token does not open it.",
                where=f"{where}; the folder hub {machine_hub()}",
                fix=(f"{known[0].upper()}{known[1:]} " if known else "Check the name. ")
                + "For a private model: `hf auth login`, or HF_TOKEN.",
            )
        if isinstance(root, RevisionNotFoundError):
            return HubError(
                f"{name} has no revision {revision!r}.", where=where, fix="Name a branch, tag or commit it has."
            )
        if isinstance(root, EntryNotFoundError):
            return HubError(f"{name} lacks a file that it lists.", where=where, fix="Name another revision.")
        return said(root, place=self.endpoint, where=where, kept_in=self.context.cache)


@contextlib.contextmanager
def without_xet() -> Iterator[None]:
    """Upload by LFS while this is open, as with ``HF_HUB_DISABLE_XET=1``.

    Xet moves bytes past :mod:`xcit_hub.hub.guard`, and an endpoint without it answers 404 in mid-upload. The setting is
    the process's, so uploads of other threads meanwhile go by LFS as well.
    """
    with _XET:
        configured, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
        try:
            yield
        finally:
            constants.HF_HUB_DISABLE_XET = configured


@contextlib.contextmanager
def uploading(name: str, *, private: bool = False, token: str | bool | None = None) -> Iterator[None]:
    """Hold an upload of huggingface_hub's own to the bounds of a store's, without Xet.

    Raises:
        HubError: it is to be private, and the repository is public.
    """
    endpoint = constants.ENDPOINT
    if private:
        HuggingFaceStore(endpoint, Context(cache.default_folder(), token=token)).check_publish(name, private=True)
    exchange = guard.Exchange(endpoint, f"{endpoint}/{name}", seconds=guard.FILE_SECONDS, home=endpoint)
    with without_xet(), guard.guarded(exchange):
        yield


def whoami(endpoint: str | None = None, token: str | bool | None = None) -> dict[str, Any]:
    """Return whose token huggingface_hub's login or ``HF_TOKEN`` holds: ``name``, ``orgs``, ``role``, ``endpoint``.

    Raises:
        HubError: nobody is logged in, or the endpoint does not know the token.
    """
    store = HuggingFaceStore(endpoint, Context(cache.default_folder(), token=token))
    if store.token is False:
        raise HubError("Nobody is logged in.", where=store.endpoint, fix="Run `hf auth login`, or set HF_TOKEN.")
    found = answers.read(
        answers.User, store._call("", None, store.api.whoami), place=store.endpoint, where=store.endpoint
    )
    access = found.auth.accessToken
    return {
        "name": found.name,
        "orgs": [each.name for each in found.orgs],
        "role": access.role if access is not None else None,
        "endpoint": store.endpoint,
    }


def token_for(endpoint: str, given: str | bool | None) -> str | bool:
    """Return the token that an endpoint is sent; False is none.

    The login and ``HF_TOKEN`` are for the endpoint that huggingface_hub is configured for, and travel encrypted or
    not off this machine. Any other hub gets the token that was given for it.

    Raises:
        InputError: a token was given for an address that would carry it unencrypted.
    """
    parts = spelling.parsed(endpoint)
    is_private = parts.scheme == "https" or guard.is_loopback(parts)
    if isinstance(given, str):
        if not is_private:
            raise InputError(
                f"A token would travel to {endpoint} for everybody on the way to read.",
                where="token=… (--token-env)",
                fix="Give an https address.",
            )
        return given
    is_ours = endpoint == constants.ENDPOINT.rstrip("/")
    if given is True and not is_ours:
        raise InputError(
            f"The login and HF_TOKEN are for {constants.ENDPOINT}, not for {endpoint}.",
            where="token=… (--token-env)",
            fix="Give that hub's own token: token=, or --token-env and the name of a variable.",
        )
    return (get_token() or False) if given is not False and is_ours and is_private else False


def _difference(present: Snapshot, files: Mapping[str, Path]) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Say what makes a repository hold ``files``: additions, and of an earlier publication what is no longer there."""
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for path, file in files.items():
        known = present.files.get(path)
        same = known is not None and known.digest in (sha256_of(file), cache.git_sha1_of(file))
        if not same:
            operations.append(CommitOperationAdd(path, str(file)))
    return operations + [CommitOperationDelete(path) for path in outdated(present.files, files)]


def _safe(path: str, name: str) -> str:
    parts = path.replace("\\", "/").split("/")
    if path.startswith("/") or "\\" in path or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        raise HubError(
            f"The hub lists a path that leaves its folder: {path!r}.",
            where=name,
            fix="Do not use this repository; tell its owner.",
        )
    return path
