"""Listing and pruning a cache by huggingface_hub's own scan and deletion, beside what would stop or mislead these."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from huggingface_hub import constants, scan_cache_dir

from xcit_hub.hub import cache

NAME = "org/xcit-small"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "again/model.safetensors": b"weights"}
SINCE_SHARED = hasattr(constants, "HF_HUB_DISABLE_SHARED_BLOBS")


def store(root: Path, files: dict[str, bytes] = FILES, name: str = NAME, branch: str = "main") -> str:
    repository = cache.Repository(root, name)
    digests = {path: repository.add_blob(lambda into, held=held: into.write(held)) for path, held in files.items()}
    commit = cache.revision_of(digests)
    repository.add_snapshot(commit, digests)
    repository.set_branch(branch, commit)
    return commit


def folder(root: Path, name: str = NAME) -> Path:
    return cache.Repository(root, name).folder


def make_old(root: Path) -> None:
    for path in [*root.rglob("*"), root]:
        os.utime(path, (time.time() - 7200,) * 2, follow_symlinks=False)


def snapshots(root: Path, name: str = NAME) -> set[str]:
    return {path.name for path in (folder(root, name) / "snapshots").iterdir()}


def blobs(root: Path, name: str = NAME) -> set[bytes]:
    return {path.read_bytes() for path in (folder(root, name) / "blobs").iterdir()}


@pytest.fixture
def two(tmp_path) -> tuple[Path, str, str]:
    """A cache with an old revision of a model and the one that its branch is at; they share a file."""
    old, new = store(tmp_path), store(tmp_path, {"config.json": b"{}", "model.safetensors": b"better weights"})
    make_old(tmp_path)
    return tmp_path, old, new


# ---- listing


def test_a_sound_cache_is_listed_as_huggingface_hub_lists_it(two):
    root, old, new = two
    (theirs,) = scan_cache_dir(root).repos
    expected = {(NAME, each.commit_hash, tuple(each.refs), each.size_on_disk) for each in theirs.revisions}
    assert {(each.name, each.commit, each.branches, each.size) for each in cache.entries(root)} == expected
    assert {each.commit: each.branches for each in cache.entries(root)} == {old: (), new: ("main",)}
    assert [each.faults for each in cache.entries(root)] == [(), ()]


ODD = {
    "a broken link": (
        lambda place, commit: (place / "snapshots" / commit / "model.safetensors").resolve().unlink(),
        "model.safetensors is a link that leads to no file",
    ),
    "a loop in a revision": (
        lambda place, commit: (place / "snapshots" / commit / "loop").symlink_to("loop"),
        "That link leads in a circle",
    ),
    "a pipe in a revision": (
        lambda place, commit: os.mkfifo(place / "snapshots" / commit / "pipe"),
        "pipe is not a file: a pipe or a device",
    ),
    "a link out of a revision": (
        lambda place, commit: (place / "snapshots" / commit / "passwd").symlink_to("/etc/passwd"),
        "passwd is a link that leaves its folder",
    ),
    "a pipe among the branches": (
        lambda place, _: os.mkfifo(place / "refs" / "v1"),
        "refs/v1 does not hold a commit",
    ),
    "a device among the branches": (
        lambda place, _: (place / "refs" / "v1").symlink_to("/dev/zero"),
        "refs/v1 does not hold a commit",
    ),
    "a branch that is not text": (
        lambda place, _: (place / "refs" / "v1").write_bytes(b"\xff"),
        "refs/v1 does not hold a commit",
    ),
    "a branch whose revision is gone": (
        lambda place, _: (place / "refs" / "v1").write_text("1" * 40),
        "refs/v1 is at a revision that is not here",
    ),
    "a file among the revisions": (
        lambda place, _: (place / "snapshots" / "notes.txt").write_text("x"),
        "snapshots/notes.txt is not a revision",
    ),
    "a loop among the revisions": (
        lambda place, _: (place / "snapshots" / ("1" * 40)).symlink_to("1" * 40),
        f"snapshots/{'1' * 40} is not a revision",
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_what_the_scan_would_stop_at_is_named_and_hides_no_revision(two, what):
    root, old, new = two
    make, said = ODD[what]
    make(folder(root), old)
    found = {each.commit: each for each in cache.entries(root)}
    assert set(found) == {old, new}
    assert [fault for fault in found[old].faults if said in fault]
    assert found[new].size == len(b"{}better weights")


def test_a_model_with_nothing_but_faults_is_listed_by_its_name(tmp_path):
    commit = store(tmp_path)
    (folder(tmp_path) / "snapshots" / commit).rename(tmp_path / "elsewhere")
    (entry,) = cache.entries(tmp_path)
    assert (entry.name, entry.commit) == (NAME, "")
    assert entry.faults == ("refs/main is at a revision that is not here",)
    assert cache.names(tmp_path) == []


def test_what_a_publisher_has_not_finished_is_not_a_fault(two):
    root, old, new = two
    (folder(root) / "refs" / ".main.abcdefgh.tmp").write_text("half")
    (folder(root) / "snapshots" / ".abcdefgh.tmp").mkdir()
    (folder(root) / "blobs" / ".abc.incomplete").write_text("half")
    assert {each.commit: each.faults for each in cache.entries(root)} == {old: (), new: ()}


def test_listing_leaves_nothing_behind(two, tmp_path_factory, monkeypatch):
    import tempfile

    root, *_ = two
    apart = tmp_path_factory.mktemp("apart")
    monkeypatch.setattr(tempfile, "tempdir", str(apart))
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    assert len(cache.entries(root)) == 2
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before
    assert list(apart.iterdir()) == []


# ---- pruning


def test_an_old_revision_goes_with_the_files_that_no_other_has(two):
    root, old, new = two
    foretold = cache.prune(root, dry_run=True)
    assert snapshots(root) == {old, new}
    assert {path.name for path, _ in foretold} >= {old}
    assert sum(size for _, size in foretold) == len(b"weights")
    assert cache.prune(root) == foretold
    assert snapshots(root) == {new}
    assert blobs(root) == {b"{}", b"better weights"}
    assert cache.prune(root) == []


def test_a_revision_goes_from_the_model_that_does_not_need_it_and_stays_with_the_one_that_does(two):
    root, old, _ = two
    assert store(root, name="org/xcit-copy") == old
    make_old(root)
    cache.prune(root)
    assert old not in snapshots(root)
    assert snapshots(root, "org/xcit-copy") == {old}
    assert blobs(root, "org/xcit-copy") == {b"{}", b"weights"}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_entry_costs_no_file_that_is_needed(two, what):
    root, old, new = two
    ODD[what][0](folder(root), new)
    make_old(root)
    before = {path: path.read_bytes() for path in (folder(root) / "snapshots" / new).iterdir() if path.is_file()}
    cache.prune(root)
    assert old not in snapshots(root)
    assert {path: path.read_bytes() for path in before} == before


def test_pruning_where_a_branch_is_at_a_revision_that_is_not_here_keeps_the_branch(two):
    root, old, new = two
    (folder(root) / "refs" / "main").write_text("1" * 40)
    (folder(root) / ".no_exist").mkdir()
    make_old(root)
    assert {path.name for path, _ in cache.prune(root)} >= {old, new}
    assert snapshots(root) == set()
    assert (folder(root) / "refs" / "main").read_text() == "1" * 40
    assert (folder(root) / ".no_exist").is_dir()
    assert cache.prune(root) == []


def test_links_by_another_name_of_the_cache_keep_their_files(two, tmp_path_factory):
    root, _, new = two
    by_another_name = tmp_path_factory.mktemp("names") / "cache"
    by_another_name.symlink_to(root)
    link = folder(root) / "snapshots" / new / "config.json"
    blob = link.resolve()
    link.unlink()
    link.symlink_to(folder(by_another_name) / "blobs" / blob.name)
    chained = folder(root) / "snapshots" / new / "chained.json"
    chained.symlink_to("config.json")
    make_old(root)
    cache.prune(by_another_name)
    assert snapshots(root) == {new}
    assert chained.read_bytes() == b"{}"


def test_files_that_were_copied_into_a_revision_go_with_it_alone(two):
    root, old, new = two
    (folder(root) / "snapshots" / old / "copied.txt").write_text("not a link")
    (folder(root) / "snapshots" / new / "copied.txt").write_text("not a link")
    make_old(root)
    cache.prune(root)
    assert snapshots(root) == {new}
    assert (folder(root) / "snapshots" / new / "copied.txt").read_text() == "not a link"


def test_what_an_old_revisions_links_lead_to_elsewhere_stays(two, tmp_path_factory):
    root, old, new = two
    victim = tmp_path_factory.mktemp("outside") / "victim"
    victim.write_text("precious")
    for number, target in enumerate((victim, folder(root) / "refs" / "main", store_of_another(root))):
        (folder(root) / "snapshots" / old / str(number)).symlink_to(target)
    make_old(root)
    cache.prune(root)
    assert snapshots(root) == {new}
    assert victim.read_text() == "precious"
    assert (folder(root) / "refs" / "main").read_text() == new
    assert blobs(root, "org/xcit-other") == {b"other"}


def store_of_another(root: Path) -> Path:
    commit = store(root, {"config.json": b"other"}, "org/xcit-other")
    return (folder(root, "org/xcit-other") / "snapshots" / commit / "config.json").resolve()


def test_a_deletion_that_is_broken_off_shows_no_half_of_a_revision_and_the_next_one_ends_it(two, monkeypatch):
    from huggingface_hub import DeleteCacheStrategy

    root, old, new = two
    spared: list[str] = []

    def broken_off(_: DeleteCacheStrategy) -> None:
        raise OSError("as if it were killed")

    with monkeypatch.context() as patch:
        patch.setattr(DeleteCacheStrategy, "execute", broken_off)
        cache.prune(root, on_spared=spared.append)
    assert spared == [NAME]
    assert old not in {each.commit for each in cache.entries(root)}
    cache.prune(root)
    assert snapshots(root) == {new}
    assert blobs(root) == {b"{}", b"better weights"}


def test_one_model_that_cannot_be_pruned_keeps_no_other_from_it(two, tmp_path_factory):
    root, old, _ = two
    store(root, name="org/xcit-a")
    locks = root / ".locks" / "models--org--xcit-a"
    locks.parent.mkdir(exist_ok=True)
    locks.symlink_to(tmp_path_factory.mktemp("outside"))
    make_old(root)
    spared: list[str] = []
    cache.prune(root, on_spared=spared.append)
    assert spared == ["org/xcit-a"]
    assert old not in snapshots(root)
    assert cache.prune(root, dry_run=True, on_spared=spared.append) == []


# ---- the store of blobs that several models share, which huggingface_hub has since 2.4


SHARED = "ab" + "3" * 62


def share(root: Path, name: str, commit: str) -> Path:
    """Move a model's weights into the shared store, as huggingface_hub lays it out; return where they are."""
    blob = (folder(root, name) / "snapshots" / commit / "model.safetensors").resolve()
    payload = root / "blobs" / SHARED[:2] / SHARED
    payload.parent.mkdir(parents=True, exist_ok=True)
    (root / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    blob.replace(payload)
    blob.symlink_to(os.path.relpath(payload, blob.parent))
    with payload.with_name(f"{SHARED}.refs").open("a") as listing:
        listing.write(f"{blob.relative_to(root).as_posix()}\n")
    return payload


@pytest.mark.skipif(not SINCE_SHARED, reason="this huggingface_hub has no shared store")
@pytest.mark.parametrize("is_used_elsewhere", [False, True])
def test_what_models_share_goes_with_the_last_of_them(two, is_used_elsewhere):
    root, old, new = two
    payload = share(root, NAME, old)
    if is_used_elsewhere:
        store(root, name="org/xcit-copy")
        share(root, "org/xcit-copy", old)
    make_old(root)
    removed = dict(cache.prune(root))
    assert snapshots(root) == {new}
    assert payload.exists() == is_used_elsewhere
    assert removed.get(payload) == (None if is_used_elsewhere else len(b"weights"))
    if is_used_elsewhere:
        (copy,) = (each for each in cache.entries(root) if each.name == "org/xcit-copy")
        assert (copy.faults, copy.size) == ((), len(b"{}weights"))


BESIDE = {
    "a pipe for a lock": lambda payload: os.mkfifo(payload.with_name(f"{SHARED}.lock")),
    "a list without end": lambda payload: os.truncate(payload.with_name(f"{SHARED}.refs"), 1 << 40),
    "a mark without end": lambda payload: os.truncate(payload.parents[1] / ".huggingface-shared-blobs", 1 << 40),
    "a mark that is not text": lambda payload: (payload.parents[1] / ".huggingface-shared-blobs").write_bytes(b"\xff"),
    "a device for a list": lambda payload: (payload.with_name("x.refs")).symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("what", BESIDE)
def test_a_hostile_shared_store_is_not_collected_and_not_waited_for(two, what):
    root, old, new = two
    payload = share(root, NAME, old)
    BESIDE[what](payload)
    make_old(root)
    cache.prune(root)
    assert snapshots(root) == {new}
    assert payload.read_bytes() == b"weights"
