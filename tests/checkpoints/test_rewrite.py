"""Every family and format becomes every other and comes back; reports, targets and memory of a conversion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_networks import SUFFIXES, TINY, TINY_P16, Make, network, same, written

from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.beside import Reason
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.checkpoints.weights import load
from xcit_hub.errors import CheckpointError, InputError
from xcit_hub.files import sha256_of
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import ARCHITECTURES, architecture

PAPER = ("timm", "facebook", "xcit-hub")
MINDCV = ("mindcv", "xcit-hub")


# ---- Every pair


@pytest.mark.parametrize("suffix_out", SUFFIXES)
@pytest.mark.parametrize("suffix_in", SUFFIXES)
@pytest.mark.parametrize("families", [PAPER, MINDCV], ids=["paper", "mindcv"])
def test_every_family_and_format_becomes_every_other_and_comes_back(
    tmp_path: Path,
    make: Make,
    families: tuple[str, ...],
    suffix_in: str,
    suffix_out: str,
):
    dialect = "paper" if families is PAPER else "mindcv"
    for source_family in families:
        source = tmp_path / f"{source_family}{suffix_in}"
        tensors = make(source_family)
        checkpoint.write(source, tensors, {"xcit_hub.dialect": dialect})
        for target_family in families:
            there, back = tmp_path / f"there{suffix_out}", tmp_path / f"back{suffix_in}"
            rewrite(source, there, to=target_family)
            assert same(written(there), make(target_family))
            assert load(there).dialect == dialect
            rewrite(there, back, to=source_family)
            assert same(written(back), tensors)


def _files() -> Iterator[Any]:
    """Every architecture; of the wide ones, whose files are gigabytes, all but the narrowest are a campaign's.

    What a file names, and of how many blocks, is the same of every width.
    """
    for name in ARCHITECTURES:
        if name.endswith("224"):
            rest = architecture(name).embed_dim > 384 and name != "xcit_medium_24_p8_224"
            yield pytest.param(name, marks=[pytest.mark.campaign] if rest else [])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(_files()))
def test_files_of_every_architecture_come_back_byte_for_byte(tmp_path: Path, name: str, make: Make):
    start, ckpt, facebook, end = (tmp_path / n for n in ("a.safetensors", "b.ckpt", "c.safetensors", "d.safetensors"))
    tensors = make("timm", architecture(name), "classifier", 1000)
    if architecture(name).embed_dim > 192:  # in half precision there are half as many bytes to hash
        tensors = {each: StoredTensor.of(tensor.numpy().astype(np.float16)) for each, tensor in tensors.items()}
    checkpoint.write(tmp_path / "raw.safetensors", tensors)
    rewrite(tmp_path / "raw.safetensors", start, to="timm")
    rewrite(start, ckpt)
    rewrite(ckpt, facebook, to="facebook")
    report = rewrite(facebook, end, to="timm")
    assert report.weights.architecture.name == name
    assert sha256_of(end) == sha256_of(start) == report.target["sha256"]
    for path in tmp_path.iterdir():  # pytest keeps the folders of three runs
        path.unlink()


@pytest.mark.parametrize("name", ["xcit_nano_12_p16_224", "xcit_tiny_12_p8_224"])
def test_timms_own_network_comes_back_whole_and_loads_strictly(tmp_path: Path, name: str):
    import timm
    import torch
    from safetensors.torch import load_file, save_file

    model = timm.create_model(name)
    save_file(model.state_dict(), tmp_path / "timm.safetensors")
    rewrite(tmp_path / "timm.safetensors", tmp_path / "ours.ckpt")
    rewrite(tmp_path / "ours.ckpt", tmp_path / "back.safetensors", to="timm")
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in model.state_dict().items())
    model.load_state_dict(back, strict=True)


def test_timm_reads_the_facebook_file_as_it_reads_facebooks_own(tmp_path: Path):
    import timm
    import torch
    from timm.models.xcit import checkpoint_filter_fn

    model = timm.create_model("xcit_nano_12_p16_224")
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    rewrite(tmp_path / "timm.pth", tmp_path / "facebook.pth", to="facebook")
    content = torch.load(tmp_path / "facebook.pth", weights_only=True)
    assert "cls_attn_blocks.0.attn.qkv.weight" in content["model"]
    renamed = checkpoint_filter_fn(content, model)
    assert renamed.keys() == model.state_dict().keys()
    assert all(torch.equal(renamed[key], value) for key, value in model.state_dict().items())


def test_mindspore_reads_the_ckpt_and_its_dialect(paper: Path, tmp_path: Path):
    import mindspore

    rewrite(paper, tmp_path / "x.ckpt")
    loaded = mindspore.load_checkpoint(str(tmp_path / "x.ckpt"))
    assert loaded["xcit_hub.dialect"] == "paper"
    for name, shape in parameter_shapes(TINY, num_classes=7).items():
        assert loaded[name].shape == shape
        assert (loaded[name].asnumpy() == load(paper).tensors[name].numpy()).all()


# ---- What is not a classifier


def test_a_detectors_backbone_goes_to_ours_and_back_with_its_pyramid(tmp_path: Path, make: Make):
    for entry in (TINY, TINY_P16):
        bare = make("facebook", entry, "dense")
        whole = {f"state_dict.backbone.{name}": tensor for name, tensor in bare.items()}
        whole["state_dict.neck.conv.weight"] = StoredTensor.of(np.ones(3, np.float32))
        source = tmp_path / "mask_rcnn.safetensors"
        checkpoint.write(source, whole, {"format": "pt"})
        report = rewrite(source, tmp_path / "x.ckpt")
        assert report.weights.kind == "dense"
        assert [entry.name for entry in report.weights.dropped] == ["state_dict.neck.conv.weight"]
        rewrite(tmp_path / "x.ckpt", tmp_path / "back.pth", to="facebook")
        assert same(written(tmp_path / "back.pth"), bare)


def test_timm_gets_a_detectors_blocks_as_its_feature_extractor(tmp_path: Path, make: Make):
    import timm
    from safetensors.torch import load_file

    entry = architecture("xcit_nano_12_p16_224")
    checkpoint.write(tmp_path / "x.safetensors", make("facebook", entry, "dense"), {"format": "pt"})
    report = rewrite(tmp_path / "x.safetensors", tmp_path / "timm.safetensors", to="timm")
    assert any("pyramid" in note for note in report.weights.notes)
    assert sum(dropped.reason is Reason.PYRAMID for dropped in report.weights.dropped) == 10
    features = timm.create_model(entry.name, features_only=True)
    state = {f"model.{name}": value for name, value in load_file(tmp_path / "timm.safetensors").items()}
    features.load_state_dict(state, strict=True)
    assert load(tmp_path / "timm.safetensors").kind == "features"


def test_a_dino_backbone_has_no_classes_and_fits_timm_without_a_head(tmp_path: Path, make: Make):
    import timm
    from safetensors.torch import load_file

    entry = architecture("xcit_small_12_p16_224")
    checkpoint.write(tmp_path / "dino.safetensors", make("facebook", entry, "backbone"), {"format": "pt"})
    report = rewrite(tmp_path / "dino.safetensors", tmp_path / "timm.safetensors", to="timm")
    assert (report.weights.kind, report.weights.num_classes) == ("backbone", 0)
    timm.create_model(entry.name, num_classes=0).load_state_dict(load_file(tmp_path / "timm.safetensors"), strict=True)


def test_a_training_checkpoint_gives_plain_or_averaged_weights_and_counts_the_rest(tmp_path: Path, make: Make):
    plain = make("mindcv")
    averaged = {name: StoredTensor.of(tensor.numpy() + 1) for name, tensor in plain.items()}
    content = {
        **plain,
        **{f"ema.{name}": tensor for name, tensor in averaged.items()},
        **{f"adam_m.{name}": tensor for name, tensor in plain.items()},
        "global_step": StoredTensor.of(np.array([3], np.int32)),
    }
    source, target = tmp_path / "train.ckpt", tmp_path / "x.safetensors"
    checkpoint.write(source, content)
    for ema, expected in ((False, plain), (True, averaged)):
        report = rewrite(source, target, ema=ema)
        assert report.weights.dialect == "mindcv"
        assert same(written(target), expected)
        assert any("both there" in note for note in report.weights.notes)
        assert any(f"Dropped {len(plain) + 1} tensors of optimizer" in note for note in report.weights.notes)


# ---- The report, the target


def test_the_report_tells_everything_that_happened(paper: Path, tmp_path: Path):
    report = json.loads(json.dumps(rewrite(paper, tmp_path / "x.ckpt", num_classes=0).as_dict()))
    assert report["source"]["sha256"] == sha256_of(paper)
    assert report["target"]["sha256"] == sha256_of(tmp_path / "x.ckpt")
    assert report["target"]["bytes"] == (tmp_path / "x.ckpt").stat().st_size
    qkv = next(entry for entry in report["tensors"] if entry["target"] == ["cls_attn_blocks.0.attn.qkv.weight"])
    assert qkv["source"] == [f"cls_attn_blocks.0.attn.{part}.weight" for part in "qkv"]
    assert (qkv["shape"], qkv["dtype"]) == ([48, 16], "float32")
    assert {entry["name"] for entry in report["dropped"]} == {"head.weight", "head.bias"}
    assert report["dialect"] == "paper" and report["evidence"]
    assert set(report["versions"]) >= {"xcit-hub", "python", "numpy"}
    back = rewrite(tmp_path / "x.ckpt", tmp_path / "y.safetensors", to="timm").as_dict()
    assert all(entry["name"].endswith("num_batches_tracked") and entry["reason"] for entry in back["made_up"])


def test_figures_that_are_not_numbers_leave_the_report_valid_json(paper: Path, tmp_path: Path):
    figures = {"passed": False, "max_error": float("nan"), "checks": [{"error": float("inf"), "bar": 1e-4}]}
    report = rewrite(paper, tmp_path / "x.ckpt", prove=lambda *_: figures)
    told = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert told["parity"] == {"passed": False, "max_error": None, "checks": [{"error": None, "bar": 1e-4}]}


@pytest.mark.parametrize("change", ["written to", "replaced", "removed"])
def test_a_source_that_changes_while_it_is_converted_gives_no_target(paper: Path, tmp_path: Path, change: str):
    other = tmp_path / "other"
    other.write_bytes(paper.read_bytes())

    def progress(done: int, total: int) -> None:
        if done == total and change == "written to":
            with paper.open("r+b") as stream:
                stream.write(b" ")
        elif done == total:
            other.replace(paper) if change == "replaced" else paper.unlink()

    with pytest.raises(CheckpointError, match="was changed while it was read"):
        rewrite(paper, tmp_path / "x.ckpt", progress=progress)
    assert not (tmp_path / "x.ckpt").exists()


def test_progress_reaches_the_whole(paper: Path, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    rewrite(paper, tmp_path / "x.ckpt", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == sum(tensor.nbytes for tensor in network().values())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_source_and_target_must_differ_and_formats_be_known(paper: Path, tmp_path: Path):
    before = paper.read_bytes()
    with pytest.raises(InputError, match="same file"):
        rewrite(paper, tmp_path / "." / "paper.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint format's"):
        rewrite(paper, tmp_path / "x.onnx")
    assert paper.read_bytes() == before


# ---- Memory

_PEAK = """
import sys
from xcit_hub.checkpoints.rewrite import rewrite
rewrite(sys.argv[1], sys.argv[2], to=sys.argv[3])
status = open("/proc/self/status").read()
print(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize(
    ("source", "target", "to"),
    [
        ("x.safetensors", "y.ckpt", "xcit-hub"),
        ("x.pth", "y.safetensors", "timm"),
        ("x.ckpt", "y.pth", "facebook"),
        ("x.safetensors", "y.pth", "mmpretrain"),
        ("x.pth", "y.ckpt", "xcit-hub"),
        ("x.safetensors", "z.safetensors", "paddlevit"),
    ],
)
def test_a_conversion_takes_less_memory_than_100_megabytes_whatever_the_files_size(
    tmp_path: Path, make: Make, source: str, target: str, to: str
):
    """The whole process, its interpreter and imports included, of a file of 190 MB."""
    import subprocess
    import sys

    family = "xcit-hub" if source.endswith(".ckpt") else "timm"
    tensors = make(family, architecture("xcit_small_24_p16_224"), "classifier", 1000)
    checkpoint.write(tmp_path / source, tensors, {"xcit_hub.dialect": "paper"})
    assert (tmp_path / source).stat().st_size > 180e6
    command = [sys.executable, "-c", _PEAK, str(tmp_path / source), str(tmp_path / target), to]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000, "kilobytes"
