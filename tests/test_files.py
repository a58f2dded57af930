"""Files are written whole or not at all, and paths stay in their folders."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

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


# ---- one look at a file


def test_a_link_is_refused_where_none_is_allowed(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    with files.open_regular(tmp_path / "link") as stream:
        assert stream.read() == b"x"
    with pytest.raises(OSError, match="it is a symbolic link"):
        files.open_regular(tmp_path / "link", follow=False)


def test_the_digest_of_an_open_file_is_of_what_it_was_opened_as(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"first")
    with files.open_regular(path) as stream:
        (tmp_path / "other").write_bytes(b"second")
        (tmp_path / "other").replace(path)
        assert files.sha256_in(stream) == hashlib.sha256(b"first").hexdigest()
        assert stream.read() == b"first"


@pytest.mark.parametrize("name", ["loop/x", "a" * 300, "a\0b"])
def test_a_path_that_leads_nowhere_is_named(tmp_path: Path, name: str):
    (tmp_path / "loop").symlink_to("loop")
    try:
        files.contained(tmp_path, name)
    except XcitHubError as error:
        assert error.fix


# ---- what killed processes leave


def test_the_next_write_removes_what_killed_ones_left_and_no_more(tmp_path: Path):
    left = [tmp_path / ".target.abcd1234.tmp", tmp_path / ".target.efgh5678.tmp"]
    left[0].write_bytes(b"half")
    left[1].mkdir()
    (left[1] / "inside").write_bytes(b"half")
    stays = [tmp_path / ".target.tmp", tmp_path / ".other.abcd1234.tmp", tmp_path / "target.abcd1234.tmp"]
    for path in stays:
        path.write_bytes(b"somebody else's")
    (tmp_path / ".target.linklink.tmp").symlink_to(stays[0])
    files.write_text(tmp_path / "target", "whole")
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in stays)
    assert (tmp_path / ".target.linklink.tmp").is_symlink()


def test_what_somebody_is_writing_stays(tmp_path: Path):
    with files.atomic_write(tmp_path / "target") as first:
        first.write(b"first")
        files.write_text(tmp_path / "target", "second")
        assert (tmp_path / "target").read_text() == "second"
    assert (tmp_path / "target").read_text() == "first"
    with files.scratch_folder(tmp_path) as folder:
        assert files.remove_stale(tmp_path) == []
        (folder / "x").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_file_is_held_until_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process looks for stale ones at the worst moment."""
    replace = Path.replace
    removed: list[object] = []

    def late(self: Path, target: Path) -> Path:
        removed.extend(files.remove_stale(tmp_path, ".target.", ".tmp"))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", late)
    files.write_text(tmp_path / "target", "whole")
    assert removed == []
    assert (tmp_path / "target").read_text() == "whole"


def test_a_folder_that_is_gone_before_it_is_held_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make, made = tempfile.mkdtemp, []

    def robbed(*args: object, **options: object) -> str:
        made.append(make(*args, **options))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", robbed)
    with files.scratch_folder(tmp_path) as folder:
        assert folder == Path(made[1]) and folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_goes(tmp_path: Path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom xcit_hub.files import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'x').write_text('x')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    assert len(files.remove_stale(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path: Path):
    left = tmp_path / ".target.abcdefgh.tmp"
    left.write_text("half")
    spared = [tmp_path / name for name in (".target.ABCDEFGH.tmp", "target.abcdefgh.tmp", ".tmp", ".target.tmp")]
    for path in spared:
        path.write_text("mine")
    (tmp_path / ".link.abcdefgh.tmp").symlink_to(spared[0])
    with files.atomic_write(tmp_path / "written") as stream:
        stream.write(b"x")
        assert files.remove_unfinished(tmp_path, dry_run=True) == [(left, 4)]
        assert left.exists()
        assert files.remove_unfinished(tmp_path) == [(left, 4)]
    assert (tmp_path / "written").read_text() == "x" and all(path.exists() for path in spared)
    assert files.remove_unfinished(tmp_path / "nowhere") == []


def test_below_a_folder_it_goes_as_well_and_links_are_not_followed(tmp_path: Path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for folder in (run / "a" / "b", elsewhere, run / ".model.onnx.abcdefgh.tmp"):
        folder.mkdir(parents=True)
    for file in (run / "a" / "b" / ".x.abcdefgh.tmp", elsewhere / ".y.abcdefgh.tmp"):
        file.write_text("half")
    (run / ".model.onnx.abcdefgh.tmp" / "model.onnx").write_text("half")
    (run / "linked").symlink_to(elsewhere)
    assert files.remove_unfinished(run) == [(run / ".model.onnx.abcdefgh.tmp", 4)]
    assert files.remove_unfinished(run, below=True) == [(run / "a" / "b" / ".x.abcdefgh.tmp", 4)]
    assert (elsewhere / ".y.abcdefgh.tmp").exists()


def test_what_is_written_on_the_way_to_its_place_is_called_by_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "mine.ckpt"
    with files.scratch_folder(tmp_path, f".{target.name}.", ".tmp") as beside, files.scratch_folder() as scratch:
        monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(XcitHubError, match="No space left") as caught:
            files.write_text(beside / target.name, "x")
        assert caught.value.where == str(target)
        with pytest.raises(XcitHubError, match="No space left") as caught:
            files.write_text(scratch / "model.ckpt", "x")
        assert caught.value.where == str(scratch.parent)
        assert "TMPDIR" in caught.value.fix


def test_a_machine_without_a_place_for_temporary_files_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(XcitHubError, match="Temporary files cannot be kept") as caught, files.scratch_folder():
        pass
    assert "TMPDIR" in caught.value.fix


@pytest.mark.parametrize("kind", ["/dev/null", "/dev/stdout", "/dev/fd/1", "pipe", "link to a pipe"])
def test_no_file_takes_the_place_of_a_device_or_a_pipe(tmp_path: Path, kind: str):
    target = Path(kind) if kind.startswith("/") else tmp_path / kind
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link to a pipe").symlink_to("pipe")
    before = target.lstat()
    with pytest.raises(XcitHubError, match="it is "):
        files.write_text(target, "x")
    assert (target.lstat().st_ino, target.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_a_numbered_file_has_a_name_that_a_disk_takes(tmp_path: Path):
    assert files.numbered(3, "cat", ".png") == "3-cat.png"
    for stem in ("x" * 255, "é" * 127, "猫" * 85):
        files.write_text(tmp_path / files.numbered(12, stem, ".png"), "x")
    assert len(list(tmp_path.iterdir())) == 3
    assert all(path.name.startswith("12-") and path.suffix == ".png" for path in tmp_path.iterdir())
