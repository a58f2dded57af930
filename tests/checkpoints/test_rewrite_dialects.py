"""What a conversion knows and writes of a network's dialect, family and architecture, and of the config beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_networks import SUFFIXES, Make, same, written

from xcit_hub.checkpoints import checkpoint, families
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.checkpoints.sidecar import config_path
from xcit_hub.checkpoints.weights import load
from xcit_hub.errors import InputError, UnknownNameError, WeightsError
from xcit_hub.files import sha256_of
from xcit_hub.variants import architecture


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


@pytest.mark.parametrize(("to", "tag"), [("timm", "ms_in1k"), ("timm", "ms_mint"), ("xcit-hub", "ms_in1k")])
def test_a_tag_of_another_dialect_than_the_weights_is_refused(tmp_path: Path, make: Make, to: str, tag: str):
    entry = architecture("xcit_nano_12_p16_224")
    source, target = tmp_path / "x.ckpt", tmp_path / "x.safetensors"
    checkpoint.write(source, make("xcit-hub", entry, "classifier", 1000))
    with pytest.raises(WeightsError, match=f"{tag} computes in another dialect"):
        rewrite(source, target, to=to, model=f"{entry.name}.{tag}", dialect="paper")
    assert not target.exists()


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


def test_a_config_of_another_file_is_not_taken_for_ones_own(paper: Path, tmp_path: Path):
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


def test_families_and_models_that_do_not_exist_are_refused_in_words(paper: Path, tmp_path: Path):
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
