"""Compiled code for CPUs, never needed for a right result: a network computed by it, and fused for inference.

:func:`accelerate` and :func:`portable` lead from a plain network to one of compiled operations and back, on the same
parameters; :func:`fuse` makes a copy for inference alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xcit_hub.accelerated.cells import is_accelerated
    from xcit_hub.accelerated.fused import fuse, is_fused
    from xcit_hub.accelerated.twins import accelerate, available, portable

__all__ = ["accelerate", "available", "fuse", "is_accelerated", "is_fused", "portable"]

_MODULES = {
    "accelerate": "twins",
    "available": "twins",
    "fuse": "fused",
    "is_accelerated": "cells",
    "is_fused": "fused",
    "portable": "twins",
}


def __getattr__(name: str) -> Any:
    # When the package is built, build.py and its table are read where MindSpore is not installed yet.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
