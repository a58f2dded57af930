"""What is in a checkpoint file, told even where it is no XCiT or does not say which."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints import dtypes as numbers
from xcit_hub.checkpoints import families as dialects
from xcit_hub.checkpoints.checkpoint import Checkpoint
from xcit_hub.checkpoints.weights import Examined, check_config, examine, is_variance
from xcit_hub.errors import WeightsError, XcitHubError
from xcit_hub.parameters import trainable


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
    """What a file holds. ``None`` stands where it cannot be told, and ``fault`` says why.

    Args:
        parameters: trainable numbers of the network.
        dtypes: dtype → number of tensors of the network.
        averaged: whether averaged (EMA) weights are there.
        optimizer: whether optimizer state is there.
        flaws: "non_finite", "beyond_float32" or "negative_variances" → tensor → how many numbers of it are.
        config: what the configuration beside the file is to it; None where there is none for it.
        entries: every tensor, if asked for.
    """

    path: Path
    format: str
    bytes: int
    sha256: str
    metadata: dict[str, str]
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
    dialect: str | None
    evidence: str | None
    flaws: dict[str, dict[str, int]]
    config: str | None
    notes: list[str]
    fault: str | None
    entries: list[Entry]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        entries = [{**vars(entry), "shape": list(entry.shape)} for entry in self.entries]
        return {**vars(self), "path": str(self.path), "entries": entries}


def inspect(path: str | os.PathLike[str], *, tensors: bool = False) -> Inspection:
    """Read all that a checkpoint says about itself.

    Args:
        tensors: also list and hash every tensor.

    Raises:
        CheckpointError: the file is not a whole checkpoint.
    """
    opened = checkpoint.read(path)
    found, fault = _examined(opened)
    dialect, evidence, undecided = _dialect(found)
    identity = found.identity if found else None
    dropped = {entry.name: entry.reason for entry in found.selection.dropped} if found else {}
    return Inspection(
        path=opened.path,
        format=opened.format,
        bytes=opened.path.stat().st_size,
        sha256=opened.sha256,
        metadata=opened.metadata,
        tensors=len(opened.tensors),
        dropped=dict(Counter(dropped.values())),
        averaged=bool(found and (found.selection.both or found.selection.averaged)),
        optimizer=bool(found and found.selection.has_optimizer),
        dtypes=dict(Counter(tensor.dtype for tensor in (found.tensors if found else opened.tensors).values())),
        family=found.family if found else None,
        architecture=identity.architecture.name if identity else None,
        kind=identity.kind if identity else None,
        num_classes=identity.num_classes if identity else None,
        in_chans=identity.in_chans if identity else None,
        parameters=_parameters(identity) if identity else None,
        dialect=dialect,
        evidence=evidence,
        flaws=_flaws(opened),
        config=_config(opened),
        notes=list(identity.notes) if identity else [],
        fault=fault or undecided,
        entries=_entries(opened, dropped) if tensors else [],
    )


def _examined(opened: Checkpoint) -> tuple[Examined | None, str | None]:
    try:
        found = examine(opened)
        dialects.to_ours(found.tensors, found.identity.naming, found.identity.shapes)
    except XcitHubError as error:
        return None, error.what
    return found, None


def _config(opened: Checkpoint) -> str | None:
    try:
        config = check_config(opened)
    except WeightsError as error:
        return error.what
    return config.sentence if config is not None else None


def _flaws(opened: Checkpoint) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, tensor in opened.tensors.items():
        for flaw, count in numbers.flaws(tensor, variance=is_variance(name)).items():
            found.setdefault(flaw, {})[name] = count
    return found


def _dialect(found: Examined | None) -> tuple[str | None, str | None, str | None]:
    if found is None:
        return None, None, None
    try:
        return *dialects.settle_dialect(found.identity.naming, found.marks), None
    except WeightsError as error:
        return None, None, error.what


def _parameters(identity: dialects.Identity) -> int:
    return sum(math.prod(shape) for name, shape in identity.shapes.items() if trainable(name))


def _entries(opened: Checkpoint, dropped: dict[str, str]) -> list[Entry]:
    entries = []
    for name, tensor in opened.tensors.items():
        digest = hashlib.sha256()
        for piece in tensor.pieces():
            digest.update(piece)
        entries.append(Entry(name, tensor.dtype, tensor.shape, digest.hexdigest(), dropped.get(name)))
    return entries
