"""What is in a checkpoint file, told even where it is not an XCiT or does not say which."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.check import Doubts, flaws, is_variance, sound
from xcit_hub.checkpoints.checkpoint import Checkpoint, StoredTensor
from xcit_hub.checkpoints.dialect import settle
from xcit_hub.checkpoints.identity import Identity
from xcit_hub.checkpoints.reading import Asked, Reading
from xcit_hub.checkpoints.sidecar import check_config
from xcit_hub.checkpoints.strings import Levels
from xcit_hub.checkpoints.weights import STEPS, normalization_of
from xcit_hub.errors import WeightsError, XcitHubError
from xcit_hub.parameters import trainable
from xcit_hub.variants import DialectName

# Counts up when a field of the JSON changes its meaning or goes.
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One tensor of the file.

    Args:
        sha256: of its bytes.
        dropped: why a conversion leaves it out, or None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    dropped: str | None


@dataclass(frozen=True)
class Inspection:
    """What a file holds. ``None`` stands where it cannot be told, ``fault`` says why and ``advice`` what to do.

    Args:
        values: what stands beside the tensors: numbers, settings, states of random generators.
        packed_with: other files of the zip that it is packed in, which nothing reads.
        dropped: why tensors are left out → how many.
        parameters: trainable parameters of the network.
        dtypes: dtype → number of tensors of the network.
        averaged: whether averaged (EMA) weights are there.
        optimizer: whether optimizer state is there.
        normalization: mean and deviation of images, of 0…1, where a wrapper around the network kept them, or the file
            it was converted from.
        flaws: "non_finite", "beyond_float32" or "negative_variances" → tensor → how many numbers of it are.
        config: what the configuration beside the file is to it; None where there is none for it.
        entries: every tensor, if asked for.
    """

    path: Path
    format: str
    bytes: int
    sha256: str
    metadata: dict[str, str]
    values: list[str]
    packed_with: list[str]
    tensors: int
    dropped: dict[str, int]
    averaged: bool
    optimizer: bool
    dtypes: dict[str, int]
    family: str | None
    architecture: str | None
    kind: str | None
    num_classes: int | None
    in_chans: int | None
    parameters: int | None
    dialect: DialectName | None
    evidence: str | None
    normalization: tuple[list[float], list[float]] | None
    flaws: dict[str, dict[str, int]]
    config: str | None
    notes: list[str]
    fault: str | None
    advice: str | None
    entries: list[Entry]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        entries = [{**vars(entry), "shape": list(entry.shape)} for entry in self.entries]
        return {"format_version": FORMAT_VERSION, **vars(self), "path": str(self.path), "entries": entries}


def inspect(path: str | os.PathLike[str], *, tensors: bool = False, asked: Asked | None = None) -> Inspection:
    """Read all that a checkpoint says about itself.

    Args:
        tensors: also list and hash every tensor.
        asked: what the caller says of it, or wants of it: which of several networks, for example.

    Raises:
        CheckpointError: the file is not a whole checkpoint.
    """
    opened = checkpoint.read(path)
    reading = Reading(opened, asked or Asked())
    fault, advice, translated = _through(reading)
    images, wrong = _images(reading) if translated else (None, None)
    if wrong is not None and fault is None:
        fault, advice = wrong.what, wrong.fix
    found = getattr(reading, "found", None) if translated else None
    identity: Identity | None = getattr(reading, "identity", None) if translated else None
    settled = getattr(reading, "settled", None) if translated else None
    dropped = {entry.name: entry.reason.value for entry in found.dropped} if found else {}
    flawed = _flaws(opened.tensors)
    return Inspection(
        path=opened.path,
        format=opened.format,
        bytes=opened.nbytes,
        sha256=opened.sha256,
        metadata=opened.metadata,
        values=opened.values,
        packed_with=opened.packed_with,
        tensors=len(opened.tensors),
        dropped=dict(Counter(dropped.values())),
        averaged=bool(found and (found.both or found.averaged)),
        optimizer=bool(found and found.has_optimizer),
        dtypes=dict(Counter(tensor.dtype for tensor in (found.tensors if found else opened.tensors).values())),
        family=identity.naming if identity else None,
        architecture=identity.architecture.name if identity else None,
        kind=identity.kind if identity else None,
        num_classes=identity.num_classes if identity else None,
        in_chans=identity.in_chans if identity else None,
        parameters=_parameters(identity) if identity else None,
        dialect=settled.dialect if settled else None,
        evidence=settled.sentence if settled else None,
        normalization=None if images is None else (list(images[0]), list(images[1])),
        flaws=flawed,
        config=_config(opened),
        notes=[
            *(found.notes if found else ()),
            *(identity.notes if identity else ()),
            *(_doubts(found.tensors) if found and not flawed else ()),
        ],
        fault=fault,
        advice=advice,
        entries=_entries(opened, dropped) if tensors else [],
    )


def _through(reading: Reading) -> tuple[str | None, str | None, bool]:
    """Take a file through the steps; what it lacks, what to do, and whether it is one XCiT, of whatever dialect."""
    fault = advice = None
    for step in STEPS:
        try:
            step(reading)
        except XcitHubError as error:
            fault, advice = error.what, error.fix
            if step is not settle:
                return fault, advice, False
    return fault, advice, True


def _images(reading: Reading) -> tuple[Levels | None, WeightsError | None]:
    """How images are normalised, as a conversion would write it, or why it would not."""
    try:
        return normalization_of(reading), None
    except WeightsError as error:
        return None, error


def _config(opened: Checkpoint) -> str | None:
    try:
        config = check_config(opened)
    except WeightsError as error:
        return error.what
    return config.sentence if config is not None else None


def _flaws(tensors: Mapping[str, StoredTensor]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, tensor in tensors.items():
        for flaw, count in flaws(tensor, variance=is_variance(name)).items():
            found.setdefault(flaw, {})[name] = count
    return found


def _doubts(tensors: Mapping[str, StoredTensor]) -> list[str]:
    doubts = Doubts()
    for name, tensor in tensors.items():
        for _ in sound(tensor, (name,), variance=is_variance(name), doubts=doubts).pieces():
            pass
    return doubts.notes()


def _parameters(identity: Identity) -> int:
    return sum(math.prod(shape) for name, shape in identity.shapes.items() if trainable(name))


def _entries(opened: Checkpoint, dropped: dict[str, str]) -> list[Entry]:
    entries = []
    for name, tensor in opened.tensors.items():
        digest = hashlib.sha256()
        for piece in tensor.pieces():
            digest.update(piece)
        entries.append(Entry(name, tensor.dtype, tensor.shape, digest.hexdigest(), dropped.get(name)))
    return entries
