"""What can be wrong with a card, and how all of it is said at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from xcit_hub.errors import CardError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a card.

    Args:
        line: where, counted from 1; None when it is the whole file.
        field: the metadata field, or ``prose``, or ``file``.
        severity: a hub refuses an ``error``; a ``warning`` is something a reader should know.
    """

    line: int | None
    field: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}: "
        return f"{place}{self.severity}: {self.field}: {self.message}"

    def as_dict(self) -> dict[str, object]:
        """The fault as JSON-ready values."""
        return asdict(self)


class UnreadableCardError(CardError):
    """A card from which nothing can be taken safely.

    Args:
        faults: everything that was found wrong, not only the first.
        where: the card's file, if it has one.
    """

    def __init__(self, faults: list[Fault], where: object = "the text of the card") -> None:
        self.faults = faults
        listed = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(
            f"This is not a card that can be read:\n{listed}",
            where=where,
            fix="Mend the lines above; `xcit-hub card check FILE` lists every fault again.",
        )
