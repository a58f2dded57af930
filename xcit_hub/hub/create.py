"""``create_model``: a network by an architecture's name, with fresh weights or pretrained ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

from xcit_hub import variants
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.hub.locate import Located, PathLike, locate

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from xcit_hub.hub.dense import XCiTPyramid
    from xcit_hub.hub.network import XCiT, XCiTFeatures
    from xcit_hub.models.xcit import Indices
    from xcit_hub.variants import GlobalPool


@overload
def create_model(
    name: str | variants.Architecture,
    *,
    pretrained: bool | str = ...,
    num_classes: int | None = ...,
    in_chans: int | None = ...,
    global_pool: GlobalPool | None = ...,
    drop_rate: float = ...,
    pos_drop_rate: float = ...,
    proj_drop_rate: float = ...,
    attn_drop_rate: float = ...,
    drop_path_rate: float = ...,
    dialect: variants.DialectName | None = ...,
    features_only: Literal[False] = ...,
    pyramid: Literal[False] = ...,
    out_indices: Indices = ...,
    seed: int | None = ...,
    init: bool = ...,
    cache_dir: PathLike | None = ...,
    **shape: Unpack[variants.Shape],
) -> XCiT: ...


@overload
def create_model(
    name: str | variants.Architecture,
    *,
    pretrained: bool | str = ...,
    num_classes: int | None = ...,
    in_chans: int | None = ...,
    global_pool: GlobalPool | None = ...,
    drop_rate: float = ...,
    pos_drop_rate: float = ...,
    proj_drop_rate: float = ...,
    attn_drop_rate: float = ...,
    drop_path_rate: float = ...,
    dialect: variants.DialectName | None = ...,
    features_only: Literal[True],
    pyramid: Literal[False] = ...,
    out_indices: Indices = ...,
    seed: int | None = ...,
    init: bool = ...,
    cache_dir: PathLike | None = ...,
    **shape: Unpack[variants.Shape],
) -> XCiTFeatures: ...


@overload
def create_model(
    name: str | variants.Architecture,
    *,
    pretrained: bool | str = ...,
    in_chans: int | None = ...,
    pos_drop_rate: float = ...,
    proj_drop_rate: float = ...,
    attn_drop_rate: float = ...,
    drop_path_rate: float = ...,
    dialect: variants.DialectName | None = ...,
    pyramid: Literal[True],
    out_indices: Indices = ...,
    seed: int | None = ...,
    init: bool = ...,
    cache_dir: PathLike | None = ...,
    **shape: Unpack[variants.Shape],
) -> XCiTPyramid: ...


def create_model(
    name: str | variants.Architecture,
    *,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    global_pool: GlobalPool | None = None,
    drop_rate: float = 0.0,
    pos_drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    dialect: variants.DialectName | None = None,
    features_only: bool = False,
    pyramid: bool = False,
    out_indices: Indices = 3,
    seed: int | None = None,
    init: bool = True,
    cache_dir: PathLike | None = None,
    **shape: Unpack[variants.Shape],
) -> XCiT | XCiTFeatures | XCiTPyramid:
    """Build an XCiT, as ``timm.create_model`` does for PyTorch: with fresh weights in training mode, or pretrained.

    Args:
        name: an architecture's or a published checkpoint's name (see :func:`xcit_hub.list_models`), or an architecture
            of one's own; with ``pretrained=True`` also any id that :func:`xcit_hub.load` takes.
        pretrained: True fetches the published weights that ``name`` means (a bare architecture's first timm tag);
            an id fetches those, which must be of the architecture ``name``. The network is then in eval mode.
        num_classes: outputs of the classifier, 0 leaves it out; 1000, or the pretrained weights' number, by default.
            Another number than theirs begins a fresh classifier.
        in_chans: channels of the input image; 3, or the pretrained weights' number, by default. Another number than
            theirs adapts the first convolution as timm does.
        global_pool: what the classifier reads: ``"token"`` (the class token), ``"avg"`` (the mean patch token) or
            ``""`` (every token); ``"token"``, or as the pretrained weights' description says, by default.
        drop_rate: dropout before the classifier; neither with ``features_only`` nor with ``pyramid``.
        pos_drop_rate: dropout after the positional encoding.
        proj_drop_rate: dropout after attention's projection and in the MLPs.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the cross-covariance blocks, the same in each.
        dialect: ``"paper"`` (facebook, timm) or ``"mindcv"`` (MindSpore's checkpoints): two different networks. By
            default the one of the published checkpoint that ``name`` means, and the paper's where it means none.
        features_only: return the backbone of a feature pyramid instead, see :class:`XCiTFeatures`.
        pyramid: return the backbone of facebook's detectors and segmenters instead: four maps of strides 4, 8, 16 and
            32, see :class:`xcit_hub.models.pyramid.XCiTPyramid`.
        out_indices: the blocks whose maps ``features_only`` returns, or the four of ``pyramid``, which has facebook's
            by default.
        seed: makes the fresh weights reproducible; of pretrained ones that is a replaced classifier.
        init: False leaves the weights unset, for a caller who loads some next; without ``pretrained`` alone.
        cache_dir: where fetched files are kept; huggingface_hub's cache by default.
        shape: fields of the architecture that are to be other than the name's, without pretrained weights:
            ``patch_size``, ``embed_dim``, ``depth``, ``num_heads``, ``mlp_ratio``, ``cls_attn_layers``,
            ``use_pos_embed``, ``eta``, ``tokens_norm``, as timm's ``Xcit`` takes them, and ``strides``.

    Warns:
        UserWarning: the classifier or the first convolution is not the pretrained file's, or a tensor of it looks
            untrained or damaged.

    Raises:
        UnknownNameError: no such architecture, checkpoint or dialect.
        InputError: an option has an impossible value, or would change nothing beside the others.
        WeightsError: the pretrained weights are of another architecture.
        HubError: the pretrained weights cannot be had, see :func:`xcit_hub.load`.

    Example:

        >>> network = xcit_hub.create_model("xcit_small_24_p8_384", num_classes=10, drop_path_rate=0.1)
        >>> network = xcit_hub.create_model("xcit_tiny_12_p16_224", pretrained=True)
        >>> backbone = xcit_hub.create_model("xcit_tiny_12_p16_224", features_only=True, out_indices=(3, 5, 7, 11))
        >>> backbone = xcit_hub.create_model("xcit_tiny_12_p16_224", pyramid=True)
    """
    # The name costs nothing; MindSpore and huggingface_hub are imported where a network is built.
    from xcit_hub import accelerated, models
    from xcit_hub.hub.dense import create_pyramid
    from xcit_hub.hub.network import XCiT, XCiTFeatures, checked_rates
    from xcit_hub.hub.read import filling
    from xcit_hub.models.xcit import check_count

    rates = checked_rates(drop_rate, pos_drop_rate, proj_drop_rate, attn_drop_rate, drop_path_rate)
    check_count(seed, "seed", least=0)
    _refuse_unused(
        {"num_classes": bool(num_classes), "global_pool": global_pool is not None, "drop_rate": bool(drop_rate)},
        features_only=features_only,
        pyramid=pyramid,
        out_indices=out_indices,
    )
    _refuse_of_the_other(pretrained=pretrained not in (False, None), init=init, seed=seed, cache_dir=cache_dir)
    if pyramid:
        return create_pyramid(
            name, pretrained=pretrained, out_indices=None if out_indices == 3 else out_indices,
            in_chans=in_chans, rates=rates, dialect=dialect, seed=seed, init=init, cache_dir=cache_dir, shape=shape,
        )  # fmt: skip
    if pretrained is False or pretrained is None:
        network = models.create_model(
            name,
            cls=XCiT,
            num_classes=1000 if num_classes is None else num_classes,
            in_chans=3 if in_chans is None else in_chans,
            global_pool="token" if global_pool is None else global_pool,
            dialect=dialect,
            seed=seed,
            init=init,
            **rates,
            **shape,
        )
    elif shape:
        raise InputError(
            f"{', '.join(shape)} was given for pretrained weights, whose architecture is theirs.",
            where=", ".join(f"{field}=…" for field in shape),
            fix="Leave it out, or build the network without weights.",
        )
    else:
        located = locate(_pretrained_id(name, pretrained), cache_dir=cache_dir)
        network = XCiT.of_located(
            located, lambda: filling(located, dialect), num_classes=num_classes, in_chans=in_chans,
            global_pool=global_pool, rates=rates, seed=seed,
        )  # fmt: skip
        if not isinstance(pretrained, bool):
            _check_architecture(name, network, located)
    return accelerated.accelerate(XCiTFeatures(network, out_indices) if features_only else network, in_place=True)


def _refuse_unused(of_classifier: Mapping[str, bool], *, features_only: bool, pyramid: bool, out_indices: Any) -> None:
    """Refuse what would change nothing: a classifier's options where there is none, and blocks whose maps none takes.

    Args:
        of_classifier: option → whether it was given.
    """
    if pyramid or features_only:
        given = [name for name, is_given in of_classifier.items() if is_given]
        given += ["features_only"] if pyramid and features_only else []
        if given:
            what = "A pyramid has neither a classifier nor other features" if pyramid else "Features have no classifier"
            raise InputError(
                f"{what}, and {', '.join(given)} was given.",
                where=f"create_model({'pyramid' if pyramid else 'features_only'}=True)",
                fix=f"Leave out {', '.join(given)}.",
            )
    elif out_indices is not None and not (isinstance(out_indices, int) and out_indices == 3):  # the default
        raise InputError(
            f"out_indices is {out_indices!r:.60}, and a classifier returns no maps of its blocks.",
            where="out_indices=…",
            fix="Give features_only=True or pyramid=True, too, or leave it out.",
        )


def _refuse_of_the_other(*, pretrained: bool, init: bool, seed: int | None, cache_dir: PathLike | None) -> None:
    """Refuse what is of fresh weights beside pretrained ones, and the other way round."""
    if not init and pretrained:
        raise InputError(
            "init=False leaves weights unset, and pretrained gives them.",
            where="init=…, pretrained=…",
            fix="Give one of them.",
        )
    if not init and seed is not None:
        raise InputError(
            f"init=False leaves weights unset, and seed is {seed!r:.40}.",
            where="init=…, seed=…",
            fix="Give one of them.",
        )
    if cache_dir is not None and not pretrained:
        raise InputError(
            "cache_dir is where fetched weights are kept, and none are fetched.",
            where="cache_dir=…",
            fix="Give pretrained=…, too, or leave it out.",
        )


def _pretrained_id(name: str | variants.Architecture, pretrained: bool | str) -> str:
    if isinstance(pretrained, str) and pretrained:
        return pretrained
    if pretrained is not True:
        raise InputError(
            f"pretrained is {pretrained!r}.",
            where="pretrained=…",
            fix="Give True, False, or the id of the weights, such as 'org/name'.",
        )
    if isinstance(name, variants.Architecture):
        raise InputError(
            f"Nobody published weights for an architecture of one's own ({name.name}).",
            where="pretrained=…",
            fix="Give pretrained the id or path of its weights.",
        )
    return name


def _check_architecture(name: str | variants.Architecture, network: XCiT, located: Located) -> None:
    wanted = variants.architecture(name) if isinstance(name, str) else name
    found = network.architecture
    # The image size is not part of the weights: 384's load into 224's, as in timm.
    if replace(wanted, name=found.name, image_size=found.image_size) != found:
        raise WeightsError(
            f"The weights are of {found.name}, and {wanted.name} was asked for.",
            where=located.snapshot.origin,
            fix=f"Name {found.name}, or other weights.",
        )
