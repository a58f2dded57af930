"""A segmenter's file is taken whole or refused by name, what it says of itself is used, and ours comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_twin import NAMES, SMALL, EncoderDecoder, Files, Twins, published, randomised
from PIL import Image

import xcit_hub
from xcit_hub import ade20k, variants
from xcit_hub.checkpoints import segmenter
from xcit_hub.checkpoints.beside import Reason
from xcit_hub.checkpoints.reading import Asked
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.segmenters import Segmenter, Window, facebooks, head_shapes

_ASKED = Asked(model=SMALL[16].name)
_PUBLISHED = tuple(
    name for name in variants.list_models("*.fb_ade20k_*", pretrained=True) if name.endswith(("sem_fpn", "upernet"))
)


def test_the_auxiliary_head_is_held_against_its_shapes_and_listed_as_dropped_with_its_reason(file: Files) -> None:
    read = segmenter.load(file(16, "upernet"), _ASKED)
    reasons = {entry.reason for entry in read.backbone.dropped}
    assert reasons == {Reason.AUXILIARY_HEAD, Reason.BATCH_COUNTER}
    dropped = [entry.name for entry in read.backbone.dropped if entry.reason is Reason.AUXILIARY_HEAD]
    assert len(dropped) == 7 and "state_dict.auxiliary_head.convs.0.bn.running_var" in dropped
    assert any("serves its training" in note for note in read.backbone.notes)
    assert not any("of another head" in note for note in read.backbone.notes)
    assert {entry.reason for entry in segmenter.load(file(16, "sem_fpn"), _ASKED).backbone.dropped} == {
        Reason.BATCH_COUNTER
    }


def test_who_only_looks_at_a_segmenter_is_told_what_takes_it_whole(file: Files) -> None:
    from xcit_hub.checkpoints.inspection import inspect

    found = inspect(file(16, "sem_fpn"), asked=_ASKED)
    assert found.kind == "dense"
    assert any("of another head" in note and "load_segmenter takes a segmenter whole" in note for note in found.notes)


def _changed(twin: EncoderDecoder, path: Path, change) -> Path:
    state = dict(twin.state_dict())
    change(state)
    torch.save({"meta": {"CLASSES": NAMES}, "state_dict": state}, path)
    return path


@pytest.mark.parametrize(
    ("head", "name", "value", "says"),
    [
        ("sem_fpn", "decode_head.scale_heads.3.4.bn.running_var", None, "missing: decode_head.scale_heads.3.4.bn"),
        ("sem_fpn", "neck.fpn_convs.2.conv.bias", None, "missing: neck.fpn_convs.2.conv.bias"),
        ("sem_fpn", "neck.lateral_convs.0.conv.weight", None, "neck.lateral_convs.0.conv.weight is not there"),
        ("sem_fpn", "decode_head.conv_seg.weight", None, "decode_head.conv_seg.weight is not there"),
        ("sem_fpn", "decode_head.extra.weight", torch.ones(3), "unexpected: 'decode_head.extra.weight'"),
        ("sem_fpn", "decode_head.conv_seg.bias", torch.ones(6), "wrong shape: decode_head.conv_seg.bias"),
        ("sem_fpn", "decode_head.conv_seg.bias", torch.ones(7, dtype=torch.int64), "not a floating-point tensor"),
        ("sem_fpn", "decode_head.conv_seg.bias", torch.full((7,), torch.nan), "NaN or infinity"),
        ("sem_fpn", "decode_head.scale_heads.0.0.bn.running_var", torch.full((32,), -1.0), "negative variance"),
        ("upernet", "decode_head.psp_modules.3.1.conv.weight", None, "missing: decode_head.psp_modules.3.1.conv"),
        ("upernet", "decode_head.psp_modules.4.1.conv.weight", torch.ones(3), "unexpected"),
        ("upernet", "auxiliary_head.convs.0.bn.bias", None, "missing: auxiliary_head.convs.0.bn.bias"),
        ("upernet", "auxiliary_head.conv_seg.weight", None, "auxiliary_head.conv_seg.weight is not there"),
        ("upernet", "backbone.fpn2.0.bias", None, "missing: fpn2.0.bias"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_by_the_tensors_name(
    head, name: str, value, says: str, twin: Twins, tmp_path: Path
) -> None:
    def change(state: dict) -> None:
        state.pop(name, None)
        if value is not None:
            state[name] = value

    path = _changed(twin(16, head), tmp_path / "x.pth", change)
    with pytest.raises(WeightsError, match=says) as caught:
        xcit_hub.load_segmenter(str(path), model=SMALL[16].name)
    assert caught.value.where == str(path)


_CONFIG = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained=None,
    backbone=dict(type='XCiT', patch_size=16, out_indices=[0, 1, 2, 3]),
    neck=dict(type='FPN', in_channels=[48, 48, 48, 48], out_channels=40, num_outs=4),
    decode_head=dict(
        type='FPNHead', in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32], align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
dataset_type = 'ADE20KDataset'
"""


