"""What huggingface_hub's cache holds of an endpoint's models, read without its client: nobody is asked for anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from huggingface_hub import constants

from xcit_hub.errors import HubError, InputError, OutOfReachError
from xcit_hub.hub import cache, spelling
from xcit_hub.hub.stores import DESCRIPTIONS, Context, File, Snapshot, publishing_is_offline


class CachedStore:
    """An endpoint in offline mode.

    Args:
        location: its address; ``None`` is ``HF_ENDPOINT`` or https://huggingface.co.
    """

    def __init__(self, location: str | None, context: Context) -> None:
        self.endpoint = endpoint_of(location)
        self.context = context

    def resolve(self, name: str, revision: str | None = None, notes: tuple[str, ...] = ()) -> Snapshot:
        """Describe the cached commit that a branch is at.

        Args:
            notes: why the cache is asked, where that is not what the user wanted.
        """
        repository = cache.Layout(self.context.cache, name)
        origin = f"{self.endpoint}/{name}"
        return cached_snapshot(repository, name, revision or constants.DEFAULT_REVISION, origin, notes)

    def fetch(self, snapshot: Snapshot, path: str) -> Path:
        """Return the file in the cache, if its bytes are those that its name promises."""
        held = self.held(snapshot, path)
        named = cache.Repository(self.context.cache, snapshot.name).digest(held)
        expected = snapshot.files[path].digest or named
        digest_of = cache.digest_like(expected) if expected else None
        if digest_of is not None and (digest_of(held) != expected or named not in (None, expected)):
            raise HubError(
                f"{path} of {snapshot.name} is damaged in the cache, and offline mode forbids fetching it again.",
                where=held,
                fix="Load it once online, or run `xcit-hub cache verify`.",
            )
        return held

    def held(self, snapshot: Snapshot, path: str) -> Path:
        """Return where a file stands in the cache."""
        repository = cache.Repository(self.context.cache, snapshot.name)
        held = repository.files(snapshot.revision or "").get(path)
        if held is None or not held.exists():
            raise OutOfReachError(
                f"{path} of {snapshot.name} is not in the cache, and offline mode forbids fetching it.",
                where=self.context.cache,
                fix="Load it once online, or give cache_dir the folder that has it.",
            )
        return held

    def check_publish(self, *_: object, **__: object) -> NoReturn:
        """Refuse."""
        raise publishing_is_offline(self.endpoint)

    def publish(self, *_: object, **__: object) -> NoReturn:
        """Refuse."""
        raise publishing_is_offline(self.endpoint)

    def list(self) -> list[str]:
        """Refuse: what an endpoint holds only the endpoint knows."""
        raise HubError(
            "Offline mode forbids asking a hub what it holds.",
            where=self.endpoint,
            fix="`xcit-hub cache list` shows what is cached.",
        )


def cached_snapshot(
    repository: cache.Layout, name: str, revision: str, origin: str, notes: tuple[str, ...]
) -> Snapshot:
    """Describe what a cache holds of the commit that a branch is at, without asking anybody.

    Raises:
        OutOfReachError: the cache does not hold it.
    """
    commit = repository.commit_of(revision)
    if commit is None or not (repository.folder / "snapshots" / commit).is_dir():
        raise OutOfReachError(
            f"{name} is not in the cache at revision {revision!r}, and offline mode forbids fetching it.",
            where=repository.folder.parent,
            fix="Load it once online, or give cache_dir the folder that has it.",
        )
    files = {
        path: File(file.stat().st_size, repository.digest(file))
        for path, file in repository.files(commit).items()
        if file.exists()
    }
    unknown = tuple(path for path in DESCRIPTIONS if path not in files and not repository.lacks(commit, path))
    return Snapshot(name, commit, files, origin=origin, notes=notes, unknown=unknown)


def endpoint_of(location: str | None) -> str:
    """Return the address of an endpoint, without a slash at its end; None is the configured one.

    Raises:
        InputError: it holds a user's name or a password, or ``HF_ENDPOINT`` is not an address.
    """
    endpoint = spelling.without_secret(location or constants.ENDPOINT).rstrip("/")
    if location is None and not re.fullmatch(r"https?://[^/\s].*", endpoint):
        raise InputError(
            f"HF_ENDPOINT is {endpoint[:200]!r}, which is not an address.",
            where="HF_ENDPOINT",
            fix="Set it to https://HOST, or unset it.",
        )
    return endpoint
