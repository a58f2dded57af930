"""What PyTorch's own reader refuses in a description of tensors is refused here, wherever it stands."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections import OrderedDict, defaultdict, deque
from pathlib import Path

import numpy as np
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


# ---- what a description says of a tensor, by hand


def text(word: str) -> bytes:
    encoded = word.encode("utf-8", "surrogatepass")
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


ORDERED = b"ccollections\nOrderedDict\n"
NEGATED = b"}" + text("neg") + b"\x88s"


def tensor_of(*more: bytes, kind: bytes = b"_rebuild_tensor_v2") -> bytes:
    reference = tuple_of(text("storage"), STORAGE, text("0"), text("cpu"), b"K\x03") + b"Q"
    arguments = tuple_of(reference, b"K\x00", tuple_of(b"K\x03"), tuple_of(b"K\x01"), b"\x89", *more)
    return b"ctorch._utils\n" + kind + b"\n" + arguments + b"R"


def archive(path: Path, described: bytes, **records: bytes) -> Path:
    held = {"data/0": np.arange(1, 4, dtype="<f4").tobytes(), "version": b"3\n", "byteorder": b"little", **records}
    with zipfile.ZipFile(path, "w") as whole:
        whole.writestr("x/data.pkl", b"\x80\x02" + described + b".")
        for name, content in held.items():
            whole.writestr(f"x/{name}", content)
    return path


def table(value: bytes) -> bytes:
    return b"}" + text("w") + value + b"s"


@pytest.mark.parametrize("metadata", [NEGATED, ORDERED + b")R" + text("neg") + b"\x88s"], ids=["table", "ordered"])
def test_a_negative_bit_is_one_in_whatever_table_it_stands(tmp_path: Path, metadata: bytes) -> None:
    path = archive(tmp_path / "x.pth", table(tensor_of(ORDERED + b")R", metadata)))
    read = checkpoint.read(path).tensors["w"].numpy().tolist()
    assert read == torch.load(path, weights_only=True)["w"].tolist() == [-1, -2, -3]


@pytest.mark.parametrize(
    ("hooks", "metadata"),
    [
        (ORDERED + b")R", b"}" + text("neg") + b"\x89s"),  # PyTorch goes by its being there
        (ORDERED + b")R", b"}" + text("conj") + b"\x88s"),
        (ORDERED + b")R", b"ctorch\nint32\n"),
        (NEGATED, b"N"),
        (b"ctorch\nint32\n", b"N"),
    ],
)
def test_what_stands_in_anothers_place_of_a_description_is_refused(
    tmp_path: Path, hooks: bytes, metadata: bytes
) -> None:
    path = archive(tmp_path / "x.pth", table(tensor_of(hooks, metadata)))
    with pytest.raises(CheckpointError, match="'w'"):
        checkpoint.read(path)


@pytest.mark.parametrize("slots", [False, True])
def test_attributes_of_a_parameter_that_would_be_other_numbers_are_refused(tmp_path: Path, slots: bool) -> None:
    attributes = {"data": torch.full((3,), 5.0)}
    parameter = torch.nn.Parameter(torch.arange(3.0))
    made = torch._utils._rebuild_parameter_with_state

    class Written:
        def __reduce__(self) -> tuple[object, ...]:
            state = (None, attributes) if slots else attributes
            return made, (parameter.data, True, OrderedDict(), state)

    torch.save({"w": Written()}, tmp_path / "x.pth")
    assert torch.load(tmp_path / "x.pth", weights_only=True)["w"].tolist() == [5, 5, 5]
    with pytest.raises(CheckpointError, match="the description of 'w' is not a tensor's"):
        checkpoint.read(tmp_path / "x.pth")


def without_a_name(kind: str) -> object:
    lone, held = torch.zeros(3), OrderedDict(w=torch.ones(2))
    if kind == "an attribute":
        held.extra = lone  # type: ignore[attr-defined]
    return {
        "an attribute": held,
        "a deque": {"w": torch.ones(2), "last": deque([lone])},
        "a key": {"w": torch.ones(2), lone: "a key"},
        "an attribute of a parameter": {"w": with_attribute(lone)},
    }[kind]


def with_attribute(other: torch.Tensor) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.other = other  # type: ignore[attr-defined]
    return parameter


@pytest.mark.parametrize("kind", ["an attribute", "a deque", "a key", "an attribute of a parameter"])
@pytest.mark.parametrize("is_archive", [True, False])
def test_a_tensor_without_a_name_is_refused_as_one(tmp_path: Path, kind: str, is_archive: bool) -> None:
    torch.save(without_a_name(kind), tmp_path / "x.pth", _use_new_zipfile_serialization=is_archive)
    with pytest.raises(CheckpointError, match="holds a tensor that has no name"):
        checkpoint.read(tmp_path / "x.pth")


def test_a_table_that_stands_in_two_places_is_read_in_both(tmp_path: Path) -> None:
    weights = {"w": torch.ones(2)}
    torch.save({"model": weights, "model_ema": weights, "list": [weights, weights]}, tmp_path / "x.pth")
    assert sorted(checkpoint.read(tmp_path / "x.pth").tensors) == ["list.0.w", "list.1.w", "model.w", "model_ema.w"]


def test_a_table_is_made_of_pairs_however_they_are_held(tmp_path: Path) -> None:
    pair = tuple_of(text("w"), tensor_of(ORDERED + b")R"))
    held_by_a_tuple = archive(tmp_path / "x.pth", ORDERED + tuple_of(tuple_of(pair)) + b"R")
    assert list(checkpoint.read(held_by_a_tuple).tensors) == list(torch.load(held_by_a_tuple)) == ["w"]
    made_by_new = archive(tmp_path / "y.pth", ORDERED + tuple_of(b"]" + pair + b"a") + b"\x81")
    assert not torch.load(made_by_new, weights_only=True)
    with pytest.raises(CheckpointError, match="in another way than Python does"):
        checkpoint.read(made_by_new)
    one_name = b"]" + b"".join(tuple_of(text(key), b"K\x00") + b"a" for key in ("\ud800", "\\ud800"))
    with pytest.raises(CheckpointError, match="two of its keys would have one name"):
        checkpoint.read(archive(tmp_path / "z.pth", ORDERED + tuple_of(one_name) + b"R"))


def test_two_values_of_one_name_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "a": {"b": "one"}, "a.b": "two"}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"'a\.b' occurs twice"):
        checkpoint.read(tmp_path / "x.pth")


def test_pythons_own_types_are_values_in_the_protocol_that_pytorch_writes(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "seen": defaultdict(int), "range": range(3), "types": [int, str]}, tmp_path / "x")
    assert list(checkpoint.read(tmp_path / "x").tensors) == ["w"]


@pytest.mark.parametrize("is_archive", [True, False])
def test_parts_of_one_storage_take_the_memory_of_one_at_a_time(tmp_path: Path, is_archive: bool) -> None:
    whole = torch.arange(250_000.0).reshape(500, 500)
    torch.save(
        {str(index): whole.t() for index in range(100)}, tmp_path / "x", _use_new_zipfile_serialization=is_archive
    )
    tracemalloc.start()
    read = checkpoint.read(tmp_path / "x").tensors
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
    assert read["99"].raw() == whole.t().contiguous().numpy().tobytes()


@pytest.mark.parametrize("is_archive", [True, False])
def test_more_axes_than_an_array_has_are_refused_as_that(tmp_path: Path, is_archive: bool) -> None:
    tensor = torch.arange(4.0).reshape(2, 2, *[1] * 38).transpose(0, 1)
    torch.save({"w": tensor}, tmp_path / "x", _use_new_zipfile_serialization=is_archive)
    with pytest.raises(CheckpointError, match="'w' claims more numbers or axes"):
        checkpoint.read(tmp_path / "x")


def test_tables_nested_without_end_are_refused_in_time(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nests deeper"):
        checkpoint.read(archive(tmp_path / "x.pth", b"]" * 60_000 + b"a" * 59_999))


def test_what_is_copied_again_and_again_is_refused_in_time(tmp_path: Path) -> None:
    listed = b"](" + b"K\x00" * 20_000 + b"eq\x00"
    copied = b"(" + listed + (b"c__builtin__\nset\nh\x00\x85R") * 4_000 + b"t"
    with pytest.raises(CheckpointError, match="copies more than any checkpoint holds"):
        checkpoint.read(archive(tmp_path / "x.pth", copied))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("BYTEORDER", "entry of its record 'x/BYTEORDER' is damaged"),
        ("data/A", "entry of its record"),
        ("foo", "'x/foo' is none of those that PyTorch reads"),
    ],
)
def test_records_that_pytorch_finds_otherwise_are_refused(tmp_path: Path, name: str, says: str) -> None:
    more = {name: b"big", **({"data/a": b"x"} if name == "data/A" else {})}
    with pytest.raises(CheckpointError, match=says):
        checkpoint.read(archive(tmp_path / "x.pth", table(tensor_of(ORDERED + b")R")), **more))


def test_a_description_that_goes_on_behind_its_end_is_refused(tmp_path: Path) -> None:
    described = table(tensor_of(ORDERED + b")R"))
    with pytest.raises(CheckpointError, match="goes on behind its end"):
        checkpoint.read(archive(tmp_path / "x.pth", described + b"." + b"\x80\x02}"))
