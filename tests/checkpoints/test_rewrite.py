from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_networks import TINY, TINY_P16, Make, network, same

from xcit_hub.checkpoints import checkpoint, families
from xcit_hub.checkpoints.beside import Reason
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.checkpoints.sidecar import config_path
from xcit_hub.checkpoints.weights import load
from xcit_hub.errors import CheckpointError, InputError, UnknownNameError, WeightsError
from xcit_hub.files import sha256_of
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import ARCHITECTURES, architecture

SUFFIXES = (".safetensors", ".ckpt", ".pth")
PAPER = ("timm", "facebook", "xcit-hub")
MINDCV = ("mindcv", "xcit-hub")


def written(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file without PyTorch's counters and wrapper."""
    tensors = checkpoint.read(path).tensors
    return {name.removeprefix("model."): entry for name, entry in tensors.items() if "num_batches" not in name}


@pytest.fixture
def paper(tmp_path: Path, make: Make) -> Path:
    path = tmp_path / "paper.safetensors"
    checkpoint.write(path, make("timm"))
    return path


@pytest.fixture
def mindcv(tmp_path: Path, make: Make) -> Path:
    path = tmp_path / "mindcv.ckpt"
    checkpoint.write(path, make("mindcv"), {"xcit_hub.dialect": "mindcv"})
    return path


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
    """Every architecture; of the wide ones, whose files are gigabytes, patches of 16 are a campaign's."""
    for name in ARCHITECTURES:
        if name.endswith("224"):
            rest = architecture(name).embed_dim > 384 and architecture(name).patch_size == 16
            yield pytest.param(name, marks=[pytest.mark.campaign] if rest else [])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(_files()))
def test_files_of_every_architecture_come_back_byte_for_byte(tmp_path: Path, name: str, make: Make):
    start, ckpt, facebook, end = (tmp_path / n for n in ("a.safetensors", "b.ckpt", "c.safetensors", "d.safetensors"))
    tensors = make("timm", architecture(name), "classifier", 1000)
    if architecture(name).embed_dim > 384:  # in half precision there are half as many bytes to hash, 380 MB
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


# ---- Dialect


def test_a_mindcv_network_is_refused_to_timm_and_facebook_with_the_way_out(mindcv: Path, tmp_path: Path):
    for family in ("timm", "facebook"):
        with pytest.raises(WeightsError, match=f"{family} has no network") as caught:
            rewrite(mindcv, tmp_path / "x.safetensors", to=family)
        assert "import xcit_hub.timm" in caught.value.fix
    assert not (tmp_path / "x.safetensors").exists()


def test_a_paper_network_is_refused_to_mindcv(paper: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match="network of MindCV's that has these names does not compute"):
        rewrite(paper, tmp_path / "x.ckpt", to="mindcv")


def test_mindcvs_network_of_mint_layers_goes_to_ours_and_back(tmp_path: Path, make: Make):
    source, ours, back = tmp_path / "mint.ckpt", tmp_path / "ours.safetensors", tmp_path / "back.ckpt"
    tensors = make("facebook")
    checkpoint.write(source, tensors)
    with pytest.raises(WeightsError, match="does not tell"):
        load(source)
    assert load(source, family="mindcv").dialect == "mindcv-mint"
    rewrite(source, ours, dialect="mindcv-mint")
    assert load(ours).dialect == "mindcv-mint"
    report = rewrite(ours, back, to="mindcv")
    assert same(written(back), tensors)
    assert report.tensors[1]["target"] == ["patch_embed.proj.0.0.weight"]
    assert load(back).dialect == "mindcv-mint"
    with pytest.raises(WeightsError, match="timm has no network"):
        rewrite(ours, tmp_path / "x.safetensors", to="timm")


def test_naming_our_class_is_the_way_from_mindcv_to_timm_and_leaves_its_mark(tmp_path: Path, make: Make):
    entry = architecture("xcit_nano_12_p16_224")
    source, target = tmp_path / "x.ckpt", tmp_path / "x.safetensors"
    checkpoint.write(source, make("mindcv", entry, "classifier", 1000))
    report = rewrite(source, target, to="timm", model=f"{entry.name}.ms_in1k", dialect="mindcv")
    assert families.MARKS["mindcv"] in checkpoint.read(target).tensors
    assert families.MARKS["mindcv"] in [made["name"] for made in report.made_up]
    bare = tmp_path / "bare.safetensors"
    checkpoint.write(bare, checkpoint.read(target).tensors)  # the metadata is gone, the mark is not
    assert load(bare).dialect == "mindcv"
    with pytest.raises(WeightsError, match="contradicts"):
        load(bare, dialect="paper")


