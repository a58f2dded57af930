"""Tries, by doing everything at once, to have a publication lost, a load fail, or a pruner delete what is in use.

Eight publishers, eight loaders and a pruner in one folder hub. Each has so many rounds, whatever the clock says.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

from killed_processes import Kill, _no_leftovers, _nursery, _run, publish
from ledger import Attack, Case, expect
from victims import NAME, nano, nano_mindcv, nobodys_machine

_MANY = 8


def cases(_: int) -> list[Case]:
    return [Case("a crowd", partial(_crowd, _MANY, 3, 20, 60))]


def small() -> list[Case]:
    return [Case("a small crowd", partial(_crowd, 2, 1, 4, 10))]


def load(hub: str, rounds: int, right: tuple[str, ...]) -> None:
    from xcit_hub.checkpoints import checkpoint
    from xcit_hub.hub.locate import locate

    for _ in range(rounds):
        opened = locate(NAME, hub=hub).open()
        assert opened.sha256 in right, opened.sha256
        with checkpoint.read(opened) as held:
            assert sum(tensor.numpy().size for tensor in held.tensors.values()) > 2_000_000


def publish_often(sources: tuple[str, ...], hub: str, rounds: int) -> None:
    from xcit_hub.hub.locate import info

    for _ in range(rounds):
        for source in sources:
            publish(source, hub)
            assert info(NAME, hub=hub).damaged == ()


def prune(hub: str, rounds: int) -> None:
    from xcit_hub.hub import cache

    for _ in range(rounds):
        cache.prune(Path(hub))


def _crowd(many: int, published: int, loaded: int, pruned: int, folder: Path) -> int:
    import xcit_hub
    from xcit_hub.hub import cache
    from xcit_hub.hub.locate import locate

    _nursery()
    hub, sources = folder / "hub", (str(nano()), str(nano_mindcv()))
    right = []
    with nobodys_machine(folder):
        for source in sources:
            xcit_hub.publish(source, NAME, to=hub, parity=False)
            right.append(locate(NAME, hub=hub).open().sha256)
        works = [(publish_often, (sources, str(hub), published))] * many
        works += [(load, (str(hub), loaded, tuple(right)))] * many + [(prune, (str(hub), pruned))]
        faults: list[str] = []

        def one(number: int, work: object, given: tuple) -> None:
            place = folder / str(number)
            place.mkdir()
            try:
                code = _run(place, work, given, Kill(str(place / "nothing")))
                expect(code == 0, f"it was killed: {code}")
            except Exception as error:
                faults.append(f"{work.__name__}: {error}")

        crowd = [threading.Thread(target=one, args=(number, *work)) for number, work in enumerate(works)]
        for each in crowd:
            each.start()
        for each in crowd:
            each.join()
        expect(not faults, "; ".join(faults)[:2000])
        expect(xcit_hub.info(NAME, hub=hub).damaged == (), "what is shown is damaged")
        expect(cache.verify(hub)[1] == [], "what is kept is damaged")
    (folder / "tmp").mkdir()
    _no_leftovers(folder, hub)
    return len(works)


ATTACK = Attack("crowded hub", cases, sample=1, within=3600, small=small)
