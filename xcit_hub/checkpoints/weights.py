"""A checkpoint of any family in any format → one network's parameters in the project's names, or the reason why not."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xcit_hub.checkpoints import checkpoint, strings
from xcit_hub.checkpoints.beside import Dropped
from xcit_hub.checkpoints.check import Doubts, checked
from xcit_hub.checkpoints.checkpoint import Checkpoint, StoredTensor
from xcit_hub.checkpoints.dialect import settle
from xcit_hub.checkpoints.families import Kind
from xcit_hub.checkpoints.identify import identify
from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.checkpoints.reading import Asked, Evidence, Reading
from xcit_hub.checkpoints.sidecar import check_config
from xcit_hub.checkpoints.translate import translate
from xcit_hub.checkpoints.unwrap import unwrap
from xcit_hub.errors import WeightsError
from xcit_hub.variants import Architecture, DialectName, Family, GlobalPool

# The steps between an open file and numbers to be checked, in their order.
STEPS = (unwrap, identify, settle, translate)
_INSPECT = "xcit-hub inspect"


@dataclass
class Weights:
    """One network's parameters in the project's names and layout, and what is known about them.

    Args:
        tensors: our names (``xcit_hub.parameters``) → tensors, in our order, complete and of the right shapes.
        dialect: what the network computes.
        family: whose file it was.
        evidence: how the dialect is known, in words; ``evidence_kind`` is the same as a value.
        kind: whether it is a whole classifier, or which part of one.
        notes: what was assumed, in sentences for the user.
        dropped: the file's other tensors, each with its reason.
        sources: our name → the names it had in the file; none for what a conversion made up.
        assumed: whether nothing tells the architecture from the one of the other image size.
        head_untrained: whether the classifier is random numbers.
        unused: those of the notes that say which of its trainer's settings, or descriptions beside it, are not used.
        doubts: those of the notes that say which tensors look untrained or damaged.
        normalization: mean and deviation of each channel of an image, where a wrapper around the network kept them,
            or the file it was converted from.
        prefix: what stands before the network's names in the file.
        global_pool: what the classifier reads, by the file's own strings or its trainer's.
        file: the open file, with its digest and strings: what is said of it is said of the bytes that were read.
    """

    tensors: Mapping[str, StoredTensor]
    architecture: Architecture
    num_classes: int
    in_chans: int
    dialect: DialectName
    family: Family
    evidence: str
    evidence_kind: Evidence
    kind: Kind
    file: Checkpoint
    notes: list[str] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    assumed: bool = False
    head_untrained: bool = False
    unused: tuple[str, ...] = ()
    doubts: list[str] = field(default_factory=list)
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    prefix: str = ""
    global_pool: GlobalPool = "token"

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the tensors as read-only arrays, views of the file where they can be; bfloat16 becomes float32."""
        return {name: tensor.numpy() for name, tensor in self.tensors.items()}


def load(
    path: str | os.PathLike[str] | MappedFile,
    *,
    model: str | None = None,
    dialect: DialectName | None = None,
    ema: bool = False,
    family: Family | None = None,
    select: str | None = None,
    prefix: str | None = None,
) -> Weights:
    """Read a checkpoint of any family and format into the project's names and layout.

    Numbers and dtypes are the file's own, and stay in the mapped file until they are used.

    Args:
        path: the file, or what :func:`xcit_hub.checkpoints.checkpoint.opened` made of it.
        model: the architecture it must be; decides between 224 and 384, which have the same parameters.
        dialect: which network it belongs to, for files that do not tell.
        ema: take the averaged weights rather than the plain ones.
        family: whose file it must be.
        select: which of several networks in the file, by a part of its prefix ("teacher").
        prefix: under which prefix exactly the network is.

    Raises:
        CheckpointError: the file is not a whole checkpoint.
        WeightsError: it is not one XCiT's weights (missing, unexpected, misshapen tensors, NaN, infinity, numbers
            beyond float32, negative variances), nothing tells its dialect, or the configuration beside it was written
            for other bytes or contradicts it.
        UnknownNameError: there is no such model or dialect.
    """
    with recommending_inspection(path):
        opened = checkpoint.read(path)
        weights = weights_of(opened, Asked(model, dialect, ema, select, prefix, family))
        hold_against_config(weights, opened)
        doubts = Doubts()
        for tensor in checked(weights.tensors, weights.sources, opened.path, doubts).values():
            for _ in tensor.pieces():
                pass
    weights.doubts = doubts.notes()
    weights.notes += weights.doubts
    return weights


def weights_of(opened: Checkpoint, asked: Asked) -> Weights:
    """Take an open file through the steps; like :func:`load`, but neither its numbers nor its digest are read yet."""
    reading = Reading(opened, asked)
    try:
        for step in STEPS:
            step(reading)
        return _weights(reading)
    except WeightsError as error:
        raise WeightsError(error.what, where=opened.path, fix=error.fix) from error


