"""A file is what its first bytes say, whatever it is called; what is not a checkpoint is called by its name."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import socket
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from tiny_networks import Make, network, same

from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.formats import kinds
from xcit_hub.checkpoints.inspection import inspect
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.checkpoints.weights import load
from xcit_hub.errors import CheckpointError, WeightsError

NAMES = ["x", "x.safetensors", "x.ckpt", "x.pth", "model_best.pth.tar", "x.th", "x.pkl", "x.bin", "0a1b2c3d"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    found = {suffix: folder / f"tiny.{suffix}" for suffix in ("safetensors", "ckpt", "pth")}
    for path in found.values():
        checkpoint.write(path, network(), {"xcit_hub.dialect": "paper"})
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_read_under_every_name(files: dict[str, Path], tmp_path: Path, name: str):
    for file_format, source in files.items():
        shutil.copy(source, tmp_path / name)
        assert checkpoint.read(tmp_path / name).format == file_format
        assert same(load(tmp_path / name).tensors, network())


def saved(save) -> bytes:
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


def tar(name: str = "weights.pth") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return stream.getvalue()


def archive(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, content in entries.items():
            packed.writestr(name, content)
    return stream.getvalue()


def onnx_like() -> bytes:
    return b"\x08\x0a\x12\x07pytorch\x1a\x051.0.0" + bytes(100)


PADDLE = {"cls_token": np.zeros(3, np.float32), "StructuredToParameterName@@": {"cls_token": "a"}}
NOT_CHECKPOINTS = {
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
    "an HTML page": b"\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>",
    "an HTML page ": b"\xef\xbb\xbf<HTML lang='en'>",
    "a JSON text": b'{"error": "Repository not found"}',
    "a JSON text ": b"[1, 2]",
    "compressed with gzip": gzip.compress(b"weights"),
    "compressed with bzip2": bz2.compress(b"weights"),
    "compressed with xz": lzma.compress(b"weights"),
    "compressed with zstd": b"\x28\xb5\x2f\xfd\x00\x00",
    "a tar archive": tar(),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(20),
    "a numpy array": saved(lambda stream: np.save(stream, np.zeros(3))),
    "numpy arrays": saved(lambda stream: np.savez(stream, a=np.zeros(3))),
    "a pickle of numpy arrays": pickle.dumps({"w": np.zeros(3)}, protocol=2),
    "a PaddlePaddle checkpoint": pickle.dumps(PADDLE, protocol=2),
    "a Python pickle": pickle.dumps({"w": [1, 2]}),
    "an ONNX model": onnx_like(),
    "a Git LFS pointer ": b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\r\noid sha256:" + b"0" * 64,
    "an HTML page  ": "<!DOCTYPE html><html></html>".encode("utf-16"),
    "an HTML page   ": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a JSON text .*Invalid credentials": b'{"error":"Invalid credentials"}',
    "a text .404: Not Found": b"404: Not Found",
    "a text .model: xcit": "model: xcit\nnote: größer ☃\n".encode() * 3000,
    "nothing but zeros": bytes(5000),
    "a Python pickle ": pickle.dumps({"w": [1, 2]}, protocol=0),
    "the form of early 2017": tar("storages"),
    "compressed with 7-Zip": b"7z\xbc\xaf'\x1c" + bytes(30),
    "compressed with RAR": b"Rar!\x1a\x07\x01" + bytes(30),
    "compressed with lz4": b"\x04\x22\x4d\x18" + bytes(30),
    "a Keras model": archive({"config.json": b"{}", "model.weights.h5": b"\x89HDF\r\n\x1a\n"}),
    "a GGUF file": b"GGUF\x03" + bytes(60),
    "a TensorFlow Lite model": bytes([28, 0, 0, 0]) + b"TFL3" + bytes(60),
    "a TensorFlow SavedModel": b"\x08\x01\x12\xf0\x01" + bytes(60),
    "a msgpack file": b"\x81\xa6params\x81\xa3cls\x01\xff\x00",
    "a compiled model for Ascend": b"IMOD" + bytes(60),
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(30),
    "a PDF document": b"%PDF-1.7\n\xe2\xe3\xcf\xd3",
    "a program or library": b"\x7fELF\x02\x01" + bytes(60),
    "an encrypted MindSpore checkpoint": b"\xd8\x5e\x3a\x7f" + bytes(40),
    "of no format": b"\x01\x02\x03" * 30,
    "of no format ": b"\0" * 3 + b"\xff" * 90,
}


@pytest.mark.parametrize("suffix", ["", ".pth", ".safetensors.download"])
@pytest.mark.parametrize(("what", "content"), NOT_CHECKPOINTS.items(), ids=list(NOT_CHECKPOINTS))
def test_what_is_not_a_checkpoint_is_called_by_its_name(tmp_path: Path, what: str, content: bytes, suffix: str):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=what.strip()) as caught:
        checkpoint.read(path)
    assert caught.value.fix and caught.value.where == str(path)


def test_mindspores_own_other_files_are_told_from_its_checkpoints(tmp_path: Path):
    import mindspore
    from mindspore import nn

    network = nn.Dense(2, 3)
    mindspore.save_checkpoint(network, str(tmp_path / "e.ckpt"), enc_key=b"0123456789abcdef", enc_mode="AES-GCM")
    with pytest.raises(CheckpointError, match="encrypted") as caught:
        checkpoint.read(tmp_path / "e.ckpt")
    assert "dec_key" in caught.value.fix
    inputs = mindspore.Tensor(np.zeros((1, 2), np.float32))
    mindspore.export(network, inputs, file_name=str(tmp_path / "g"), file_format="MINDIR")
    with pytest.raises(CheckpointError, match="MindIR graph"):
        checkpoint.read(tmp_path / "g.mindir")


def test_a_torchscript_program_and_a_whole_network_are_told_from_weights(tmp_path: Path):
    import torch

    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="TorchScript program"):
        checkpoint.read(tmp_path / "x.pt")


# ---- Zips


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_one_checkpoint_is_opened(files: dict[str, Path], tmp_path: Path, kind: int):
    for file_format, source in files.items():
        path = tmp_path / f"{file_format}.zip"
        with zipfile.ZipFile(path, "w", kind) as archive:
            archive.writestr("README.txt", "about")
            archive.write(source, f"weights/{source.name}")
        assert checkpoint.read(path).format == file_format
        report = rewrite(path, tmp_path / "y.safetensors")
        assert report.source["sha256"] == checkpoint.read(path).sha256
        assert inspect(path).packed_with == ["README.txt"]
        (left,) = (entry for entry in report.left if entry["kind"] == "file")
        assert left["names"] == ["README.txt"]
        assert not any("zip" in note for note in load(path).notes)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("weights/xcit_hub.json", "{}")
        assert any("(1): 'weights/xcit_hub.json'" in note for note in load(path).notes)
        assert same(load(tmp_path / "y.safetensors").tensors, network())


def test_a_zip_of_none_or_several_checkpoints_or_of_a_zip_is_said_to_be_so(files: dict[str, Path], tmp_path: Path):
    source = files["ckpt"]
    for names, words in ((["a.txt"], "no checkpoint"), (["a.ckpt", "b.ckpt"], "2 checkpoints .a.ckpt, b.ckpt")):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name in names:
                archive.write(source, name)
        with pytest.raises(CheckpointError, match=words):
            checkpoint.read(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "x.zip", "inner.ckpt")
    with pytest.raises(CheckpointError, match="zip in a zip"):
        checkpoint.read(tmp_path / "outer.zip")


def test_a_zip_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.ckpt", bytes(30 << 20))
    with pytest.raises(CheckpointError, match="would have 31,457,280 bytes"):
        checkpoint.read(tmp_path / "x.zip")


# ---- Checkpoints in several files


def sharded(folder: Path, names: list[str]) -> dict[str, str]:
    tensors = network()
    table = {name: names[index % len(names)] for index, name in enumerate(tensors)}
    for shard in names:
        checkpoint.write(folder / shard, {name: tensors[name] for name, holder in table.items() if holder == shard})
    return table


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_checkpoint_in_several_files_is_joined_by_its_index(tmp_path: Path, suffix: str):
    names = [f"model-0000{index}-of-00003.{suffix}" for index in (1, 2, 3)]
    table = sharded(tmp_path, names)
    if suffix == "bin":  # torch's own sharded files are flat
        import torch

        for shard in names:
            torch.save(torch.load(tmp_path / shard)["model"], tmp_path / shard)
    with pytest.raises(CheckpointError, match="one of several files"):
        checkpoint.read(tmp_path / names[0])
    index = tmp_path / f"model.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    for path in (index, tmp_path / names[1]):
        assert same(load(path, dialect="paper").tensors, network())
    (tmp_path / names[2]).unlink()
    with pytest.raises(CheckpointError, match=f"Cannot read {names[2]}"):
        checkpoint.read(index)


def test_an_index_that_leaves_its_folder_or_promises_other_tensors_is_refused(tmp_path: Path):
    table = sharded(tmp_path, ["a.safetensors"])
    index = tmp_path / "model.safetensors.index.json"
    for holder in ("../a.safetensors", "/etc/passwd", "b/../a.safetensors", ".."):
        index.write_text(json.dumps({"weight_map": {**table, "cls_token": holder}}))
        with pytest.raises(CheckpointError, match="outside of its folder"):
            checkpoint.read(index)
    index.write_text(json.dumps({"weight_map": {**table, "more": "a.safetensors"}}))
    with pytest.raises(CheckpointError, match="do not hold the same tensors: more"):
        checkpoint.read(index)


def test_files_that_contradict_each_other_and_an_index_among_them_are_refused(tmp_path: Path):
    table = sharded(tmp_path, ["a.safetensors", "b.safetensors"])
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    for name, dialect in (("a.safetensors", "paper"), ("b.safetensors", "mindcv")):
        held = dict(checkpoint.read(tmp_path / name).tensors)
        checkpoint.write(tmp_path / f"new-{name}", held, {"xcit_hub.dialect": dialect})
        (tmp_path / f"new-{name}").replace(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"say different things of 'xcit_hub\.dialect'"):
        checkpoint.read(index)
    index.write_text(json.dumps({"weight_map": {"a": index.name}}))
    with pytest.raises(CheckpointError, match="names another index"):
        checkpoint.read(index)


# ---- What safetensors' library opens


@pytest.mark.parametrize("code", ["F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"])
def test_dtypes_that_no_weights_have_are_read_and_refused_by_name(tmp_path: Path, code: str, make: Make):
    path = tmp_path / "x.safetensors"
    tensors = make("timm")
    checkpoint.write(path, tensors)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    size = {"C64": 8}.get(code, 1)
    header["cls_token"] = {**header["cls_token"], "dtype": code, "shape": [1, 1, 64 // size], "more": {"a": [1]}}
    header["__metadata__"] = None
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    assert checkpoint.read(path).tensors["cls_token"].size == 64 // size
    try:
        with safetensors.safe_open(path, "np") as opened:
            assert "cls_token" in opened.keys()  # noqa: SIM118
    except safetensors.SafetensorError as problem:
        # Older libraries refuse the file; ours reads what the newest opens.
        assert "FNUZ" in code and "unknown variant" in str(problem)
    with pytest.raises(WeightsError, match=r"not a floating-point tensor: cls_token (float8|complex64)"):
        load(path)


def test_packed_numbers_are_refused_by_their_name(tmp_path: Path):
    text = b'{"w":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}'
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(CheckpointError, match="'w' as F4"):
        checkpoint.read(tmp_path / "x.safetensors")


# ---- What is not a file


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: os.mkfifo(path), "FIFO"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to(path), "a loop of symbolic links"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "a socket"),
        (lambda path: path.symlink_to(path.parent / "gone"), "No such file"),
    ],
    ids=["fifo", "device", "loop", "socket", "dangling"],
)
def test_what_is_not_a_file_is_refused_by_name_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make, words: str
):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = Path("x.ckpt")
    make(path if words == "a socket" else tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=f"Cannot read x.ckpt: .*{words}"):
        checkpoint.read(tmp_path / "x.ckpt")


def test_what_was_hashed_is_what_is_read_whatever_the_name_means_by_then(files: dict[str, Path], tmp_path: Path):
    for file_format, source in files.items():
        path = tmp_path / f"x.{file_format}"
        shutil.copy(source, path)
        opened = checkpoint.read(path)
        path.unlink()
        path.write_bytes(b"another file")
        assert opened.sha256 == checkpoint.read(source).sha256
        prefix = "model." if file_format == "pth" else ""
        assert opened.tensors[f"{prefix}cls_token"].raw() == network()["cls_token"].raw()
        with pytest.raises(CheckpointError, match="was changed while it was read"):
            opened.check_unchanged()


def test_every_kind_that_is_not_read_says_what_to_do():
    read = {kinds.Kind.SAFETENSORS, kinds.Kind.CKPT, kinds.Kind.ZIP, kinds.Kind.TORCH_LEGACY, kinds.Kind.SHARD_INDEX}
    assert set(kinds.Kind) - read - {kinds.Kind.PICKLE} == set(kinds.ADVICE)


def test_a_file_of_pytorch_without_a_tensor_is_told_for_what_it_is(tmp_path: Path):
    import torch

    arrays = {name: tensor.numpy() for name, tensor in network().items()}
    for content, words in (
        ({"state_dict": arrays, "epoch": 3}, f"holds {len(arrays)} numpy arrays and no tensor"),
        ({"epoch": 3}, "holds no tensor"),
        ({}, "holds no tensor"),
    ):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match=words) as caught:
            checkpoint.read(tmp_path / "x.pth")
        assert "again" not in caught.value.fix


def test_an_archive_without_its_end_was_cut_short(files: dict[str, Path], tmp_path: Path):
    (tmp_path / "x.pth").write_bytes(files["pth"].read_bytes()[:9000])
    with pytest.raises(CheckpointError, match="its end is missing, the file was cut short"):
        checkpoint.read(tmp_path / "x.pth")
