"""A segmenter's file → its whole network, strictly: the backbone by the ordinary steps, and the head beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xcit_hub import strict_json
from xcit_hub.checkpoints import checkpoint, mmseg_config, mmseg_images
from xcit_hub.checkpoints.beside import Dropped, Reason
from xcit_hub.checkpoints.check import Doubts, checked
from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.checkpoints.reading import Asked
from xcit_hub.checkpoints.strings import same_levels
from xcit_hub.checkpoints.tensor import StoredTensor
from xcit_hub.checkpoints.translate import to_ours
from xcit_hub.checkpoints.weights import Weights, hold_against_config, weights_of
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.parameters import Shape
from xcit_hub.segmenters import LEVELS, HeadKind, Segmenter, Window, auxiliary_shapes, head_shapes
from xcit_hub.variants import Preprocessing

SEGMENTER = "xcit_hub.segmenter"
"""In the strings of a file of ours, JSON: the blocks whose maps are taken, and the window at evaluation."""

_PARTS = ("neck.", "decode_head.", "auxiliary_head.")
_AUXILIARY = "auxiliary_head."


@dataclass
class SegmenterWeights:
    """A segmenter's parameters in the project's names, and what is known about it.

    Args:
        backbone: the blocks and the pyramid; ``backbone.dropped`` lists what of the file was not taken.
        segmenter: the head.
        head: its parameters, our names (:func:`xcit_hub.segmenters.head_shapes`) → tensors.
        out_indices: the blocks whose maps are taken, where the file says it.
        window: what slides over an image at evaluation; None where it goes through whole.
        classes: the classes' names, where the file has them.
        image_size: pixels of an image's shorter side, where the file's configuration says it.
        unused: what of its configuration was not used, in sentences; the backbone's notes have them as well.
    """

    backbone: Weights
    segmenter: Segmenter
    head: Mapping[str, StoredTensor]
    out_indices: tuple[int, ...] | None = None
    window: Window | None = None
    classes: tuple[str, ...] = ()
    image_size: int | None = None
    unused: tuple[str, ...] = ()

    def arrays(self) -> dict[str, Any]:
        """Return all parameters as read-only arrays."""
        return self.backbone.arrays() | {name: tensor.numpy() for name, tensor in self.head.items()}


def load(path: str | os.PathLike[str] | MappedFile, asked: Asked | None = None) -> SegmenterWeights:
    """Read a segmenter: facebook's ``sem_fpn_*`` and ``upernet_*``, of mmsegmentation's layout, or one of ours.

    Args:
        path: the file, or what :func:`xcit_hub.checkpoints.checkpoint.opened` made of it.
        asked: what the caller says of it.

    Raises:
        CheckpointError: the file is not a whole checkpoint.
        WeightsError: it is not a segmenter of these two forms (missing, unexpected or misshapen tensors, numbers that
            no network can use), or its own configuration says that it is another network.
    """
    opened = checkpoint.read(path)
    backbone = weights_of(opened, asked or Asked())
    hold_against_config(backbone, opened)
    try:
        read = _of_file(backbone)
    except WeightsError as error:
        raise WeightsError(error.what, where=opened.path, fix=error.fix) from error
    doubts = Doubts()
    sources = {**backbone.sources, **{name: (name,) for name in read.head}}
    for tensor in checked({**backbone.tensors, **read.head}, sources, opened.path, doubts).values():
        for _ in tensor.pieces():
            pass
    backbone.doubts = doubts.notes()
    backbone.notes += backbone.doubts
    return read


def to_metadata(out_indices: Sequence[int], window: Window | None) -> dict[str, str]:
    """Write the string that :func:`load` reads of a file of ours."""
    slides = None if window is None else [*window.size, *window.stride]
    return {SEGMENTER: json.dumps({"out_indices": list(out_indices), "window": slides})}


def _from_metadata(text: str) -> tuple[tuple[int, ...], Window | None]:
    try:
        record = strict_json.parsed(text)
        indices, window = record["out_indices"], record["window"]
        if set(record) == {"out_indices", "window"} and _are_wholes(indices, LEVELS):
            if window is None:
                return tuple(indices), None
            if _are_wholes(window, 4):
                return tuple(indices), Window((window[0], window[1]), (window[2], window[3]))
    except (ValueError, KeyError, TypeError, RecursionError, InputError):
        pass
    raise WeightsError(
        f"{SEGMENTER} of the file does not say which blocks and which window its segmenter takes: {text:.80}.",
        fix="Take the file from where it was written.",
    )


def _are_wholes(values: object, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(type(value) is int for value in values)


def _of_file(backbone: Weights) -> SegmenterWeights:
    beside = _beside(backbone)
    if backbone.kind != "dense" or not any(name.startswith("decode_head.") for name in beside):
        raise WeightsError(
            f"This is not a segmenter: it is a {_KINDS[backbone.kind]}, without a decode_head.",
            fix="xcit_hub.load takes classifiers, and xcit_hub.create_model(…, pretrained=ID, pyramid=True) the "
            "backbones of detectors and segmenters.",
        )
    told = backbone.file.metadata
    # Between two image sizes, or of class attention, which no segmenter has.
    idle = (*(("Assumed ",) if backbone.assumed else ()), *(("No known architecture ",) if SEGMENTER in told else ()))
    backbone.notes = [note for note in backbone.notes if not note.startswith(idle)]
    head: HeadKind = "upernet" if any(name.startswith("decode_head.psp_modules.") for name in beside) else "sem_fpn"
    segmenter = Segmenter(
        head,
        num_classes=_axis(beside, "decode_head.conv_seg.weight", 0),
        channels=_axis(beside, "decode_head.conv_seg.weight", 1),
        neck=_axis(beside, "neck.lateral_convs.0.conv.weight", 0) if head == "sem_fpn" else 0,
    )
    tensors = _translated(beside, segmenter, backbone)
    if SEGMENTER in told:
        indices, window = _from_metadata(told[SEGMENTER])
        return SegmenterWeights(backbone, segmenter, tensors, indices, window)
    name = next((name for name in mmseg_config.TEXTS if name in told), "")
    tables = mmseg_config.read(told.get(name, ""))
    if name and told[name] and tables is None:
        backbone.notes.append(f"{name} of the file does not describe a model in mmcv's form: not used.")
    tables = tables or {"model": {}}
    model, images = tables["model"], mmseg_images.read(tables)
    mmseg_config.check(model, head)
    _normalize(backbone, images)
    backbone.notes += images.notes
    return SegmenterWeights(
        *(backbone, segmenter, tensors),
        out_indices=mmseg_config.indices(model),
        window=mmseg_config.window(model),
        classes=mmseg_config.classes(told),
        image_size=images.shorter,
        unused=images.notes,
    )


def _normalize(backbone: Weights, images: mmseg_images.Images) -> None:
    """Take the configuration's mean and deviation, where they are not the usual ones; the tensors' own go before.

    Raises:
        WeightsError: the tensors' own are others.
    """
    if images.levels is None:
        return
    usual = backbone.normalization or (Preprocessing().mean, Preprocessing().std)
    if all(map(same_levels, images.levels, usual)):
        return
    if backbone.normalization is not None:
        raise WeightsError(
            f"The file's configuration says mean {images.levels[0]}, deviation {images.levels[1]}, and the tensors "
            f"beside the network {usual[0]}, {usual[1]}.",
            fix="Take the file from where it was written.",
        )
    backbone.normalization = images.levels


_KINDS = {
    "classifier": "classifier",
    "backbone": "network without a classifier",
    "dense": "detector's or segmenter's backbone",
    "features": "network's first blocks",
}


def _beside(backbone: Weights) -> dict[str, StoredTensor]:
    """Return the head's tensors by their names beside the backbone; batch counters are not among them."""
    parent = backbone.prefix.removesuffix("backbone.")
    found = {}
    for entry in backbone.dropped:
        name = entry.name.removeprefix(parent)
        if entry.reason is Reason.OTHER_HEAD and entry.name.startswith(parent) and name.startswith(_PARTS):
            found[name] = backbone.file.tensors[entry.name]
    return found


