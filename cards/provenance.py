"""What a card says of a conversion: the report (``xcit_hub.checkpoints.report.Report.as_dict``), told briefly."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cards.public import file_name

# What a report says and a card does not repeat, with the reason. What is in neither is listed in the card by name.
LEFT_OUT: dict[str, str] = {
    "seconds": "how long a conversion took says nothing about the file",
    "kind": "the card says whether there is a classifier",
    "worst": "the table of the proof has every comparison",
    "failed": "the table of the proof has every comparison",
    "pytorch_runs": "belongs to the proof's rule",
    "rule": "belongs to the proof's rule",
    "measure": "belongs to the proof's rule",
    "ratio": "the table has the error and what is allowed",
    "scale": "the table has the error and what is allowed",
    "ours": "the table has the error and what is allowed",
    "pytorch": "the table has the error and what is allowed",
    "tolerance": "the table has the error and what is allowed",
    "format": "of the report, not of the file",
    "format_version": "of the report, not of the file",
    "evidence_kind": "the evidence is told in a sentence",
    "normalization": "the preprocessing says mean and standard deviation",
    "remark": "the table of the proof has every comparison",
}


class _Open(BaseModel):
    # The report belongs to the converter, which may say more than a card tells.
    model_config = ConfigDict(extra="allow", protected_namespaces=())

    @property
    def unread(self) -> list[str]:
        """The fields that a card neither tells nor leaves out for a known reason."""
        inner = [entry for value in dict(self).values() for entry in (value if isinstance(value, list) else [value])]
        below = [name for entry in inner if isinstance(entry, _Open) for name in entry.unread]
        return sorted({*(name for name in self.model_extra or {} if name not in LEFT_OUT), *below})


class Side(_Open):
    """One of the two files of a conversion. ``bytes`` is its size."""

    path: str
    sha256: str | None = None
    bytes: int | None = None
    format: str | None = None
    family: str | None = None

    @field_validator("path")
    @classmethod
    def _name(cls, path: str) -> str:
        return file_name(path)


class Check(_Open):
    """One comparison of a parity run: what was compared, how far apart, and how far apart it may be."""

    what: str
    error: float
    bar: float
    passed: bool


class ParityFigures(_Open):
    """How far two frameworks' networks are apart on the same weights and inputs.

    Args:
        max_error: largest absolute difference of two logits.
        relative_error: the same, relative to the root mean square of the logits.
        bar: the relative error that may not be exceeded.
    """

    passed: bool
    max_error: float
    relative_error: float
    bar: float
    architecture: str | None = None
    dialect: str | None = None
    image_size: tuple[int, int] | None = None
    dtype: str | None = None
    instruction_set: str | None = None
    departure: str | None = None
    checks: list[Check] = []
    versions: dict[str, str] = {}

    @property
    def software(self) -> str:
        """What was compared and on what: frameworks with their versions, image size, precision, processor."""
        size = None if self.image_size is None else f"{self.image_size[0]}×{self.image_size[1]} pixels"
        versions = [f"{name} {version}" for name, version in self.versions.items()]
        return ", ".join(part for part in (*versions, size, self.dtype, self.instruction_set) if part)


class Conversion(_Open):
    """From which file, into which, and what was left behind.

    Args:
        architecture_assumed: the file left the architecture open.
        head_untrained: the classifier is new, and random.
        tensors: how many tensors were carried over.
        dropped: why tensors were left behind → how many.
        made_up: tensors that the source did not have.
        left: why values and strings beside the tensors were left behind → how many.
        parity: None when nobody compared the two networks.
    """

    source: Side
    target: Side
    architecture: str | None = None
    architecture_assumed: bool = False
    num_classes: int | None = None
    in_chans: int | None = None
    head_untrained: bool = False
    versions: dict[str, str | None] = {}
    dialect: str | None = None
    evidence: str | None = None
    notes: list[str] = []
    tensors: int = 0
    dropped: dict[str, int] = {}
    made_up: list[str] = Field(default=[])
    left: dict[str, int] = {}
    parity: ParityFigures | None = None

    @field_validator("tensors", mode="before")
    @classmethod
    def _counted(cls, tensors: Any) -> Any:
        return len(tensors) if isinstance(tensors, list) else tensors

    @field_validator("dropped", "left", mode="before")
    @classmethod
    def _by_reason(cls, entries: Any) -> Any:
        if not isinstance(entries, list):
            return entries
        counted: Counter[str] = Counter()
        for entry in entries:  # one of a group of several says how many they are
            reason, count = (entry.get("reason", ""), entry.get("count", 1)) if isinstance(entry, dict) else (entry, 1)
            counted[str(reason)] += count if type(count) is int else 1
        return counted

    @field_validator("made_up", mode="before")
    @classmethod
    def _named(cls, made_up: Any) -> Any:
        if not isinstance(made_up, list):
            return made_up
        return [str(entry.get("name", entry)) if isinstance(entry, dict) else str(entry) for entry in made_up]

    @field_validator("notes", "evidence", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: Any) -> Any:
        if info.field_name == "notes":
            return [value] if isinstance(value, str) else [str(note) for note in value or []]
        return value if value is None or isinstance(value, str) else str(value)
