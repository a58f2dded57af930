"""PyTorch's files, read without PyTorch: each storage is its own record, whole, and each tensor what it says it is."""

from __future__ import annotations

import argparse
import collections
import pathlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xcit_hub.checkpoints import checkpoint, translate
from xcit_hub.checkpoints.formats import pytorch
from xcit_hub.checkpoints.formats.pytorch import read_archive
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.checkpoints.tensor import StoredTensor
from xcit_hub.errors import CheckpointError
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import architecture

torch = pytest.importorskip("torch")


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The same archive with records changed or left out, and correct checksums."""
    out = path.with_name("changed.pth")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            content = change(entry.filename, old.read(entry))
            if content is not None:
                new.writestr(entry.filename, content)
    return out


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save({"head.bias": torch.arange(10.0), "other": torch.arange(3.0)}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


@pytest.mark.parametrize("length", [0, 10, 39, 41, 80])
def test_a_record_of_another_length_is_refused_though_its_checksum_is_right(saved: Path, length: int):
    # torch also writes .data/serialization_id, which is 40 bytes long itself.
    content = bytes(range(length))
    changed = rewritten(saved, lambda name, old: content if name == "x/data/0" else old)
    with pytest.raises(CheckpointError, match=rf"head.bias.*has {length} bytes, and should have 40"):
        checkpoint.read(changed)


def test_records_do_not_stand_in_for_one_another(saved: Path):
    missing = rewritten(saved, lambda name, old: None if name == "x/data/0" else old)
    with pytest.raises(CheckpointError, match="is missing, and should have 40"):
        checkpoint.read(missing)


def test_records_that_lie_upon_each_other_are_refused(saved: Path):
    with zipfile.ZipFile(saved) as archive:
        held, following = archive.getinfo("x/data/0"), archive.getinfo("x/data/1")
        held.file_size = held.compress_size = following.header_offset - held.header_offset + 100
        with pytest.raises(CheckpointError, match="lie upon each other"):
            read_archive(checkpoint.opened(saved), archive)


@pytest.mark.parametrize("use", ["read", "convert"])
def test_a_damaged_number_is_called_damage_even_where_no_network_could_use_it(tmp_path: Path, use: str):
    shapes = parameter_shapes(architecture("xcit_nano_12_p16_224"))
    weights = {name: StoredTensor.of(np.full(shape, 0.5, np.float32)) for name, shape in shapes.items()}
    checkpoint.write(tmp_path / "x.pth", translate.from_ours(weights, "facebook"))
    content = bytearray((tmp_path / "x.pth").read_bytes())
    at = content.index(np.full(8, 0.5, np.float32).tobytes())
    content[at : at + 4] = np.float32(np.nan).tobytes()
    (tmp_path / "damaged.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="fails its checksum"):
        if use == "read":
            checkpoint.read(tmp_path / "damaged.pth")
        else:
            rewrite(tmp_path / "damaged.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_negative_and_conjugate_bits_are_read_as_the_numbers_they_mean(tmp_path: Path):
    def pairs():
        return torch.view_as_complex(torch.arange(8.0).reshape(4, 2))

    content = {
        "negative": pairs().conj().imag,
        "conjugate": pairs().conj(),
        "half": torch._neg_view(torch.arange(3.0).to(torch.bfloat16)),
        "plain": pairs().real.contiguous(),
    }
    assert content["negative"].is_neg() and content["half"].is_neg() and content["conjugate"].is_conj()
    torch.save(content, tmp_path / "x.pth")
    tensors = checkpoint.read(tmp_path / "x.pth").tensors
    assert tensors["conjugate"].dtype == "complex64"
    for name, value in content.items():
        expected = value.resolve_conj().resolve_neg().contiguous()
        if name != "half":
            assert tensors[name].raw() == expected.numpy().tobytes()
    assert tensors["half"].numpy().tolist() == content["half"].float().tolist()


def test_every_arrangement_of_a_tensor_in_its_storage_is_read(tmp_path: Path):
    whole = torch.arange(60.0).reshape(3, 4, 5)
    content = {
        "whole": whole,
        "parameter": torch.nn.Parameter(whole),
        "part": whole[1:, 2],
        "turned": whole.permute(2, 0, 1),
        "stepped": whole[:, ::2, 1::3],
        "spread": whole[:1, :1, :1].expand(1, 1, 1),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "channels_last": torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last),
        "long": torch.arange(3),
        "flags": torch.tensor([True, False]),
        "eight": torch.arange(4.0).to(torch.float8_e5m2),
        "unsigned": torch.arange(3, dtype=torch.int32).to(torch.uint16),
    }
    for legacy in (False, True):
        kept = {k: v for k, v in content.items() if not legacy or k not in ("eight", "unsigned", "empty")}
        path = tmp_path / f"{legacy}.pt"
        torch.save(kept, path, _use_new_zipfile_serialization=not legacy)
        tensors = checkpoint.read(path).tensors
        assert tensors.keys() == kept.keys()
        for name, value in kept.items():
            dense = value.detach().contiguous()
            assert (tensors[name].shape, tensors[name].dtype) == (
                tuple(value.shape),
                str(value.dtype).removeprefix("torch."),
            )
            assert tensors[name].raw() == dense.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_whatever_plain_data_stands_beside_the_weights_is_harmless(tmp_path: Path):
    scalars = [np.float64(1), np.float32(1), np.float16(1), np.int8(1), np.uint8(1), np.int16(1), np.uint64(1)]
    beside = {
        "scalars": [*scalars, np.bool_(True), np.str_("text"), np.bytes_(b"b")],
        "array": np.arange(5),
        "rng": torch.get_rng_state(),
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/a")),
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, {"a": [1]}),
        "counter": collections.Counter("aab"),
        "set": {1, 2},
        "complex": 1j,
        "bytes": b"\0",
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "big": 2**100,
        "none": None,
        "note": "text",
    }
    for protocol in (2, 4):
        torch.save({"state_dict": {"w": torch.ones(2)}, **beside}, tmp_path / "x.pth", pickle_protocol=protocol)
        opened = checkpoint.read(tmp_path / "x.pth")
        assert set(opened.tensors) == {"state_dict.w", "rng"}
        assert opened.metadata == {"note": "text"}
        assert {"array", "args.lr", "big", "scalars.0"} <= set(opened.values)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse tensor"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8), "qtensor"),
    ],
)
def test_a_tensor_that_is_not_dense_is_refused_by_name(tmp_path: Path, make: Callable[[], object], words: str):
    torch.save({"w": make()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=words):
        checkpoint.read(tmp_path / "x.pth")


def test_pytorchs_files_are_read_where_pytorch_is_not_installed(saved: Path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from xcit_hub.checkpoints import checkpoint\n"
        f"print(checkpoint.read({str(saved)!r}).tensors['head.bias'].numpy().sum())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "45.0", done.stderr


def test_a_pickle_without_end_or_with_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from xcit_hub.checkpoints.formats import pickled

    torch.save({str(index): torch.ones(1) for index in range(50)}, tmp_path / "x.pth")
    monkeypatch.setattr(pickled, "_MOST_INSTRUCTIONS", 100)
    with pytest.raises(CheckpointError, match="more instructions than any checkpoint"):
        checkpoint.read(tmp_path / "x.pth")
    monkeypatch.undo()
    for broken in (
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02}q\x00(X\x01\x00\x00\x00a",
        b"\x80\x02(lp",
        b"\x80\x02h\x05.",
    ):
        changed = rewritten(tmp_path / "x.pth", lambda name, old: broken if name.endswith("data.pkl") else old)  # noqa: B023
        with pytest.raises(CheckpointError, match="not a whole PyTorch checkpoint"):
            checkpoint.read(changed)


@pytest.mark.parametrize("key", [2**100, 10**5000, ("a", 1), b"b", 1.5, "half \ud800", None, True], ids=range(8))
def test_whatever_a_table_is_keyed_by_has_a_name(tmp_path: Path, key: object):
    torch.save({key: torch.ones(1), "note": "half \ud800"}, tmp_path / "x.pth", pickle_protocol=4)
    opened = checkpoint.read(tmp_path / "x.pth")
    assert len(opened.tensors) == 1
    for text in (*opened.tensors, *opened.metadata.values()):
        assert text.encode("utf-8")


def trained_as(said: bytes, numbers: torch.Tensor, kind: str, path: Path) -> Path:
    """A file of one tensor or parameter, ``x``, whose description has ``said`` where it was not trained."""
    torch.save({"x": numbers if kind == "tensor" else torch.nn.Parameter(numbers, False)}, path)

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("/data.pkl"):
            return content
        before, _, after = content.rpartition(b"\x89")  # the outermost NEWFALSE: of two, the parameter's
        return before + said + after

    return rewritten(path, change)


@pytest.mark.parametrize("said", [b"N", b"K\x01", b"K\x00", b"]", b"}", b"X\x01\x00\x00\x00x"])
@pytest.mark.parametrize("kind", ["tensor", "parameter"])
def test_a_tensor_is_trained_or_not_and_anything_else_is_refused_as_pytorch_does(
    tmp_path: Path, kind: str, said: bytes
) -> None:
    changed = trained_as(said, torch.arange(3.0), kind, tmp_path / "x.pth")
    with pytest.raises(Exception, match=r"requires?_grad"):
        torch.load(changed, weights_only=True)
    with pytest.raises(CheckpointError, match=rf"the description of 'x' is not a {kind}'s"):
        checkpoint.read(changed)


@pytest.mark.parametrize("kind", ["tensor", "parameter"])
def test_whole_numbers_that_would_be_trained_are_refused_as_pytorch_does(tmp_path: Path, kind: str) -> None:
    changed = trained_as(b"\x88", torch.arange(3), kind, tmp_path / "x.pth")
    with pytest.raises(RuntimeError, match="can require gradients"):
        torch.load(changed, weights_only=True)
    with pytest.raises(CheckpointError, match="'x' is of int64 and would be trained, which PyTorch refuses"):
        checkpoint.read(changed)


@pytest.mark.parametrize("length", [1 << 40, (1 << 63) - 1])
@pytest.mark.parametrize("instruction", [b"\x8e", b"\x8d", b"\x96"], ids=["BINBYTES8", "BINUNICODE8", "BYTEARRAY8"])
def test_a_length_beyond_the_file_is_refused_before_memory_is_set_aside_for_it(
    tmp_path: Path, instruction: bytes, length: int
) -> None:
    torch.save({"x": torch.arange(3.0)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "x.pth").read_bytes()
    at = content.index(b"}q\x00", 40)  # the table of the third pickle or a later one
    (tmp_path / "x.pth").write_bytes(content[:at] + instruction + length.to_bytes(8, "little") + content[at:])
    with pytest.raises(CheckpointError, match=r"it is not a pickle of plain data \(expected \d+ bytes"):
        checkpoint.read(tmp_path / "x.pth")


def test_a_description_longer_than_any_checkpoints_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pth"
    torch.save({"x": torch.arange(3.0), "note": "x" * 1000}, path, _use_new_zipfile_serialization=False)
    assert "x" in checkpoint.read(path).tensors
    monkeypatch.setattr(pytorch, "_LARGEST_PICKLE", 500)
    with pytest.raises(CheckpointError, match="it is not a pickle of plain data"):
        checkpoint.read(path)
