from __future__ import annotations

import numpy as np
import pytest
from tiny_networks import ARCHITECTURE_NAMES, TINY, TINY_P16, Make, network, same

from xcit_hub.checkpoints import families as dialects
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.checkpoints.families import LAYOUTS, Marks, settle_dialect
from xcit_hub.errors import UnknownNameError, WeightsError
from xcit_hub.variants import Architecture, architecture

FAMILIES = tuple(LAYOUTS)
KINDS = ("classifier", "backbone", "dense", "features")


def shapes(tensors):
    return {name: tensor.shape for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_every_pair_of_families_round_trips_bit_for_bit_on_every_architecture(name: str):
    entry = architecture(name)
    ours = network(entry, "classifier", 1000)
    expected = dialects.shapes_of(entry, "classifier", 1000, 3)
    for source in FAMILIES:
        theirs = dialects.from_ours(ours, source)
        assert same(dialects.to_ours(theirs, source, expected), ours)
        for target in FAMILIES:
            there = dialects.from_ours(dialects.to_ours(theirs, source, expected), target)
            back = dialects.from_ours(dialects.to_ours(there, target, expected), source)
            assert same(back, theirs)


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_timms_names_and_shapes_are_timms(name: str):
    import timm
    import torch

    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    theirs = shapes(dialects.from_ours(network(architecture(name), "classifier", 1000), "timm"))
    assert theirs == {key: tuple(value.shape) for key, value in state.items() if "num_batches" not in key}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entry", [TINY, TINY_P16], ids=["p8", "p16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family_architecture_and_kind_are_read_from_the_tensors(family: str, entry: Architecture, kind: str):
    found = dialects.identify(shapes(dialects.from_ours(network(entry, kind, in_chans=5), family)))
    assert found.naming == ("mindcv" if family == "xcit-hub" else family)
    assert (found.kind, found.in_chans) == (kind, 5)
    assert found.num_classes == (7 if kind == "classifier" else 0)
    assert (found.architecture.embed_dim, found.architecture.depth, found.architecture.num_heads) == (16, 2, 2)
    assert found.architecture.patch_size == entry.patch_size
    assert any("tokens_norm True" in note for note in found.notes)


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_every_architecture_is_recognised_and_the_size_decides_only_when_asked(name: str, make: Make):
    tensors = shapes(make("timm", architecture(name), "classifier", 1000))
    assert dialects.identify(tensors, model=name).architecture == architecture(name)
    assert dialects.identify(tensors, model=name).notes == ()
    assumed = dialects.identify(tensors)
    assert assumed.architecture.name == name.replace("384", "224")
    assert "384 has the same parameters" in assumed.notes[0]


def test_a_model_that_is_not_the_files_is_refused_with_both_shapes(make: Make):
    with pytest.raises(WeightsError, match=r"width 128, depth 12.*width 192, depth 12") as caught:
        tensors = shapes(make("timm", architecture("xcit_nano_12_p16_224"), "classifier", 1000))
        dialects.identify(tensors, model="xcit_tiny_12_p16_224")
    assert "xcit_nano_12_p16_224" in str(caught.value.fix)
    with pytest.raises(UnknownNameError, match="xcit_nanno"):
        dialects.identify(tensors, model="xcit_nanno")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cls_token": None}, "missing: cls_token"),
        ({"blocks.1.norm2.gamma": None}, "missing: blocks.1.norm2.gamma"),
        ({"blocks.1.norm2.gamme": (16,)}, "unexpected: 'blocks.1.norm2.gamme'"),
        ({"head.bias": (8,)}, r"wrong shape: head.bias \[8\], not \[7\]"),
        ({"blocks.0.mlp.fc1.weight": (16, 64)}, "wrong shape: blocks.0.mlp.fc1.weight"),
    ],
)
def test_missing_unexpected_and_misshapen_tensors_are_all_named(change, words: str):
    tensors = network()
    for name, shape in change.items():
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = StoredTensor.of(np.zeros(shape, np.float32))
    with pytest.raises(WeightsError, match=words):
        identity = dialects.identify(shapes(tensors))
        dialects.to_ours(tensors, "mindcv", dialects.shapes_of(TINY, identity.kind, 7, 3))


