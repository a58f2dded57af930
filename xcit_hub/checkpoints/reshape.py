"""What a conversion changes of a network where it is asked to: its classifier, its input channels, its pyramid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xcit_hub.checkpoints.beside import Dropped, Reason
from xcit_hub.checkpoints.dtypes import adapt_input_conv, fresh
from xcit_hub.checkpoints.families import LAYOUTS
from xcit_hub.checkpoints.weights import Weights
from xcit_hub.errors import InputError
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import Family

_HEAD = ("head.weight", "head.bias")


def with_head(weights: Weights, num_classes: int | None) -> Weights:
    """Return the weights with a classifier of that many classes: its first rows, another random one, or none.

    Args:
        num_classes: None leaves it as it is.

    Raises:
        InputError: there cannot be such a classifier.
    """
    if num_classes is None or num_classes == weights.num_classes:
        return weights
    if num_classes < 0:
        raise InputError(
            f"A classifier cannot have {num_classes} classes.",
            where="num_classes=… (--num-classes)",
            fix="Use 0 to drop it.",
        )
    if weights.kind in ("dense", "features"):
        raise InputError(
            "A backbone without class attention has nothing that a classifier could stand on.",
            where="num_classes=… (--num-classes)",
            fix="Leave out --num-classes.",
        )
    if num_classes == 0:
        return replace(_without_head(weights), notes=[*weights.notes, "Dropped the classifier."])
    if num_classes < weights.num_classes:
        return _with_fewer_classes(weights, num_classes)
    return _with_fresh_head(weights, num_classes)


def _without_head(weights: Weights) -> Weights:
    gone = [part for name in _HEAD if name in weights.tensors for part in weights.sources[name]]
    return replace(
        weights,
        tensors={name: tensor for name, tensor in weights.tensors.items() if name not in _HEAD},
        num_classes=0,
        kind="backbone",
        dropped=[
            *weights.dropped,
            *(Dropped(part, Reason.CLASSIFIER) for part in gone),
        ],
        head_untrained=False,
    )


def _with_fewer_classes(weights: Weights, num_classes: int) -> Weights:
    note = f"Kept the classifier's first {num_classes} of {weights.num_classes} rows; the other classes are gone."
    kept = {name: weights.tensors[name].rows(0, num_classes) for name in _HEAD}
    return replace(weights, tensors={**weights.tensors, **kept}, num_classes=num_classes, notes=[*weights.notes, note])


def _with_fresh_head(weights: Weights, num_classes: int) -> Weights:
    shapes = parameter_shapes(weights.architecture, num_classes=num_classes)
    try:
        values = np.random.default_rng(0).standard_normal(shapes["head.weight"], np.float32)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"A classifier of {num_classes} classes is too large.",
            where="num_classes=… (--num-classes)",
            fix="Ask for fewer.",
        ) from error
    arrays = {"head.weight": values * np.float32(0.02), "head.bias": np.zeros(shapes["head.bias"], np.float32)}
    dtype = weights.tensors["cls_token"].dtype
    head = {name: fresh(array, dtype, name) for name, array in arrays.items()}
    replaced = f" in place of the file's, which has {weights.num_classes}" if weights.num_classes else ""
    note = f"The classifier of {num_classes} classes is NOT TRAINED: it is random{replaced}. Train it before use."
    bare = _without_head(weights)
    return replace(
        bare,
        tensors={**bare.tensors, **head},
        num_classes=num_classes,
        kind="classifier",
        notes=[*weights.notes, note],
        sources={**bare.sources, **dict.fromkeys(head, ())},
        head_untrained=True,
    )


def with_channels(weights: Weights, in_chans: int | None) -> Weights:
    """Return the weights with a first convolution for that many channels, adapted as timm does; None leaves it.

    Raises:
        InputError: there cannot be such a convolution.
    """
    if in_chans is None or in_chans == weights.in_chans:
        return weights
    if in_chans < 1:
        raise InputError(
            f"An image cannot have {in_chans} channels.",
            where="in_chans=… (--in-chans)",
            fix="Use --in-chans 1 or more.",
        )
    name = "patch_embed.proj.0.0.weight"
    adapted = adapt_input_conv(weights.tensors[name], in_chans)
    how = "summed over" if in_chans == 1 else "repeated and rescaled from"
    return replace(
        weights,
        tensors={**weights.tensors, name: adapted},
        in_chans=in_chans,
        notes=[*weights.notes, f"The first convolution was {how} {weights.in_chans} channels, as timm does."],
    )


def without_pyramid(weights: Weights, to: Family) -> Weights:
    """Return the weights without a detector's feature pyramid, where the target family has no network for it."""
    if weights.kind != "dense" or LAYOUTS[to].pyramid:
        return weights
    kept = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith("fpn")}
    gone = [part for name in weights.tensors if name not in kept for part in weights.sources[name]]
    return replace(
        weights,
        tensors=kept,
        kind="features",
        dropped=[*weights.dropped, *(Dropped(name, Reason.PYRAMID) for name in gone)],
        notes=[*weights.notes, f"Dropped {len(gone)} tensors: {Reason.PYRAMID.value}."],
    )
