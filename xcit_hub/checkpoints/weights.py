"""A checkpoint of any family in any format → one network's parameters in the project's names, or the reason why not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints import dtypes as numbers
from xcit_hub.checkpoints import families as dialects
from xcit_hub.checkpoints.checkpoint import Checkpoint, StoredTensor
from xcit_hub.checkpoints.families import LAYOUTS, Dropped, Identity, Kind, Marks, Selection
from xcit_hub.errors import WeightsError
from xcit_hub.variants import CHECKPOINTS, Architecture, Family

# In a file's strings: its architecture was the converter's assumption between two image sizes, and still is.
ARCHITECTURE_ASSUMED = "xcit_hub.architecture_assumed"
# In a file's strings: its classifier is the random one that the converter began, and nothing has trained it since.
HEAD_UNTRAINED = "xcit_hub.head_untrained"


@dataclass
class Weights:
    """One network's parameters in the project's names and layout, and what is known about them.

    Args:
        tensors: our names (``xcit_hub.parameters``) → tensors, in our order, complete and of the right shapes.
        dialect: "paper" or "mindcv".
        family: whose file it was.
        evidence: how the dialect is known.
        kind: whether it is a whole classifier, or which part of one.
        notes: what was assumed, in sentences for the user.
        dropped: the file's other tensors, each with its reason.
        sources: our name → the names it had in the file; none for what a conversion made up.
        assumed: whether nothing tells the architecture from the one of the other image size.
        head_untrained: whether the classifier is random numbers.
    """

    tensors: Mapping[str, StoredTensor]
    architecture: Architecture
    num_classes: int
    in_chans: int
    dialect: str
    family: Family
    evidence: str
    kind: Kind
    notes: list[str] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    assumed: bool = False
    head_untrained: bool = False

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the tensors as read-only arrays, views of the file where they can be; bfloat16 becomes float32."""
        return {name: tensor.numpy() for name, tensor in self.tensors.items()}


def load(
    path: str | os.PathLike[str],
    *,
    model: str | None = None,
    dialect: str | None = None,
    ema: bool = False,
    family: Family | None = None,
) -> Weights:
    """Read a checkpoint of any family and format into the project's names and layout.

    Numbers and dtypes are the file's own, and stay in the mapped file until they are used.

    Args:
        model: the architecture it must be; decides between 224 and 384, which have the same parameters.
        dialect: which network it belongs to, for files that do not tell.
        ema: take the averaged weights rather than the plain ones.
        family: whose file it must be.

    Raises:
        CheckpointError: the file is not a whole checkpoint.
        WeightsError: it is not one XCiT's weights (missing, unexpected, misshapen tensors, NaN, infinity, numbers
            beyond float32, negative variances), nothing tells its dialect, or the configuration beside it was written
            for other bytes or contradicts it.
        UnknownNameError: there is no such model or dialect.
    """
    opened = checkpoint.read(path)
    weights = weights_of(opened, model=model, dialect=dialect, ema=ema, family=family)
    hold_against_config(weights, opened)
    for tensor in checked(weights, path).values():
        for _ in tensor.pieces():
            pass
    return weights


