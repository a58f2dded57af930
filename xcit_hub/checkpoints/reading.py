"""The one object that passes through the steps: a file on its way to a network's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from xcit_hub.checkpoints.beside import Dropped, Reason
from xcit_hub.checkpoints.checkpoint import Checkpoint
from xcit_hub.checkpoints.identity import Identity
from xcit_hub.checkpoints.tensor import StoredTensor
from xcit_hub.variants import DialectName, Family


@dataclass(frozen=True)
class Asked:
    """What the caller says of a file, or wants of it.

    Args:
        model: the architecture it must be; decides between 224 and 384, which have the same parameters.
        dialect: which network it belongs to, for files that do not tell.
        ema: take the averaged weights rather than the plain ones.
        select: which of several networks, by a part of its prefix ("teacher").
        prefix: under which prefix exactly the network is ("student.backbone").
        family: whose file it must be.
    """

    model: str | None = None
    dialect: DialectName | None = None
    ema: bool = False
    select: str | None = None
    prefix: str | None = None
    family: Family | None = None


@dataclass(frozen=True)
class Found:
    """The network in a file: the step *unwrap*.

    Args:
        prefix: what stands before its names in the file, with the dot at its end.
        names: name within the network → name in the file.
        tensors: the same names → tensors.
        averaged: whether these are the averaged (EMA, teacher) weights.
        both: whether plain and averaged weights were both there.
        dropped: everything else, each with its reason.
        marked: the dialect whose class in ``xcit_hub.timm`` left its mark there.
        normalization: mean and deviation of images that a wrapper around the network keeps.
        notes: what was chosen, in sentences for the user.
    """

    prefix: str
    names: dict[str, str]
    tensors: dict[str, StoredTensor]
    averaged: bool
    both: bool
    dropped: list[Dropped]
    marked: DialectName | None = None
    normalization: tuple[StoredTensor, StoredTensor] | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_optimizer(self) -> bool:
        """Whether optimizer state was there."""
        return any(entry.reason is Reason.OPTIMIZER for entry in self.dropped)


class Evidence(Enum):
    """How the dialect is known. The value says it in words, with places for names."""

    METADATA = "it says so itself (xcit_hub.dialect in its metadata)"
    CONFIG = "it says so itself (xcit_hub.dialect in its config)"
    MARK = "it holds {}, the mark of xcit_hub.timm's class"
    TIMM = "only timm splits q, k, v and says pos_embed, and its XCiT is the paper's"
    PYTORCH = "facebook's names in PyTorch's own format"
    PORT = "{}'s names, and its XCiT is the paper's"
    PUBLISHED = "its SHA-256 is that of the published {}"
    TRAINER = "it holds the state of MindCV's trainer under MindCV's names"
    COMMAND = "the command is for MindCV's files"
    CALLER = "the caller said so"


@dataclass(frozen=True)
class Settled:
    """What the network computes and how that is known: the step *settle*."""

    dialect: DialectName
    evidence: Evidence
    sentence: str


@dataclass
class Reading:
    """A file on its way through the steps. Each fills in its own field, and needs those above it.

    Args:
        file: the open file.
        asked: what the caller says of it.
        found: the network in it (*unwrap*).
        identity: which network that is (*identify*).
        settled: what it computes (*settle*).
        tensors: its tensors in the project's names and layout (*translate*).
    """

    file: Checkpoint
    asked: Asked = Asked()
    found: Found = field(init=False)
    identity: Identity = field(init=False)
    settled: Settled = field(init=False)
    tensors: Mapping[str, StoredTensor] = field(init=False)
