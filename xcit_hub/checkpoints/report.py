"""What a conversion read, did and wrote: the JSON of ``--report`` and of a hub entry's ``conversion.json``."""

from __future__ import annotations

import math
import platform
import sys
from dataclasses import dataclass
from typing import Any

from xcit_hub._version import __version__
from xcit_hub.checkpoints.weights import Weights

# Counts up when a field of the JSON changes its meaning or goes. 0.1.0 wrote none; its fields are all here.
FORMAT_VERSION = 1


@dataclass
class Report:
    """What a conversion read, did and wrote; :meth:`as_dict` is its JSON.

    Args:
        target: the file that was written; None if its proof failed and it was not.
        left: the source's strings, values and files packed with it that the target does not have, by kind: the reason,
            how many, and their names, of very many the first.
        parity: the proof's figures, if there was one; in the JSON, null stands for those that are not finite numbers.
    """

    source: dict[str, Any]
    target: dict[str, Any] | None
    weights: Weights
    tensors: list[dict[str, Any]]
    made_up: list[dict[str, str]]
    left: list[dict[str, Any]]
    seconds: float
    parity: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        weights = self.weights
        return {
            "format_version": FORMAT_VERSION,
            "source": self.source,
            "target": self.target,
            "architecture": weights.architecture.name,
            "architecture_assumed": weights.assumed,
            "kind": weights.kind,
            "num_classes": weights.num_classes,
            "head_untrained": weights.head_untrained,
            "in_chans": weights.in_chans,
            "dialect": weights.dialect,
            "evidence": weights.evidence,
            "evidence_kind": weights.evidence_kind.name.lower(),
            "normalization": weights.normalization,
            "notes": weights.notes,
            "tensors": self.tensors,
            "dropped": [
                {"name": entry.name, "kind": entry.reason.name.lower(), "reason": entry.reason.value}
                for entry in weights.dropped
            ],
            "made_up": self.made_up,
            "left": self.left,
            "versions": _versions(),
            "seconds": round(self.seconds, 3),
            "parity": plain(self.parity),
        }


def plain(value: Any) -> Any:
    """Return figures as JSON can hold them: it has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str]:
    loaded = ("mindspore", "torch", "timm", "numpy")
    versions = {"xcit-hub": __version__, "python": platform.python_version()}
    return versions | {name: sys.modules[name].__version__ for name in loaded if name in sys.modules}
