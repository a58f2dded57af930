"""Images in tar archives and Parquet tables are listed whole, read in place, and what cannot be is named."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xcit_hub.data.shards import list_shard
from xcit_hub.data.transforms import open_rgb
from xcit_hub.errors import InputError


def _png(seed: int) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 7, 3), np.uint8)).save(written, "PNG")
    return written.getvalue()


def _tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_members_of_a_webdataset_shard_are_read_in_place(tmp_path: Path) -> None:
    members = {"a/1.png": _png(1), "a/1.cls": b"3", "a/1.json": b"{}", "2.PNG": _png(2)}
    found = list_shard(_tar(tmp_path / "s.tar", members))
    assert [str(image) for image in found.images] == [f"{tmp_path}/s.tar!a/1.png", f"{tmp_path}/s.tar!2.PNG"]
    assert (found.problems, found.others) == ((), 2)
    assert [image.read() for image in found.images] == [members["a/1.png"], members["2.PNG"]]
    assert open_rgb(found.images[0]).size == (7, 9)


def test_an_archive_that_is_cut_short_gives_what_it_holds_and_is_named(tmp_path: Path) -> None:
    """tarfile itself ends there without a word."""
    whole = _tar(tmp_path / "s.tar", {"1.png": _png(1), "2.png": _png(2)}).read_bytes()
    second = whole.index(b"2.png")
    cuts = {"no end": second + 1024, "within a member": second + 600, "within a header": second + 100, "before": second}
    for what, end in cuts.items():
        (tmp_path / "cut.tar").write_bytes(whole[:end])
        found = list_shard(tmp_path / "cut.tar")
        assert found.images and len(found.problems) == 1, what
        assert str(found.images[0]).endswith("1.png") and "cut" in found.problems[0]
    (tmp_path / "cut.tar").write_bytes(whole[:second] + b"garbage" * 300)
    assert len(list_shard(tmp_path / "cut.tar").problems) == 1


def test_archives_that_are_joined_give_the_first_ones_images_and_are_named(tmp_path: Path) -> None:
    """``cat a.tar b.tar``: the first one's end is a proper one, and tarfile reads no further."""
    first, second = (_tar(tmp_path / f"{n}.tar", {f"{n}.png": _png(n)}).read_bytes() for n in (1, 2))
    (tmp_path / "both.tar").write_bytes(first + second)
    found = list_shard(tmp_path / "both.tar")
    assert len(found.images) == len(found.problems) == 1 and "two archives are joined" in found.problems[0]
    (tmp_path / "padded.tar").write_bytes(first + bytes(4 << 20))
    assert not list_shard(tmp_path / "padded.tar").problems


def test_members_that_are_not_plain_files_are_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("folder.png/"))
    found = list_shard(tmp_path / "s.tar")
    assert not found.images and "link.png: it is not a plain file" in found.problems[0]


@pytest.mark.parametrize("name", ["s.tar", "s.parquet"])
@pytest.mark.parametrize("content", [b"", b"no shard at all", b"\x1f\x8b" + b"x" * 600])
def test_what_is_no_shard_by_its_bytes_is_a_problem(tmp_path: Path, name: str, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    found = list_shard(tmp_path / name)
    assert not found.images and found.problems[0].startswith(f"{tmp_path / name}: ")


def test_a_compressed_archive_is_a_problem_that_says_what_to_do(tmp_path: Path) -> None:
    _tar(tmp_path / "s.tar.gz", {"1.png": _png(1)}, "w:gz")
    assert "unpack it" in list_shard(tmp_path / "s.tar.gz").problems[0]


def test_an_archive_that_changed_since_it_was_listed_is_a_problem_of_its_images(tmp_path: Path) -> None:
    path = _tar(tmp_path / "s.tar", {"1.png": _png(1), "2.png": _png(2)})
    last = list_shard(path).images[1]
    path.write_bytes(path.read_bytes()[:1800])
    with pytest.raises(InputError, match="cut short"):
        last.read()
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        last.read()


def test_cells_of_a_table_are_read_whatever_row_group_holds_them(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    contents = [_png(seed) for seed in range(5)]
    struct = [{"bytes": content, "path": "x.png"} for content in contents]
    table = pyarrow.table({"label": list(range(5)), "image": struct, "jpg": contents[::-1]})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    found = list_shard(tmp_path / "t.parquet")
    assert [str(image) for image in found.images] == [f"{tmp_path}/t.parquet#{row}" for row in range(5)]
    assert [image.read() for image in found.images] == contents
    assert list_shard(tmp_path / "t.parquet", "jpg").images[0].read() == contents[-1]
    for column, words in (("label", "holds int64"), ("photo", "no photo")):
        assert words in list_shard(tmp_path / "t.parquet", column).problems[0]


def test_a_table_that_was_replaced_is_read_anew_and_one_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    for content in (_png(1), _png(2)):
        parquet.write_table(pyarrow.table({"image": [content]}), tmp_path / "new")
        (tmp_path / "new").replace(path)
        cell = list_shard(path).images[0]
        assert cell.read() == content
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        cell.read()


def test_tables_without_images_and_empty_cells_are_named(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"path": ["a.png"], "text": ["b"]}), tmp_path / "text.parquet")
    assert "its columns are path, text" in list_shard(tmp_path / "text.parquet").problems[0]
    parquet.write_table(pyarrow.table({"image": pyarrow.array([], pyarrow.binary())}), tmp_path / "none.parquet")
    assert "no row" in list_shard(tmp_path / "none.parquet").problems[0]
    cells = pyarrow.array([None, b"", _png(1)], pyarrow.binary())
    parquet.write_table(pyarrow.table({"image": cells}), tmp_path / "gaps.parquet")
    empty, blank, whole = list_shard(tmp_path / "gaps.parquet").images
    with pytest.raises(InputError, match="holds no bytes"):
        empty.read()
    for image in (empty, blank):
        with pytest.raises(InputError):
            open_rgb(image)
    assert open_rgb(whole).size == (7, 9)


def test_a_column_without_a_table_is_refused(tmp_path: Path) -> None:
    from xcit_hub.prediction import sources

    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match="no Parquet table"):
        sources([str(tmp_path / "a.png")], column="photo")
