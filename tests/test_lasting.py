"""Nobody's garbage collection is another one after the imports."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from xcit_hub.lasting import lasting


@pytest.fixture(autouse=True)
def _as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests' own frozen objects come back afterwards."""
    monkeypatch.setattr(sys.modules[lasting.__module__], "_are_frozen", lambda: gc.get_freeze_count() > 0)
    was_on, was_frozen = gc.isenabled(), gc.get_freeze_count()
    gc.unfreeze()
    yield
    if was_frozen:
        gc.freeze()
    (gc.enable if was_on else gc.disable)()


def test_nothing_is_collected_meanwhile_and_all_as_before_afterwards() -> None:
    gc.enable()
    with pytest.raises(KeyError), lasting():
        assert not gc.isenabled()
        made = [[] for _ in range(10_000)]
        raise KeyError
    assert gc.isenabled() and gc.get_freeze_count() == 0
    assert len(gc.get_objects(generation=0)) < 10_000 <= len(made), "they are old"
    assert any(each is made for each in gc.get_objects(generation=2))


def test_who_holds_the_collector_back_or_froze_objects_keeps_it_so() -> None:
    gc.disable()
    with lasting():
        pass
    assert not gc.isenabled()
    gc.enable()
    gc.freeze()
    frozen = gc.get_freeze_count()
    with lasting():
        assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen - 1000