def _axis(beside: Mapping[str, StoredTensor], name: str, axis: int) -> int:
    shape = beside[name].shape if name in beside else ()
    if len(shape) != 4 or not shape[axis]:
        found = f"has the shape {list(shape)}" if name in beside else "is not there"
        raise WeightsError(f"This is not a whole segmenter: {name} {found}.", fix="Fetch the whole file.")
    return shape[axis]


def _translated(beside: Mapping[str, StoredTensor], segmenter: Segmenter, backbone: Weights) -> dict[str, StoredTensor]:
    """Put the head into our names, strictly; an auxiliary head is held against its shapes, too, and listed as dropped.

    Raises:
        WeightsError: a tensor is missing, unexpected or misshapen.
    """
    wanted = head_shapes(backbone.architecture, segmenter)
    auxiliary: dict[str, Shape] = {}
    if any(name.startswith(_AUXILIARY) for name in beside):
        classifier = f"{_AUXILIARY}conv_seg.weight"
        auxiliary = auxiliary_shapes(backbone.architecture, _axis(beside, classifier, 1), _axis(beside, classifier, 0))
    tensors = to_ours(beside, backbone.family, {**wanted, **auxiliary})
    parent = backbone.prefix.removesuffix("backbone.")
    heads = {f"{parent}{name}" for name in beside}
    served = {name for name in heads if name.startswith(f"{parent}{_AUXILIARY}")}
    backbone.dropped = [
        Dropped(entry.name, Reason.AUXILIARY_HEAD) if entry.name in served else entry
        for entry in backbone.dropped
        if entry.name not in heads - served
    ]
    # What was said of the heads was said of a backbone alone; a detector's may be left.
    if not any(entry.reason is Reason.OTHER_HEAD for entry in backbone.dropped):
        backbone.notes = [note for note in backbone.notes if "tensors of another head" not in note]
    if served:
        backbone.notes.append(f"Dropped {len(served)} tensors of {_AUXILIARY[:-1]}: {Reason.AUXILIARY_HEAD.value}.")
    return {name: tensors[name] for name in wanted}
