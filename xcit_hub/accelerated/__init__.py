"""Compiled code for CPUs, optional and never needed for a right result: a network computed by it, and fused for inference.

:func:`accelerate` and :func:`portable` lead from a plain network to one of compiled operations and back, on the same
parameters; :func:`fuse` makes a copy for inference alone.
"""

from xcit_hub.accelerated.cells import is_accelerated
from xcit_hub.accelerated.fused import fuse, is_fused
from xcit_hub.accelerated.twins import accelerate, available, portable

__all__ = ["accelerate", "available", "fuse", "is_accelerated", "is_fused", "portable"]