def checked(weights: Weights, path: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """Return the tensors, which raise ``WeightsError`` when they are read and hold what no network can use.

    Args:
        path: the file they come from.
    """
    return {
        name: numbers.sound(tensor, weights.sources[name], variance=is_variance(name), where=path)
        for name, tensor in weights.tensors.items()
    }


def is_variance(name: str) -> bool:
    """Whether a tensor of that name, in any family, is a BatchNorm's variance."""
    return name.endswith((".moving_variance", ".running_var"))


def config_path(target: str | os.PathLike[str]) -> Path:
    """Return where the configuration beside a checkpoint stands.

    ``model.safetensors`` and ``pytorch_model.bin`` are the only checkpoint of their folder and have ``config.json``,
    as on Hugging Face; any other file ``name.suffix`` has ``name.config.json``.
    """
    path = Path(target)
    alone = path.stem in ("model", "pytorch_model")
    return path.with_name("config.json" if alone else f"{path.stem}.config.json")


@dataclass(frozen=True)
class Examined:
    """What a file's names, shapes and marks say, before a single number is read.

    Args:
        tensors: the network's own tensors, under the family's bare names.
    """

    selection: Selection
    tensors: dict[str, StoredTensor]
    identity: Identity
    family: Family
    marks: Marks


def examine(
    opened: Checkpoint, *, model: str | None = None, ema: bool = False, family: Family | None = None
) -> Examined:
    """Find the network in an open file and say which it is, all but its dialect.

    Raises:
        WeightsError: there is no one XCiT in it, or not the one asked for.
        UnknownNameError: there is no such model.
    """
    selection = dialects.select(opened.tensors, ema=ema)
    tensors = {name: opened.tensors[full] for name, full in selection.names.items()}
    marked = tensors.pop(dialects.MINDCV_MARK, None) is not None
    own = None if ARCHITECTURE_ASSUMED in opened.metadata else opened.metadata.get("xcit_hub.architecture")
    identity = dialects.identify({name: tensor.shape for name, tensor in tensors.items()}, model=model or own)
    if model and own and own != identity.architecture.name:
        note = f"The file calls itself {own}; --model says {identity.architecture.name}."
        identity = replace(identity, notes=(*identity.notes, note))
    if _head_untrained(opened, identity):
        note = "The classifier was never trained: it is the random one that a conversion began."
        identity = replace(identity, notes=(*identity.notes, note))
    silent = "xcit_hub.dialect" not in opened.metadata
    marks = Marks(
        file_format=opened.format,
        metadata=opened.metadata,
        sidecar=_sidecar(opened) if silent else {},
        mindcv_mark=marked,
        trained_by_mindcv=identity.naming == "mindcv" and (selection.has_optimizer or selection.both),
        published_as=_published(opened) if silent and identity.naming == "mindcv" else None,
        family=family,
    )
    return Examined(selection, tensors, identity, _family(identity, opened.metadata, family), marks)


def weights_of(
    opened: Checkpoint,
    *,
    model: str | None = None,
    dialect: str | None = None,
    ema: bool = False,
    family: Family | None = None,
) -> Weights:
    """Translate an open file strictly; like :func:`load`, but neither its numbers nor its digest are read yet."""
    try:
        found = examine(opened, model=model, ema=ema, family=family)
        identity = found.identity
        settled, evidence = dialects.settle_dialect(identity.naming, found.marks, dialect)
        tensors = dialects.to_ours(found.tensors, identity.naming, identity.shapes)
    except WeightsError as error:
        raise WeightsError(error.what, where=opened.path, fix=error.fix) from error
    layout = LAYOUTS[identity.naming]
    names = found.selection.names
    return Weights(
        tensors=tensors,
        architecture=identity.architecture,
        num_classes=identity.num_classes,
        in_chans=identity.in_chans,
        dialect=settled,
        family=found.family,
        evidence=evidence,
        kind=identity.kind,
        notes=[*_notes(found.selection, ema), *identity.notes],
        dropped=found.selection.dropped,
        sources={name: tuple(names[part] for part in layout.names(name)) for name in tensors},
        assumed=identity.assumed,
        head_untrained=_head_untrained(opened, identity),
    )


@dataclass(frozen=True)
class ConfigBeside:
    """What the configuration beside a file is to it.

    Args:
        agrees: whether it was written for exactly this file; if not, nothing in it is used.
        sentence: the same in words, for the user.
    """

    agrees: bool
    sentence: str


def hold_against_config(weights: Weights, opened: Checkpoint) -> None:
    """Hold the configuration beside the file of these weights against it, and note if it is not for this file.

    Raises:
        WeightsError: see :func:`check_config`.
    """
    config = check_config(opened)
    if config is not None and not config.agrees:
        weights.notes.append(config.sentence)


def check_config(opened: Checkpoint) -> ConfigBeside | None:
    """Hold the configuration beside a file against it; None if there is none, or it is that of another file there.

    Raises:
        WeightsError: the file is not the one it was written for any more, or says something else of itself.
    """
    path = config_path(opened.path)
    config = _read_config(path)
    ours = config.get("xcit_hub")
    if not isinstance(ours, dict) or not isinstance(ours.get("sha256"), str):
        return None
    if ours["sha256"] != opened.sha256:
        named = ours.get("file")
        if named == opened.path.name:
            raise WeightsError(
                f"{opened.path.name} was changed since {path.name} was written: its SHA-256 is not "
                f"{ours['sha256'][:16]}… any more.",
                where=opened.path,
                fix=f"Restore the file, or delete {path.name} if the change was meant.",
            )
        if _is_of_a_neighbour(path, named):
            return None
        written_for = repr(named) if isinstance(named, str) else "other bytes"
        return ConfigBeside(False, f"{path.name} was written for {written_for}, not for this; nothing in it was used.")
    for key, said in (("architecture", config.get("architecture")), ("dialect", ours.get("dialect"))):
        own = opened.metadata.get(f"xcit_hub.{key}")
        if own is not None and said is not None and said != own:
            raise WeightsError(
                f"{path.name} says {key} {said!r}, and {opened.path.name}, for which it was written, says {own!r}.",
                where=opened.path,
                fix=f"Delete {path.name}, or restore it.",
            )
    return ConfigBeside(True, f"{path.name} was written for this file")


def _is_of_a_neighbour(config: Path, name: object) -> bool:
    if not isinstance(name, str):
        return False
    try:
        neighbour = config.with_name(name)
        return config_path(neighbour) == config and neighbour.exists()
    except (OSError, ValueError):  # no file can have that name
        return False


def _family(identity: Identity, metadata: Mapping[str, str], asked: Family | None) -> Family:
    naming = identity.naming
    if naming == "mindcv" and "xcit_hub.family" in metadata:
        naming = "mindcv" if metadata["xcit_hub.family"] == "mindcv" else "xcit-hub"
    if asked is None or asked == naming or {asked, naming} == {"mindcv", "xcit-hub"}:
        return asked or naming
    raise WeightsError(
        f"The names are {naming}'s, not {asked}'s.",
        fix="Use xcit-hub convert, which tells the families apart by itself.",
    )


def _notes(selection: Selection, ema: bool) -> list[str]:
    notes = []
    if selection.both:
        taken, left = ("averaged", "plain") if ema else ("plain", "averaged (EMA)")
        notes.append(f"Plain and averaged weights were both there; took the {taken} ones, left the {left} ones.")
    elif selection.averaged and not ema:
        notes.append("Only averaged (EMA, teacher) weights were there; took those.")
    if selection.has_optimizer:
        count = sum("optimizer" in entry.reason for entry in selection.dropped)
        notes.append(f"Dropped {count} tensors of optimizer or training state.")
    return notes


def _head_untrained(opened: Checkpoint, identity: dialects.Identity) -> bool:
    return HEAD_UNTRAINED in opened.metadata and identity.kind == "classifier"


def _published(opened: Checkpoint) -> tuple[str, str] | None:
    for entry in CHECKPOINTS.values():
        if entry.sha256 is not None and opened.sha256.startswith(entry.sha256):
            return entry.name, entry.dialect
    return None


def _sidecar(opened: Checkpoint) -> dict[str, str]:
    """The strings of the configuration beside a file, if it was written for exactly that file."""
    ours = _read_config(config_path(opened.path)).get("xcit_hub")
    if not isinstance(ours, dict) or ours.get("sha256") != opened.sha256:
        return {}
    return {f"xcit_hub.{key}": value for key, value in ours.items() if isinstance(value, str)}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
