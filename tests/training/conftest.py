from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import mindspore
import pytest

from xcit_hub import variants

MINI = "xcit_mini_2_p16_64"


@pytest.fixture
def mini_architecture(monkeypatch: pytest.MonkeyPatch) -> str:
    """Two blocks of nano's width: everything that nano has, six times quicker to compile."""
    nano = variants.ARCHITECTURES["xcit_nano_12_p16_224"]
    mini = dataclasses.replace(nano, name=MINI, depth=2, image_size=64)
    monkeypatch.setitem(variants.ARCHITECTURES, MINI, mini)
    return MINI


@pytest.fixture
def pynative() -> Iterator[None]:
    """PyNative mode for one test, operator by operator (two cores lose most of their time to its queues)."""
    before = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE, pynative_synchronize=True)
    yield
    mindspore.set_context(mode=before, pynative_synchronize=False)


@pytest.fixture
def graph() -> Iterator[None]:
    before = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    yield
    mindspore.set_context(mode=before)
