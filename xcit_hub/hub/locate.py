"""From a model id to a model that was found: its description and its weights' name. The weights stay where they are.

``id → address → store.resolve → description``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcit_hub.checkpoints.checkpoint import shard_index_of
from xcit_hub.checkpoints.reading import Asked
from xcit_hub.checkpoints.sidecar import unread
from xcit_hub.errors import HubError, InputError, OutOfReachError, XcitHubError
from xcit_hub.files import is_file, open_regular
from xcit_hub.hub import address, cache, config, fields, timm_config
from xcit_hub.hub.config import Description, ModelConfig
from xcit_hub.hub.stores import DESCRIPTIONS, Context, Keeping, Snapshot, Store, open_store
from xcit_hub.hub.stores.folder import FolderStore
from xcit_hub.variants import CHECKPOINTS, PublishedCheckpoint, checkpoint

if TYPE_CHECKING:
    from xcit_hub.checkpoints.checkpoint import Checkpoint
    from xcit_hub.checkpoints.mapped import MappedFile

PathLike = str | os.PathLike[str]

_LARGEST_DESCRIPTION = 16 << 20

# What a folder or repository may call its weights, best first: mapped files before copied ones, pickles last.
_WEIGHTS = (
    *("model.safetensors", "*.safetensors.index.json", "*.safetensors", "model.ckpt", "*.ckpt"),
    *("pytorch_model.bin", "*.bin.index.json", "*.pth", "*.pth.tar", "*.pt", "*.bin", "*.th"),
)


@dataclass(frozen=True)
class Located:
    """A model that was found, and not yet fetched.

    Args:
        description: what the files beside the weights say.
        weights: the path of its weights within the snapshot.
        asked: what the caller says of the weights file, or wants of it.
    """

    address: address.Address
    store: Store
    snapshot: Snapshot
    description: Description
    weights: str
    asked: Asked = field(default_factory=Asked)

    @property
    def config(self) -> ModelConfig | None:
        """The model's description, where it has one."""
        return self.description.config

    @property
    def sha256(self) -> str | None:
        """What the description says of the weights file, where it says anything."""
        return self.description.digests.get(self.weights)

    def open(self) -> MappedFile:
        """Fetch the weights and open them, once: what is hashed here is what is read of it.

        Raises:
            HubError: the bytes are not the ones the hub or the description promises.
            CheckpointError: it is not a file that can be opened.
        """
        from xcit_hub.checkpoints import checkpoint as checkpoints

        for name in self.snapshot.files:
            if shard_index_of(Path(name)) == Path(self.weights):  # the index alone is not weights
                self.store.fetch(self.snapshot, name)
        get = self.store.held if isinstance(self.store, Keeping) else self.store.fetch
        try:
            opened = checkpoints.opened(get(self.snapshot, self.weights))
            self._check(self.weights, opened, self.sha256)
            self._check_converted(opened)
        except XcitHubError:
            if isinstance(self.store, Keeping):
                self.store.fetch(self.snapshot, self.weights)  # says it in the store's words
            raise
        return opened

    def _check_converted(self, opened: MappedFile) -> None:
        """A converter's configuration tells the dialect of the file it was written for, and of no other."""
        wanted = self.description.converted
        if wanted not in (None, opened.sha256):
            raise HubError(
                f"The config.json beside {self.weights} was written by a conversion of another file, SHA-256 {wanted}.",
                where=self.snapshot.origin,
                fix="Remove config.json, name the weights by their path, or put the file it was written for there.",
            )

    def check_parts(self, held: Checkpoint) -> None:
        """Hold the open files that an index names against what the hub promises of them.

        Raises:
            HubError: the bytes of one are others.
        """
        for part in held.parts:
            if part.path.name in self.snapshot.files:
                self._check(part.path.name, part, self.description.digests.get(part.path.name))

    def _check(self, name: str, opened: MappedFile, described: str | None) -> None:
        for promised in (self.snapshot.files[name].digest, described):
            if promised is not None:
                found = cache.git_sha1_in(opened.stream()) if cache.is_commit(promised) else opened.sha256
                _check_digest(f"{self.snapshot.name}/{name}", promised, found)

    def fetch(self) -> tuple[Path, str]:
        """Fetch the weights and return their path and SHA-256; :meth:`open` is for reading them.

        Raises:
            HubError, CheckpointError: as in :meth:`open`.
        """
        opened = self.open()
        return opened.path, opened.sha256


