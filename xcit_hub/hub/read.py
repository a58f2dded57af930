"""From a model that was found to its parameters: fetched, hashed, translated, held against their description.

``Located → store.fetch (hashed) → checkpoints → one network's parameters in our names``.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from xcit_hub.checkpoints.strings import same_levels
from xcit_hub.errors import HubError, InputError, UnknownNameError, WeightsError
from xcit_hub.hub import config, metadata
from xcit_hub.hub.config import ModelConfig, Provenance
from xcit_hub.hub.locate import Located
from xcit_hub.variants import Architecture, DialectName

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xcit_hub.checkpoints.weights import Weights

T = TypeVar("T")


def begin(work: Callable[[], T]) -> Callable[[], T]:
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


@dataclass(frozen=True)
class Filling:
    """What a network is built from, and filled with.

    Args:
        arrays: every parameter and buffer by MindCV's names, float32, in memory that is nobody else's.
    """

    weights: Weights
    described: ModelConfig
    arrays: dict[str, NDArray[np.float32]]


def filling(located: Located, dialect: DialectName | None) -> Filling:
    """Read a located model for a network of its own; raises as :func:`read` does."""
    weights, described = read(located, dialect)
    return Filling(weights, described, {name: owned(array) for name, array in weights.arrays().items()})


def owned(array: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return an array's numbers as float32, in C order, in memory that can be written to and is nobody else's."""
    return np.array(array, dtype=np.float32, order="C")


def read(located: Located, dialect: DialectName | None) -> tuple[Weights, ModelConfig]:
    """Return the parameters of a located model and its description, provenance included; the file is fetched.

    Args:
        dialect: for bare files that do not say theirs.

    Raises:
        InputError: the description says another dialect or architecture than was asked for.
        HubError: the file cannot be had, or is not what the description says.
        WeightsError, CheckpointError: the file is not one XCiT's weights.
    """
    from xcit_hub.checkpoints.weights import load as read_checkpoint

    known = located.config
    dialect = dialect_of(located, dialect)
    model = model_of(located, located.asked.model)
    opened = located.open()
    custom, asked = None if known is None else known.custom, located.asked
    try:
        weights = read_checkpoint(
            opened,
            model=model if known is None or known.shape.use_pos_embed else known.measured_as,
            dialect=dialect,
            select=asked.select,
            prefix=asked.prefix,
        )
    except UnknownNameError:
        if custom is None:
            raise
        raise _of_another(custom, "one of other dimensions", located) from None
    located.check_parts(weights.file)
    if weights.kind in ("dense", "features"):
        raise WeightsError(
            f"{opened.path.name} is the backbone of a detector or segmenter: blocks without class attention and "
            "classifier, of which no whole network can be made.",
            where=located.snapshot.origin,
            fix=f"See what is in it: xcit-hub inspect {shlex.quote(str(opened.path))}; "
            "xcit_hub.create_model(…, pretrained=ID, pyramid=True) takes it, xcit_hub.load_segmenter a segmenter "
            "whole (xcit-hub predict --segment); xcit-hub convert writes it for timm's features_only.",
        )
    described, notes = _normalized(known, weights) if known else (of_weights(weights), ())
    notes += assumed(located, weights, described)
    if custom is not None:
        _check_custom(custom, weights, located)
        weights = _as_described(weights, custom)
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
        sha256=weights.file.sha256,
        family=weights.family,
        verified="none" if promised is None else "full" if len(promised) in (40, 64) else "prefix",
        notes=(*located.snapshot.notes, *located.description.notes, *notes, *weights.notes),
    )
    return weights, replace(described, provenance=provenance)


def dialect_of(located: Located, asked: DialectName | None) -> DialectName | None:
    """Return the dialect of a located model: what its description says, and what was asked for where there is none.

    Raises:
        InputError: the description says another one than was asked for.
    """
    if located.config is None:
        return asked
    if asked not in (None, located.config.dialect):
        raise InputError(
            f"{located.snapshot.name} is of the {located.config.dialect} dialect, and {asked!r} was asked for.",
            where=located.snapshot.origin,
            fix="Leave the dialect out: the model's description says it.",
        )
    return located.config.dialect