def test_what_the_files_configuration_says_of_its_network_is_used(twin: Twins, tmp_path: Path) -> None:
    text = _CONFIG.replace("dict(mode='whole')", "dict(mode='slide', crop_size=(512, 512), stride=(341, 341))")
    read = segmenter.load(published(twin(16, "sem_fpn"), tmp_path / "x.pth", NAMES, text), _ASKED)
    assert read.window == Window((512, 512), (341, 341)) and read.out_indices == (0, 1, 2, 3)
    whole = segmenter.load(published(twin(16, "sem_fpn"), tmp_path / "y.pth", NAMES, _CONFIG), _ASKED)
    assert whole.window is None and whole.classes == NAMES


@pytest.mark.parametrize(
    ("instead", "says"),
    [
        (("align_corners=False", "align_corners=True"), "decode_head.align_corners = True"),
        (("[4, 8, 16, 32]", "[16, 16, 16, 16]"), "decode_head.feature_strides"),
        (("in_index=[0, 1, 2, 3]", "in_index=[3, 2, 1, 0]"), "decode_head.in_index"),
        (("type='FPNHead'", "type='OtherHead'"), "decode_head.type = 'OtherHead'"),
        (("num_outs=4", "num_outs=4, upsample_cfg=dict(mode='bilinear')"), "neck.upsample_cfg.mode = 'bilinear'"),
        (("num_outs=4", "num_outs=4, act_cfg=dict(type='ReLU')"), "neck.act_cfg"),
        (("align_corners=False", "act_cfg=None"), "decode_head.act_cfg.type = None"),
        (("align_corners=False", "norm_cfg=dict(type='SyncBN', eps=0.001)"), "decode_head.norm_cfg.eps = 0.001"),
        (("type='EncoderDecoder'", "type='CascadeEncoderDecoder'"), "says type = 'CascadeEncoderDecoder'"),
        (("mode='whole'", "mode='slide'"), "crop_size None"),
        (("mode='whole'", "mode='slide', crop_size=(4, 4), stride=(8, 8)"), "cannot move by"),
    ],
)
def test_a_configuration_of_another_network_is_refused_by_its_field(instead, says: str, twin: Twins, tmp_path) -> None:
    path = published(twin(16, "sem_fpn"), tmp_path / "x.pth", NAMES, _CONFIG.replace(*instead))
    with pytest.raises((WeightsError, InputError), match=says):
        segmenter.load(path, _ASKED)


