"""Where models live: one small protocol, one file a store.

A third party adds a store by an entry point of the group ``xcit_hub.stores``. Its name is the scheme that ids and hubs
are written with, its value is called with the location and a :class:`Context`::

    [project.entry-points."xcit_hub.stores"]
    web = "my_package:WebStore"      # web+https://models.example.org/org/name
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, Protocol, cast, runtime_checkable

from xcit_hub.errors import HubError, InputError
from xcit_hub.hub import timm_config
from xcit_hub.hub.address import FOLDER, HUGGING_FACE, LOCAL, MINDSPORE_HUB, Address
from xcit_hub.hub.config import FILE_NAME, ModelConfig
from xcit_hub.hub.sites import SITES

ENTRY_POINTS = "xcit_hub.stores"

# The small files that describe a model, read before its weights are fetched.
DESCRIPTIONS = (FILE_NAME, timm_config.FILE_NAME)

# What a publication consists of. Another of these that a repository holds is an earlier publication's, and goes.
PUBLISHED = (
    *DESCRIPTIONS,
    "model.safetensors",
    "model.ckpt",
    "model.ckpt.sha256",
    "model.onnx",
    "model.mindir",
    "README.md",
    "README_zh.md",
    "conversion.json",
    "parity.json",
)


def outdated(present: Iterable[str], files: Container[str]) -> list[str]:
    """Return which of the paths that a model has are an earlier publication's, and go with this one of ``files``."""
    return [path for path in present if path in PUBLISHED and path not in files]


@dataclass(frozen=True)
class File:
    """One file of a revision, as its hub describes it.

    Args:
        size: bytes, where the hub says so.
        digest: SHA-256 (64 hex digits, or a prefix where only a prefix was published) or git's SHA-1 (40).
        url: where it is downloaded from, where the store does not derive that from the path.
    """

    size: int | None = None
    digest: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """One revision of one model: it never changes.

    Args:
        name: the model's name in its store.
        revision: the commit; ``None`` where the store keeps no history.
        files: every path of it.
        origin: where it is, for people to read; holds no secret.
        config: what the store itself knows of the model, for models that carry no description.
        notes: what the reader has to know, such as an unreachable hub.
        unknown: descriptions that the revision may have, where a cache answers that has neither them nor a record that
            there are none.
    """

    name: str
    revision: str | None
    files: Mapping[str, File]
    origin: str
    config: ModelConfig | None = None
    notes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def lacking(self) -> tuple[str, ...]:
        """The descriptions that it is known not to have."""
        return tuple(path for path in DESCRIPTIONS if path not in self.files and path not in self.unknown)


@dataclass(frozen=True)
class Receipt:
    """What publishing did.

    Args:
        revision: the commit that holds the files; ``None`` where the store keeps no history.
        url: where to see it.
        changed: whether there was anything to commit.
        todo: what the store leaves to a person, in order.
        repaired: the files that were stored with other bytes than they were published with, and are right again.
        branch: what ``revision`` is read back by, where the hub itself does not know it by its name.
        removed: the files of an earlier publication that went.
    """

    revision: str | None
    url: str
    changed: bool
    todo: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    branch: str | None = None
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Context:
    """What every store is given.

    Args:
        cache: the folder fetched files are kept in, in huggingface_hub's layout (:mod:`xcit_hub.hub.cache`).
        offline: never touch the network.
        token: ``None`` leaves it to huggingface_hub's login and ``HF_TOKEN``.
        force: fetch again what the cache holds.
    """

    cache: Path
    offline: bool = False
    token: str | bool | None = field(default=None, repr=False)
    force: bool = False


class Store(Protocol):
    """A place that holds models. Every method raises :class:`~xcit_hub.errors.HubError` where it cannot answer."""

    def resolve(self, name: str, revision: str | None = None) -> Snapshot:
        """Say which commit a branch is at and what files it has; fetches none of them."""

    def fetch(self, snapshot: Snapshot, path: str) -> Path:
        """Return a local file with exactly the bytes the snapshot promises; hashed before it is returned."""

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
        """Make these files the model's whole content, in one commit; unchanged content makes none."""

    def list(self) -> list[str]:
        """Name the models it holds, sorted."""


