"""From a model id to a network that is ready to answer.

``id → address → store.resolve → description → store.fetch (hashed) → converters → strict load``. Fetching and hashing
run while MindSpore is being imported, so on a warm cache they cost nothing.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from xcit_hub.errors import HubError, InputError, WeightsError
from xcit_hub.files import sha256_of
from xcit_hub.hub import address, cache, config
from xcit_hub.hub.config import ModelConfig, Provenance
from xcit_hub.hub.stores import Context, Snapshot, Store, open_store
from xcit_hub.hub.stores.folder import FolderStore
from xcit_hub.variants import Architecture, DialectName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcit_hub import models
    from xcit_hub.checkpoints.rewrite import Weights
    from xcit_hub.data.transforms import Picture
    from xcit_hub.hub.mixin import XCiT

    Array = NDArray[np.generic]

T = TypeVar("T")
PathLike = str | os.PathLike[str]
Dtype = Literal["float32", "float16", "bfloat16"]
Mode = Literal["graph", "pynative"]

_LARGEST_DESCRIPTION = 16 << 20

# What a folder or repository may call its weights, best first: mapped files before copied ones, pickles last.
_WEIGHTS = ("model.safetensors", "*.safetensors", "model.ckpt", "*.ckpt", "pytorch_model.bin", "*.pth", "*.pt", "*.bin")


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


def load(
    id: str,  # noqa: A002
    revision: str | None = None,
    *,
    hub: PathLike | None = None,
    cache_dir: PathLike | None = None,
    offline: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    dtype: Dtype | None = None,
    mode: Mode | None = None,
    dialect: DialectName | None = None,
    token: str | bool | None = None,
    force_download: bool = False,
) -> XCiT:
    """Return the network that ``id`` names, with its weights, in eval mode; ``.config`` describes it.

    Args:
        id: a hub's ``org/name``, a name from the variant table, a path, or an address; :mod:`xcit_hub.hub.address`
            has the rules.
        revision: branch, tag or commit.
        hub: look there and nowhere else: a folder, ``"hugging-face"``, ``"mindspore-hub"``, an endpoint's address.
        cache_dir: where fetched files are kept; huggingface_hub's cache by default.
        offline: never touch the network, as ``HF_HUB_OFFLINE=1`` does.
        num_classes: another number of classes than the file's: the classifier is replaced by a fresh one.
        in_chans: another number of input channels: the first convolution is summed (1) or repeated and rescaled.
        dtype: what parameters are held in; float32 by default.
        mode: switch MindSpore to graph or PyNative mode for the whole process; unchanged by default.
        dialect: what network a bare file was trained in, where the file does not say; see ``xcit_hub.variants``.
        token: overrides huggingface_hub's login and ``HF_TOKEN``; False sends none.
        force_download: fetch again what the cache holds.

    Warns:
        UserWarning: the classifier or the first convolution is not the file's.

    Raises:
        HubError: the model is in no place that was looked in, cannot be fetched, or is not what was published.
        WeightsError: the file is not an XCiT, or its dialect cannot be told and was not given.
        InputError, UnknownNameError: an argument has no meaning.
    """
    _check_count(num_classes, "num_classes", least=0)
    _check_count(in_chans, "in_chans", least=1)
    located = locate(id, revision, hub=hub, cache_dir=cache_dir, offline=offline, token=token, force=force_download)
    fetched = _meanwhile(located.fetch)
    from xcit_hub.hub.mixin import XCiT

    weights, described = _read(located, fetched, dialect)
    weights_notes = described.provenance.notes
    arrays: Mapping[str, Any] = weights.arrays()
    if in_chans is not None and in_chans != described.in_chans:
        arrays, described = _with_channels(arrays, described, in_chans)
    network = XCiT.of_config(described, arrays)
    if num_classes is not None and num_classes != described.num_classes:
        network.reset_classifier(num_classes)
        network.config = _noted(
            replace(described, num_classes=num_classes, labels=()),
            f"the classifier of {described.num_classes} classes was replaced by a fresh, untrained one of {num_classes}"
            if num_classes
            else f"the classifier of {described.num_classes} classes was left out",
        )
    _prepare(network, dtype, mode)
    for note in network.config.provenance.notes[len(weights_notes) :]:
        warnings.warn(f"{located.snapshot.name}: {note}", stacklevel=2)
    return network


def load_weights(
    network: models.XCiT,
    id: str,  # noqa: A002
    revision: str | None = None,
    *,
    hub: PathLike | None = None,
    cache_dir: PathLike | None = None,
    offline: bool = False,
    dialect: DialectName | None = None,
    token: str | bool | None = None,
) -> ModelConfig:
    """Fill a network of one's own with the weights that ``id`` names, strictly; return what they are.

    Args:
        network: of the same architecture, dialect, classes and channels as the weights.

    Raises:
        WeightsError: the weights are another network's: architecture, dialect or shapes.
        HubError: as in :func:`load`.
    """
    from xcit_hub.models import load_weights as fill

    located = locate(id, revision, hub=hub, cache_dir=cache_dir, offline=offline, token=token)
    weights, described = _read(located, located.fetch, dialect)
    if network.dialect.name != described.dialect:
        raise WeightsError(
            f"These weights are of the {described.dialect} dialect, the network computes the "
            f"{network.dialect.name} one.",
            where=located.snapshot.origin,
            fix=f"Create the network with dialect={described.dialect!r}.",
        )
    fill(network, weights.arrays())
    return described


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


def preprocess(description: ModelConfig | XCiT) -> Callable[[Picture], NDArray[np.float32]]:
    """Return the function that turns a photograph (PIL image or path) into the network's input (3, H, W), float32.

    Args:
        description: a loaded network, or its ``config``.

    Raises:
        InputError: it is neither; or, when the function is called, its argument is no readable picture.
    """
    from PIL import Image

    from xcit_hub.data.transforms import EvalTransform

    described = getattr(description, "config", description)
    if not isinstance(described, ModelConfig):
        raise InputError(
            f"preprocess needs what a network was loaded with, and {type(description).__name__} has no description.",
            fix="Give it the network that xcit_hub.load returned, or that network's config.",
        )
    transform = EvalTransform(described.preprocessing)

    def prepare(picture: Picture) -> NDArray[np.float32]:
        if not isinstance(picture, Image.Image | str | os.PathLike):
            raise InputError(
                f"{type(picture).__name__} is no picture.",
                fix="Give a PIL image (Image.fromarray makes one) or a path.",
            )
        return transform(picture)

    return prepare


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
    context = Context(
        cache=Path(cache_dir).expanduser() if cache_dir is not None else cache.default_folder(),
        offline=offline or address.offline_by_environment(),
        token=token,
        force=force,
    )
    store = open_store(where, context)
    snapshot = store.resolve(where.name, where.revision)
    described, digests = _describe(store, snapshot)
    weights = _weights_file(snapshot, digests)
    return Located(where, store, snapshot, described, weights, digests.get(weights))


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


def _meanwhile(work: Callable[[], T]) -> Callable[[], T]:
    """Begin ``work`` beside what follows; the function returned waits for it, and gives its result or its error."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    # A daemon: whoever interrupts a download does not want to wait for its end.
    threading.Thread(target=run, name="xcit-hub-fetch", daemon=True).start()
    return done.result


