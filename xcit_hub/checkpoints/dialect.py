"""The step *settle*: what the network computes, which names alone do not tell. Known without doubt, or asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast, get_args

from xcit_hub.checkpoints import sidecar
from xcit_hub.checkpoints.checkpoint import Checkpoint
from xcit_hub.checkpoints.families import MARKS
from xcit_hub.checkpoints.formats.kinds import Format
from xcit_hub.checkpoints.reading import Evidence, Reading, Settled
from xcit_hub.errors import WeightsError
from xcit_hub.variants import CHECKPOINTS, DIALECTS, DialectName, Family
from xcit_hub.variants import dialect as dialect_of_name

# MindCV's network of mint layers has facebook's names, in MindSpore's files.
_MINT: DialectName = "mindcv-mint"


@dataclass(frozen=True)
class Marks:
    """What a file carries, apart from its tensors' names, that tells whose it is.

    Args:
        metadata: the file's strings.
        sidecar: the strings of the ``config.json`` that was written for this very file.
        mark: the dialect whose class in ``xcit_hub.timm`` left its mark among the tensors.
        trained_by_mindcv: whether the state of MindSpore's trainer is among the tensors.
        published_as: the name under which these very bytes were published, if they were, and its dialect.
        family: whose file the caller says it is.
    """

    file_format: Format
    metadata: Mapping[str, str] = field(default_factory=dict)
    sidecar: Mapping[str, str] = field(default_factory=dict)
    mark: DialectName | None = None
    trained_by_mindcv: bool = False
    published_as: tuple[str, DialectName] | None = None
    family: Family | None = None


def settle(reading: Reading) -> None:
    """Settle what the network computes.

    Raises:
        WeightsError, UnknownNameError: see :func:`of_marks`.
    """
    file, naming, found = reading.file, reading.identity.naming, reading.found
    silent = "xcit_hub.dialect" not in file.metadata
    marks = Marks(
        file_format=file.format,
        metadata=file.metadata,
        sidecar=sidecar.strings(file) if silent else {},
        mark=found.marked,
        trained_by_mindcv=file.format == "ckpt" and (found.has_optimizer or found.both),
        published_as=_published(file) if silent and naming == "mindcv" else None,
        family=reading.asked.family,
    )
    reading.settled = of_marks(naming, marks, reading.asked.dialect)


def of_marks(naming: Family, marks: Marks, asked: DialectName | None = None) -> Settled:
    """Return the dialect of a network and how it is known.

    Args:
        naming: whose names the tensors have.
        asked: the dialect the caller gave, needed where nothing else tells.

    Raises:
        WeightsError: nothing tells, or what tells contradicts ``asked``.
        UnknownNameError: there is no such dialect.
    """
    if asked is not None:
        dialect_of_name(asked)
    known = _known(naming, marks)
    if known is None:
        if asked is None or asked not in _possible(naming):
            raise _undecided(naming, asked)
        return Settled(asked, Evidence.CALLER, Evidence.CALLER.value)
    dialect_of_name(known.dialect)
    if asked not in (None, known.dialect):
        raise WeightsError(
            f"--dialect {asked} contradicts the file: {known.sentence}, which makes it {known.dialect}.",
            fix="Leave out --dialect.",
        )
    return known


def _known(naming: Family, marks: Marks) -> Settled | None:
    for evidence, strings in ((Evidence.METADATA, marks.metadata), (Evidence.CONFIG, marks.sidecar)):
        if "xcit_hub.dialect" in strings:
            return _by(cast(DialectName, strings["xcit_hub.dialect"]), evidence)
    if marks.mark is not None:
        return _by(marks.mark, Evidence.MARK, MARKS[marks.mark])
    if naming == "timm":
        return _by("paper", Evidence.TIMM)
    if naming in ("mmpretrain", "paddlevit"):
        return _by("paper", Evidence.PORT, naming)
    if naming == "facebook" and (marks.file_format == "pth" or marks.metadata.get("format") == "pt"):
        return _by("paper", Evidence.PYTORCH)
    mindcvs: DialectName = _MINT if naming == "facebook" else "mindcv"
    if marks.published_as is not None:
        return _by(marks.published_as[1], Evidence.PUBLISHED, marks.published_as[0])
    if marks.trained_by_mindcv:
        return _by(mindcvs, Evidence.TRAINER)
    return _by(mindcvs, Evidence.COMMAND) if marks.family == "mindcv" else None


def _by(dialect: DialectName, evidence: Evidence, *names: str) -> Settled:
    return Settled(dialect, evidence, evidence.value.format(*names))


def _possible(naming: Family) -> tuple[DialectName, ...]:
    """The dialects that a file with those names can be of, where nothing else tells."""
    return ("paper", _MINT) if naming == "facebook" else get_args(DialectName)


def _undecided(naming: Family, asked: DialectName | None) -> WeightsError:
    possible = _possible(naming)
    explained = "; ".join(f"--dialect {name}: {DIALECTS[name].explanation}" for name in possible)
    whose = "facebook's names in a file of MindSpore's" if naming == "facebook" else "MindSpore's names"
    if asked is not None:
        return WeightsError(
            f"These weights cannot be of the dialect {asked}: they have {whose}.", fix=f"Say which. {explained}."
        )
    return WeightsError(
        f"The file does not tell which network these weights belong to. Several share {whose}, and each gives "
        "wrong answers with the other's weights.",
        fix=f"Say which. {explained}.",
    )


def _published(file: Checkpoint) -> tuple[str, DialectName] | None:
    for entry in CHECKPOINTS.values():
        if entry.family == "mindcv" and entry.sha256 is not None and file.sha256.startswith(entry.sha256):
            return entry.name, entry.dialect
    return None