def model_of(located: Located, asked: str | None) -> str | None:
    """Return by which name the file's architecture is asked for: its description's, and ``asked`` where there is none.

    Raises:
        InputError: the description says another one than was asked for.
    """
    known = located.config
    if known is None:
        return asked
    if asked not in (None, known.architecture, known.stored_as):
        raise InputError(
            f"{located.snapshot.name} is {known.architecture}, and {asked} was asked for.",
            where=located.snapshot.origin,
            fix="Leave the model out: the description says it.",
        )
    return known.stored_as


def of_weights(weights: Weights) -> ModelConfig:
    """Return what a bare checkpoint file says of its model: its tensors, and the strings that travel with them.

    Raises:
        HubError, WeightsError: a string of it is malformed.
    """
    described = config.of_architecture(
        weights.architecture, weights.dialect, num_classes=weights.num_classes, in_chans=weights.in_chans
    )
    if weights.normalization is not None:
        mean, std = weights.normalization
        described = replace(described, preprocessing=replace(described.preprocessing, mean=mean, std=std))
    return metadata.with_metadata(described, weights.file.metadata, weights.file.path)


def assumed(located: Located, weights: Weights, described: ModelConfig) -> tuple[str, ...]:
    """Say what was assumed of images, and what the file's own strings say otherwise than the description."""
    if located.config is not None:  # which is what is read
        return metadata.unlike(described, weights.file.metadata, weights.file.path)
    return metadata.assumed_of_images(weights.file.metadata, described.preprocessing)


def notes_of(located: Located, weights: Weights, described: ModelConfig) -> list[str]:
    """Say what a user is warned of whose network has these weights: what was not used, assumed, or looks damaged."""
    unused = weights.unused if located.config is None else ()  # a description decides
    return [*located.description.notes, *weights.doubts, *unused, *assumed(located, weights, described)]


def _normalized(described: ModelConfig, weights: Weights) -> tuple[ModelConfig, tuple[str, ...]]:
    """Return a description with the mean and deviation that a wrapper around the weights kept; and what to say."""
    if weights.normalization is None:
        return described, ()
    seen = described.preprocessing
    mean, std = weights.normalization
    taken = replace(seen, mean=mean, std=std)
    if same_levels(seen.mean, mean) and same_levels(seen.std, std):
        return described, ()
    note = (
        f"images are normalised by the weights' own mean {mean} and deviation {std}, which stood in a wrapper around "
        f"them; the description says {seen.mean} and {seen.std}"
    )
    return replace(described, preprocessing=taken), (note,)


def _as_described(weights: Weights, custom: Architecture) -> Weights:
    """Return the weights without positions, as timm takes them, where their network has none; and with what to say."""
    # What had to be assumed of an architecture that is in no table, its description says.
    notes = [note for note in weights.notes if not note.startswith("No known architecture ")]
    if custom.use_pos_embed or not weights.architecture.use_pos_embed:
        return replace(weights, notes=notes)
    kept = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith("pos_embeder.")}
    gone = len(weights.tensors) - len(kept)
    notes.append(f"Dropped {gone} tensors of the positional encoding: the description says that there is none.")
    return replace(weights, tensors=kept, notes=notes)


def _check_custom(claimed: Architecture, weights: Weights, located: Located) -> None:
    # What tensors cannot tell may differ; all else is held against them before a network of that size is built.
    found = weights.architecture
    told = replace(
        found,
        name=claimed.name,
        eta=claimed.eta,
        tokens_norm=claimed.tokens_norm,
        image_size=claimed.image_size,
        use_pos_embed=claimed.use_pos_embed and found.use_pos_embed,
    )
    if len(claimed.stem_strides) == len(found.stem_strides):
        told = replace(told, patch_size=claimed.patch_size, strides=claimed.strides)
    if told != claimed:
        raise _of_another(claimed, found.name, located)


def _of_another(claimed: Architecture, found: str, located: Located) -> HubError:
    return HubError(
        f"The weights are of another architecture ({found}) than {claimed.name}, which their description says.",
        where=located.snapshot.origin,
        fix="Publish the model again.",
    )
