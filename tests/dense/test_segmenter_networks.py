"""The pyramid and both segmenters give PyTorch's values, from files of mmsegmentation's layout, however computed.

The twin in PyTorch was held against facebook's backbone and mmsegmentation 0.30 themselves, with all 16 configs of
facebook's: the same values to the bit.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import mindspore
import pytest
import torch
from dense_twin import NAMES, SMALL, Files, Twins
from mindspore import Tensor

import xcit_hub
from xcit_hub import parity, segmenters, variants
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.hub.config import of_architecture
from xcit_hub.segmenters import HeadKind

_HEADS: tuple[HeadKind, ...] = ("sem_fpn", "upernet")


@pytest.mark.parametrize("head", _HEADS)
@pytest.mark.parametrize("patch", [16, 8])
def test_a_published_segmenters_file_gives_mmsegmentations_values(
    patch: int, head: HeadKind, twin: Twins, file: Files
) -> None:
    network = xcit_hub.load_segmenter(str(file(patch, head)), model=SMALL[patch].name)
    images = parity.random_images(1, 3, 81, 112)  # sides that no level halves evenly
    found = network(Tensor(images)).asnumpy()
    assert found.shape == (1, 7, 81, 112)
    assert not parity.failed_checks(found, twin(patch, head), images)
    assert network.config.labels == NAMES


@pytest.mark.parametrize("form", ["portable", "fuse"])
def test_forms_without_compiled_code_and_folded_and_graph_mode_give_the_same_values(
    form: str, twin: Twins, file: Files
) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "upernet")), model=SMALL[16].name)
    images = parity.random_images(1, 3, 48, 64)
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    found = getattr(network, form)()(Tensor(images)).asnumpy()
    assert not parity.failed_checks(found, twin(16, "upernet"), images)


@pytest.mark.parametrize("patch", [16, 8])
def test_a_pyramid_of_a_published_backbone_has_facebooks_maps(patch: int, twin: Twins, file: Files) -> None:
    network = xcit_hub.create_model(SMALL[patch], pyramid=True, pretrained=str(file(patch, "sem_fpn")))
    assert network.reductions == [4, 8, 16, 32] and network.channels == [48] * 4 and not network.training
    images = parity.random_images(2, 3, 81, 112)
    found = [each.asnumpy() for each in network(Tensor(images))]
    theirs = twin(patch, "sem_fpn")
    assert not parity.failed_checks(found, theirs, images, lambda each, batch: each.backbone(batch))


def test_a_seed_is_refused_where_the_file_has_every_weight_of_a_pyramid(file: Files) -> None:
    with pytest.raises(InputError, match="seed is 3, and nothing is begun"):
        xcit_hub.create_model(SMALL[16], pyramid=True, pretrained=str(file(16, "sem_fpn")), seed=3)


def test_a_seed_begins_a_segmenters_head_on_a_pyramid_that_is_the_files(file: Files) -> None:
    pretrained = str(file(16, "sem_fpn"))
    first, same, other = (
        xcit_hub.create_segmenter(SMALL[16], num_classes=3, pretrained=pretrained, seed=seed).parameters_dict()
        for seed in (3, 3, 4)
    )
    theirs = xcit_hub.create_model(SMALL[16], pyramid=True, pretrained=pretrained).parameters_dict()
    assert all((first[name].asnumpy() == value.asnumpy()).all() for name, value in theirs.items())
    head = "decode_head.conv_seg.weight"
    assert (first[head].asnumpy() == same[head].asnumpy()).all()
    assert (first[head].asnumpy() != other[head].asnumpy()).any()


def test_a_published_detectors_backbone_is_a_pyramid_and_its_heads_are_left(twin: Twins, tmp_path) -> None:
    state = {name: value for name, value in twin(16, "sem_fpn").state_dict().items() if name.startswith("backbone.")}
    heads = ("neck.lateral_convs.0.conv.weight", "rpn_head.rpn_conv.weight", "roi_head.mask_head.convs.0.conv.bias")
    torch.save({"meta": {}, "state_dict": {**state, **{name: torch.ones(3) for name in heads}}}, tmp_path / "x.pth")
    network = xcit_hub.create_model(SMALL[16], pyramid=True, pretrained=str(tmp_path / "x.pth"))
    assert any("of another head" in note for note in network.config.provenance.notes)
    with pytest.raises(WeightsError, match="detector's or segmenter's backbone, without a decode_head"):
        xcit_hub.load_segmenter(str(tmp_path / "x.pth"), model=SMALL[16].name)


def test_a_fresh_pyramid_is_reproducible_and_takes_facebooks_blocks() -> None:
    made = [xcit_hub.create_model("xcit_nano_12_p16_224", pyramid=True, depth=6, seed=seed) for seed in (3, 3, 4)]
    first, same, other = ({name: each.asnumpy() for name, each in net.parameters_dict().items()} for net in made)
    assert all((first[name] == same[name]).all() for name in first)
    assert (first["fpn1.0.weight"] != other["fpn1.0.weight"]).any()
    assert made[0].out_indices == (1, 2, 3, 5)
    assert segmenters.pyramid_indices(12) == (3, 5, 7, 11) and segmenters.pyramid_indices(24) == (7, 11, 15, 23)
    assert {name: tuple(value.shape) for name, value in first.items() if name.startswith("fpn")} == (
        segmenters.pyramid_shapes(made[0].architecture)
    )


def test_a_classifiers_blocks_begin_a_pyramid_and_it_is_said_that_the_rest_is_fresh(tmp_path) -> None:
    classifier = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=3, seed=1)
    classifier.save_pretrained(tmp_path / "classifier")
    with pytest.warns(UserWarning, match="the pyramid is fresh and untrained"):
        network = xcit_hub.create_model("xcit_nano_12_p16_224", pyramid=True, pretrained=str(tmp_path / "classifier"))
    name = "blocks.5.attn.qkv.weight"
    taken = network.parameters_dict()[name].asnumpy()
    assert (taken == classifier.parameters_dict()[name].asnumpy()).all()


@pytest.mark.parametrize("kept", ["in the file", "in timm's config.json"])
def test_a_segmenter_that_begins_with_a_classifier_sees_images_normalised_as_it_did(tmp_path, kept: str) -> None:
    levels = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    classifier = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=3, seed=1)
    described = of_architecture("xcit_nano_12_p16_224", "paper", num_classes=3)
    classifier.config = replace(described, preprocessing=replace(described.preprocessing, **levels))
    folder = tmp_path / "classifier"
    classifier.save_pretrained(folder)
    if kept != "in the file":
        folder = tmp_path / "timm"
        folder.mkdir()
        bare = checkpoint.read(tmp_path / "classifier/model.safetensors").tensors
        checkpoint.write(tmp_path / "bare.ckpt", bare, {"xcit_hub.dialect": "paper"})
        rewrite(tmp_path / "bare.ckpt", folder / "model.safetensors", to="timm")
        told = {"architecture": "xcit_nano_12_p16_224", "num_classes": 3, "pretrained_cfg": levels}
        (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.warns(UserWarning, match="the pyramid is fresh and untrained"):
        network = xcit_hub.create_segmenter("xcit_nano_12_p16_224", num_classes=2, pretrained=str(folder))
    assert {name: getattr(network.config.preprocessing, name) for name in levels} == levels
    network.save(tmp_path / "s.safetensors")
    assert xcit_hub.load_segmenter(str(tmp_path / "s.safetensors")).config.preprocessing.mean == levels["mean"]


@pytest.mark.parametrize("build", ["pyramid", "segmenter"])
def test_another_dialect_than_the_descriptions_is_refused(build: str, tmp_path) -> None:
    mine = str(tmp_path / "mine")
    xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=3, seed=1).save_pretrained(mine)
    with pytest.raises(InputError, match="is of the paper dialect, and 'mindcv' was asked for"):
        if build == "pyramid":
            xcit_hub.create_model("xcit_nano_12_p16_224", pyramid=True, pretrained=mine, dialect="mindcv")
        else:
            xcit_hub.load_segmenter(mine, dialect="mindcv")


def test_another_architecture_than_the_descriptions_is_refused(tmp_path) -> None:
    mine = str(tmp_path / "mine")
    xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=3, seed=1).save_pretrained(mine)
    for asked in ("xcit_tiny_12_p16_224", "xcit_nano_12_p16_384"):
        with pytest.raises(InputError, match=f"is xcit_nano_12_p16_224, and {asked} was asked for"):
            xcit_hub.load_segmenter(mine, model=asked)
    with pytest.raises(WeightsError, match="not a segmenter"):
        xcit_hub.load_segmenter(mine, model="xcit_nano_12_p16_224")


def test_what_was_not_read_of_a_description_is_warned_of_for_pyramids_as_for_classifiers(tmp_path) -> None:
    xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=3, seed=1).save_pretrained(tmp_path)
    record = json.loads((tmp_path / "xcit_hub.json").read_text())
    (tmp_path / "xcit_hub.json").write_text(json.dumps({**record, "zz_new": 1}))
    with pytest.warns(UserWarning, match="field zz_new is not known"):
        xcit_hub.create_model("xcit_nano_12_p16_224", pyramid=True, pretrained=str(tmp_path))


@pytest.mark.parametrize(
    ("size", "patch", "fits"), [((17, 40), 16, True), ((16, 40), 16, False), ((25, 25), 8, True), ((40, 24), 8, False)]
)
def test_an_image_without_a_cell_of_stride_32_is_refused_in_one_sentence(size, patch: int, fits: bool) -> None:
    network = xcit_hub.create_model(SMALL[patch], pyramid=True).set_train(False)
    images = Tensor(parity.random_images(1, 3, *size))
    if fits:
        assert min(network(images)[3].shape) == 1
    else:
        with pytest.raises(InputError, match="too small for a map of stride 32"):
            network(images)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"out_indices": (0, 1, 2)}, "four blocks"),
        ({"out_indices": (3, 2, 1, 0)}, "four blocks"),
        ({"out_indices": (0, 1, 1, 3)}, "four blocks"),
        ({"depth": 3}, "3 blocks"),
        ({"patch_size": 4, "strides": (1, 2, 2)}, "patches of 16 or 8"),
        ({"patch_size": 8, "strides": (1, 2, 2, 2)}, "by strides of 2"),
        ({"features_only": True}, "neither a classifier"),
        ({"num_classes": 5}, "neither a classifier"),
        ({"global_pool": "avg"}, "neither a classifier"),
        ({"drop_rate": 0.1}, "neither a classifier.*drop_rate"),
        ({"init": False, "pretrained": "mine"}, "init=False"),
    ],
)
def test_a_pyramid_that_cannot_be_is_refused(options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        xcit_hub.create_model(SMALL[16], pyramid=True, **options)


def test_weights_of_another_architecture_are_refused(file: Files) -> None:
    with pytest.raises(WeightsError, match="xcit_nano_12_p16_224 was asked for"):
        xcit_hub.create_model("xcit_nano_12_p16_224", pyramid=True, pretrained=str(file(16, "sem_fpn")))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"head": "psp"}, "There is no head 'psp'"),
        ({"classes": ("wall",), "num_classes": 2}, "1 names were given for 2 classes"),
        ({"image_size": 0}, "image_size is 0"),
    ],
)
def test_a_segmenter_that_cannot_be_is_refused(options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        xcit_hub.create_segmenter(SMALL[16], **options)


def test_a_fresh_segmenter_begins_as_mmsegmentations() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = xcit_hub.create_segmenter("xcit_nano_12_p16_224", num_classes=5, seed=0)
    assert network.training
    values = {name: each.asnumpy() for name, each in network.parameters_dict().items()}
    assert abs(values["decode_head.conv_seg.weight"].std() - 0.01) < 1e-3
    he = (2 / (128 * 9)) ** 0.5
    assert abs(values["decode_head.scale_heads.0.0.conv.weight"].std() / he - 1) < 0.05
    assert not values["decode_head.conv_seg.bias"].any() and not values["neck.fpn_convs.0.conv.bias"].any()
    shapes = segmenters.head_shapes(variants.architecture("xcit_nano_12_p16_224"), network.segmenter)
    heads = {name: value.shape for name, value in values.items() if name.startswith(("neck.", "decode_head."))}
    assert heads == shapes