@pytest.mark.parametrize(
    "name",
    [
        "patch_embed.proj.6.0.weight",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.attn.temperature",
        "blocks.0.norm1.gamma",
        "head.weight",
    ],
)
def test_one_transposed_tensor_is_the_only_one_that_is_blamed(name: str):
    tensors = network(architecture("xcit_nano_12_p16_224"))
    shape = (*tensors[name].shape, 1)[1::-1] if name.endswith("gamma") else tensors[name].shape[1::-1]
    tensors[name] = tensors[name].reshape((*shape, *tensors[name].shape[2:]))
    identity = dialects.identify(shapes(tensors))
    assert identity.architecture.name == "xcit_nano_12_p16_224"
    with pytest.raises(WeightsError) as caught:
        dialects.to_ours(tensors, "mindcv", identity.shapes)
    assert [line for line in caught.value.what.splitlines()[1:] if name not in line] == []


def test_integers_and_mixed_parts_are_no_weights(make: Make):
    expected = dialects.shapes_of(TINY, "classifier", 7, 3)
    tensors = make("timm")
    tensors["cls_token"] = StoredTensor.of(np.zeros((1, 1, 16), np.int32))
    key = "cls_attn_blocks.0.attn.k.weight"
    tensors[key] = StoredTensor.of(tensors[key].numpy().astype(np.float16))
    with pytest.raises(WeightsError, match="not a floating-point tensor: cls_token int32") as caught:
        dialects.to_ours(tensors, "timm", expected)
    assert "different dtypes" in caught.value.what


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("patch_embed.proj.2.", "the stem's convolutions are numbered"),
        ("blocks.0.attn.temperature", "there is no blocks.0.attn.temperature"),
        ("blocks.0.norm1.gamma", "no family's naming"),
        ("pos_embeder.token_projection.weight", "no family's naming"),
    ],
)
def test_what_is_no_xcit_is_said_not_to_be(missing: str, words: str):
    tensors = {name: shape for name, shape in shapes(network()).items() if not name.startswith(missing)}
    with pytest.raises(WeightsError, match=words):
        dialects.identify(tensors)


def test_blocks_with_a_gap_are_refused():
    tensors = {name.replace("blocks.1.", "blocks.3."): shape for name, shape in shapes(network()).items()}
    with pytest.raises(WeightsError, match="with gaps"):
        dialects.identify(tensors)


# ---- What surrounds the network

WRAPPED = [
    "",
    "model.",
    "state_dict.",
    "module.",
    "model.module.",
    "backbone.",
    "_orig_mod.",
    "model._orig_mod.module.",
]


@pytest.mark.parametrize("prefix", WRAPPED)
def test_the_network_is_found_under_whatever_wraps_it(prefix: str, make: Make):
    bare = make("facebook")
    found = dialects.select(f"{prefix}{name}" for name in bare)
    assert found.names == {name: f"{prefix}{name}" for name in bare}
    assert not found.dropped


@pytest.mark.parametrize(("plain", "averaged"), [("model.", "model_ema."), ("", "ema."), ("student.", "teacher.")])
def test_plain_weights_are_taken_unless_the_averaged_are_asked_for(plain: str, averaged: str, make: Make):
    bare = make("facebook")
    names = [f"{prefix}{name}" for prefix in (plain, averaged) for name in bare]
    for ema, prefix in ((False, plain), (True, averaged)):
        found = dialects.select(names, ema=ema)
        assert found.names == {name: f"{prefix}{name}" for name in bare}
        assert found.both
        assert len(found.dropped) == len(bare)
    only = dialects.select(f"{averaged}{name}" for name in bare)
    assert only.averaged and not only.both


def test_averaged_weights_that_are_not_there_are_not_made_up():
    with pytest.raises(WeightsError, match="no averaged"):
        dialects.select(network(), ema=True)


def test_two_networks_of_a_kind_are_not_chosen_between():
    with pytest.raises(WeightsError, match="more than one network"):
        dialects.select(f"{prefix}{name}" for prefix in ("model.", "state_dict.") for name in network())