def locate(
    id: str,  # noqa: A002
    revision: str | None = None,
    *,
    hub: PathLike | None = None,
    cache_dir: PathLike | None = None,
    offline: bool = False,
    token: str | bool | None = None,
    force: bool = False,
    ignore_fields: Sequence[str] = (),
) -> Located:
    """Find a model and read its description; its weights stay where they are.

    Args:
        id, revision, hub, cache_dir, offline, token: as for :func:`xcit_hub.load`.
        force: fetch again what the cache holds.
        ignore_fields: fields of the description to read as if they were not there.

    Raises:
        HubError: it is not there, is not an XCiT, or its description is malformed.
        InputError: it was to be fetched again, and is on this machine or must not be fetched; or it takes no token.
    """
    where = address.parse(id, hub=hub, revision=revision)
    context = _context(cache_dir, offline=offline, token=token, force=force)
    _check_asked(where, context)
    located = _located(where, context, frozenset(ignore_fields))
    _check_ignored(ignore_fields, [located])
    return located


def _check_asked(where: address.Address, context: Context) -> None:
    """Refuse what would change nothing, or cannot be."""
    is_here = where.store in (address.LOCAL, address.FOLDER)
    if context.force and (is_here or context.offline):
        raise InputError(
            "A path or a folder hub is read where it is, and nothing is fetched again."
            if is_here
            else "Offline mode forbids fetching a model again.",
            where=f"force_download=…: {where}",
            fix="Leave it out, or name the model in its hub."
            if is_here
            else "Leave it out, or go online (offline=…, HF_HUB_OFFLINE).",
        )
    if isinstance(context.token, str) and (is_here or where.store == address.MINDSPORE_HUB):
        raise InputError(
            "A path or a folder hub takes no token." if is_here else "MindSpore Hub takes no token.",
            where=f"token=… (--token-env): {where}",
            fix="Leave it out, or name the model in its hub.",
        )


def locate_each(ids: Sequence[str], *, ignore_fields: Sequence[str] = ()) -> list[Located]:
    """Find several models; a field that is to be ignored has to be in the description of one of them.

    Raises:
        HubError, InputError: as in :func:`locate`.
    """
    found = [_located(address.parse(each), _context(None), frozenset(ignore_fields)) for each in ids]
    _check_ignored(ignore_fields, found)
    return found


def _located(where: address.Address, context: Context, ignore: frozenset[str]) -> Located:
    store = open_store(where, context)
    snapshot = store.resolve(where.name, where.revision)
    described = _describe(store, snapshot, ignore, _entry_at(where))
    is_bare = where.store == address.LOCAL and is_file(where.name)
    if is_bare and (said := unread(where.name)) is not None:
        described = replace(described, notes=(*described.notes, said))
    weights = Path(where.name).name if is_bare else where.file or _weights_file(snapshot, described.digests)
    if weights not in snapshot.files:
        raise HubError(f"There is no file {weights!r} there.", where=snapshot.origin, fix="Check the address.")
    return Located(where, store, snapshot, described, weights)


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
        unused: each field of the description that changes nothing here, and why.
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
    unused: Mapping[str, str] = field(default_factory=dict)

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
    ignore_fields: Sequence[str] = (),
) -> ModelInfo:
    """Say what ``id`` names, without fetching its weights. A folder hub's files are hashed, as they are at hand.

    What the table of published checkpoints knows it says without a network, too, and that no hub could be asked.

    Args:
        id, revision, hub, cache_dir, offline, token, ignore_fields: as for :func:`xcit_hub.load`.

    Raises:
        HubError: as in :func:`load`.
    """
    try:
        located = locate(
            id, revision, hub=hub, cache_dir=cache_dir, offline=offline, token=token, ignore_fields=ignore_fields
        )
    except (OutOfReachError, address.OnNoHubError) as error:  # any other says what is wrong there, or was asked for
        known = _from_table(id, error) if hub is None and revision is None and not ignore_fields else None
        if known is None:
            raise
        return known
    snapshot = located.snapshot
    return ModelInfo(
        id=id,
        address=str(located.address),
        origin=snapshot.origin,
        revision=snapshot.revision,
        config=located.config,
        weights=located.weights,
        files={path: (file.size, file.digest) for path, file in snapshot.files.items()},
        notes=(*snapshot.notes, *located.description.notes),
        unused=dict(located.description.unused),
        damaged=located.store.damaged(snapshot) if isinstance(located.store, FolderStore) else (),
    )


