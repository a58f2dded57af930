from __future__ import annotations

from collections.abc import Iterator

import mindspore
import pytest
from mini_train import MINI, brief, least, mini
from workers import Together

from xcit_hub import variants


@pytest.fixture
def mini_architecture(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(variants.ARCHITECTURES, MINI, mini())
    return MINI


@pytest.fixture
def brief_architecture(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(variants.ARCHITECTURES, brief().name, brief())
    return brief().name


@pytest.fixture
def least_architecture(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(variants.ARCHITECTURES, least().name, least())
    return least().name


@pytest.fixture(autouse=True)
def _operator_by_operator() -> Iterator[None]:
    """Without its queues: on one core an optimizer's small operators take twelve times as long in them, or more."""
    mindspore.set_context(pynative_synchronize=True)
    yield
    mindspore.set_context(pynative_synchronize=False)


@pytest.fixture
def pynative() -> Iterator[None]:
    before = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    yield
    mindspore.set_context(mode=before)


@pytest.fixture
def graph() -> Iterator[None]:
    before = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    yield
    mindspore.set_context(mode=before)


@pytest.fixture(scope="session")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Together:
    """What two workers did, in one start under msrun."""
    return Together(tmp_path_factory.mktemp("together"))
