"""What a card says of a conversion: the report (``xcit_hub.checkpoints.report.Report.as_dict``), told briefly."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class _Open(BaseModel):
    # The report belongs to the converter, which may say more than a card tells.
    model_config = ConfigDict(extra="ignore")


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
        # Where a file lay on somebody's disk is nobody's business.
        return path.replace("\\", "/").rpartition("/")[2]


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
        relative_error: the same, in standard deviations of the logits.
        bar: the relative error that may not be exceeded.
    """

    passed: bool
    max_error: float
    relative_error: float
    bar: float
    image_size: tuple[int, int] | None = None
    checks: list[Check] = []
    versions: dict[str, str] = {}

    @property
    def software(self) -> str:
        """The frameworks that were compared, with their versions."""
        return ", ".join(f"{name} {version}" for name, version in self.versions.items())


class Conversion(_Open):
    """From which file, into which, and what was left behind.

    Args:
        tensors: how many tensors were carried over.
        dropped: why tensors were left behind → how many.
        made_up: tensors that the source did not have.
        parity: None when nobody compared the two networks.
    """

    source: Side
    target: Side
    dialect: str | None = None
    evidence: str | None = None
    notes: list[str] = []
    tensors: int = 0
    dropped: dict[str, int] = {}
    made_up: list[str] = Field(default=[])
    parity: ParityFigures | None = None

    @field_validator("tensors", mode="before")
    @classmethod
    def _counted(cls, tensors: Any) -> Any:
        return len(tensors) if isinstance(tensors, list) else tensors

    @field_validator("dropped", mode="before")
    @classmethod
    def _by_reason(cls, dropped: Any) -> Any:
        if not isinstance(dropped, list):
            return dropped
        return Counter(str(entry.get("reason", "")) if isinstance(entry, dict) else str(entry) for entry in dropped)

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