@contextmanager
def recommending_inspection(path: str | os.PathLike[str] | MappedFile) -> Iterator[None]:
    """Have errors about what is in a checkpoint recommend to look first; of no checkpoint ``inspect`` says more."""
    try:
        yield
    except WeightsError as error:
        file = path.path if isinstance(path, MappedFile) else Path(path)
        if error.where == str(file) and file.is_file() and _INSPECT not in (error.fix or ""):
            look = f"See what is in the file: {_INSPECT} {shlex.quote(str(file))}"
            error.fix = f"{look}. {error.fix}" if error.fix else look
        raise


def hold_against_config(weights: Weights, opened: Checkpoint) -> None:
    """Hold the configuration beside the file of these weights against it, and note if it is not for this file.

    Raises:
        WeightsError: see :func:`xcit_hub.checkpoints.sidecar.check_config`.
    """
    config = check_config(opened)
    if config is not None and not config.agrees:
        weights.notes.append(config.sentence)


def family_of(reading: Reading) -> Family:
    """Return whose file it is: by its names, by what it says, and by what the caller says.

    Raises:
        WeightsError: the names are not the asked family's.
    """
    naming, asked, metadata = reading.identity.naming, reading.asked.family, reading.file.metadata
    if naming == "mindcv" and "xcit_hub.family" in metadata:
        naming = "mindcv" if metadata["xcit_hub.family"] == "mindcv" else "xcit-hub"
    mint = asked == "mindcv" and reading.settled.dialect not in ("paper", "mindcv")
    if asked is None or asked == naming or {asked, naming} == {"mindcv", "xcit-hub"} or mint:
        return asked or naming
    raise WeightsError(
        f"The names are {naming}'s, not {asked}'s.",
        where=reading.file.path,
        fix="Use xcit-hub convert, which tells the families apart by itself.",
    )


def _of_zip(file: Checkpoint) -> Iterator[str]:
    """Say that a description was packed with the checkpoint: beside an unpacked one it would be read."""
    if described := [name for name in file.packed_with if name.lower().endswith(".json")]:
        listed = ", ".join(f"{name!r:.60}" for name in described[:3])
        yield f"Of the zip, nothing but the checkpoint is read; descriptions in it ({len(described)}): {listed}."


def _weights(reading: Reading) -> Weights:
    found, identity = reading.found, reading.identity
    of_zip = tuple(_of_zip(reading.file))
    return Weights(
        tensors=reading.tensors,
        architecture=identity.architecture,
        num_classes=identity.num_classes,
        in_chans=identity.in_chans,
        dialect=reading.settled.dialect,
        family=family_of(reading),
        evidence=reading.settled.sentence,
        evidence_kind=reading.settled.evidence,
        kind=identity.kind,
        file=reading.file,
        notes=[*found.notes, *identity.notes, *of_zip],
        dropped=found.dropped,
        sources={name: tuple(found.names[part] for part in identity.layout.names(name)) for name in reading.tensors},
        assumed=identity.assumed,
        head_untrained=identity.head_untrained,
        unused=(*identity.unused, *of_zip),
        normalization=normalization_of(reading),
        prefix=found.prefix,
        global_pool=strings.global_pool(reading.file.metadata),
    )


def normalization_of(reading: Reading) -> strings.Levels | None:
    """Return the mean and deviation of images that stand beside a network, of 0…1; None where there are none.

    Raises:
        WeightsError: they are none, not of the network's channels, or the file's own string says others.
    """
    if reading.found.normalization is None:
        told = strings.normalization(reading.file.metadata)
        if told is None:
            return None
        mean, std = told
    else:
        for tensor in reading.found.normalization:
            if not tensor.dtype.startswith(("float16", "float32", "float64", "bfloat16", "int", "uint")):
                raise WeightsError(
                    f"The normalisation beside the network is of {tensor.dtype}, of which none is made.",
                    where=reading.file.path,
                    fix="Take the network's own state_dict, without the wrapper around it.",
                )
        mean, std = (tuple(map(float, np.ravel(tensor.numpy()))) for tensor in reading.found.normalization)
    if not np.isfinite([*mean, *std]).all() or min(std) <= 0:
        raise WeightsError(
            f"The normalisation beside the network is not one: mean {mean}, deviation {std}.",
            where=reading.file.path,
            fix="Take the network's own state_dict, without the wrapper around it.",
        )
    if reading.found.normalization is not None and reading.identity.in_chans == 3 and len(mean) not in (1, 3):
        raise WeightsError(
            f"The normalisation beside the network is of {len(mean)} channels, and its images have 3.",
            where=reading.file.path,
            fix="Take the network's own state_dict, without the wrapper around it.",
        )
    if max(map(abs, (*mean, *std))) > 2:  # of bytes, as mmengine's data preprocessors have it
        mean, std = (tuple(value / 255 for value in values) for values in (mean, std))
    if apart := strings.apart_from_levels(reading.file.metadata, (mean, std)):
        raise WeightsError(
            f"The normalisation beside the network is mean {mean}, deviation {std}, and the file's own "
            f"{strings.PREPROCESSING} says {apart}.",
            where=reading.file.path,
            fix="Take the file from where it was written, or the network's own state_dict, without the wrapper.",
        )
    return mean, std
