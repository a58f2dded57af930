"""What is attacked: small real weights, a hub on loopback, folder hubs, a machine without anybody's login."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
_TEMPORARY = tempfile.gettempdir()  # of this process, wherever a case sends its own files
for _folder in ("hub", "training"):
    if str(TESTS / _folder) not in sys.path:
        sys.path.append(str(TESTS / _folder))

from hub_fixtures import forget_the_user, random_nano, timm_repository, use, write_nano  # noqa: E402
from hub_server import HubServer  # noqa: E402

NAME = "org/nano"
OTHER = "org/other"


@functools.cache
def workshop() -> Path:
    """A folder that is gone when this process ends; a child that was forked leaves it to its parent."""
    import atexit

    made, owner = Path(tempfile.mkdtemp(prefix="attacked-", dir=_TEMPORARY)), os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(made, ignore_errors=True))
    return made


@functools.cache
def nano() -> Path:
    return write_nano(workshop() / "nano.ckpt", random_nano(), "paper")


@functools.cache
def nano_mindcv() -> Path:
    return write_nano(workshop() / "nano_mindcv.ckpt", random_nano(), "mindcv")


@functools.cache
def repository() -> dict[str, bytes]:
    folder = workshop() / "timm"
    folder.mkdir()
    return timm_repository(folder, nano())


@functools.cache
def shared_server() -> HubServer:
    return HubServer(part_size=5 << 20)


@functools.cache
def published() -> Path:
    """A folder hub with two models."""
    import xcit_hub

    hub = workshop() / "hub"
    for name in (NAME, OTHER):
        xcit_hub.publish(nano(), name, to=hub, parity=False)
    return hub


def copy_of_hub(folder: Path) -> Path:
    """A hub of the same files; they are links, so nobody may write into one."""
    shutil.copytree(published(), folder / "hub", symlinks=True, copy_function=_linked)
    return folder / "hub"


def _linked(source: str, target: str) -> None:
    if Path(source).is_symlink():
        Path(target).symlink_to(Path(source).readlink())
    else:
        os.link(source, target)


@contextmanager
def nobodys_machine(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        forget_the_user(folder, monkeypatch)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield monkeypatch


@contextmanager
def own_server(folder: Path) -> Iterator[tuple[HubServer, pytest.MonkeyPatch]]:
    """The hub, empty and well, which is this process's own."""
    with nobodys_machine(folder) as monkeypatch:
        server = use(shared_server(), monkeypatch)
        try:
            yield server, monkeypatch
        finally:
            server.go_on.set()


def everything_below(folder: Path, *, but: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path != but and but not in path.parents}