_IMAGENETS = "mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]"
_OTHERS = "mean=[127.5, 127.5, 127.5], std=[51.0, 51.0, 51.0]"
_MMCVS = "img_norm_cfg = dict(LEVELS, to_rgb=True)"
_PIPELINE = """
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(2048, 512), flip=False, transforms=[
        dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'),
        dict(type='Normalize', LEVELS, to_rgb=True), dict(type='ImageToTensor', keys=['img']),
        dict(type='Collect', keys=['img'])])]
"""
_MMENGINES = """
data_preprocessor = dict(type='SegDataPreProcessor', bgr_to_rgb=True, LEVELS)
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(1024, 256), keep_ratio=True),
    dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
"""


@pytest.mark.parametrize("images", [_MMCVS, _PIPELINE, _MMENGINES])
def test_the_normalisation_of_the_files_configuration_is_the_one_images_get(images, twin: Twins, tmp_path) -> None:
    own, usual = (
        segmenter.load(published(twin(16, "sem_fpn"), tmp_path / "x.pth", NAMES, _CONFIG + text), _ASKED)
        for text in (images.replace("LEVELS", levels) for levels in (_OTHERS, _IMAGENETS))
    )
    assert own.backbone.normalization == ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)) and own.unused == ()
    assert usual.backbone.normalization is None


def test_a_file_of_mmengines_is_read_by_its_own_configuration_and_names(twin: Twins, tmp_path: Path) -> None:
    text = _CONFIG + _MMENGINES.replace("LEVELS", _OTHERS)
    meta = {"cfg": text, "dataset_meta": {"classes": NAMES, "palette": [[0, 0, 0]]}}
    torch.save({"meta": meta, "state_dict": twin(16, "sem_fpn").state_dict()}, tmp_path / "x.pth")
    network = xcit_hub.load_segmenter(str(tmp_path / "x.pth"), model=SMALL[16].name)
    seen = network.config.preprocessing
    assert (seen.mean, seen.std, seen.image_size) == ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 256)
    assert network.config.labels == NAMES
    meta["cfg"] = text.replace("num_outs=4", "num_outs=4, upsample_cfg=dict(mode='bilinear')")
    torch.save({"meta": meta, "state_dict": twin(16, "sem_fpn").state_dict()}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="upsample_cfg"):
        segmenter.load(tmp_path / "x.pth", _ASKED)


@pytest.mark.parametrize(
    "images",
    [
        f"img_norm_cfg = dict({_IMAGENETS}, to_rgb=False)",
        f"data_preprocessor = dict({_IMAGENETS})",
        "img_norm_cfg = dict(mean=[1, 2], std=[1, 2, 3])",
        "img_norm_cfg = dict(mean=[1, 2, 3], std=[1, 0, 3])",
    ],
)
def test_images_that_are_prepared_in_a_way_of_which_there_is_none_here_are_refused(images, twin: Twins, tmp_path):
    with pytest.raises(WeightsError, match="which no image is prepared by here"):
        segmenter.load(published(twin(16, "sem_fpn"), tmp_path / "x.pth", NAMES, _CONFIG + images), _ASKED)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (_PIPELINE.replace("(2048, 512)", "(2048, 1024)"), r"resize to \(2048, 1024\), which is not used"),
        (_PIPELINE.replace("keep_ratio=True", "keep_ratio=False"), "not to keep the aspect, which is not used"),
        (_PIPELINE.replace("'RandomFlip'", "'CLAHE'"), "prepares an image by CLAHE as well"),
        ("test_pipeline = [dict(type='Normalize', **img_norm_cfg)]", "test_pipeline of the file's configuration"),
    ],
)
def test_what_is_not_used_of_a_configurations_images_is_warned_of(images, says: str, twin: Twins, tmp_path) -> None:
    text = _CONFIG + images.replace("LEVELS", _IMAGENETS)
    path = published(twin(16, "sem_fpn"), tmp_path / "x.pth", NAMES, text)
    with pytest.warns(UserWarning, match=says):
        network = xcit_hub.load_segmenter(str(path), model=SMALL[16].name)
    assert network.config.preprocessing.image_size == 512