def test_a_file_that_does_not_tell_needs_the_dialect_and_then_carries_it(tmp_path: Path, make: Make):
    source = tmp_path / "silent.ckpt"
    checkpoint.write(source, make("xcit-hub"))
    with pytest.raises(WeightsError, match="does not tell") as caught:
        load(source)
    assert str(source) in str(caught.value)
    for suffix in SUFFIXES:
        rewrite(source, tmp_path / f"x{suffix}", dialect="mindcv")
        assert load(tmp_path / f"x{suffix}").dialect == "mindcv"
        config = json.loads((tmp_path / "x.config.json").read_text())
        assert config["xcit_hub"]["dialect"] == "mindcv"
        assert config["xcit_hub"]["sha256"] == sha256_of(tmp_path / f"x{suffix}")


def test_the_config_speaks_only_for_the_file_it_was_written_for(tmp_path: Path, make: Make):
    silent = tmp_path / "model.safetensors"
    checkpoint.write(silent, make("xcit-hub"))
    config = {"xcit_hub": {"dialect": "mindcv", "sha256": sha256_of(silent)}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(silent).dialect == "mindcv"
    config["xcit_hub"]["sha256"] = "0" * 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="does not tell"):
        load(silent)
    (tmp_path / "config.json").write_text('{"xcit_hub": 3}')
    with pytest.raises(WeightsError, match="does not tell"):
        load(silent)


def test_a_file_changed_since_its_config_was_written_is_refused_until_the_config_is_deleted(
    paper: Path, tmp_path: Path
):
    from xcit_hub.checkpoints.inspection import inspect

    target = tmp_path / "x.safetensors"
    rewrite(paper, target)
    assert inspect(target).config == "x.config.json was written for this file"
    content = bytearray(target.read_bytes())
    content[-40] ^= 1
    target.write_bytes(content)
    for attempt in (lambda: load(target), lambda: rewrite(target, tmp_path / "y.ckpt")):
        with pytest.raises(WeightsError, match=r"was changed since x.config.json was written") as caught:
            attempt()
        assert str(target) in str(caught.value) and "delete x.config.json" in str(caught.value)
    assert "was changed" in (inspect(target).config or "")
    (tmp_path / "x.config.json").unlink()
    load(target)


@pytest.mark.parametrize("named", [None, "renamed.ckpt", "paper.safetensors", "y\0", "n" * 300, ["x.ckpt"]])
def test_a_config_written_for_what_is_not_there_is_not_used_and_that_is_said(
    paper: Path, tmp_path: Path, named: object
):
    from xcit_hub.checkpoints.inspection import inspect

    rewrite(paper, tmp_path / "x.ckpt")
    config = json.loads((tmp_path / "x.config.json").read_text())
    config["xcit_hub"] |= {"file": named, "sha256": "0" * 64, "dialect": "mindcv"}
    (tmp_path / "x.config.json").write_text(json.dumps(config))
    said = "nothing in it was used"
    assert load(tmp_path / "x.ckpt").dialect == "paper"
    assert any(said in note for note in load(tmp_path / "x.ckpt").notes)
    assert said in (inspect(tmp_path / "x.ckpt").config or "")


def test_a_config_of_another_file_there_is_none_of_ones_own(paper: Path, tmp_path: Path):
    rewrite(paper, tmp_path / "x.ckpt")
    rewrite(paper, tmp_path / "x.safetensors", num_classes=3)
    assert not any("x.config.json" in note for note in load(tmp_path / "x.ckpt").notes)


@pytest.mark.parametrize(("key", "said"), [("architecture", "xcit_nano_12_p16_224"), ("dialect", "mindcv")])
def test_a_config_that_contradicts_its_file_is_refused(paper: Path, tmp_path: Path, key: str, said: str):
    rewrite(paper, tmp_path / "x.ckpt")
    path = tmp_path / "x.config.json"
    config = json.loads(path.read_text())
    (config if key == "architecture" else config["xcit_hub"])[key] = said
    path.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=f"x.config.json says {key} '{said}'"):
        load(tmp_path / "x.ckpt")


