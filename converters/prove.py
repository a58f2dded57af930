"""The proof of a conversion: the very file that was written, run beside PyTorch's network."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

from xcit_hub.checkpoints.report import Report
from xcit_hub.checkpoints.weights import load


def hindrance(report: Report) -> str | None:
    """Return why a conversion's result cannot be run beside PyTorch's network, or None if it can."""
    if report.weights.kind in ("dense", "features"):
        return "a backbone without class attention has no logits to compare"
    missing = [module for module in ("torch", "timm") if importlib.util.find_spec(module) is None]
    return f"{' and '.join(missing)} not installed (pip install 'xcit-hub[timm]')" if missing else None


def proof(
    target: str | os.PathLike[str], report: Report, stage: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Read the written file back, put it into MindSpore's network and PyTorch's, and judge what they compute.

    Args:
        stage: told in a few words what is going on.
    """
    from xcit_hub.parity import verify_weights

    weights = load(target, model=report.weights.architecture.name)
    return verify_weights(
        weights.arrays(),
        weights.architecture,
        weights.dialect,
        num_classes=weights.num_classes,
        in_chans=weights.in_chans,
        global_pool=weights.global_pool,
        stage=lambda words: stage(f"verifying: {words}"),
    ).as_dict()


def has_failed(report: Report) -> bool:
    """Whether a conversion was run beside PyTorch's network and computed something else."""
    return report.parity is not None and not report.parity["passed"]