@pytest.mark.parametrize(
    "text",
    [
        "model = (",
        "model = __import__('os').system('x')",
        "model = " + "dict(a=" * 3000,
        "model = " + "[" * 60 + "]" * 60,
        "model = dict(a=" + "1+" * 30000 + "1)",
        "model = dict(a=" + "-" * 30000 + "1)",
        "model = dict(a=" + "9" * 5000 + ")",
        "model = dict()\nmodel = dict()",
        "\0",
        "  indented\n wrongly",
        "'" * 3,
    ],
    ids=range(11),
)
def test_a_configuration_that_is_not_one_is_not_run_and_that_is_said(text: str, twin: Twins, tmp_path: Path) -> None:
    read = segmenter.load(published(twin(16, "sem_fpn"), tmp_path / "x.pth", NAMES, text), _ASKED)
    assert (read.window, read.out_indices) == (None, None)
    assert any("meta.config of the file does not describe" in note for note in read.backbone.notes)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_a_saved_segmenter_comes_back_whole(suffix: str, file: Files, tmp_path: Path) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "upernet")), model=SMALL[16].name)
    network.window = Window((48, 64), (32, 40))
    seen = replace(network.config.preprocessing, image_size=96)
    network.config = replace(network.config, preprocessing=seen)
    network.save(tmp_path / f"mine.{suffix}")
    again = xcit_hub.load_segmenter(str(tmp_path / f"mine.{suffix}"))
    assert again.config.architecture == SMALL[16].name and again.config.labels == NAMES
    assert (again.window, again.segmenter, again.out_indices) == (network.window, network.segmenter, (0, 1, 2, 3))
    assert again.config.preprocessing == seen and again.config.provenance.family == "xcit-hub"
    one, other = network.arrays(), again.arrays()
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("shape", [{"use_pos_embed": False}, {"mlp_ratio": 3.5}, {"depth": 6, "patch_size": 8}])
def test_a_saved_segmenter_of_dimensions_of_its_own_comes_back(shape: dict, tmp_path: Path) -> None:
    made = xcit_hub.create_segmenter(SMALL[16], "upernet", num_classes=3, image_size=96, seed=0, **shape)
    made.save(tmp_path / "mine.safetensors")
    again = xcit_hub.load_segmenter(str(tmp_path / "mine.safetensors"))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8))
    assert (xcit_hub.segment(made.set_train(False), image) == xcit_hub.segment(again, image)).all()
    assert again.config.provenance.notes == ("its 3 classes have no names; give them, or they are numbered",)
    assert again.config.preprocessing.image_size == 96


def test_what_cannot_be_saved_is_refused(file: Files, tmp_path: Path) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    with pytest.raises(InputError, match="our own names"):
        network.save(tmp_path / "x.pth")
    with pytest.raises(InputError, match="fused network is not a checkpoint"):
        network.fuse().save(tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "null",
        "[",
        '{"out_indices": [0, 1, 2], "window": null}',
        '{"out_indices": [0, 1, 2, 3], "window": [4, 4, 8, 8]}',
    ],
)
def test_a_damaged_description_of_ours_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match="does not say which blocks"):
        segmenter._from_metadata(text)


def test_a_segmenter_is_not_loaded_as_a_classifier_nor_the_reverse_and_both_say_what_to_do(
    file: Files, tmp_path
) -> None:
    with pytest.raises(WeightsError) as caught:
        xcit_hub.load(str(file(16, "sem_fpn")), model=SMALL[16].name)
    assert "load_segmenter" in (caught.value.fix or "")
    xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=3).save_pretrained(tmp_path / "classifier")
    with pytest.raises(WeightsError, match="This is not a segmenter: it is a classifier") as caught:
        xcit_hub.load_segmenter(str(tmp_path / "classifier"))
    assert "xcit_hub.load" in (caught.value.fix or "")


