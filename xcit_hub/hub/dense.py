"""Dense prediction from a model id: :func:`load_segmenter`, and the pyramid that ``create_model(…, pyramid=True)`` is.

``id → locate → the file → network``, as :mod:`xcit_hub.hub.load` does it for classifiers.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xcit_hub import accelerated, ade20k, models, segmenters, variants
from xcit_hub.checkpoints import checkpoint, segmenter
from xcit_hub.checkpoints import weights as checkpoints
from xcit_hub.checkpoints.reading import Asked
from xcit_hub.checkpoints.strings import CLASSES, PREPROCESSING
from xcit_hub.errors import InputError, WeightsError, readable
from xcit_hub.hub import config as descriptions
from xcit_hub.hub import metadata
from xcit_hub.hub.config import ModelConfig, Provenance
from xcit_hub.hub.entry import arrays_of
from xcit_hub.hub.locate import Located, PathLike, locate
from xcit_hub.hub.read import dialect_of, model_of
from xcit_hub.models import initialize
from xcit_hub.models.private import no_init_parameters
from xcit_hub.models.pyramid import XCiTPyramid as PlainPyramid
from xcit_hub.models.segmenter import XCiTSegmenter as PlainSegmenter
from xcit_hub.models.segmenter import begin_head
from xcit_hub.models.xcit import Indices, check_count
from xcit_hub.segmenters import Window
from xcit_hub.variants import DialectName, Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from xcit_hub.accelerated.fused import FusedDtype
    from xcit_hub.checkpoints.weights import Weights


_NONE: Mapping[str, Any] = {}


class XCiTPyramid(PlainPyramid):
    """The backbone of a detector or segmenter, see :class:`xcit_hub.models.pyramid.XCiTPyramid`."""

    config: ModelConfig

    def fuse(self, dtype: FusedDtype = "float32") -> Self:
        """Return a faster copy for inference alone, see :func:`xcit_hub.accelerated.fuse`; the pyramid stays."""
        return accelerated.fuse(self, dtype)

    def portable(self) -> Self:
        """Return a network of MindSpore's own operations alone, see :func:`xcit_hub.accelerated.portable`."""
        return accelerated.portable(self)


