"""From a model id to a network that is ready to answer.

``id → locate → read → network``. Fetching and hashing run while MindSpore is being imported, so on a warm cache they
cost nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from xcit_hub.accelerated import build
from xcit_hub.checkpoints.identify import UNTRAINED_NOTE
from xcit_hub.checkpoints.reading import Asked
from xcit_hub.deprecated import moved_names
from xcit_hub.errors import WeightsError, readable
from xcit_hub.hub.config import ModelConfig, of_architecture
from xcit_hub.hub.locate import PathLike, locate
from xcit_hub.hub.read import begin, filling, notes_of, read
from xcit_hub.lasting import lasting
from xcit_hub.variants import ARCHITECTURES

if TYPE_CHECKING:
    from xcit_hub import models
    from xcit_hub.checkpoints.weights import Weights
    from xcit_hub.hub.locate import Located
    from xcit_hub.hub.network import Dtype, Mode, XCiT
    from xcit_hub.variants import DialectName, GlobalPool


def load(
    id: str,  # noqa: A002
    revision: str | None = None,
    *,
    hub: PathLike | None = None,
    cache_dir: PathLike | None = None,
    offline: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    global_pool: GlobalPool | None = None,
    drop_rate: float = 0.0,
    pos_drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    dtype: Dtype | None = None,
    mode: Mode | None = None,
    dialect: DialectName | None = None,
    model: str | None = None,
    select: str | None = None,
    prefix: str | None = None,
    token: str | bool | None = None,
    force_download: bool = False,
    ignore_fields: Sequence[str] = (),
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
        global_pool: what the classifier reads, where it is not to be what the description says.
        drop_rate, pos_drop_rate, proj_drop_rate, attn_drop_rate, drop_path_rate: for training; as for
            :func:`xcit_hub.create_model`.
        dtype: what parameters are held in; float32 by default.
        mode: switch MindSpore to graph or PyNative mode for the whole process; unchanged by default.
        dialect: what network a bare file was trained in, where the file does not say; see ``xcit_hub.variants``.
        model: which architecture a bare file is of, where several have the same tensors.
        select, prefix: which of several networks in the file, by a part of its prefix or by the whole of it.
        token: overrides huggingface_hub's login and ``HF_TOKEN``; False sends none.
        force_download: fetch again what the cache holds.
        ignore_fields: fields of the model's description to read as if they were not there, such as
            ``"model_args.use_pos_embed"``; the network's provenance records it.

    Warns:
        UserWarning: the classifier or the first convolution is not the file's, a tensor looks untrained or damaged
            (nothing but zeros or denormal numbers), or something of the description was not used.

    Raises:
        HubError: the model is in no place that was looked in, cannot be fetched, or is not what was published.
        WeightsError: the file is not an XCiT, or its dialect cannot be told and was not given.
        InputError, UnknownNameError: an argument has no meaning.

    Example:

        >>> network = xcit_hub.load("timm/xcit_tiny_12_p16_224.fb_in1k")
        >>> pixels = xcit_hub.preprocess(network)("photograph.jpg")
        >>> logits = network(mindspore.Tensor(pixels[None]))
    """
    located = locate(
        id, revision, hub=hub, cache_dir=cache_dir, offline=offline, token=token, force=force_download,
        ignore_fields=ignore_fields,
    )  # fmt: skip
    located = replace(located, asked=Asked(model=model, select=select, prefix=prefix))
    filled = begin(lambda: filling(located, dialect))
    begin(build.look_ahead)
    with lasting():  # MindSpore
        from xcit_hub.hub.network import XCiT, checked_rates

    rates = checked_rates(drop_rate, pos_drop_rate, proj_drop_rate, attn_drop_rate, drop_path_rate)
    return XCiT.of_located(
        located, filled, num_classes=num_classes, in_chans=in_chans, global_pool=global_pool, rates=rates,
        dtype=dtype, mode=mode,
    )  # fmt: skip


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
    ignore_fields: Sequence[str] = (),
) -> ModelConfig:
    """Fill a network of one's own with the weights that ``id`` names, strictly; return what they are.

    ``network.config`` describes these weights afterwards, whatever the network held before.

    Args:
        network: of the same architecture, dialect, pooling, classes and channels as the weights; the image size that
            its name stands for may be another.
        id, revision, hub, cache_dir, offline, dialect, token, ignore_fields: as for :func:`load`.

    Warns:
        UserWarning: the classifier was never trained, a tensor looks untrained or damaged, or something of the
            description was not used.

    Raises:
        WeightsError: the weights are another network's: architecture, dialect, pooling or shapes.
        HubError: as in :func:`load`.
    """
    from xcit_hub.hub.network import XCiT
    from xcit_hub.models import load_weights as fill

    located = locate(
        id, revision, hub=hub, cache_dir=cache_dir, offline=offline, token=token, ignore_fields=ignore_fields
    )
    weights, described = read(located, dialect)
    if network.dialect.name != described.dialect:
        raise WeightsError(
            f"These weights are of the {described.dialect} dialect, the network computes the "
            f"{network.dialect.name} one.",
            where=located.snapshot.origin,
            fix=f"Create the network with dialect={described.dialect!r}.",
        )
    untold = _untold(located, weights)
    if apart := _apart(network, described, untold):
        said = [f"{name} is {theirs!r}, the network's {ours!r}" for name, theirs, ours in apart]
        raise WeightsError(
            f"These weights are of another network than this one, though the tensors may fit: {'; '.join(said)}.",
            where=located.snapshot.origin,
            fix=f"Create the network with {', '.join(f'{name}={theirs!r}' for name, theirs, _ in apart)}, or load "
            "these weights: xcit_hub.load(…).",
        )
    fill(network, weights.arrays())
    if isinstance(network, XCiT):
        own = of_architecture(network.architecture, network.dialect.name) if untold else described
        kept = replace(described, architecture=own.architecture, custom=own.custom)
        network._take_over(kept, head_untrained=weights.head_untrained, told=not untold)
    untrained = [UNTRAINED_NOTE] if weights.head_untrained else []
    for note in (*notes_of(located, weights, described), *untrained):
        warnings.warn(f"{located.snapshot.name}: {readable(note)}", stacklevel=2)
    return described


def _untold(located: Located, weights: Weights) -> set[str]:
    """Return the fields that nothing says of these weights, and tensors do not show."""
    if located.config is not None:
        return set()
    if weights.architecture.name not in ARCHITECTURES:
        return {"tokens_norm", "strides"}
    return {"strides"} if weights.assumed else set()


def _apart(network: models.XCiT, described: ModelConfig, untold: set[str]) -> list[tuple[str, object, object]]:
    """Return what of a network is other than described, but for what says nothing of what it computes once filled."""
    theirs, ours = (
        {**vars(shape), "strides": shape.stem_strides, "global_pool": pool}
        for shape, pool in ((described.shape, described.global_pool), (network.architecture, network.global_pool))
    )
    skipped = {"name", "image_size", "eta", *untold, *({"patch_size"} if "strides" in untold else ())}
    return [(name, theirs[name], ours[name]) for name in theirs if name not in skipped and theirs[name] != ours[name]]


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