DROPPED = {
    "patch_embed.proj.0.1.num_batches_tracked": "batch counter",
    "head_dist.weight": "distillation",
    "blocks.0.total_ops": "profiler",
    "total_params": "profiler",
    "adam_m.cls_token": "optimizer",
    "moment2.blocks.0.gamma1": "optimizer",
    "global_step": "optimizer",
    "optimizer.state.0.exp_avg": "optimizer",
    "neck.fpn_convs.0.conv.weight": "detector",
    "teacher.head.last_layer.weight_v": "self-supervised",
    "decode_head.conv_seg.weight": "segmenter",
}


@pytest.mark.parametrize(("name", "reason"), DROPPED.items())
def test_what_is_no_part_of_the_network_is_dropped_with_its_reason(name: str, reason: str):
    found = dialects.select([*network(), name])
    assert [entry.name for entry in found.dropped] == [name]
    assert reason in found.dropped[0].reason


@pytest.mark.parametrize(
    "name", ["blocks.0.attn.extra", "something", "heads.weight", "blocks.0.gamma4", "wrapped.head.weight"]
)
def test_what_has_no_reason_to_be_dropped_is_kept_for_the_strict_check(name: str):
    assert dialects.select([*network(), name]).names[name] == name


# ---- The dialect


@pytest.mark.parametrize(
    ("naming", "marks", "dialect", "evidence"),
    [
        ("timm", Marks("safetensors"), "paper", "only timm"),
        ("facebook", Marks("pth"), "paper", "PyTorch's own format"),
        ("facebook", Marks("safetensors", {"format": "pt"}), "paper", "PyTorch's own format"),
        ("facebook", Marks("ckpt", {"xcit_hub.dialect": "paper"}), "paper", "metadata"),
        ("mindcv", Marks("ckpt", {"xcit_hub.dialect": "paper"}), "paper", "metadata"),
        ("mindcv", Marks("ckpt", {}, {"xcit_hub.dialect": "mindcv"}), "mindcv", "config"),
        ("mindcv", Marks("ckpt", trained_by_mindcv=True), "mindcv", "MindCV's trainer"),
        ("mindcv", Marks("ckpt", published_as=("x.ms_in1k", "mindcv")), "mindcv", "published x.ms_in1k"),
        ("mindcv", Marks("ckpt", family="mindcv"), "mindcv", "the command"),
        ("timm", Marks("safetensors", mindcv_mark=True), "mindcv", "mark"),
    ],
)
def test_unmistakable_marks_settle_the_dialect(naming, marks: Marks, dialect: str, evidence: str):
    found, why = settle_dialect(naming, marks)
    assert found == dialect
    assert evidence in why
    assert settle_dialect(naming, marks, dialect)[0] == dialect
    with pytest.raises(WeightsError, match="contradicts the file"):
        settle_dialect(naming, marks, {"paper": "mindcv", "mindcv": "paper"}[dialect])


def test_mindspores_names_alone_settle_nothing_and_the_message_explains_both():
    with pytest.raises(WeightsError, match="does not tell") as caught:
        settle_dialect("mindcv", Marks("ckpt"))
    assert "--dialect paper: the paper's network" in caught.value.fix
    assert "--dialect mindcv: MindCV's network" in caught.value.fix
    for name in ("paper", "mindcv"):
        assert settle_dialect("mindcv", Marks("ckpt"), name) == (name, "the caller said so")


@pytest.mark.parametrize("marks", [Marks("ckpt"), Marks("safetensors"), Marks("safetensors", {"format": "ms"})])
def test_mindcvs_newest_network_is_taken_for_neither_dialect(marks: Marks):
    for asked in (None, "mindcv"):
        with pytest.raises(WeightsError, match="neither dialect"):
            settle_dialect("facebook", marks, asked)
    assert settle_dialect("facebook", marks, "paper")[0] == "paper"


def test_a_dialect_that_does_not_exist_is_refused_wherever_it_stands():
    with pytest.raises(UnknownNameError):
        settle_dialect("mindcv", Marks("ckpt"), "papper")
    with pytest.raises(UnknownNameError):
        settle_dialect("mindcv", Marks("ckpt", {"xcit_hub.dialect": "papper"}))
