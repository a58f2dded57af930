"""MindSpore's two modes within one test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mindspore


@contextmanager
def in_pynative() -> Iterator[None]:
    """Compute what others are held against without a graph of its own, which takes seconds to compile."""
    mode = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    yield
    mindspore.set_context(mode=mode)
