"""The three formats, each held against the library that defines it."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.formats import mindspore as mindspore_format
from xcit_hub.errors import CheckpointError, XcitHubError

TENSORS = {
    "b.weight": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32),
    "a": np.arange(5, dtype=np.int64),
    "half": np.ones((2, 2), np.float16),
    "double": np.full(3, 1 / 3),
    "scalar": np.array(3.5, np.float32),
    "flags": np.array([True, False, True]),
    "byte": np.arange(3, dtype=np.uint8),
}
METADATA = {"xcit_hub.dialect": "paper", "é": "日本"}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, suffix: str):
    path = tmp_path / f"x{suffix}"
    digest = checkpoint.write(path, TENSORS, METADATA)
    assert digest == checkpoint_digest(path)
    with checkpoint.read(path) as opened:
        assert opened.metadata == METADATA
        assert opened.tensors.keys() == TENSORS.keys()
        for name, array in TENSORS.items():
            assert opened.tensors[name].dtype == array.dtype.name
            assert opened.tensors[name].shape == array.shape
            assert opened.tensors[name].raw() == array.tobytes()


def checkpoint_digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- safetensors


def test_our_safetensors_file_is_the_librarys_byte_for_byte(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, TENSORS, {"format": "pt"})
    assert path.read_bytes() == safetensors.numpy.save(TENSORS, {"format": "pt"})


def test_reading_is_zero_copy_and_outlives_the_checkpoint(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, TENSORS)
    with checkpoint.read(path) as opened:
        tensor = opened.tensors["b.weight"]
        array = tensor.numpy()
    assert np.shares_memory(array, np.frombuffer(tensor.raw(), np.float32))
    assert (array == TENSORS["b.weight"]).all()


def header(content: str, data: bytes = b"") -> bytes:
    return len(content.encode()).to_bytes(8, "little") + content.encode() + data


BROKEN_SAFETENSORS = {
    "shorter than its first field": b"\x01\x02",
    "a header longer than the file": (1 << 40).to_bytes(8, "little") + b"{}",
    "no JSON": header("{"),
    "no table": header("[]"),
    "a name twice": header(
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"1",
    ),
    "half a character": header('{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"1"),
    "an unknown dtype": header('{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,1]}}', b"1"),
    "a dtype that is not a name": header('{"a":{"dtype":[],"shape":[1],"data_offsets":[0,1]}}', b"1"),
    "a negative length": header('{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}', b"1"),
    "a length that is true": header('{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', b"1"),
    "a shape of another size": header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1]}}', b"1"),
    "a hole": header('{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"12"),
    "an overlap": header(
        '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}',
        b"123",
    ),
    "bytes at the end": header('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"12"),
    "a cut": header('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', b"1"),
    "metadata that is not text": header('{"__metadata__":{"a":1}}'),
    "a length of a million digits": header(
        '{"a":{"dtype":"U8","shape":[' + "9" * 10**6 + '],"data_offsets":[0,1]}}', b"1"
    ),
    "more axes than any tensor's": header(
        '{"a":{"dtype":"F32","shape":[' + "1152921504606846976," * 400 + '1],"data_offsets":[0,0]}}'
    ),
    "a length beyond 64 bits": header('{"a":{"dtype":"U8","shape":[0,18446744073709551616],"data_offsets":[0,0]}}'),
    "a constant that is not JSON": header('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"b":NaN}}', b"1"),
    "JSON a hundred thousand deep": header('{"a":' + "[" * 10**5 + "]" * 10**5 + "}"),
}


@pytest.mark.parametrize("content", BROKEN_SAFETENSORS.values(), ids=BROKEN_SAFETENSORS)
def test_a_broken_safetensors_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        checkpoint.read(path)


# ---- MindSpore


def test_mindspore_reads_our_checkpoint_and_we_write_its_bytes(tmp_path: Path):
    import mindspore

    ours, theirs = tmp_path / "ours.ckpt", tmp_path / "theirs.ckpt"
    checkpoint.write(ours, TENSORS, METADATA)
    listed = [{"name": name, "data": mindspore.Tensor(array)} for name, array in TENSORS.items()]
    mindspore.save_checkpoint(listed, str(theirs), append_dict=METADATA)
    assert ours.read_bytes() == theirs.read_bytes()
    loaded = mindspore.load_checkpoint(str(ours))
    assert {name: loaded[name] for name in METADATA} == METADATA
    for name, array in TENSORS.items():
        assert (loaded[name].asnumpy() == array).all()
        assert loaded[name].shape == array.shape


def test_mindspores_bfloat16_and_appended_numbers_are_read(tmp_path: Path):
    import mindspore

    path = tmp_path / "x.ckpt"
    listed = [{"name": "w", "data": mindspore.Tensor([1.5, -2.0], mindspore.bfloat16)}]
    mindspore.save_checkpoint(listed, str(path), append_dict={"epoch": 3, "lr": 0.5})
    opened = checkpoint.read(path)
    assert opened.tensors["w"].dtype == "bfloat16"
    assert opened.tensors["w"].numpy().tolist() == [1.5, -2.0]
    assert opened.tensors["epoch"].numpy() == 3


def test_mindspores_checksum_is_checked(tmp_path: Path):
    import mindspore

    path = tmp_path / "x.ckpt"
    listed = [{"name": name, "data": mindspore.Tensor(array)} for name, array in TENSORS.items()]
    mindspore.save_checkpoint(listed, str(path), crc_check=True)
    assert checkpoint.read(path).tensors.keys() == TENSORS.keys()
    content = bytearray(path.read_bytes())
    content[content.index(TENSORS["double"].tobytes())] ^= 1
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        checkpoint.read(broken)


def test_mindspores_checksum_of_a_safetensors_file_is_checked(tmp_path: Path):
    import mindspore

    path = tmp_path / "x.safetensors"
    arrays = {"b.w": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(3, np.float16), "step": np.int32(300)}
    listed = [{"name": name, "data": mindspore.Tensor(array)} for name, array in arrays.items()]
    mindspore.save_checkpoint(listed, str(path), format="safetensors", crc_check=True)
    opened = checkpoint.read(path)
    assert opened.tensors.keys() == arrays.keys() and opened.tensors["step"].numpy() == 300
    content = path.read_bytes()
    place = content.index(arrays["b.w"].tobytes()) + 4
    flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    told = f'"crc_num":"{opened.metadata["crc_num"]}"'.encode()
    wrong = b'"crc_num":"' + b"x" * (len(told) - 12) + b'"'
    for changed in (flipped, content.replace(told, wrong), content.replace(b'"step"', b'"stop"')):
        assert changed != content
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match="checksum is"):
            checkpoint.read(path)
    # What is not MindSpore's may say anything under that name.
    path.write_bytes(content.replace(told, wrong).replace(b'"format":"ms"', b'"format":"pt"'))
    assert checkpoint.read(path).tensors.keys() == arrays.keys()


@pytest.mark.parametrize("count", [-1, 2**62])
def test_a_checksum_over_a_number_that_mindspore_cannot_have_written_is_refused_at_once(tmp_path: Path, count: int):
    checkpoint.write(tmp_path / "x.safetensors", {"n": np.array(count)}, {"format": "ms", "crc_num": "0"})
    with pytest.raises(CheckpointError, match="writes no checksum over 'n'"):
        checkpoint.read(tmp_path / "x.safetensors")


def test_a_large_tensor_is_written_in_slices_as_mindspore_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import mindspore
    from mindspore.train import serialization

    monkeypatch.setattr(mindspore_format, "_SLICE_BYTES", 1024)
    monkeypatch.setattr(serialization, "SLICE_SIZE", 1)  # KiB
    tensors = {"big": np.arange(1000, dtype=np.float32).reshape(10, 100), "small": np.ones(3, np.float32)}
    ours, theirs = tmp_path / "ours.ckpt", tmp_path / "theirs.ckpt"
    checkpoint.write(ours, tensors)
    mindspore.save_checkpoint([{"name": n, "data": mindspore.Tensor(a)} for n, a in tensors.items()], str(theirs))
    assert ours.read_bytes() == theirs.read_bytes()
    opened = checkpoint.read(ours)
    assert (opened.tensors["big"].numpy() == tensors["big"]).all()
    assert opened.tensors["big"].rows(3, 5).raw() == tensors["big"][3:5].tobytes()
    assert (mindspore.load_checkpoint(str(ours))["big"].asnumpy() == tensors["big"]).all()


def value(tag: bytes, tensor: bytes) -> bytes:
    inner = b"\x0a" + bytes([len(tag)]) + tag + tensor
    return b"\x0a" + bytes([len(inner)]) + inner


def tensor(dims: bytes, kind: bytes, content: bytes) -> bytes:
    inner = dims + b"\x12" + bytes([len(kind)]) + kind + b"\x1a" + bytes([len(content)]) + content
    return b"\x12" + bytes([len(inner)]) + inner


GOOD = value(b"a", tensor(b"\x08\x01", b"Float32", b"1234"))
BROKEN_CHECKPOINTS = {
    "cut": GOOD[:-1],
    "cut inside a number": GOOD + b"\x0a\xff",
    "another field": GOOD + b"\x12\x01a",
    "group wire types": GOOD + b"\x0b",
    "a tag twice": GOOD + value(b"b", tensor(b"\x08\x01", b"Float32", b"1234")) + GOOD,
    "no tag": b"\x0a\x0d" + tensor(b"\x08\x01", b"Int8", b"1"),
    "no tensor": value(b"a", b""),
    "a map parameter": value(b"a", b"\x1a\x00"),
    "no content": value(b"a", b"\x12\x02\x08\x01"),
    "an unknown type": value(b"a", tensor(b"\x08\x01", b"Int4", b"1")),
    "a shape of another size": value(b"a", tensor(b"\x08\x02", b"Float32", b"1234")),
    "a negative length": value(b"a", tensor(b"\x08" + b"\xff" * 9 + b"\x01", b"Float32", b"1234")),
    "a number of eleven bytes": value(b"a", tensor(b"\x08" + b"\xff" * 10 + b"\x01", b"Float32", b"1234")),
    "more axes than any tensor's": value(b"a", tensor(b"\x08\x01" * 40, b"Float32", b"1234")),
    "slices of two types": value(b"a", tensor(b"\x08\x01", b"str", b"abcd"))
    + value(b"a", tensor(b"\x08\x01", b"Float32", b"1234")),
    "an unknown field of a value": value(b"a", tensor(b"\x08\x01", b"Float32", b"1234") + b"\x4a\x01b"),
    "an unknown field of a tensor": value(b"a", tensor(b"\x08\x01\x4a\x01b", b"Float32", b"1234")),
    "a name that is not text": value(b"\xff", tensor(b"\x08\x01", b"Float32", b"1234")),
    "a repeated type": value(b"a", tensor(b"\x08\x01\x12\x01a", b"Float32", b"1234")),
    "text that is not text": value(b"a", tensor(b"\x08\x00", b"str", b"\xff\xff\xff\xff")),
}


@pytest.mark.parametrize("content", BROKEN_CHECKPOINTS.values(), ids=BROKEN_CHECKPOINTS)
def test_a_broken_mindspore_checkpoint_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole MindSpore checkpoint"):
        checkpoint.read(path)


def test_the_hand_written_message_is_good_before_it_is_broken(tmp_path: Path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(GOOD)
    assert checkpoint.read(path).tensors["a"].shape == (1,)


def test_an_empty_tensor_cannot_be_written_as_ckpt_and_nothing_is_left(tmp_path: Path):
    with pytest.raises(CheckpointError, match="empty tensor"):
        checkpoint.write(tmp_path / "x.ckpt", {"a": np.zeros((0, 3), np.float32)})
    assert list(tmp_path.iterdir()) == []


# ---- PyTorch


def test_wrapped_tensors_are_named_by_their_path_and_strings_are_metadata(tmp_path: Path):
    import torch

    path = tmp_path / "x.pth"
    half = torch.ones(2, dtype=torch.bfloat16)
    content = {
        "model": {"w": torch.arange(6.0).reshape(2, 3).T, "h": half},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}},
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.5),
        "epoch": 3,
        "note": "text",
    }
    torch.save(content, path)
    opened = checkpoint.read(path)
    assert set(opened.tensors) == {"model.w", "model.h", "optimizer.state.0.exp_avg"}
    assert (opened.tensors["model.w"].numpy() == content["model"]["w"].numpy()).all()
    assert opened.tensors["model.h"].dtype == "bfloat16"
    assert opened.metadata == {"note": "text"}


def test_files_of_pytorch_before_1_6_are_read(tmp_path: Path):
    import torch

    path = tmp_path / "x.bin"
    torch.save({"w": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    assert checkpoint.read(path).tensors["w"].numpy().tolist() == [0, 1, 2]


def test_a_big_endian_archive_and_a_compressed_one_are_refused(tmp_path: Path):
    import zipfile

    import torch

    path, changed = tmp_path / "x.pth", tmp_path / "changed.pth"
    torch.save({"w": torch.arange(3.0)}, path)
    for kind, words in ((zipfile.ZIP_STORED, "big-endian"), (zipfile.ZIP_DEFLATED, "compressed")):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w", kind) as new:
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry).replace(b"little", b"big"))
        with pytest.raises(CheckpointError, match=words):
            checkpoint.read(changed)


def test_numbers_are_the_same_however_often_their_memory_is_given_back(tmp_path: Path):
    import torch

    path = tmp_path / "x.pth"
    weights = {str(index): torch.randn(300, 300) for index in range(8)}
    weights["transposed"] = weights["0"].T
    torch.save(weights, path)
    opened = checkpoint.read(path)
    for _ in range(2):
        for name, expected in weights.items():
            assert b"".join(opened.tensors[name].pieces()) == expected.contiguous().numpy().tobytes()


class Malicious:
    def __init__(self, marker: Path, call: str) -> None:
        self.marker, self.call = marker, call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        if self.call == "system":
            return os.system, (f"touch {self.marker}",)
        return eval, (f"open({str(self.marker)!r}, 'w')",)


@pytest.mark.parametrize("call", ["system", "eval"])
@pytest.mark.parametrize("form", ["archive", "legacy", "bare pickle"])
def test_a_malicious_pickle_is_refused_and_its_payload_does_not_run(tmp_path: Path, call: str, form: str):
    import torch

    marker, path = tmp_path / "ran", tmp_path / "x.pth"
    content = {"model": {"cls_token": torch.zeros(1)}, "evil": Malicious(marker, call)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(content["evil"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "archive")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert caught.value.fix
    assert not marker.exists()
    torch.load(path, weights_only=False) if form != "bare pickle" else pickle.loads(path.read_bytes())
    assert marker.exists()  # the payload was live


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path):
    import torch

    path = tmp_path / "x.pth"
    torch.save({"w": torch.zeros(1).expand(10**12)}, path)
    with pytest.raises(CheckpointError, match="claims more"):
        checkpoint.read(path)


def test_tables_within_themselves_and_endless_nesting_end(tmp_path: Path):
    import torch

    path = tmp_path / "x.pth"
    table: dict[str, object] = {"w": torch.zeros(1)}
    for index in range(20):
        table[str(index)] = table
    nested: object = torch.zeros(1)
    for _ in range(300):
        nested = [nested]
    torch.save({"table": table, "nested": nested}, path)
    assert len(checkpoint.read(path).tensors) == 2


# ---- All of them


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.txt", b"abc", "is not a checkpoint"),
        ("x.safetensors", b"", "is empty"),
        ("x.ckpt", b"PK\x03\x04 and more", "PyTorch archive"),
        ("x.ckpt", header("{}"), "is a safetensors file"),
        ("x.pth", b"no pickle at all", "is not a PyTorch checkpoint"),
    ],
)
def test_the_message_says_what_the_file_is_instead(tmp_path: Path, name: str, content: bytes, words: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoint.read(path)
    assert caught.value.fix


def test_a_missing_file_and_an_unwritable_target_are_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="Cannot read"):
        checkpoint.read(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="is a folder"):
        (tmp_path / "folder.ckpt").mkdir()
        checkpoint.read(tmp_path / "folder.ckpt")
    with pytest.raises(XcitHubError, match="Cannot write"):
        checkpoint.write(tmp_path / "no" / "x.ckpt", TENSORS)


def test_a_folder_is_said_to_be_one_and_offered_all(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"is a folder") as caught:
        checkpoint.read(tmp_path)
    assert "--all" in str(caught.value)


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickled_network_is_refused_without_pytorchs_advice_to_run_it(tmp_path: Path, archive: bool):
    import torch

    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(CheckpointError, match=r"holds code objects \(torch.nn.modules.linear.Linear\)") as caught:
        checkpoint.read(tmp_path / "x.pth")
    assert "state_dict" in str(caught.value)
    assert "weights_only" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_what_is_no_pickle_is_said_to_be_no_checkpoint(tmp_path: Path):
    for content in (bytes(range(100, 200)) * 3, b"\x80\x02garbage"):
        (tmp_path / "garbage.pth").write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            checkpoint.read(tmp_path / "garbage.pth")
        assert "checkpoint" in caught.value.what and "weights_only" not in str(caught.value)
