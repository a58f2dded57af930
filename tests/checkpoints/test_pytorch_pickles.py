"""What PyTorch's own reader refuses in a description of tensors is refused here, wherever it stands."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import CheckpointError

torch = pytest.importorskip("torch")

REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"ctorch\nFloatStorage\n"
THE_TENSOR = b"Rq\rs."  # the call that makes it, and its place in the table
AROUND = b"ctorch._tensor\n_rebuild_from_type_v2\n("
IN_PLAIN_WORDS = {
    "a reference of four fields": (b"K\x03tq\x07Q", b"tq\x07Q"),
    "a reference of six fields": (b"K\x03tq\x07Q", b"K\x03Ntq\x07Q"),
    "a part of a storage": (b"K\x03tq\x07Q", b"K\x03(X\x01\x00\x00\x00vK\x00K\x02ttq\x07Q"),
    "a reference that is a number": (b"tq\x07Q", b"tq\x07K\x00Q"),
    "a tensor of nothing": (THE_TENSOR, b"Rq\r" + REBUILD + b")Rq\x0e" + b"ss."),
    "a storage that is called": (THE_TENSOR, b"Rq\rs" + b"X\x01\x00\x00\x00s" + STORAGE + b")Rs."),
    "a tensor that is dropped": (THE_TENSOR, b"Rq\r00."),
}
OTHER_NUMBERS = {
    "a tensor that is told a state": (THE_TENSOR, b"Rq\r)bs."),
    "a class that is called": (THE_TENSOR, b"Rq\rsX\x01\x00\x00\x00sctorch\nTensor\nK\x01\x85Rs."),
}


def written(path: Path, *, legacy: bool = False) -> Path:
    torch.save({"x": torch.arange(3.0)}, path, _use_new_zipfile_serialization=not legacy)
    return path


def described_otherwise(path: Path, old: bytes, new: bytes) -> Path:
    changed = path.with_name("changed.pth")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(changed, "w") as other:
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename.endswith("/data.pkl"):
                assert content.count(old) == 1, content
                content = content.replace(old, new)
            other.writestr(entry.filename, content)
    return changed


@pytest.mark.parametrize("case", IN_PLAIN_WORDS)
def test_what_pytorch_refuses_in_a_description_is_refused(tmp_path: Path, case: str) -> None:
    path = written(tmp_path / "x.pth")
    assert list(checkpoint.read(path).tensors) == ["x"]
    changed = described_otherwise(path, *IN_PLAIN_WORDS[case])
    with pytest.raises(Exception):  # noqa: B017 - each refusal is of a kind of its own
        torch.load(changed, weights_only=True)
    with pytest.raises(CheckpointError, match="is not a whole PyTorch checkpoint"):
        checkpoint.read(changed)


@pytest.mark.parametrize("case", OTHER_NUMBERS)
def test_what_pytorch_would_take_for_other_tensors_is_refused(tmp_path: Path, case: str) -> None:
    changed = described_otherwise(written(tmp_path / "x.pth"), *OTHER_NUMBERS[case])
    there = torch.load(changed, weights_only=True)
    assert len(there) > 1 or there["x"].shape != (3,)
    with pytest.raises(CheckpointError, match="is not a whole PyTorch checkpoint"):
        checkpoint.read(changed)


@pytest.mark.parametrize("fields", [b"", b"NN", b"X\x01\x00\x00\x00v"], ids=["five", "seven", "a part"])
def test_a_reference_in_a_file_before_archives_has_six_fields_and_no_part(tmp_path: Path, fields: bytes) -> None:
    content = written(tmp_path / "x.pth", legacy=True).read_bytes()
    assert list(checkpoint.read(tmp_path / "x.pth").tensors) == ["x"]
    assert content.count(b"K\x03Nt") == 1
    (tmp_path / "x.pth").write_bytes(content.replace(b"K\x03Nt", b"K\x03" + fields + b"t"))
    with pytest.raises(Exception):  # noqa: B017
        torch.load(tmp_path / "x.pth", weights_only=True)
    with pytest.raises(CheckpointError, match="refers to what is not a storage"):
        checkpoint.read(tmp_path / "x.pth")


@pytest.mark.parametrize("attribute", ["data", "real", "imag"])
def test_attributes_that_would_be_other_numbers_are_refused(tmp_path: Path, attribute: str) -> None:
    tensor = torch.arange(3.0)
    tensor.note = "kept beside the numbers"
    torch.save({"x": tensor}, tmp_path / "x.pth")
    assert checkpoint.read(tmp_path / "x.pth").tensors["x"].numpy().tolist() == [0, 1, 2]
    name = attribute.encode()
    changed = described_otherwise(
        tmp_path / "x.pth",
        b"X\x04\x00\x00\x00note",
        b"X" + len(name).to_bytes(4, "little") + name,
    )
    with pytest.raises(CheckpointError, match="the description of 'x' is not a tensor's"):
        checkpoint.read(changed)


def test_a_record_that_calls_itself_a_folder_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(written(tmp_path / "x.pth")) as archive, zipfile.ZipFile(tmp_path / "y.pth", "w") as other:
        for entry in archive.infolist():
            copied = zipfile.ZipInfo(entry.filename)
            copied.external_attr = 0x10 if entry.filename.endswith("/data/0") else 0
            other.writestr(copied, archive.read(entry))
    with pytest.raises(CheckpointError, match=r"the entry of its record 'x/data/0' is damaged"):
        checkpoint.read(tmp_path / "y.pth")


@pytest.mark.parametrize("keys", [("\ud800", "\\ud800"), ((1, 2), "(tuple 0)"), ("\\ud800", "\ud800")])
def test_two_keys_with_one_name_are_refused(tmp_path: Path, keys: tuple[object, object]) -> None:
    torch.save({key: torch.ones(1) for key in keys}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="two of its keys would have one name"):
        checkpoint.read(tmp_path / "x.pth")