class XCiTSegmenter(PlainSegmenter):
    """A segmenter that can be saved, see :class:`xcit_hub.models.segmenter.XCiTSegmenter`.

    Attributes:
        config: architecture, dialect, the classes' names, the size and normalisation of images, and provenance.
        window: what slides over an image; None where it goes through whole.
    """

    config: ModelConfig
    window: Window | None = None

    def fuse(self, dtype: FusedDtype = "float32") -> Self:
        """Return a faster copy for inference alone, see :func:`xcit_hub.accelerated.fuse`; the head stays as it is."""
        return accelerated.fuse(self, dtype)

    def portable(self) -> Self:
        """Return a network of MindSpore's own operations alone, see :func:`xcit_hub.accelerated.portable`."""
        return accelerated.portable(self)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return every parameter and buffer as float32 arrays, by our names.

        Raises:
            InputError: the network is fused.
        """
        return arrays_of(self)

    def save(self, path: PathLike) -> None:
        """Write everything that :func:`load_segmenter` reads into one file, ``NAME.safetensors`` or ``NAME.ckpt``.

        Raises:
            InputError: the network is fused, or the file would be of PyTorch's format, which is facebook's.
            CheckpointError: it cannot be written.
        """
        if checkpoint.format_of(path) == "pth":
            raise InputError(
                "A segmenter is saved in our own names.", where=os.fspath(path), fix="Call it NAME.safetensors."
            )
        labels = {CLASSES: json.dumps(self.config.labels)} if self.config.labels else {}
        seen = metadata.preprocessing_to_metadata(self.config.preprocessing, self.config.in_chans)
        strings = {
            "xcit_hub.architecture": self.config.stored_as,
            "xcit_hub.dialect": self.config.dialect,
            "xcit_hub.family": "xcit-hub",
            PREPROCESSING: seen,
            **labels,
            **segmenter.to_metadata(self.out_indices, self.window),
        }
        checkpoint.write(path, self.arrays(), strings)


def create_segmenter(
    name: str | variants.Architecture,
    head: segmenters.HeadKind = "sem_fpn",
    *,
    num_classes: int = 150,
    pretrained: bool | str = False,
    classes: Sequence[str] = (),
    image_size: int = segmenters.SHORTER_SIDE,
    drop_path_rate: float = 0.0,
    out_indices: Sequence[int] | None = None,
    seed: int | None = None,
    **shape: Any,
) -> XCiTSegmenter:
    """Build a segmenter with a fresh head, as facebook's configs have it, in training mode.

    Args:
        name: an architecture's or a published checkpoint's name, or an architecture of one's own.
        head: ``sem_fpn`` or ``upernet``.
        num_classes: outputs for each pixel.
        pretrained: whose blocks to begin with, as for :func:`xcit_hub.create_model`: a classifier's, or a pyramid's.
        classes: the classes' names; as many as there are, or none.
        image_size: pixels of the shorter side of an image at evaluation.
        drop_path_rate: stochastic depth of the blocks.
        out_indices: the four blocks whose maps the pyramid is made of; facebook's by default.
        seed: makes the fresh weights reproducible.
        shape: fields of the architecture, as for :func:`xcit_hub.create_model`.

    Raises:
        InputError: an option has an impossible value.
        UnknownNameError, WeightsError, HubError: as :func:`xcit_hub.create_model`.
    """
    if isinstance(image_size, bool) or not isinstance(image_size, int) or not 1 <= image_size <= 4096:
        raise InputError(f"image_size is {image_size!r:.40}.", where="image_size=…", fix="Give 1 to 4096 pixels.")
    check_count(seed, "seed", least=0)
    if len(classes) not in (0, num_classes):
        raise InputError(
            f"{len(classes)} names were given for {num_classes} classes.", where="classes=…", fix="Give one for each."
        )
    rates = {"drop_path_rate": drop_path_rate}
    pyramid = create_pyramid(
        name, pretrained=pretrained, rates=rates, out_indices=out_indices, seed=seed, shape=shape, headed=True
    )
    made = segmenters.facebooks(head, pyramid.architecture, num_classes)
    whole = _whole(pyramid.architecture, pyramid.dialect.name, pyramid.in_chans, rates)
    with no_init_parameters():
        network = XCiTSegmenter(whole, made, pyramid.out_indices)
    begin_head(network, seed)
    filled = network.parameters_dict()
    for parameter_name, parameter in pyramid.parameters_dict().items():
        filled[parameter_name].set_data(parameter.value())
    described = descriptions.of_architecture(
        network.architecture, network.dialect.name, num_classes=num_classes, in_chans=network.in_chans
    )
    seen = Preprocessing(image_size=image_size, interpolation="bilinear")
    if hasattr(pyramid, "config"):  # pretrained: the blocks know images of that mean and deviation
        seen = replace(seen, mean=pyramid.config.preprocessing.mean, std=pyramid.config.preprocessing.std)
    network.config = replace(described, preprocessing=seen, labels=tuple(classes))
    return accelerated.accelerate(network.set_train(), in_place=True)


def create_pyramid(
    name: str | variants.Architecture,
    *,
    pretrained: bool | str = False,
    out_indices: Indices = None,
    in_chans: int | None = None,
    rates: Mapping[str, Any] = _NONE,
    dialect: DialectName | None = None,
    seed: int | None = None,
    init: bool = True,
    cache_dir: PathLike | None = None,
    shape: Mapping[str, Any] = _NONE,
    headed: bool = False,
) -> XCiTPyramid:
    """Build what ``create_model(…, pyramid=True)`` returns; its arguments are those of :func:`xcit_hub.create_model`.

    ``headed`` says that a fresh head follows: it is begun with the seed, also where every weight here is the file's.

    Pretrained weights are a detector's or segmenter's backbone, which has a pyramid, or a classifier, whose blocks are
    taken: then the pyramid is fresh, and a warning says so. They are in eval mode.

    Raises:
        InputError, UnknownNameError, WeightsError, HubError: as :func:`xcit_hub.create_model`.
    """
    if pretrained is False or pretrained is None:
        whole = models.create_model(
            name,
            num_classes=0,
            in_chans=3 if in_chans is None else in_chans,
            dialect=dialect,
            seed=seed,
            init=init,
            **rates,
            **shape,
        )
        return accelerated.accelerate(_pyramid(whole, out_indices, seed, fresh=init), in_place=True)
    if shape or in_chans is not None:
        raise InputError(
            f"{', '.join(shape) or 'in_chans'} was given for pretrained weights, whose architecture is theirs.",
            where=", ".join(f"{field}=…" for field in shape) or "in_chans=…",
            fix="Leave it out, or build the network without weights.",
        )
    wanted = name if pretrained is True else pretrained
    if not isinstance(wanted, str):
        raise InputError(
            f"pretrained is {pretrained!r:.60}.",
            where="pretrained=…",
            fix="Give True, False, or the id of the weights.",
        )
    located = locate(wanted, cache_dir=cache_dir)
    dialect = dialect_of(located, dialect)
    weights = checkpoints.load(located.open(), model=model_of(located, None), dialect=dialect)
    located.check_parts(weights.file)
    expected = variants.architecture(name) if isinstance(name, str) else name
    found = weights.architecture
    if replace(expected, name=found.name, image_size=found.image_size) != found:
        raise WeightsError(
            f"The weights are of {found.name}, and {expected.name} was asked for.",
            where=located.snapshot.origin,
            fix=f"Name {found.name}, or other weights.",
        )
    network = _pyramid(_whole(found, weights.dialect, weights.in_chans, rates), out_indices, seed, fresh=True)
    names = network.parameters_dict()
    arrays = {name: array for name, array in weights.arrays().items() if name in names}
    begun = {name: value.asnumpy() for name, value in names.items() if name.startswith("fpn")}
    if seed is not None and not headed and arrays.keys() >= begun.keys():
        raise InputError(
            f"seed is {seed!r:.40}, and nothing is begun: every weight is the file's.",
            where="seed=…",
            fix="Leave it out, or give a classifier's weights, whose pyramid is fresh.",
        )
    models.load_weights(network, {**begun, **arrays})
    notes = [*weights.doubts]
    if weights.kind != "dense":
        notes.append("the pyramid is fresh and untrained: these are a classifier's weights")
    for note in (*located.description.notes, *notes):
        warnings.warn(f"{located.snapshot.name}: {readable(note)}", stacklevel=3)
    network.config = _described(located, weights, 0, (), notes)
    return accelerated.accelerate(network.set_train(False), in_place=True)


def load_segmenter(
    id: str,  # noqa: A002
    revision: str | None = None,
    *,
    hub: PathLike | None = None,
    cache_dir: PathLike | None = None,
    offline: bool = False,
    dialect: DialectName | None = None,
    model: str | None = None,
    classes: Sequence[str] = (),
    token: str | bool | None = None,
    force_download: bool = False,
) -> XCiTSegmenter:
    """Return the segmenter that ``id`` names, with its weights, in eval mode; ``.config`` describes it.

    Args:
        id: one of the published ``….fb_ade20k_sem_fpn`` and ``….fb_ade20k_upernet``, a file of that layout, or one
            that :meth:`XCiTSegmenter.save` wrote; or what else :func:`xcit_hub.load` takes.
        revision, hub, cache_dir, offline, dialect, model, token, force_download: as for :func:`xcit_hub.load`.
        classes: names for the classes, in place of the file's.

    Raises:
        HubError: the model is in no place that was looked in, cannot be fetched, or is not what was published.
        WeightsError: the file is not a segmenter of the two forms that facebook published.
        InputError: there are not as many names as classes, or the description says another dialect than ``dialect`` or
            another architecture than ``model``.
    """
    located = locate(
        id, revision, hub=hub, cache_dir=cache_dir, offline=offline, token=token, force=force_download
    )  # fmt: skip
    asked = Asked(model=model_of(located, model), dialect=dialect_of(located, dialect))
    read = segmenter.load(located.open(), asked)
    located.check_parts(read.backbone.file)
    weights = read.backbone
    with no_init_parameters():
        network = XCiTSegmenter(
            _whole(weights.architecture, weights.dialect, weights.in_chans), read.segmenter, read.out_indices
        )
    models.load_weights(network, read.arrays())
    labels, notes = _labels(read, classes, located)
    network.window = read.window
    size = read.image_size or segmenters.SHORTER_SIDE
    network.config = _described(located, weights, read.segmenter.num_classes, labels, notes, size)
    for note in (*located.description.notes, *weights.doubts, *read.unused):
        warnings.warn(f"{located.snapshot.name}: {readable(note)}", stacklevel=2)
    return accelerated.accelerate(network.set_train(False), in_place=True)


def _whole(
    architecture: variants.Architecture,
    dialect: DialectName,
    in_chans: int,
    rates: Mapping[str, Any] = _NONE,
) -> models.XCiT:
    return models.create_model(architecture, dialect=dialect, num_classes=0, in_chans=in_chans, init=False, **rates)


def _pyramid(whole: models.XCiT, out_indices: Indices, seed: int | None, *, fresh: bool) -> XCiTPyramid:
    with no_init_parameters():
        network = XCiTPyramid(whole, out_indices)
    if fresh:
        own = [parameter for parameter in network.get_parameters() if parameter.name.startswith("fpn")]
        initialize(own, whole.architecture.eta, seed)
    return network


def _described(
    located: Located,
    weights: Weights,
    num_classes: int,
    labels: Sequence[str],
    notes: Sequence[str],
    image_size: int = segmenters.SHORTER_SIDE,
) -> ModelConfig:
    described = descriptions.of_architecture(
        weights.architecture, weights.dialect, num_classes=num_classes, in_chans=weights.in_chans
    )
    told = weights.file.metadata.get(PREPROCESSING)
    seen = Preprocessing(image_size=image_size, interpolation="bilinear")
    assumed: tuple[str, ...] = ()
    if told is not None:
        seen = metadata.preprocessing_from_metadata(told, weights.file.path, weights.in_chans, seen)
        assumed = metadata.assumed_of_images(weights.file.metadata, seen)
    elif weights.normalization is not None:
        seen = replace(seen, mean=weights.normalization[0], std=weights.normalization[1])
    elif located.config is not None:
        seen = replace(seen, mean=located.config.preprocessing.mean, std=located.config.preprocessing.std)
    promised = located.snapshot.files[located.weights].digest or located.sha256
    provenance = Provenance(
        source=located.snapshot.origin,
        revision=located.snapshot.revision,
        sha256=weights.file.sha256,
        family=weights.family,
        verified="none" if promised is None else "full" if len(promised) in (40, 64) else "prefix",
        notes=(*located.snapshot.notes, *located.description.notes, *weights.notes, *assumed, *notes),
    )
    return replace(described, preprocessing=seen, labels=tuple(labels), provenance=provenance)


def _labels(
    read: segmenter.SegmenterWeights, given: Sequence[str], located: Located
) -> tuple[tuple[str, ...], list[str]]:
    """Return the classes' names, none where nobody says them, and what has to be said of them."""
    count, file = read.segmenter.num_classes, read.backbone.file
    if given:
        if len(given) != count:
            raise InputError(
                f"{len(given)} names were given for {count} classes.",
                where=located.snapshot.origin,
                fix="Give one for each, in the classifier's order.",
            )
        return tuple(given), []
    if CLASSES in file.metadata:
        return metadata.classes_from_metadata(file.metadata[CLASSES], count, file.path), []
    if len(read.classes) == count:
        return read.classes, []
    notes = [f"its {len(read.classes)} names of classes were not used: it has {count} classes"] if read.classes else []
    if count == len(ade20k.names()):
        assumed = "its 150 classes have no names in the file, and were taken for ADE20K's"
        return ade20k.names(), [*notes, *(() if "ade20k" in located.snapshot.name else (assumed,))]
    return (), [*notes, f"its {count} classes have no names; give them, or they are numbered"]