def test_an_assumed_size_stays_assumed_and_another_than_the_files_own_is_noted(tmp_path: Path, make: Make):
    from xcit_hub.checkpoints.inspection import inspect

    source, target = tmp_path / "x.safetensors", tmp_path / "y.ckpt"
    checkpoint.write(source, make("timm", architecture("xcit_nano_12_p16_224"), "classifier", 7))
    rewrite(source, target)
    rewrite(target, tmp_path / "z.pth")
    for path in (target, tmp_path / "z.pth"):
        assert "Assumed xcit_nano_12_p16_224" in inspect(path).notes[0]
    rewrite(target, target.with_name("w.ckpt"), model="xcit_nano_12_p16_384")
    assert load(tmp_path / "w.ckpt").notes == []
    report = rewrite(tmp_path / "w.ckpt", tmp_path / "v.ckpt", model="xcit_nano_12_p16_224")
    said = "The file calls itself xcit_nano_12_p16_384; --model says xcit_nano_12_p16_224."
    assert report.weights.notes == [said]
    assert report.weights.architecture.name == "xcit_nano_12_p16_224"


def test_blocks_lost_from_a_known_network_make_no_custom_one_unless_it_is_named(tmp_path: Path, make: Make):
    whole = make("timm", architecture("xcit_nano_12_p16_224"), "classifier", 7)
    cut = {name: tensor for name, tensor in whole.items() if not name.startswith("blocks.11.")}
    checkpoint.write(tmp_path / "x.safetensors", cut)
    with pytest.raises(WeightsError, match=r"depth 11.*xcit_nano_12_p16_224 has width 128, depth 12") as caught:
        load(tmp_path / "x.safetensors")
    custom = "xcit_custom_128x11_h4_p16_224"
    assert f"--model {custom}" in str(caught.value)
    rewrite(tmp_path / "x.safetensors", tmp_path / "y.ckpt", model=custom)
    assert load(tmp_path / "y.ckpt").architecture.name == custom


def test_families_and_models_that_are_none_are_refused_in_words(paper: Path, tmp_path: Path):
    with pytest.raises(UnknownNameError, match="no family called 'zzz'"):
        rewrite(paper, tmp_path / "x.ckpt", to="zzz")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not by 3"):
        rewrite(paper, tmp_path / "x.ckpt", model=3)  # type: ignore[arg-type]