def test_names_of_classes_are_the_files_the_callers_or_said_to_be_assumed(file: Files, twin: Twins, tmp_path) -> None:
    path = str(published(twin(16, "sem_fpn"), tmp_path / "x.pth"))
    bare = xcit_hub.load_segmenter(path, model=SMALL[16].name)
    assert bare.config.labels == () and bare.config.num_classes == 7
    assert any("7 classes have no names" in note for note in bare.config.provenance.notes)
    given = xcit_hub.load_segmenter(path, model=SMALL[16].name, classes=list("abcdefg"))
    assert given.config.labels == tuple("abcdefg")
    with pytest.raises(InputError, match="2 names were given for 7 classes"):
        xcit_hub.load_segmenter(path, model=SMALL[16].name, classes=["a", "b"])
    few = xcit_hub.load_segmenter(
        str(published(twin(16, "sem_fpn"), tmp_path / "y.pth", NAMES[:5])), model=SMALL[16].name
    )
    assert few.config.labels == () and any("5 names" in note for note in few.config.provenance.notes)
    of_150 = randomised(EncoderDecoder(SMALL[16], Segmenter("sem_fpn", 150, 8, 8)))
    assumed = xcit_hub.load_segmenter(str(published(of_150, tmp_path / "z.pth")), model=SMALL[16].name)
    assert assumed.config.labels == ade20k.names() and len(set(ade20k.colours())) > 140
    assert any("taken for ADE20K's" in note for note in assumed.config.provenance.notes)


@pytest.mark.parametrize("name", _PUBLISHED)
def test_every_published_segmenters_names_and_shapes_are_the_ones_that_are_read(name: str) -> None:
    assert len(_PUBLISHED) == 16
    entry = variants.checkpoint(name)
    architecture = variants.architecture(entry.architecture)
    head = facebooks("sem_fpn" if "sem_fpn" in name else "upernet", architecture, 150)
    with torch.device("meta"):
        theirs = EncoderDecoder(architecture, head, auxiliary=256).state_dict()
    from xcit_hub.checkpoints.families import LAYOUTS, shapes_of

    layout = LAYOUTS["facebook"]
    ours = {
        f"backbone.{layout.names(each)[0]}": shape for each, shape in shapes_of(architecture, "dense", 0, 3).items()
    }
    ours |= {layout.names(each)[0]: shape for each, shape in head_shapes(architecture, head).items()}
    left = ("num_batches_tracked", "auxiliary_head")
    assert ours == {
        each: tuple(value.shape) for each, value in theirs.items() if not any(word in each for word in left)
    }


@pytest.mark.campaign
@pytest.mark.parametrize("name", _PUBLISHED)
def test_every_published_segmenters_file_loads_whole_and_gives_pytorchs_values(
    name: str, tmp_path: Path, memory_back
) -> None:
    _loads_whole(name, tmp_path)


@pytest.mark.parametrize("name", ["xcit_tiny_12_p16_224.fb_ade20k_sem_fpn"])
def test_a_published_segmenters_file_loads_whole_and_gives_pytorchs_values(name: str, tmp_path: Path) -> None:
    _loads_whole(name, tmp_path)


def _loads_whole(name: str, folder: Path) -> None:
    from mindspore import Tensor

    from xcit_hub import parity

    entry = variants.checkpoint(name)
    architecture = variants.architecture(entry.architecture)
    head = facebooks("sem_fpn" if "sem_fpn" in name else "upernet", architecture, 150)
    theirs = randomised(EncoderDecoder(architecture, head, auxiliary=256))
    path = published(theirs, folder / entry.file, ade20k.names())
    network = xcit_hub.load_segmenter(str(path))
    images = parity.random_images(1, 3, 48, 64)
    found = network(Tensor(images)).asnumpy()
    assert found.shape == (1, 150, 48, 64) and network.config.labels == ade20k.names()
    assert not any("Assumed" in note for note in network.config.provenance.notes)
    assert not parity.failed_checks(found, theirs, images)
    path.unlink()
