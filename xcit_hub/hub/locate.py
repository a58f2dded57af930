"""From a model id to a model that was found: its description and its weights' name. The weights stay where they are.

``id → address → store.resolve → description``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xcit_hub.errors import HubError
from xcit_hub.files import sha256_of
from xcit_hub.hub import address, cache, config
from xcit_hub.hub.config import ModelConfig
from xcit_hub.hub.stores import Context, Snapshot, Store, open_store
from xcit_hub.hub.stores.folder import FolderStore

PathLike = str | os.PathLike[str]

_LARGEST_DESCRIPTION = 16 << 20

# What a folder or repository may call its weights, best first: mapped files before copied ones, pickles last.
_WEIGHTS = ("model.safetensors", "*.safetensors", "model.ckpt", "*.ckpt", "pytorch_model.bin", "*.pth", "*.pt", "*.bin")


@dataclass(frozen=True)
class Located:
    """A model that was found, and not yet fetched.

    Args:
        config: its description, where it has one.
        weights: the path of its weights within the snapshot.
        sha256: what its description says of that file, where it says anything.
    """

    address: address.Address
    store: Store
    snapshot: Snapshot
    config: ModelConfig | None
    weights: str
    sha256: str | None

    def fetch(self) -> tuple[Path, str]:
        """Fetch the weights and return them with their SHA-256.

        Raises:
            HubError: the bytes are not the ones the hub or the description promises.
        """
        path = self.store.fetch(self.snapshot, self.weights)
        promised = self.snapshot.files[self.weights].digest
        # The store has just hashed a file whose whole SHA-256 is known.
        digest = promised if promised and len(promised) == 64 else sha256_of(path)
        if self.sha256 is not None and digest != self.sha256:
            raise cache.wrong_bytes(f"{self.snapshot.name}/{self.weights}", self.sha256, digest)
        return path, digest


def locate(
    id: str,  # noqa: A002
    revision: str | None = None,
    *,
    hub: PathLike | None = None,
    cache_dir: PathLike | None = None,
    offline: bool = False,
    token: str | bool | None = None,
    force: bool = False,
) -> Located:
    """Find a model and read its description; its weights stay where they are.

    Raises:
        HubError: it is not there, is no XCiT, or its description is malformed.
    """
    where = address.parse(id, hub=hub, revision=revision)
    context = _context(cache_dir, offline=offline, token=token, force=force)
    store = open_store(where, context)
    snapshot = store.resolve(where.name, where.revision)
    described, digests = _describe(store, snapshot)
    weights = _weights_file(snapshot, digests)
    return Located(where, store, snapshot, described, weights, digests.get(weights))


@dataclass(frozen=True)
class ModelInfo:
    """What a hub says of a model, without its weights.

    Args:
        id: the id that was asked for.
        address: what it means.
        origin: where the model is.
        revision: the commit; ``None`` where there is no history.
        config: the model's description; ``None`` for a bare checkpoint, which only its tensors describe.
        weights: the file that would be loaded.
        files: every file with its bytes, where known, and digest.
        notes: anything a reader has to know.
        damaged: the files of a folder hub whose bytes are not the published ones.
    """

    id: str
    address: str
    origin: str
    revision: str | None
    config: ModelConfig | None
    weights: str
    files: Mapping[str, tuple[int | None, str | None]]
    notes: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain data for JSON; labels are counted, not listed."""
        from dataclasses import asdict

        record = asdict(self)
        if self.config is not None:
            record["config"].pop("provenance")
            record["config"]["labels"] = len(self.config.labels)
        record["files"] = {path: {"size": size, "digest": sha} for path, (size, sha) in self.files.items()}
        return record


def info(
    id: str,  # noqa: A002
    revision: str | None = None,
    *,
    hub: PathLike | None = None,
    cache_dir: PathLike | None = None,
    offline: bool = False,
    token: str | bool | None = None,
) -> ModelInfo:
    """Say what ``id`` names, without fetching its weights. A folder hub's files are hashed, as they are at hand.

    Raises:
        HubError: as in :func:`load`.
    """
    located = locate(id, revision, hub=hub, cache_dir=cache_dir, offline=offline, token=token)
    snapshot = located.snapshot
    return ModelInfo(
        id=id,
        address=str(located.address),
        origin=snapshot.origin,
        revision=snapshot.revision,
        config=located.config,
        weights=located.weights,
        files={path: (file.size, file.digest) for path, file in snapshot.files.items()},
        notes=snapshot.notes,
        damaged=located.store.damaged(snapshot) if isinstance(located.store, FolderStore) else (),
    )


def list_hub(hub: PathLike, *, cache_dir: PathLike | None = None, offline: bool = False) -> list[str]:
    """Name the models that a hub holds, sorted.

    Args:
        hub: a folder, ``"hugging-face"``, ``"mindspore-hub"``, an endpoint's address.

    Raises:
        HubError: it cannot be asked.
    """
    context = _context(cache_dir, offline=offline)
    return open_store(address.parse("any/model", hub=hub), context).list()


def _context(
    cache_dir: PathLike | None, *, offline: bool = False, token: str | bool | None = None, force: bool = False
) -> Context:
    return Context(
        cache=Path(cache_dir).expanduser() if cache_dir is not None else cache.default_folder(),
        offline=offline or address.offline_by_environment(),
        token=token,
        force=force,
    )


def _describe(store: Store, snapshot: Snapshot) -> tuple[ModelConfig | None, dict[str, str]]:
    if config.FILE_NAME in snapshot.files:
        text = _text(store, snapshot, config.FILE_NAME)
        return config.from_json(text, where=f"{snapshot.origin}: {config.FILE_NAME}")
    if snapshot.config is not None:
        return snapshot.config, {}
    if config.TIMM_FILE_NAME in snapshot.files:
        text = _text(store, snapshot, config.TIMM_FILE_NAME)
        return config.from_timm(text, where=f"{snapshot.origin}: {config.TIMM_FILE_NAME}"), {}
    return None, {}


def _text(store: Store, snapshot: Snapshot, path: str) -> str:
    size = snapshot.files[path].size
    if size is not None and size > _LARGEST_DESCRIPTION:
        raise HubError(
            f"{path} has {size:,} bytes, which no description needs.",
            where=snapshot.origin,
            fix="Do not use this model.",
        )
    file = store.fetch(snapshot, path)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HubError(f"Cannot read {path}: {error}.", where=file, fix="Publish the model again.") from error


def _weights_file(snapshot: Snapshot, digests: Mapping[str, str]) -> str:
    from fnmatch import fnmatchcase

    candidates = digests or snapshot.files
    for pattern in _WEIGHTS:
        found = sorted(path for path in candidates if fnmatchcase(path, pattern) and "/" not in path)
        if len(found) > 1:
            raise HubError(
                f"There are {len(found)} checkpoints here: {', '.join(found)}.",
                where=snapshot.origin,
                fix="Give the path of one of them.",
            )
        if found and found[0] in snapshot.files:
            return found[0]
    raise HubError(
        "There are no weights here: no .safetensors, .ckpt, .bin or .pth file.",
        where=snapshot.origin,
        fix="Check the id; `xcit-hub info ID` lists the files.",
    )
