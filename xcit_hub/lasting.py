"""What is made to last until the process ends is made without Python's search for garbage in it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """Hold the cyclic garbage collector back while this is open, and count what was made as old afterwards.

    MindSpore's import makes half a million objects that all stay; looking through them again and again while they are
    made takes a sixth of its time. Whoever holds the collector back already, or froze objects, is left alone.
    """
    if not gc.isenabled() or _are_frozen():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # into the oldest generation, where they would have come to by being looked through
        gc.enable()


def _are_frozen() -> bool:
    """Tell whether somebody froze objects; Python counts them one by one."""
    return gc.get_freeze_count() > 0