def _read(
    located: Located, fetched: Callable[[], tuple[Path, str]], dialect: DialectName | None
) -> tuple[Weights, ModelConfig]:
    from xcit_hub.checkpoints.rewrite import load as read_checkpoint

    known = located.config
    if known is not None and dialect is not None and dialect != known.dialect:
        raise InputError(
            f"{located.snapshot.name} is of the {known.dialect} dialect, and {dialect!r} was asked for.",
            where=located.snapshot.origin,
            fix="Leave the dialect out: the model's description says it.",
        )
    path, digest = fetched()
    weights = read_checkpoint(
        path,
        model=known.architecture if known and known.custom is None else None,
        dialect=known.dialect if known else dialect,
    )
    settled: DialectName = "mindcv" if weights.dialect == "mindcv" else "paper"
    described = known or config.of_architecture(
        weights.architecture, settled, num_classes=weights.num_classes, in_chans=weights.in_chans
    )
    if known is not None and known.custom is not None:
        _check_custom(known.custom, weights, located)
    if (weights.num_classes, weights.in_chans) != (described.num_classes, described.in_chans):
        raise HubError(
            f"The description promises {described.num_classes} classes and {described.in_chans} channels, "
            f"the weights have {weights.num_classes} and {weights.in_chans}.",
            where=located.snapshot.origin,
            fix="Publish the model again.",
        )
    promised = located.snapshot.files[located.weights].digest or located.sha256
    provenance = Provenance(
        source=located.snapshot.origin,
        revision=located.snapshot.revision,
        sha256=digest,
        family=weights.family,
        verified="none" if promised is None else "full" if len(promised) in (40, 64) else "prefix",
        # What the converter had to assume of a custom architecture, its description says.
        notes=(*located.snapshot.notes, *(weights.notes if known is None or known.custom is None else ())),
    )
    return weights, replace(described, provenance=provenance)


def _check_count(value: object, option: str, *, least: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise InputError(f"{option} is {value!r}.", fix=f"Give a whole number, {least} or more.")


def _check_custom(claimed: Architecture, weights: Weights, located: Located) -> None:
    # What tensors cannot tell may differ; all else is held against them before a network of that size is built.
    found = weights.architecture
    told = replace(
        found, name=claimed.name, eta=claimed.eta, tokens_norm=claimed.tokens_norm, image_size=claimed.image_size
    )
    if told != claimed:
        raise HubError(
            f"The weights are of another architecture ({found.name}) than their description says.",
            where=located.snapshot.origin,
            fix="Publish the model again.",
        )


def _with_channels(
    arrays: Mapping[str, Array], described: ModelConfig, in_chans: int
) -> tuple[dict[str, Any], ModelConfig]:
    from xcit_hub.checkpoints.dtypes import adapt_input_conv
    from xcit_hub.checkpoints.tensor import StoredTensor

    name = "patch_embed.proj.0.0.weight"
    adapted = adapt_input_conv(StoredTensor.of(arrays[name]), in_chans).numpy()
    note = f"the first convolution was adapted from {described.in_chans} to {in_chans} channels"
    return {**arrays, name: adapted}, _noted(replace(described, in_chans=in_chans), note)


def _noted(described: ModelConfig, note: str) -> ModelConfig:
    provenance = described.provenance
    return replace(described, provenance=replace(provenance, notes=(*provenance.notes, note)))


def _prepare(network: models.XCiT, dtype: Dtype | None, mode: Mode | None) -> None:
    import mindspore

    if dtype is not None and dtype != "float32":
        if dtype not in ("float16", "bfloat16"):
            raise InputError(f"There is no dtype {dtype!r}.", fix="Choose float32, float16 or bfloat16.")
        network.to_float(getattr(mindspore, dtype))
        for parameter in network.get_parameters():
            parameter.set_dtype(getattr(mindspore, dtype))
    if mode is not None:
        modes = {"graph": mindspore.GRAPH_MODE, "pynative": mindspore.PYNATIVE_MODE}
        if mode not in modes:
            raise InputError(f"There is no mode {mode!r}.", fix="Choose graph or pynative.")
        mindspore.set_context(mode=modes[mode])
    network.set_train(False)
