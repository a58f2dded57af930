"""Tries, by what stands in a folder hub, to hide other models, to hang, to reach outside, to be taken for sound.

Every kind of odd entry at every place: one bad entry hides no other model, nothing outside is read or changed, and what
loads is what was published.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from ledger import Attack, Case, LeftoverError, expect
from victims import NAME, OTHER, copy_of_hub, nobodys_machine, published

import xcit_hub
from xcit_hub.errors import HubError, XcitHubError
from xcit_hub.files import sha256_of
from xcit_hub.hub import cache as hub_cache
from xcit_hub.hub.locate import list_hub, locate
from xcit_hub.hub.stores import Context
from xcit_hub.hub.stores.folder import FolderStore

MODEL = "models--org--nano"


def _sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


def _odd_names(path: Path) -> None:
    path.mkdir()
    for name in (b"\xff\xfe", b"line\nbreak", b"\x1b[31mred", b"a" * 255, b"..\\up", b"-rf", "\u202egnp.x".encode()):
        with suppress(OSError):
            Path(os.fsdecode(os.fsencode(path) + b"/" + name)).write_text("x")


def _deep(path: Path) -> None:
    path.mkdir()
    here = path
    for _ in range(60):
        here = here / "d"
        here.mkdir()


# What may stand at a place; given the place and the file outside that nobody may touch.
KINDS: dict[str, Callable[[Path, Path], object]] = {
    "pipe": lambda path, _: os.mkfifo(path),
    "socket": lambda path, _: os.mknod(path, stat.S_IFSOCK | 0o600),
    "circle": lambda path, _: path.symlink_to(path.name),
    "dangling link": lambda path, _: path.symlink_to("nowhere/at/all"),
    "link to a file outside": lambda path, victim: path.symlink_to(victim),
    "link to a folder outside": lambda path, victim: path.symlink_to(victim.parent),
    "link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "link up": lambda path, _: path.symlink_to(".."),
    "folder": lambda path, _: path.mkdir(),
    "folder of odd names": lambda path, _: _odd_names(path),
    "deep folder": lambda path, _: _deep(path),
    "empty file": lambda path, _: path.write_bytes(b""),
    "file of zeros": lambda path, _: path.write_bytes(bytes(5000)),
    "file of text": lambda path, _: path.write_text("../../../victim\n"),
    "file of a terabyte, sparse": lambda path, _: _sparse(path),
}


@cache
def _places() -> dict[str, str]:
    repository = hub_cache.Repository(published(), NAME)
    commit = repository.commit_of("main")
    blob = (repository.folder / "snapshots" / str(commit) / "model.safetensors").resolve().name
    return {
        "a model": "models--org--xcit-new",
        "a model of a name that is none": "models--..--..",
        "an organisation": "else",
        "the plain view": NAME,
        "the locks": ".locks",
        "the model's locks": f".locks/{MODEL}",
        "the model's lock": f".locks/{MODEL}/repository.lock",
        "the model": MODEL,
        "its refs": f"{MODEL}/refs",
        "its blobs": f"{MODEL}/blobs",
        "its snapshots": f"{MODEL}/snapshots",
        "a new branch": f"{MODEL}/refs/v1",
        "the main branch": f"{MODEL}/refs/main",
        "a new snapshot": f"{MODEL}/snapshots/{'1' * 40}",
        "the snapshot": f"{MODEL}/snapshots/{commit}",
        "a new file of the snapshot": f"{MODEL}/snapshots/{commit}/extra.bin",
        "the description": f"{MODEL}/snapshots/{commit}/xcit_hub.json",
        "the weights": f"{MODEL}/snapshots/{commit}/model.safetensors",
        "a new blob": f"{MODEL}/blobs/{'2' * 64}",
        "an unfinished blob": f"{MODEL}/blobs/.x.incomplete",
        "the weights' blob": f"{MODEL}/blobs/{blob}",
        "something beside": f"{MODEL}/.no_exist",
    }


def cases(_: int) -> list[Case]:
    return [
        Case(f"{kind} as {place}", partial(_attempt, kind, relative))
        for place, relative in _places().items()
        for kind in KINDS
    ]


ATTACK = Attack("odd folders", cases, sample=24)


def _attempt(kind: str, relative: str, folder: Path) -> None:
    hub, victim = copy_of_hub(folder), folder / "outside" / "victim"
    victim.parent.mkdir()
    victim.write_text("precious")
    place = hub / relative
    if os.path.lexists(place):
        place.rename(folder / "moved") if not place.is_symlink() else place.unlink()
    place.parent.mkdir(parents=True, exist_ok=True)
    KINDS[kind](place, victim)
    with nobodys_machine(folder):
        _use(hub)
    expect(victim.read_text() == "precious", "the file outside was changed")
    expect([path.name for path in victim.parent.iterdir()] == ["victim"], "something was written outside")


def _use(hub: Path) -> None:
    expect(OTHER in list_hub(hub), "it hides another model")
    expect(OTHER in [entry.name for entry in hub_cache.entries(hub)], "it hides another model's cache entry")
    expect(xcit_hub.info(OTHER, hub=hub).damaged == (), "another model is called damaged")
    digests = _published()
    with suppress(XcitHubError):
        for name in list_hub(hub):
            expect(name.isprintable(), f"a name with control characters is listed: {name!r}")
        told = xcit_hub.info(NAME, hub=hub)
        expect(all(path.isprintable() for path in told.files), "control characters in a file's name")
    with suppress(XcitHubError):
        opened = locate(NAME, hub=hub).open()
        expect(opened.sha256 == digests["model.safetensors"], "other weights were loaded")
    hub_cache.verify(hub)
    with suppress(XcitHubError):
        hub_cache.prune(hub, age=0)
    _publish_again(hub)
    expect(xcit_hub.info(OTHER, hub=hub).damaged == (), "another model was damaged")
    with suppress(HubError):
        hub_cache.prune(hub, age=0)
        left = [path for path in hub.rglob("*") if path.name.endswith((".incomplete", ".tmp")) and path.is_file()]
        if left and NAME in list_hub(hub):
            raise LeftoverError(f"{left}")


def _publish_again(hub: Path) -> None:
    try:
        FolderStore(str(hub), Context(hub)).publish(NAME, _files(), message="again")
    except XcitHubError as error:
        expect(error.fix, "no way out is told")
        return
    found = xcit_hub.info(NAME, hub=hub)
    expect(found.damaged == (), "OK was said, and files are damaged")
    told = {path: digest for path, (_, digest) in found.files.items() if path in _published()}
    expect(told == _published(), "OK was said, and the branch has other files")


@cache
def _files() -> dict[str, Path]:
    repository = hub_cache.Repository(published(), NAME)
    return repository.files(str(repository.commit_of("main")))


@cache
def _published() -> dict[str, str]:
    return {path: sha256_of(file) for path, file in _files().items()}
