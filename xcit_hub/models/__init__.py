"""The native network: :func:`create_model` builds it, :func:`load_weights` fills it, strictly."""

from __future__ import annotations

from xcit_hub import first_import  # noqa: F401  (before all else of MindSpore)

# isort: split
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from mindspore import Tensor
from numpy.typing import NDArray

from xcit_hub import variants
from xcit_hub.checkpoints.identify import of_shapes
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.models.initialization import initialize
from xcit_hub.models.private import no_init_parameters
from xcit_hub.models.xcit import Indices, XCiT, XCiTFeatures, check_count, take_indices
from xcit_hub.variants import GlobalPool

if TYPE_CHECKING:
    from typing_extensions import Unpack

_LISTED = 3

__all__ = ["XCiT", "XCiTFeatures", "create_model", "initialize", "load_weights", "take_indices"]


@overload
def create_model(
    name: str | variants.Architecture, *, features_only: Literal[True], **options: Any
) -> XCiTFeatures: ...


@overload
def create_model(
    name: str | variants.Architecture, *, features_only: Literal[False] = False, **options: Any
) -> XCiT: ...


def create_model(  # type: ignore[misc]  # the overloads' options are spelled out here
    name: str | variants.Architecture,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: GlobalPool = "token",
    drop_rate: float = 0.0,
    pos_drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    dialect: variants.DialectName | None = None,
    features_only: bool = False,
    out_indices: Indices = 3,
    seed: int | None = None,
    init: bool = True,
    cls: type[XCiT] = XCiT,
    **shape: Unpack[variants.Shape],
) -> XCiT | XCiTFeatures:
    """Build an XCiT with fresh weights, as ``timm.create_model`` does for PyTorch.

    Args:
        name: an architecture's name (see :func:`xcit_hub.list_models`), or an architecture of one's own.
        num_classes: outputs of the classifier; 0 leaves it out.
        in_chans: channels of the input image.
        global_pool: what the classifier reads: ``"token"``, ``"avg"`` or ``""`` (every token).
        drop_rate, pos_drop_rate, proj_drop_rate, attn_drop_rate, drop_path_rate: see :class:`XCiT`.
        dialect: ``"paper"`` (facebook, timm), ``"mindcv"`` (MindSpore's checkpoints) or ``"mindcv-mint"`` (MindCV's
            newest network): different networks. By default the one of the published checkpoint that ``name`` means, and
            the paper's where it means none.
        features_only: return the backbone of a feature pyramid instead, see :class:`XCiTFeatures`.
        out_indices: the blocks whose maps ``features_only`` returns.
        seed: makes the fresh weights reproducible.
        init: False leaves the weights unset, for a caller who loads some next.
        cls: the class to build.
        shape: fields of the architecture that are to be other than the name's: ``patch_size``, ``embed_dim``,
            ``depth``, ``num_heads``, ``mlp_ratio``, ``cls_attn_layers``, ``use_pos_embed``, ``eta``, ``tokens_norm``,
            as timm's ``Xcit`` takes them, and ``strides``. Any image size is taken, so ``img_size`` is not among them.

    Raises:
        UnknownNameError: no such architecture or dialect.
        InputError: an option has an impossible value.
    """
    architecture = variants.reshaped(variants.architecture(name) if isinstance(name, str) else name, shape)
    published = variants.CHECKPOINTS.get(name) if isinstance(name, str) else None
    if dialect and published and dialect != published.dialect:
        raise InputError(
            f"{published.name} was trained in the {published.dialect} dialect, and dialect={dialect!r} was asked for.",
            where="dialect=… (--dialect)",
            fix=f"Leave it out, or give the architecture's bare name, {architecture.name}.",
        )
    _check_numbers(
        {"num_classes": (num_classes, 0), "in_chans": (in_chans, 1), "seed": (seed, 0)},
        {
            "drop_rate": drop_rate,
            "pos_drop_rate": pos_drop_rate,
            "proj_drop_rate": proj_drop_rate,
            "attn_drop_rate": attn_drop_rate,
            "drop_path_rate": drop_path_rate,
        },
    )
    with no_init_parameters():
        network = cls(
            architecture,
            variants.dialect(dialect or (published.dialect if published else "paper")),
            num_classes=num_classes,
            in_chans=in_chans,
            global_pool=global_pool,
            drop_rate=drop_rate,
            pos_drop_rate=pos_drop_rate,
            proj_drop_rate=proj_drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
        )
    if init:
        initialize(network.get_parameters(), architecture.eta, seed)
    return XCiTFeatures(network, out_indices) if features_only else network


def _check_numbers(counts: Mapping[str, tuple[int | None, int]], rates: Mapping[str, float]) -> None:
    for option, (value, least) in counts.items():
        check_count(value, option, least=least)
    for option, rate in rates.items():
        if not 0.0 <= rate < 1.0:
            raise InputError(
                f"{option} is {rate}.", where=f"{option}=…", fix="A drop rate is at least 0 and less than 1."
            )


def load_weights(network: XCiT | XCiTFeatures, arrays: Mapping[str, NDArray[Any]], *, copy: bool = True) -> None:
    """Fill a network with weights; names and shapes must be the network's exactly.

    ``mindspore.load_param_into_net`` skips what does not fit and goes on; this refuses before it touches anything.

    Args:
        arrays: one array for each parameter and buffer, by MindCV's names, floating point; rounded to the parameter's
            dtype where that is narrower.
        copy: leave the arrays to the caller. Otherwise they are float32, in C order, writable, and become the
            network's memory.

    Raises:
        WeightsError: a name is missing or unexpected, or a shape differs; it says which network they fit.
    """
    parameters = network.parameters_dict()
    faults = [f"missing: {name} {parameters[name].shape}" for name in parameters if name not in arrays]
    faults += [f"unexpected: {name} {arrays[name].shape}" for name in arrays if name not in parameters]
    faults += [
        f"shape: {name} is {arrays[name].shape}, the network has {parameter.shape}"
        for name, parameter in parameters.items()
        if name in arrays and tuple(arrays[name].shape) != tuple(parameter.shape)
    ]
    if faults:
        raise _misfit(network, {name: tuple(array.shape) for name, array in arrays.items()}, faults)
    for name, parameter in parameters.items():
        # The source may be a read-only view of a file.
        values = Tensor.from_numpy(np.array(arrays[name], dtype=np.float32, order="C") if copy else arrays[name])
        parameter.set_data(values if values.dtype == parameter.dtype else values.astype(parameter.dtype))


def _misfit(network: XCiT | XCiTFeatures, shapes: Mapping[str, tuple[int, ...]], faults: list[str]) -> WeightsError:
    """Say in a sentence that weights are not a network's, and whose they are likely to be."""
    name = network.architecture.name
    more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
    what = f"The weights do not fit {name} ({'; '.join(faults[:_LISTED])}{more})"
    try:
        found = of_shapes(shapes)
    except WeightsError:
        return WeightsError(
            f"{what}, and no XCiT's whole.",
            where="the weights",
            fix="See what is in their file: xcit-hub inspect FILE.",
        )
    likely = f"{found.architecture.name} with {found.num_classes} classes and {found.in_chans} channels"
    return WeightsError(
        f"{what}: they are likely those of {likely}.",
        where="the weights",
        fix="Fetch the whole file, and build it with its own number of classes and channels."
        if found.architecture.name == name
        else f"Build that one: --model {found.architecture.name}.",
    )
