"""Careless and hostile neighbours of a folder hub or cache: pipes, loops, links out, and a pruner beside publishers."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from filelock import FileLock

import xcit_hub
from xcit_hub.errors import HubError, XcitHubError
from xcit_hub.hub import cache
from xcit_hub.hub.locate import list_hub


@pytest.fixture
def hub(tmp_path, published_nano) -> Path:
    return shutil.copytree(published_nano[0], tmp_path / "hub", symlinks=True)


def age(folder: Path, seconds: float = 7200) -> None:
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def commits(hub: Path) -> set[str]:
    return {path.name for path in (hub / "models--org--nano" / "snapshots").iterdir()}


# ---- odd entries: each is named, and hides no other


ODD = {
    "a pipe for a ref": lambda hub: os.mkfifo(hub / "models--org--nano" / "refs" / "v1"),
    "a ref that is not text": lambda hub: (hub / "models--org--nano" / "refs" / "v1").write_bytes(b"\xff\xfe"),
    "a ref that is a path": lambda hub: (hub / "models--org--nano" / "refs" / "v1").write_text("../../x"),
    "a ref that never ends": lambda hub: (hub / "models--org--nano" / "refs" / "v1").write_bytes(b"0" * (1 << 20)),
    "a ref that is a folder": lambda hub: (hub / "models--org--nano" / "refs" / "v1").mkdir(),
    "a link in a circle": lambda hub: (hub / "models--org--nano" / "refs" / "v1").symlink_to("v1"),
    "a model that is a circle": lambda hub: (hub / "models--org--x").symlink_to("models--org--x"),
    "a model that is a file": lambda hub: (hub / "models--org--x").write_text("x"),
    "a model that is a pipe": lambda hub: os.mkfifo(hub / "models--org--x"),
    "a model elsewhere": lambda hub: (hub / "models--org--xcit").symlink_to("/usr"),
    "an organisation elsewhere": lambda hub: (hub / "other").symlink_to("/usr/share"),
    "a name that is not UTF-8": lambda hub: Path(os.fsdecode(os.fsencode(hub) + b"/org/\xff\xfe")).mkdir(parents=True),
    "a model's name that is not UTF-8": lambda hub: (hub / os.fsdecode(b"models--org--\xff") / "snapshots").mkdir(
        parents=True
    ),
    "a snapshot that is a file": lambda hub: (hub / "models--org--nano" / "snapshots" / ("1" * 40)).write_text("x"),
    "a blob that is a pipe": lambda hub: os.mkfifo(hub / "models--org--nano" / "blobs" / ("2" * 64)),
    "a blob that is a circle": lambda hub: (hub / "models--org--nano" / "blobs" / "x").symlink_to("x"),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_entry_hides_no_other(hub, what, nano_arrays):
    ODD[what](hub)
    assert "org/nano" in list_hub(hub)
    assert xcit_hub.info("org/nano", hub=hub).config.num_classes == 10
    assert [entry.name for entry in cache.entries(hub)].count("org/nano") == 1
    cache.verify(hub)
    try:
        cache.prune(hub, age=0)
    except XcitHubError as error:
        assert error.fix
    assert xcit_hub.info("org/nano", hub=hub).damaged == ()


@pytest.mark.parametrize("branch", ["v1", "v2/x"])
def test_a_branch_that_is_none_is_named(hub, branch):
    os.mkfifo(hub / "models--org--nano" / "refs" / "v1")
    with pytest.raises(XcitHubError, match=r"has no revision|not a revision"):
        xcit_hub.info("org/nano", branch, hub=hub)


@pytest.mark.parametrize("name", ["config.json", "xcit_hub.json", "model.safetensors"])
def test_pipes_and_loops_in_place_of_files_are_named_and_not_waited_for(tmp_path, nano_timm, name):
    folder = tmp_path / "model"
    folder.mkdir()
    for path, content in nano_timm.items():
        (folder / path).write_bytes(content)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(XcitHubError, match="not a file"):
        xcit_hub.load(str(folder))
    (folder / name).unlink()
    (folder / name).symlink_to(name)
    with pytest.raises(XcitHubError, match=r"circle|no weights|missing"):
        xcit_hub.load(str(folder))
    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(XcitHubError, match="not a file"):
        xcit_hub.load(str(tmp_path / "pipe.ckpt"))


@pytest.mark.parametrize("part", ["models--org--nano", "models--org--nano/blobs", "models--org--nano/refs", "org"])
def test_publishing_does_not_follow_links_out_of_the_hub(tmp_path, nano_ckpt, part):
    hub, outside = tmp_path / "hub", tmp_path / "outside"
    outside.mkdir()
    (hub / part).parent.mkdir(parents=True)
    (hub / part).symlink_to(outside)
    with pytest.raises(XcitHubError, match="leaves") as caught:
        xcit_hub.publish(nano_ckpt, "org/nano", to=hub, parity=False)
    assert caught.value.fix
    assert list(outside.iterdir()) == []


def test_nothing_outside_is_removed(hub, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    repository = cache.Repository(hub, "org/nano")
    for link in (tmp_path / "link", victim):
        if not link.exists():
            link.symlink_to(victim)
        with pytest.raises(HubError, match="leaves"):
            repository.drop(link)
    blob = repository.folder / "blobs" / "stray"
    blob.symlink_to(victim)
    cache.prune(hub)
    assert victim.read_text() == "precious"
    assert not blob.is_symlink()


# ---- publishing, loading and pruning at once


def test_prune_spares_what_somebody_is_writing_to(hub, nano_mindcv):
    first = commits(hub)
    xcit_hub.publish(nano_mindcv, "org/nano", to=hub, parity=False)
    age(hub)
    spared: list[str] = []
    with FileLock(hub / ".locks" / "models--org--nano" / "repository.lock"):
        assert cache.prune(hub, on_spared=spared.append) == []
    assert spared == ["org/nano"]
    assert first < commits(hub)
    assert cache.prune(hub)
    assert not first & commits(hub)


def test_prune_spares_a_revision_that_lost_its_branch_within_the_hour(hub, nano_mindcv):
    first = commits(hub)
    age(hub)
    xcit_hub.publish(nano_mindcv, "org/nano", to=hub, parity=False)
    assert cache.prune(hub) == []
    assert first < commits(hub)
    age(hub)
    assert {path.name for path, _ in cache.prune(hub)} & first


def test_what_killed_processes_left_goes_at_once(hub):
    repository = hub / "models--org--nano"
    left = [
        repository / "blobs" / ".abc.incomplete",
        repository / "blobs" / ("3" * 64 + ".incomplete"),
        repository / "blobs" / ("4" * 64),
        repository / "refs" / ".main.abc.tmp",
        hub / "org" / ".abc.tmp",
    ]
    for path in left[:-1]:
        path.write_bytes(b"half")
    left[-1].symlink_to("nowhere")
    (repository / "snapshots" / ".abc.tmp").mkdir()
    removed = {path for path, _ in cache.prune(hub)}
    assert removed == {*left, repository / "snapshots" / ".abc.tmp"}
    assert xcit_hub.info("org/nano", hub=hub).damaged == ()


def test_loading_takes_no_lock_so_a_read_only_hub_loads(hub):
    shutil.rmtree(hub / ".locks")
    before = {path: path.lstat().st_mtime_ns for path in hub.rglob("*")}
    assert xcit_hub.load("org/nano", hub=hub).num_classes == 10
    assert {path: path.lstat().st_mtime_ns for path in hub.rglob("*")} == before
