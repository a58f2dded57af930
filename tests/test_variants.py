"""The table of variants says what timm, facebook and MindSpore say."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import pytest

from xcit_hub import variants
from xcit_hub.errors import InputError, UnknownNameError


def test_every_architecture_of_timm_is_there_and_none_is_missing() -> None:
    import timm

    # xcit_hub.timm may have registered names of its own.
    theirs = {name for name in timm.list_models("xcit_*") if not name.endswith(("_mindcv", "_mindcv-mint"))}
    assert set(variants.TIMM_ARCHITECTURES) == theirs
    assert len(variants.TIMM_ARCHITECTURES) == 28


def test_the_robust_architectures_are_timms_of_the_same_width_with_other_depths_and_strides() -> None:
    others = {name: entry for name, entry in variants.ARCHITECTURES.items() if name not in variants.TIMM_ARCHITECTURES}
    assert sorted(others) == [
        *("xcit_large_12_p16_224", "xcit_large_12_p4_32", "xcit_medium_12_p16_224", "xcit_medium_12_p4_32"),
        "xcit_small_12_p4_32",
    ]
    for name, entry in others.items():
        width = name.split("_")[1]
        same = variants.ARCHITECTURES[f"xcit_{width}_24_p16_224"]
        strides = (1, 1, 2, 2) if entry.patch_size == 4 else (2, 2, 2, 2)
        assert (entry.embed_dim, entry.num_heads, entry.tokens_norm) == (
            same.embed_dim,
            same.num_heads,
            same.tokens_norm,
        )
        assert (entry.depth, entry.eta, entry.stem_strides) == (12, 1.0, strides)


@pytest.mark.parametrize(
    ("patch_size", "strides"), [(4, ()), (16, (2, 2)), (8, (2, 4, 1)), (8, (2, 2, 1)), (32, (2,) * 5)]
)
def test_strides_that_no_stem_has_are_refused(patch_size: int, strides: tuple[int, ...]) -> None:
    nano = variants.architecture("xcit_nano_12_p16_224")
    with pytest.raises(InputError, match=f"patches of {patch_size} pixels"):
        print(dataclasses.replace(nano, patch_size=patch_size, strides=strides).stem_strides)


@pytest.mark.parametrize("name", variants.TIMM_ARCHITECTURES)
def test_an_architecture_has_the_shape_of_timms_model(name: str) -> None:
    import timm
    import torch

    from xcit_hub.timm import WithoutValues

    entry = variants.ARCHITECTURES[name]
    with torch.device("meta"), WithoutValues():
        model = timm.create_model(name)
    block, class_block = model.blocks[0], model.cls_attn_blocks[0]
    assert model.embed_dim == entry.embed_dim
    assert len(model.blocks) == entry.depth
    assert block.attn.num_heads == entry.num_heads
    assert class_block.tokens_norm == entry.tokens_norm
    assert len(model.cls_attn_blocks) == entry.cls_attn_layers
    assert block.mlp.fc1.out_features == entry.embed_dim * entry.mlp_ratio
    assert model.patch_embed.patch_size == entry.patch_size
    assert model.default_cfg["input_size"] == (3, entry.image_size, entry.image_size)


@pytest.mark.parametrize("name", ["xcit_nano_12_p16_224", "xcit_tiny_24_p8_224"])
def test_eta_is_the_value_timm_starts_layer_scales_from(name: str) -> None:
    import timm

    entry = variants.ARCHITECTURES[name]
    assert timm.create_model(name).blocks[0].gamma1[0].item() == pytest.approx(entry.eta)


def test_the_checkpoints_of_timm_are_all_there_with_its_configuration() -> None:
    from timm.models import get_pretrained_cfg, list_pretrained

    theirs = set(list_pretrained("xcit_*"))
    ours = {name: entry for name, entry in variants.CHECKPOINTS.items() if entry.family == "timm" and entry.repository}
    assert set(ours) == theirs
    assert len(ours) == 42
    for name, entry in ours.items():
        config = get_pretrained_cfg(name)
        assert entry.url == config.url
        assert entry.repository == config.hf_hub_id
        assert config.input_size == (3, entry.preprocessing.image_size, entry.preprocessing.image_size)
        assert entry.preprocessing.crop_pct == config.crop_pct
        assert entry.preprocessing.interpolation == config.interpolation
        assert entry.preprocessing.mean == config.mean
        assert entry.preprocessing.std == config.std
        assert entry.num_classes == config.num_classes
        assert entry.license == config.license
        assert entry.dialect == "paper"


def test_the_dino_backbones_and_the_mindspore_checkpoint_are_listed_with_their_dialects() -> None:
    dino = variants.list_models("*.fb_dino", pretrained=True)
    assert len(dino) == 4
    assert all(variants.CHECKPOINTS[name].num_classes == 0 for name in dino)
    official = variants.checkpoint("xcit_tiny_12_p16_224.ms_in1k")
    assert official.dialect == "mindcv"
    assert official.preprocessing.crop_pct == 0.875
    assert official.sha256 == "bd90776e"


def test_every_published_accuracy_names_its_source() -> None:
    for entry in variants.CHECKPOINTS.values():
        assert entry.accuracies or entry.measures
        for measure in entry.measures:
            assert 20 < measure.value < 100
            assert measure.name and measure.source
        for accuracy in entry.accuracies:
            assert 50 < accuracy.top1 < 100
            assert accuracy.top5 is None or accuracy.top1 < accuracy.top5 < 100
            assert accuracy.source


def test_a_bare_architecture_means_the_first_tag_as_in_timm() -> None:
    from timm.models import get_pretrained_cfg

    for name in variants.TIMM_ARCHITECTURES:
        assert variants.checkpoint(name).name == f"{name}.{get_pretrained_cfg(name).tag}"


@pytest.mark.parametrize("seed", range(4))
def test_the_closest_of_a_set_are_the_same_in_every_run(seed: int) -> None:
    code = "from xcit_hub.errors import closest; print(closest('ImageNet2021', {'imagenet2012', 'ImageNet2012'}))"
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "did you mean ImageNet2012?\n"


def test_unknown_names_are_answered_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean xcit_tiny_12_p16_224"):
        variants.architecture("xcit_tiny12_p16_224")
    with pytest.raises(UnknownNameError, match=re.escape("xcit_tiny_12_p16_224.fb_in1k")):
        variants.checkpoint("xcit_tiny_12_p16_224.fb_in1")
    with pytest.raises(UnknownNameError, match=r"paper: .*; mindcv: "):
        variants.dialect("torch")


def test_listing_takes_a_pattern() -> None:
    assert variants.list_models("xcit_nano_*_384") == ["xcit_nano_12_p16_384", "xcit_nano_12_p8_384"]
    assert len(variants.list_models(pretrained=True)) == 137


def test_dinos_robustbenchs_and_mindspores_own_files_are_listed_with_what_they_are_fed() -> None:
    full = variants.checkpoint("xcit_medium_24_p8_224.dino_full")
    assert full.url.endswith("dino_xcit_medium_24_p8_pretrain/dino_xcit_medium_24_p8_pretrain_full_checkpoint.pth")
    robust = variants.list_models("*.linf_*", pretrained=True)
    assert len(robust) == 9
    cifar = variants.checkpoint("xcit_large_12_p4_32.linf_cifar100")
    assert (cifar.num_classes, cifar.preprocessing.size) == (100, (32, 32))
    assert cifar.url.endswith("debenedetti2022light-xcit-l-cifar100-linf.pth.tar")
    assert variants.checkpoint("xcit_small_12_p16_224.linf_imagenet").preprocessing.std == (1.0, 1.0, 1.0)
    earlier = [variants.checkpoint(f"xcit_tiny_12_p16_224.ms_in1k_{tag}") for tag in ("best", "1b1c9301")]
    assert all("statistics of each batch" in entry.notes for entry in earlier)


def test_mmpretrains_files_are_copies_of_facebooks_and_carry_its_names_and_digests() -> None:
    found = [entry for entry in variants.CHECKPOINTS.values() if entry.family == "mmpretrain"]
    assert len(found) == len({entry.url for entry in found}) == 42
    for entry in found:
        assert entry.copy_of is not None
        original = variants.CHECKPOINTS[entry.copy_of]
        assert (original.architecture, original.family) == (entry.architecture, "timm")
        assert entry.sha256 is not None and entry.url.endswith(f"-{entry.sha256}.pth")
        assert all(f"/{alias}_2023" in entry.url for alias in entry.aliases)
    large = variants.checkpoint("xcit_tiny_12_p16_384.mm_dist_in1k")
    assert large.url.endswith("/xcit-tiny-12-p16_3rdparty-dist_in1k-384px_20230213-00a20023.pth")
    assert (large.preprocessing.crop_mode, large.preprocessing.crop_pct) == ("squash", 1.0)
    assert large.figures == ("top-1: 80.58, top-5: 95.38 (mmpretrain configs/xcit/metafile.yml)",)


def test_facebooks_detectors_and_segmenters_are_listed_with_their_figures() -> None:
    dense = variants.list_models("*.fb_coco_*", pretrained=True) + variants.list_models(
        "*.fb_ade20k_*", pretrained=True
    )
    assert len(dense) == 24
    assert all(variants.CHECKPOINTS[name].num_classes == 0 for name in dense)
    found = variants.checkpoint("xcit_small_24_p8_224.fb_coco_mask_rcnn")
    assert found.url == "https://dl.fbaipublicfiles.com/xcit/coco/maskrcnn_xcit_small_24_p8.pth"
    assert [(entry.name, entry.value) for entry in found.measures] == [("box AP", 48.1), ("mask AP", 43.0)]
    upernet = variants.checkpoint("xcit_medium_24_p16_224.fb_ade20k_upernet")
    assert upernet.url.endswith("/ade/upernet_xcit_medium_24_p16.pth")
    assert upernet.figures == ("mIoU: 47.6 (facebookresearch/xcit semantic_segmentation/README)",)


def test_every_checkpoint_is_found_by_its_files_own_name() -> None:
    from xcit_hub.hub.address import published_name

    for entry in variants.CHECKPOINTS.values():
        stem = entry.file.removesuffix(".tar").rpartition(".")[0]
        assert published_name(stem) == entry.name or stem in variants.ARCHITECTURES
        assert all(published_name(alias) == entry.name for alias in entry.aliases)
