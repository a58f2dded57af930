"""Files are written whole or not at all, and paths stay in their folders."""

from __future__ import annotations

import stat

import pytest

from xcit_hub import files
from xcit_hub.errors import InputError, XcitHubError


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")

    class InterruptionError(Exception):
        pass

    with pytest.raises(InterruptionError), files.atomic_write(target) as stream:
        stream.write(b"half")
        raise InterruptionError
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["weights.bin"]


def test_a_finished_write_replaces_the_file_and_keeps_its_mode(tmp_path) -> None:
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with files.atomic_write(target) as stream:
        stream.write(b"new")
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_missing_folder_is_named(tmp_path) -> None:
    with (
        pytest.raises(XcitHubError, match=r"Cannot write out\.bin.*(?s:.)*no/such/out\.bin"),
        files.atomic_write(tmp_path / "no/such/out.bin"),
    ):
        pass


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(XcitHubError, match="No space left on device"):
        files.write_text(tmp_path / "a.txt", "x")
    assert not list(tmp_path.iterdir())


def test_a_file_for_which_there_is_no_room_is_refused_before_it_is_begun(tmp_path) -> None:
    begun = []
    with (
        pytest.raises(XcitHubError, match=r"Cannot write x: (File too large|No space left on device)"),
        files.atomic_write(tmp_path / "x", expected=1 << 52),
    ):
        begun.append("x")
    assert not begun and not list(tmp_path.iterdir())


def test_a_file_that_became_smaller_than_expected_is_only_its_content(tmp_path) -> None:
    with files.atomic_write(tmp_path / "x", expected=1000) as stream:
        stream.write(b"less")
    assert (tmp_path / "x").read_bytes() == b"less"


def test_sha256_is_of_the_bytes(tmp_path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert files.sha256_of(tmp_path / "empty").startswith("e3b0c44298fc1c14")


@pytest.mark.parametrize("relative", ["../x", "/etc/passwd", "a/../../x", "link/x"])
def test_paths_that_leave_their_folder_are_refused(tmp_path, relative: str) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leaves its folder"):
        files.contained(folder, relative)


def test_a_path_inside_is_resolved(tmp_path) -> None:
    assert files.contained(tmp_path, "a/b.txt") == tmp_path.resolve() / "a/b.txt"