@runtime_checkable
class Keeping(Protocol):
    """A store whose files are on this disk: what is read is hashed once, by whoever opens it."""

    def held(self, snapshot: Snapshot, path: str) -> Path:
        """Return where a file stands, its bytes unread; :meth:`Store.fetch` says what is wrong with them."""


@runtime_checkable
class Sharing(Protocol):
    """A store that asks its hub through a process, which takes its time to start."""

    def beside(self, context: Context) -> Store:
        """Return a store of the same hub and token with another cache, which asks through the same process."""


@runtime_checkable
class Limited(Protocol):
    """A store that says, without asking anybody, what publications are not of its kind; a dry run asks it, too."""

    def check_asked(self, *, revision: str | None = None, private: bool = False, create_pr: bool = False) -> None:
        """Raise :class:`~xcit_hub.errors.InputError` for what no such store can do."""


@runtime_checkable
class Checking(Protocol):
    """A store that says, before anything is sent, what it cannot do."""

    def check_publish(
        self, name: str, *, revision: str | None = None, private: bool = False, create_pr: bool = False
    ) -> None:
        """Raise :class:`~xcit_hub.errors.XcitHubError` where publishing so cannot succeed."""


Visibility = Literal["private", "public", "unsaid", "absent"]
"""Who may read a repository, as its hub says; ``absent`` where there is none yet."""


def check_private(found: Visibility, url: str, *, made: bool) -> None:
    """Refuse to publish with ``--private`` into a repository that others may read.

    Args:
        found: what the hub says of it.
        made: whether it was made just now, as a private one; what was there before has to be called private.

    Raises:
        HubError: it is public, or was there before and the hub does not say.
    """
    if found == "public" or (found == "unsaid" and not made):
        said = "is public" if found == "public" else "exists already, and the hub does not say whether it is private"
        raise HubError(
            f"Private was asked for, and the repository {said}. No file was sent.",
            where=url,
            fix="Make it private on its page at the hub, or leave out --private (private=…).",
        )


def publishing_is_offline(endpoint: str) -> HubError:
    """Say that nothing is published in offline mode."""
    return HubError(
        "Offline mode forbids publishing.", where=endpoint, fix="Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE."
    )


_OFFLINE = "xcit_hub.hub.stores.cached:CachedStore"
_BUILT_IN = {
    FOLDER: "xcit_hub.hub.stores.folder:FolderStore",
    HUGGING_FACE: "xcit_hub.hub.stores.hugging_face:HuggingFaceStore",
    LOCAL: "xcit_hub.hub.stores.local:LocalStore",
    MINDSPORE_HUB: "xcit_hub.hub.stores.mindspore_hub:MindSporeHubStore",
    "modelers": "xcit_hub.hub.stores.openmind:ModelersStore",
    "gitcode": "xcit_hub.hub.stores.openmind:GitCodeStore",
    "modelscope": "xcit_hub.hub.stores.modelscope:ModelScopeStore",
}


def open_store(address: Address, context: Context) -> Store:
    """Return the store an address names; it is imported on first use.

    Raises:
        InputError: nobody installed a store for that scheme.
    """
    if address.store in _BUILT_IN:
        is_cached = address.store == HUGGING_FACE and context.offline
        module, _, name = (_OFFLINE if is_cached else _BUILT_IN[address.store]).partition(":")
        make = getattr(import_module(module), name)
    else:
        make = _installed(address.store)
    return cast(Store, make(address.location, context))


def _installed(scheme: str) -> object:
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if scheme not in found:
        known = ", ".join(sorted([*found, *SITES, "hf", "file", "https"]))
        raise InputError(
            f"There is no store for addresses that begin {scheme}://.",
            where="the address",
            fix=f"Known: {known}. Others come with a package that registers one under {ENTRY_POINTS!r}.",
        )
    return found[scheme].load()