def test_a_strangers_config_is_left_alone(paper: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text('{"architecture": "mine"}')
    report = rewrite(paper, tmp_path / "model.safetensors")
    assert (tmp_path / "config.json").read_text() == '{"architecture": "mine"}'
    assert any("left it as it was" in note for note in report.weights.notes)
    assert config_path("a/pytorch_model.bin").name == "config.json"
    assert config_path("a/tiny.ckpt").name == "tiny.config.json"


def test_a_family_the_file_is_not_of_is_refused(paper: Path):
    with pytest.raises(WeightsError, match="timm's, not facebook's"):
        load(paper, family="facebook")


# ---- Heads, channels


def test_classes_are_kept_from_the_first_or_dropped_and_it_is_said(paper: Path, tmp_path: Path):
    whole = load(paper)
    report = rewrite(paper, tmp_path / "x.safetensors", num_classes=3)
    kept = load(tmp_path / "x.safetensors")
    assert kept.num_classes == 3
    assert (kept.tensors["head.weight"].numpy() == whole.tensors["head.weight"].numpy()[:3]).all()
    assert any("first 3 of 7" in note for note in report.weights.notes)
    report = rewrite(paper, tmp_path / "x.safetensors", num_classes=0)
    assert load(tmp_path / "x.safetensors").kind == "backbone"
    assert [entry.name for entry in report.weights.dropped] == ["head.weight", "head.bias"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_classes_begin_another_classifier_which_is_called_untrained_wherever_it_goes(
    paper: Path, tmp_path: Path, suffix: str
):
    from xcit_hub.checkpoints.inspection import inspect

    grown = tmp_path / f"grown{suffix}"
    report = rewrite(paper, grown, num_classes=9)
    told = report.as_dict()
    assert [entry["name"] for entry in told["made_up"]] == ["head.weight", "head.bias"]
    assert all("not trained" in entry["reason"] for entry in told["made_up"])
    assert [entry["name"] for entry in told["dropped"]] == ["head.weight", "head.bias"]
    assert [entry["source"] for entry in told["tensors"] if entry["target"][0] in ("head.weight", "head.bias")] == [
        []
    ] * 2
    assert told["head_untrained"] is True
    assert any("NOT TRAINED: it is random in place of the file's, which has 7" in note for note in told["notes"])
    loaded = load(grown)
    assert (loaded.num_classes, loaded.head_untrained) == (9, True)
    weight = loaded.tensors["head.weight"].numpy()
    assert weight.shape == (9, 16) and 0.01 < weight.std() < 0.03
    assert not loaded.tensors["head.bias"].numpy().any()
    rewrite(grown, tmp_path / "sliced.ckpt", num_classes=4)
    for path in (grown, tmp_path / "sliced.ckpt"):
        assert any("never trained" in note for note in load(path).notes)
        assert any("never trained" in note for note in inspect(path).notes)
    rewrite(grown, tmp_path / "bare.ckpt", num_classes=0)
    assert not load(tmp_path / "bare.ckpt").head_untrained
    assert not any("never trained" in note for note in load(tmp_path / "bare.ckpt").notes)


def test_a_new_classifier_is_the_same_every_time_and_of_the_files_dtype(paper: Path, tmp_path: Path):
    rewrite(paper, tmp_path / "half.safetensors", dtype="float16", num_classes=0)
    for name in ("a", "b"):
        rewrite(tmp_path / "half.safetensors", tmp_path / f"{name}.safetensors", to="timm", num_classes=9)
    assert sha256_of(tmp_path / "a.safetensors") == sha256_of(tmp_path / "b.safetensors")
    assert {tensor.dtype for tensor in written(tmp_path / "a.safetensors").values()} == {"float16"}
    assert load(tmp_path / "a.safetensors").kind == "classifier"


def test_classes_that_cannot_be_are_refused(paper: Path, tmp_path: Path, make: Make):
    with pytest.raises(InputError, match="cannot have -1 classes"):
        rewrite(paper, tmp_path / "x.safetensors", num_classes=-1)
    for absurd in (1 << 44, 1 << 80):
        with pytest.raises(InputError, match="is too large"):
            rewrite(paper, tmp_path / "x.safetensors", num_classes=absurd)
    checkpoint.write(tmp_path / "dense.safetensors", make("facebook", TINY, "dense"), {"format": "pt"})
    with pytest.raises(InputError, match="without class attention"):
        rewrite(tmp_path / "dense.safetensors", tmp_path / "x.safetensors", num_classes=5)
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("base", [3, 4])
@pytest.mark.parametrize("in_chans", [1, 2, 3, 4, 7])
def test_the_first_convolution_gets_timms_numbers(tmp_path: Path, make: Make, in_chans: int, base: int, dtype: str):
    import torch
    from timm.models._manipulate import adapt_input_conv

    source, cast = tmp_path / "x.safetensors", tmp_path / "cast.safetensors"
    checkpoint.write(source, make("timm", in_chans=base))
    rewrite(source, cast, dtype=dtype)
    rewrite(cast, tmp_path / "y.safetensors", in_chans=in_chans)
    name = "patch_embed.proj.0.0.weight"
    weight = torch.from_numpy(load(cast).tensors[name].numpy().copy()).to(getattr(torch, dtype))
    expected = adapt_input_conv(in_chans, weight, base_chans=base)
    found = load(tmp_path / "y.safetensors")
    assert (found.in_chans, found.tensors[name].dtype) == (in_chans, dtype)
    assert torch.equal(torch.from_numpy(found.tensors[name].numpy().copy()), expected.float())


# ---- Numbers


def test_numbers_are_rounded_as_pytorch_rounds_them(tmp_path: Path, make: Make):
    import torch

    source = tmp_path / "x.safetensors"
    for dtype_in in ("float32", "float64", "float16"):
        tensors = {n: StoredTensor.of(t.numpy().astype(dtype_in)) for n, t in make("timm").items()}
        checkpoint.write(source, tensors)
        for dtype in ("float32", "float16", "bfloat16"):
            rewrite(source, tmp_path / "y.safetensors", to="timm", dtype=dtype)
            for name, tensor in written(tmp_path / "y.safetensors").items():
                expected = torch.from_numpy(tensors[name].numpy().copy()).to(getattr(torch, dtype))
                assert tensor.dtype == dtype
                assert (torch.from_numpy(tensor.numpy().copy()) == expected.float()).all()


def test_bfloat16_is_rounded_once_even_from_float64():
    from xcit_hub.checkpoints import dtypes as numbers

    generator = np.random.default_rng(0)
    # Just above the middle between two bfloat16 values: rounding to float32 first would land on the middle, then even.
    middles = (1 + (2 * generator.integers(0, 64, 200) + 1) / 256.0) * 2.0 ** generator.integers(-20, 20, 200)
    for nudge in (1 + 2.0**-40, 1 - 2.0**-40, 1.0):
        values = middles * nudge
        out = numbers.cast(StoredTensor.of(values), "bfloat16", ("w",)).numpy().astype(np.float64)
        step = 2.0 ** (np.floor(np.log2(values)) - 7)
        quotient = values / step
        expected = np.where(quotient % 1 == 0.5, 2 * np.round(quotient / 2), np.floor(quotient + 0.5)) * step
        assert (out == expected).all()


def test_numbers_stay_exactly_as_they_are_unless_asked(tmp_path: Path, make: Make):
    tensors = make("timm")
    odd = tensors["cls_token"].numpy().copy()
    odd[0, 0, :4] = [-0.0, 1e-45, np.finfo(np.float32).max, np.float32(1) / 3]
    tensors["cls_token"] = StoredTensor.of(odd)
    half = "blocks.0.norm1.weight"
    tensors[half] = StoredTensor.of(tensors[half].numpy().astype(np.float16))
    checkpoint.write(tmp_path / "x.safetensors", tensors)
    rewrite(tmp_path / "x.safetensors", tmp_path / "y.ckpt")
    rewrite(tmp_path / "y.ckpt", tmp_path / "z.safetensors", to="timm")
    assert same(written(tmp_path / "z.safetensors"), tensors)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bfloat16"])
def test_nan_and_infinity_are_refused_by_name_and_leave_no_file(tmp_path: Path, make: Make, bad: float, dtype: str):
    tensors = make("timm")
    name = "blocks.1.mlp.fc2.weight"
    broken = tensors[name].numpy().copy()
    broken[3, 5] = bad
    if dtype == "bfloat16":
        bits = (broken.view(np.uint32) >> 16).astype(np.uint16)
        tensors[name] = StoredTensor("bfloat16", broken.shape, StoredTensor.of(bits)._extents)
    else:
        tensors[name] = StoredTensor.of(broken.astype(dtype))
    checkpoint.write(tmp_path / "x.safetensors", tensors)
    for attempt in (
        lambda: load(tmp_path / "x.safetensors"),
        lambda: rewrite(tmp_path / "x.safetensors", tmp_path / "y.ckpt"),
    ):
        with pytest.raises(WeightsError, match=r"blocks.1.mlp.fc2.weight holds NaN or infinity") as caught:
            attempt()
        assert caught.value.where == str(tmp_path / "x.safetensors")
    from xcit_hub.checkpoints.inspection import inspect

    assert inspect(tmp_path / "x.safetensors").flaws == {"non_finite": {name: 1}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.safetensors"]


@pytest.mark.parametrize(
    ("flaw", "dtype", "bad", "words"),
    [
        ("negative_variances", "float32", -1e-3, "holds the negative variance -0.001"),
        ("negative_variances", "float16", -1.0, "holds the negative variance -1"),
        ("beyond_float32", "float64", 1e39, r"holds 1e\+39, which is too large for float32"),
    ],
)
def test_numbers_that_can_only_give_nan_are_refused_and_inspect_counts_them(
    tmp_path: Path, make: Make, flaw: str, dtype: str, bad: float, words: str
):
    from xcit_hub.checkpoints.inspection import inspect

    tensors = make("timm")
    name = "patch_embed.proj.0.1.running_var"
    broken = tensors[name].numpy().astype(dtype)
    broken[1] = bad
    tensors[name] = StoredTensor.of(broken)
    source = tmp_path / "x.safetensors"
    checkpoint.write(source, tensors)
    for attempt in (lambda: load(source), lambda: rewrite(source, tmp_path / "y.ckpt")):
        with pytest.raises(WeightsError, match=f"{name} {words}") as caught:
            attempt()
        assert caught.value.where == str(source)
    assert inspect(source).flaws == {flaw: {name: 1}}
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_the_largest_numbers_are_numbers_too(tmp_path: Path, make: Make):
    tensors = make("timm")
    tensors["cls_token"] = StoredTensor.of(np.full((1, 1, 16), np.finfo(np.float32).max))
    checkpoint.write(tmp_path / "x.safetensors", tensors)
    load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("value", "dtype"), [(70000.0, "float16"), (3.4e38, "bfloat16"), (1e300, "float32")])
def test_overflow_on_rounding_down_is_an_error(tmp_path: Path, make: Make, value: float, dtype: str):
    tensors = make("timm")
    broken = tensors["head.weight"].numpy().astype(np.float64 if dtype == "float32" else np.float32)
    broken[0, 0] = value
    tensors["head.weight"] = StoredTensor.of(broken)
    checkpoint.write(tmp_path / "x.safetensors", tensors)
    with pytest.raises(WeightsError, match=f"head.weight holds .*, which is too large for {dtype}"):
        rewrite(tmp_path / "x.safetensors", tmp_path / "y.ckpt", dtype=dtype)
    assert not (tmp_path / "y.ckpt").exists()


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


def test_figures_that_are_no_numbers_leave_the_report_valid_json(paper: Path, tmp_path: Path):
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
