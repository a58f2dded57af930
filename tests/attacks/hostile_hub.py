"""Tries, by a hub's answers, to write outside the cache, to hang, to fill memory, to end in a traceback.

Each scenario is a file of ``hub/``, named by what it tries. ``expect`` is what the one error has to say; null where the
hub's hostility has to change nothing: the right bytes arrive.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from functools import partial
from pathlib import Path

from hub_server import TOKEN, Fault
from ledger import Attack, Case, LeftoverError, expect
from victims import everything_below, nano, own_server, repository

import xcit_hub
from xcit_hub.errors import XcitHubError
from xcit_hub.hub import guard
from xcit_hub.hub.locate import list_hub, locate
from xcit_hub.hub.stores.hugging_face import whoami

NAME = "someone/nano"
SCENARIOS = sorted((Path(__file__).parent / "hub").glob("*.json"))
_ENDLESS = ("drip", "endless", "trickle")  # kinds of faults


def cases(_: int) -> list[Case]:
    return [Case(path.stem, partial(_attempt, path)) for path in SCENARIOS]


ATTACK = Attack("hostile hub", cases, sample=20)


def _attempt(path: Path, folder: Path) -> None:
    scenario = json.loads(path.read_text(encoding="utf-8"))
    victim, cache = folder / "victim", folder / "a" / "b" / "cache"
    victim.write_text("precious")
    with own_server(folder) as (server, monkeypatch):
        _be_impatient(monkeypatch, ends=scenario["kind"] not in _ENDLESS)
        server.add(NAME, repository())
        server.faults = [_fault(scenario, victim, server)]
        calls = {
            "load": lambda: locate(NAME, hub=server.url, cache_dir=cache).open(),
            "list": lambda: list_hub(server.url),
            "whoami": lambda: whoami(server.url),
            "publish": lambda: xcit_hub.publish(nano(), "org/nano", to=server.url, parity=False),
        }
        before = everything_below(folder, but=cache)
        said = ""
        try:
            given = calls[scenario["call"]]()
        except XcitHubError as error:
            said = str(error)
            expect(error.fix, f"no way out is told: {said}")
        else:
            if scenario["call"] == "load":
                right = hashlib.sha256(repository()["model.safetensors"]).hexdigest()
                expect(given.sha256 == right, "other bytes were taken")
        made = everything_below(folder, but=cache) - before - set(cache.parents) - {folder / "cache"}
        expect(not made, f"it wrote {made}")
        expect(victim.read_text() == "precious", "the file outside was changed")
        held = [each for each in cache.rglob("*") if each.is_file()]
        expect(not any(each.read_bytes() == b"precious" for each in held if each.stat().st_size == 8), "taken in")
        _check_words(scenario, said)
    if left := [each.name for each in held if each.name.endswith((".incomplete", ".tmp"))]:
        raise LeftoverError(f"{left}")


def _check_words(scenario: dict, said: str) -> None:
    expect(TOKEN not in said, "the token was said")
    expect(said.replace("\n", "").isprintable(), f"control characters: {said!r}")
    if scenario["expect"] is None:
        expect(not said, f"it should have loaded: {said}")
    else:
        expect(re.search(scenario["expect"], said), f"said {said!r}, expected {scenario['expect']!r}")


def _fault(scenario: dict, victim: Path, server: object) -> Fault:
    def filled(text: str) -> str:
        return text.replace("VICTIM", str(victim)).replace("STORAGE", server.storage_url).replace("HUB", server.url)

    body = filled(scenario.get("body", "")).encode("utf-8", "surrogateescape")
    if "bomb" in scenario:
        packed = {"gzip": gzip.compress, "deflate": zlib.compress}[scenario.get("packed", "gzip")]
        body = packed(bytes(scenario["bomb"]))
    if "repeat" in scenario:
        body *= scenario["repeat"]
    headers = {name: filled(value) for name, value in scenario["headers"].items()}
    times = scenario.get("times", 999)
    return Fault(scenario["where"], scenario["kind"], scenario["value"], times=times, headers=headers, body=body)


def _be_impatient(monkeypatch: object, *, ends: bool) -> None:
    """Wait for no next try; and where what the hub sends has no end, hold to the bounds in seconds, not in minutes."""
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    if ends:  # by itself, which takes its time on a busy machine
        return
    original = guard.Exchange.__init__

    def shorter(self: guard.Exchange, *given: object, seconds: float = guard.SECONDS, **options: object) -> None:
        original(self, *given, seconds=min(seconds, 3.0), **options)

    monkeypatch.setattr(guard, "PATIENCE", 1.0)
    monkeypatch.setattr(guard.Exchange, "__init__", shorter)