def _published(model_id: str) -> PublishedCheckpoint | None:
    """The table's checkpoint that an id means, however it is written; its file's own name is one."""
    files = [entry for entry in CHECKPOINTS.values() if entry.file == model_id]
    if len(files) == 1:
        return files[0]
    name = address.published_name(model_id.removeprefix("timm/"))
    if name is not None:
        return checkpoint(name)
    try:
        at = address.parse(model_id)
    except XcitHubError:
        return None
    return _entry_at(at)


def _entry_at(at: address.Address) -> PublishedCheckpoint | None:
    """The table's checkpoint that an address means; it knows one revision alone."""
    if at.revision is not None or at.location is not None or at.store != address.HUGGING_FACE:
        return None
    return next((entry for entry in CHECKPOINTS.values() if entry.repository == at.name), None)


def _from_table(model_id: str, error: XcitHubError) -> ModelInfo | None:
    known = _published(os.fspath(model_id).strip())
    if known is None:
        return None
    return ModelInfo(
        id=model_id,
        address=known.repository or known.url,
        origin="the table of published checkpoints",
        revision=None,
        config=config.of_published(known),
        weights=known.file,
        files={known.file: (None, known.sha256)},
        notes=(
            f"no hub was asked: {error.what}",
            f"the file was published at {known.url}",
            *((known.notes,) if known.notes else ()),
            *known.figures,
            *((f"the same weights are {known.copy_of}",) if known.copy_of else ()),
        ),
    )


def list_hub(hub: PathLike, *, cache_dir: PathLike | None = None, offline: bool = False) -> list[str]:
    """Name the models that a hub holds, sorted.

    Args:
        hub: a folder, ``"hugging-face"``, ``"modelscope"``, ``"modelscope://ORG"`` and the like for ``modelers`` and
            ``gitcode``, ``"mindspore-hub"``, an endpoint's address.

    Raises:
        HubError: it cannot be asked.
    """
    context = _context(cache_dir, offline=offline)
    return open_store(address.parse(address.ANY, hub=hub), context).list()


def _context(
    cache_dir: PathLike | None, *, offline: bool = False, token: str | bool | None = None, force: bool = False
) -> Context:
    return Context(
        cache=address.expanded(cache_dir) if cache_dir is not None else cache.default_folder(),
        offline=offline or address.offline_by_environment(),
        token=token,
        force=force,
    )


def _describe(
    store: Store, snapshot: Snapshot, ignore: frozenset[str], entry: PublishedCheckpoint | None
) -> Description:
    """Read what describes a model.

    Args:
        entry: what the table knows of it, for a cache that does not hold its description.
    """
    if snapshot.config is not None and config.FILE_NAME not in snapshot.files:
        return Description(snapshot.config)
    there = [name for name in DESCRIPTIONS if name in snapshot.files]
    ignored = [name for name in DESCRIPTIONS if name in ignore and name not in snapshot.lacking]
    unknown = [name for name in snapshot.unknown if name not in ignored]
    described = _not_cached(snapshot, unknown, entry) if unknown and not there else Description()
    for name in (each for each in there if each not in ignored):
        where = f"{snapshot.origin}: {name}"
        if name == config.FILE_NAME:
            described = config.from_json(_text(store, snapshot, name), where=where, ignore=ignore)
        elif described.config is None:
            described = timm_config.read(_text(store, snapshot, name), where=where, ignore=ignore)
        else:
            described = _held_against(store, snapshot, described, where, ignore)
    return replace(
        described,
        unused={**described.unused, **dict.fromkeys(ignored, fields.IGNORED)},
        notes=(*described.notes, *map(fields.ignored_note, ignored)),
    )


def _not_cached(snapshot: Snapshot, unknown: Sequence[str], entry: PublishedCheckpoint | None) -> Description:
    """Describe a model of which a cache holds the weights alone: what timm publishes is in the table."""
    if entry is None:
        raise HubError(
            f"Nobody has fetched {' or '.join(unknown)} of {snapshot.name} yet, which may say what the weights are of.",
            where=snapshot.origin,
            fix="Load it once online.",
        )
    note = f"{unknown[-1]} is not in the cache: the table of published checkpoints describes the model"
    return Description(config.of_published(entry), notes=(note,))


def _held_against(
    store: Store, snapshot: Snapshot, described: Description, where: str, ignore: frozenset[str]
) -> Description:
    """Hold timm's description against ours; where it cannot be had, ours is enough, and that is said."""
    try:
        text = _text(store, snapshot, timm_config.FILE_NAME)
    except HubError as error:
        note = f"{timm_config.FILE_NAME} was not held against {config.FILE_NAME}: {error.what}"
        return replace(
            described,
            unused={**described.unused, timm_config.FILE_NAME: f"{config.FILE_NAME} describes the model"},
            notes=(*described.notes, note),
        )
    return timm_config.held_against(text, described, where=where, ignore=ignore)


def _check_ignored(names: Sequence[str], located: Sequence[Located]) -> None:
    unused = [entry for each in located for entry in each.description.unused.items()]
    ignored = [name for name, reason in unused if reason == fields.IGNORED]
    for name in names:
        if not any(full == name or full.endswith(f".{name}") for full in ignored):
            raise InputError(
                f"The model's description has no field {name!r} that could be ignored.",
                where=", ".join(each.snapshot.origin for each in located),
                fix="`xcit-hub info ID` shows the description; leave out ignore_fields (--ignore-field).",
            )


def _text(store: Store, snapshot: Snapshot, path: str) -> str:
    size = snapshot.files[path].size
    if size is not None and size > _LARGEST_DESCRIPTION:
        raise _needless(path, size, snapshot)
    file = store.fetch(snapshot, path)
    try:
        with open_regular(file) as stream:
            content = stream.read(_LARGEST_DESCRIPTION + 1)
        if len(content) > _LARGEST_DESCRIPTION:
            raise _needless(path, len(content), snapshot)
        if (promised := snapshot.files[path].digest) is not None:
            _check_digest(f"{snapshot.name}/{path}", promised, cache.digest_in(io.BytesIO(content), promised))
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HubError(f"Cannot read {path}: {error}.", where=file, fix="Publish the model again.") from error


def _check_digest(name: str, promised: str, found: str) -> None:
    if not found.startswith(promised):
        raise cache.wrong_bytes(name, promised, found)


def _needless(path: str, size: int, snapshot: Snapshot) -> HubError:
    return HubError(
        f"{path} has {size:,} bytes, which no description needs.", where=snapshot.origin, fix="Do not use this model."
    )


def _weights_file(snapshot: Snapshot, digests: Mapping[str, str]) -> str:
    from fnmatch import fnmatchcase

    candidates = digests or snapshot.files
    for pattern in _WEIGHTS:
        found = sorted(path for path in candidates if fnmatchcase(path.lower(), pattern) and "/" not in path)
        if len(found) > 1:
            raise HubError(
                f"There are {len(found)} checkpoints here: {', '.join(found)}.",
                where=snapshot.origin,
                fix="Give the path of one of them.",
            )
        if found and found[0] in snapshot.files:
            return found[0]
    raise HubError(
        "There are no weights here: no .safetensors, .ckpt, .bin, .pth or .pth.tar file.",
        where=snapshot.origin,
        fix="Check the id; `xcit-hub info ID` lists the files.",
    )
