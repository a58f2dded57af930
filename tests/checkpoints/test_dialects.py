from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_networks import ARCHITECTURE_NAMES, TINY, TINY_P16, Make, network, same

from xcit_hub.checkpoints import families, translate
from xcit_hub.checkpoints.beside import Reason
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.checkpoints.dialect import Marks, of_marks
from xcit_hub.checkpoints.families import LAYOUTS
from xcit_hub.checkpoints.identify import of_shapes
from xcit_hub.checkpoints.reading import Asked, Evidence
from xcit_hub.checkpoints.unwrap import find
from xcit_hub.errors import UnknownNameError, WeightsError
from xcit_hub.variants import TIMM_ARCHITECTURES, Architecture, architecture

FAMILIES = tuple(LAYOUTS)
# The others are copies of every matrix.
IN_PLACE = tuple(family for family, layout in LAYOUTS.items() if not layout.transposed)
KINDS = ("classifier", "backbone", "dense", "features")


def shapes(tensors):
    return {name: tensor.shape for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_every_pair_of_families_round_trips_bit_for_bit_on_every_architecture(name: str):
    entry = architecture(name)
    ours = network(entry, "classifier", 1000)
    expected = families.shapes_of(entry, "classifier", 1000, 3)
    for source in IN_PLACE:
        theirs = translate.from_ours(ours, source)
        assert same(translate.to_ours(theirs, source, expected), ours)
        for target in IN_PLACE:
            there = translate.from_ours(translate.to_ours(theirs, source, expected), target)
            back = translate.from_ours(translate.to_ours(there, target, expected), source)
            assert same(back, theirs)


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_every_familys_whole_file_is_found_named_and_of_the_right_shapes_for_every_architecture(name: str):
    """Those with transposed matrices and with names beside the prefix, too: names and shapes alone."""
    entry = architecture(name)
    ours = network(entry, "classifier", 1000)
    expected = families.shapes_of(entry, "classifier", 1000, 3)
    for family in FAMILIES:
        theirs = translate.from_ours(ours, family)
        found = find({LAYOUTS[family].placed(part): tensor for part, tensor in theirs.items()})
        identity = of_shapes(shapes(found.tensors), model=name)
        assert (identity.architecture, identity.naming) == (entry, "mindcv" if family == "xcit-hub" else family)
        assert shapes(translate.to_ours(found.tensors, family, expected)) == expected


@pytest.mark.parametrize("name", TIMM_ARCHITECTURES)
def test_timms_names_and_shapes_are_timms(name: str):
    import timm
    import torch

    from xcit_hub.timm import WithoutValues

    with torch.device("meta"), WithoutValues():
        state = timm.create_model(name).state_dict()
    theirs = shapes(translate.from_ours(network(architecture(name), "classifier", 1000), "timm"))
    assert theirs == {key: tuple(value.shape) for key, value in state.items() if "num_batches" not in key}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entry", [TINY, TINY_P16], ids=["p8", "p16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family_architecture_and_kind_are_read_from_the_tensors(family: str, entry: Architecture, kind: str):
    found = of_shapes(shapes(translate.from_ours(network(entry, kind, in_chans=5), family)))
    assert found.naming == ("mindcv" if family == "xcit-hub" else family)
    assert (found.kind, found.in_chans) == (kind, 5)
    assert found.num_classes == (7 if kind == "classifier" else 0)
    assert (found.architecture.embed_dim, found.architecture.depth, found.architecture.num_heads) == (16, 2, 2)
    assert found.architecture.patch_size == entry.patch_size
    assert any("tokens_norm True" in note for note in found.notes)


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_every_architecture_is_recognised_and_the_size_decides_only_when_asked(name: str, make: Make):
    tensors = shapes(make("timm", architecture(name), "classifier", 1000))
    assert of_shapes(tensors, model=name).architecture == architecture(name)
    assert of_shapes(tensors, model=name).notes == ()
    assumed = of_shapes(tensors)
    assert assumed.architecture.name == name.replace("384", "224").replace("p4_32", "p16_224")
    others = [other for other in ARCHITECTURE_NAMES if other in assumed.notes[0]]
    assert len(others) >= 2 and "the same parameters" in assumed.notes[0]
    assert name in others


def test_a_model_that_is_not_the_files_is_refused_with_both_shapes(make: Make):
    with pytest.raises(WeightsError, match=r"width 128, depth 12.*width 192, depth 12") as caught:
        tensors = shapes(make("timm", architecture("xcit_nano_12_p16_224"), "classifier", 1000))
        of_shapes(tensors, model="xcit_tiny_12_p16_224")
    assert "xcit_nano_12_p16_224" in str(caught.value.fix)
    with pytest.raises(UnknownNameError, match="xcit_nanno"):
        of_shapes(tensors, model="xcit_nanno")


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
        identity = of_shapes(shapes(tensors))
        translate.to_ours(tensors, "mindcv", families.shapes_of(TINY, identity.kind, 7, 3))


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
    identity = of_shapes(shapes(tensors))
    assert identity.architecture.name == "xcit_nano_12_p16_224"
    with pytest.raises(WeightsError) as caught:
        translate.to_ours(tensors, "mindcv", identity.shapes)
    assert [line for line in caught.value.what.splitlines()[1:] if name not in line] == []


def test_integers_and_mixed_parts_are_not_weights(make: Make):
    expected = families.shapes_of(TINY, "classifier", 7, 3)
    tensors = make("timm")
    tensors["cls_token"] = StoredTensor.of(np.zeros((1, 1, 16), np.int32))
    key = "cls_attn_blocks.0.attn.k.weight"
    tensors[key] = StoredTensor.of(tensors[key].numpy().astype(np.float16))
    with pytest.raises(WeightsError, match="not a floating-point tensor: cls_token int32") as caught:
        translate.to_ours(tensors, "timm", expected)
    assert "different dtypes" in caught.value.what


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("patch_embed.proj.2.", "the stem's convolutions are numbered"),
        ("blocks.0.attn.temperature", "there is no blocks.0.attn.temperature"),
        ("blocks.0.norm1.gamma", "not a family's naming"),
        ("pos_embeder.token_projection.weight", "not a family's naming"),
    ],
)
def test_what_is_not_an_xcit_is_said_not_to_be(missing: str, words: str):
    tensors = {name: shape for name, shape in shapes(network()).items() if not name.startswith(missing)}
    with pytest.raises(WeightsError, match=words):
        of_shapes(tensors)


def test_blocks_with_a_gap_are_refused():
    tensors = {name.replace("blocks.1.", "blocks.3."): shape for name, shape in shapes(network()).items()}
    with pytest.raises(WeightsError, match="with gaps"):
        of_shapes(tensors)


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
    "model_state_dict.",
    "encoder.",
    "0.",
    "timm_model.",
    "base_model.model.",
    "_forward_module.",
    "_backbone.",
    "_network.",
    "trunk.",
    "classy_state_dict.base_model.model.trunk.",
    "0.nets.3.anything at all.",
]


def under(prefix: str, tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def scalar(value: float = 1.0) -> StoredTensor:
    return StoredTensor.of(np.array(value, np.float32))


@pytest.mark.parametrize("prefix", WRAPPED)
def test_the_network_is_found_under_whatever_wraps_it(prefix: str, make: Make):
    bare = make("facebook")
    found = find(under(prefix, bare))
    assert found.names == {name: f"{prefix}{name}" for name in bare}
    assert not found.dropped


@pytest.mark.parametrize(("plain", "averaged"), [("model.", "model_ema."), ("", "ema."), ("net.", "swa_model.module.")])
def test_plain_weights_are_taken_unless_the_averaged_are_asked_for(plain: str, averaged: str, make: Make):
    bare = make("facebook")
    tensors = {**under(plain, bare), **under(averaged, bare)}
    for ema, prefix, reason in ((False, plain, Reason.AVERAGED), (True, averaged, Reason.PLAIN)):
        found = find(tensors, Asked(ema=ema))
        assert found.names == {name: f"{prefix}{name}" for name in bare}
        assert found.both
        assert [entry.reason for entry in found.dropped] == [reason] * len(bare)
    only = find(under(averaged, bare))
    assert only.averaged and not only.both


def test_averaged_weights_that_are_not_there_are_not_made_up():
    with pytest.raises(WeightsError, match="no averaged"):
        find(network(), Asked(ema=True))


def test_a_network_that_is_named_is_never_another_than_the_averaged_one_or_the_prefix_asked_for(make: Make):
    bare = make("facebook")
    tensors = {**under("state_dict.", bare), **under("state_dict_ema.", bare)}
    for named in ({"select": "state_dict"}, {"prefix": "state_dict"}):
        with pytest.raises(WeightsError, match=r"averaged \(EMA\) weights were asked for, and state_dict holds others"):
            find(tensors, Asked(ema=True, **named))
    assert find(tensors, Asked(ema=True, select="state_dict_ema")).averaged
    with pytest.raises(WeightsError, match="--prefix state_dict with --select state_dict_ema means none"):
        find(tensors, Asked(prefix="state_dict", select="state_dict_ema"))
    assert find(tensors, Asked(prefix="state_dict", select="state_dict")).prefix == "state_dict."


def test_two_networks_of_a_kind_are_chosen_between_by_name(make: Make):
    bare = make("facebook")
    tensors = {**under("net.base_encoder.", bare), **under("net.momentum_encoder.", bare), **under("generator.", bare)}
    with pytest.raises(WeightsError, match=r"more than one network.*net.base_encoder, net.momentum_encoder") as caught:
        find(tensors)
    assert "--select net.base_encoder" in caught.value.fix
    for select in ("momentum_encoder", "net.momentum_encoder"):
        found = find(tensors, Asked(select=select))
        assert found.prefix == "net.momentum_encoder."
        assert {entry.reason for entry in found.dropped} == {Reason.NOT_SELECTED}
    assert find(tensors, Asked(prefix="generator")).prefix == "generator."
    for asked, words in (
        (Asked(select="net"), "several of"),
        (Asked(select="x"), "none of"),
        (Asked(prefix="x"), "none"),
    ):
        with pytest.raises(WeightsError, match=words):
            find(tensors, asked)
    assert find({**bare, **under("other.", bare)}, Asked(select="top")).prefix == ""


def test_dinos_files_give_the_teacher_and_say_so_and_other_students_are_asked_about(make: Make):
    bare = make("facebook", TINY, "backbone")
    head = StoredTensor.of(np.zeros((3, 4), np.float32))
    both = {**under("student.module.backbone.", bare), **under("teacher.backbone.", bare)}
    with pytest.raises(WeightsError, match=r"student.module.backbone, teacher.backbone"):
        find(both)
    dino = {
        **both,
        "student.module.head.mlp.0.weight": head,
        "teacher.head.last_layer.weight_v": head,
        "dino_loss.center": head,
    }
    found = find(dino)
    assert found.prefix == "teacher.backbone."
    assert "took the teacher" in found.notes[0] and "--select student" in found.notes[0]
    assert [entry.name for entry in found.dropped if entry.reason is Reason.OTHER_HEAD] == [
        "student.module.head.mlp.0.weight",
        "teacher.head.last_layer.weight_v",
        "dino_loss.center",
    ]
    assert find(dino, Asked(select="student")).prefix == "student.module.backbone."
    assert find(dino, Asked(ema=True)).prefix == "teacher.backbone."


@pytest.mark.parametrize("slot", ["adam_m", "moments", "prev", "ax_", "never.heard.of", "optimizer.v"])
def test_copies_of_the_parameters_without_statistics_are_optimizer_state_whatever_they_are_called(
    slot: str, make: Make
):
    ours = make("mindcv")
    state = under(f"{slot}.", {name: tensor for name, tensor in ours.items() if "moving" not in name})
    found = find({**ours, **state})
    assert found.prefix == ""
    assert {entry.reason for entry in found.dropped} == {Reason.OPTIMIZER}
    assert found.notes == (f"Dropped {len(state)} tensors of optimizer or training state.",)


DROPPED = {
    "patch_embed.proj.0.1.num_batches_tracked": Reason.BATCH_COUNTER,
    "head_dist.weight": Reason.DISTILLATION_HEAD,
    "blocks.0.total_ops": Reason.PROFILER,
    "total_params": Reason.PROFILER,
    "adam_m.cls_token": Reason.OPTIMIZER,
    "moment2.blocks.0.gamma1": Reason.OPTIMIZER,
    "mu_blocks.0.gamma1": Reason.OPTIMIZER,
    "exp_avg_sq_row.blocks.0.attn.qkv.weight": Reason.OPTIMIZER,
    "global_step": Reason.OPTIMIZER,
    "optimizer.state.0.exp_avg": Reason.OPTIMIZER,
    "optimizer_states.0.state.12.exp_avg_sq": Reason.OPTIMIZER,
    "optimizer_state_dict.state.3.momentum_buffer": Reason.OPTIMIZER,
    "neck.fpn_convs.0.conv.weight": Reason.OTHER_HEAD,
    "teacher.head.last_layer.weight_v": Reason.OTHER_HEAD,
    "decode_head.conv_seg.weight": Reason.OTHER_HEAD,
    "projector.0.weight": Reason.OTHER_HEAD,
    "criterion.weight": Reason.METRIC,
    "val_acc.tp": Reason.METRIC,
    "train_losses": Reason.METRIC,
    "cuda_rng_state": Reason.RANDOM_STATE,
    "rng_states.0": Reason.RANDOM_STATE,
}


@pytest.mark.parametrize(("name", "reason"), DROPPED.items())
def test_what_is_not_part_of_the_network_is_dropped_with_its_reason(name: str, reason: Reason):
    beside = StoredTensor.of(np.zeros(5, np.float32))
    found = find({**network(), name: beside})
    assert [(entry.name, entry.reason) for entry in found.dropped] == [(name, reason)]


@pytest.mark.parametrize("name", ["lr", "best_model_score", "swa.n_averaged", "anything"])
def test_a_single_number_beside_the_network_is_a_counter(name: str):
    found = find({**network(), name: scalar()})
    assert [(entry.name, entry.reason) for entry in found.dropped] == [(name, Reason.COUNTER)]


@pytest.mark.parametrize(
    "name", ["blocks.0.attn.extra", "something", "heads.weight", "blocks.0.gamma4", "wrapped.head.weight"]
)
def test_what_has_no_reason_to_be_dropped_is_kept_for_the_strict_check(name: str):
    beside = StoredTensor.of(np.zeros(5, np.float32))
    assert find({**network(), name: beside}).names[name] == name


def test_what_lies_outside_of_a_wrapped_network_is_listed_by_name(make: Make):
    beside = {f"fusion.{index}.weight": StoredTensor.of(np.zeros(5, np.float32)) for index in range(14)}
    found = find({**under("backbone.", make("timm")), **beside})
    assert {entry.reason for entry in found.dropped} == {Reason.OUTSIDE}
    assert "fusion.0.weight" in found.notes[0] and "and 2 more" in found.notes[0]


@pytest.mark.parametrize("names", [("normalize.mean", "normalize.std"), ("mu", "sigma"), ("0.mean", "0.std")])
def test_a_wrappers_normalisation_is_kept_as_such(names: tuple[str, str], make: Make):
    mean, std = (StoredTensor.of(np.full((1, 3, 1, 1), value, np.float32)) for value in (0.5, 0.25))
    for prefix in ("", "model."):
        found = find({**under(prefix, make("timm")), names[0]: mean, names[1]: std})
        assert found.normalization == (mean, std)
        assert [entry.reason for entry in found.dropped] == [Reason.NORMALIZATION] * 2
        assert set(found.names) == set(make("timm"))


def test_timms_first_names_are_read(make: Make):
    theirs = {name.replace("pos_embed.", "pos_embeder."): tensor for name, tensor in make("timm").items()}
    mixed = {name.replace("pos_embeder.", "pos_embed."): tensor for name, tensor in make("facebook").items()}
    for tensors in (theirs, mixed):
        identity = of_shapes(shapes(tensors))
        assert same(translate.to_ours(tensors, identity.layout, identity.shapes), network())


def test_paddlevits_matrices_are_turned_and_come_back(make: Make):
    theirs = make("paddlevit")
    assert theirs["blocks.0.attn.qkv.weight"].shape == (16, 48)
    assert "blocks.0.local_mp.bn._variance" in theirs
    found = find(theirs)
    identity = of_shapes(shapes(found.tensors))
    assert (identity.naming, identity.num_classes) == ("paddlevit", 7)
    assert same(translate.to_ours(found.tensors, identity.layout, identity.shapes), network())


def test_a_classifier_both_beside_and_within_its_backbone_is_refused(make: Make):
    classifier = {name: tensor for name, tensor in make("mmpretrain").items() if name.startswith("head.")}
    theirs = {name if name in classifier else f"backbone.{name}": tensor for name, tensor in make("mmpretrain").items()}
    assert find(theirs).prefix == "backbone."
    with pytest.raises(WeightsError, match=r"backbone\.head\.\S+ and head\.\S+ are both head\.\S+ of one network"):
        find({**theirs, **under("backbone.", classifier)})


def test_mmpretrains_classifier_stands_beside_its_backbone(make: Make):
    theirs = make("mmpretrain")
    wrapped = {name if name.startswith("head.") else f"backbone.{name}": tensor for name, tensor in theirs.items()}
    assert "backbone.xca_layers.0.ffn.layers.0.0.weight" in wrapped and "head.fc.bias" in wrapped
    assert "backbone.patch_embed.proj.1.bn.running_var" in wrapped
    for prefix in ("", "state_dict."):
        found = find(under(prefix, wrapped))
        identity = of_shapes(shapes(found.tensors))
        assert (identity.naming, identity.kind, found.dropped) == ("mmpretrain", "classifier", [])
        assert same(translate.to_ours(found.tensors, identity.layout, identity.shapes), network())


# ---- The dialect


@pytest.mark.parametrize(
    ("naming", "marks", "dialect", "evidence"),
    [
        ("timm", Marks("safetensors"), "paper", Evidence.TIMM),
        ("mmpretrain", Marks("pth"), "paper", Evidence.PORT),
        ("facebook", Marks("pth"), "paper", Evidence.PYTORCH),
        ("facebook", Marks("safetensors", {"format": "pt"}), "paper", Evidence.PYTORCH),
        ("facebook", Marks("ckpt", {"xcit_hub.dialect": "paper"}), "paper", Evidence.METADATA),
        ("mindcv", Marks("ckpt", {"xcit_hub.dialect": "paper"}), "paper", Evidence.METADATA),
        ("mindcv", Marks("ckpt", {}, {"xcit_hub.dialect": "mindcv"}), "mindcv", Evidence.CONFIG),
        ("mindcv", Marks("ckpt", trained_by_mindcv=True), "mindcv", Evidence.TRAINER),
        ("mindcv", Marks("ckpt", published_as=("x.ms_in1k", "mindcv")), "mindcv", Evidence.PUBLISHED),
        ("mindcv", Marks("ckpt", family="mindcv"), "mindcv", Evidence.COMMAND),
        ("timm", Marks("safetensors", mark="mindcv"), "mindcv", Evidence.MARK),
    ],
)
def test_unmistakable_marks_settle_the_dialect(naming, marks: Marks, dialect: str, evidence: Evidence):
    found = of_marks(naming, marks)
    assert (found.dialect, found.evidence) == (dialect, evidence)
    assert "{}" not in found.sentence
    assert of_marks(naming, marks, dialect) == found
    with pytest.raises(WeightsError, match="contradicts the file"):
        of_marks(naming, marks, {"paper": "mindcv", "mindcv": "paper"}[dialect])


def test_mindspores_names_alone_settle_nothing_and_the_message_explains_both():
    with pytest.raises(WeightsError, match="does not tell") as caught:
        of_marks("mindcv", Marks("ckpt"))
    assert "--dialect paper: the paper's network" in caught.value.fix
    assert "--dialect mindcv: MindCV's network" in caught.value.fix
    for name in ("paper", "mindcv"):
        found = of_marks("mindcv", Marks("ckpt"), name)
        assert (found.dialect, found.evidence) == (name, Evidence.CALLER)


@pytest.mark.parametrize("marks", [Marks("ckpt"), Marks("safetensors"), Marks("safetensors", {"format": "ms"})])
def test_facebooks_names_in_mindspores_files_are_asked_about_and_never_the_older_dialect(marks: Marks):
    with pytest.raises(WeightsError, match="does not tell"):
        of_marks("facebook", marks)
    with pytest.raises(WeightsError, match="cannot be of the dialect mindcv"):
        of_marks("facebook", marks, "mindcv")
    for dialect in ("paper", "mindcv-mint"):
        assert of_marks("facebook", marks, dialect).dialect == dialect


def test_mindcvs_network_of_mint_layers_is_known_by_its_trainers_state_and_by_the_command():
    trained = of_marks("facebook", Marks("ckpt", trained_by_mindcv=True))
    asked = of_marks("facebook", Marks("ckpt", family="mindcv"))
    assert (trained.dialect, trained.evidence) == ("mindcv-mint", Evidence.TRAINER)
    assert (asked.dialect, asked.evidence) == ("mindcv-mint", Evidence.COMMAND)


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_without_a_position_and_with_other_mlps_are_recognised(family: str):
    entry = replace(TINY, use_pos_embed=False, mlp_ratio=2.5)
    ours = network(entry)
    found = of_shapes(shapes(translate.from_ours(ours, family)))
    assert (found.architecture.use_pos_embed, found.architecture.mlp_hidden) == (False, 40)
    assert same(translate.to_ours(translate.from_ours(ours, family), found.layout, found.shapes), ours)


@pytest.mark.parametrize("name", ["xcit_small_12_p4_32", "xcit_medium_12_p4_32"])
def test_other_strides_on_the_same_tensors_are_the_callers_to_say(name: str, make: Make):
    tensors = shapes(make("timm", architecture(name), "classifier", 10))
    assumed = of_shapes(tensors)
    assert assumed.architecture.name == name.replace("p4_32", "p16_224")
    assert name in assumed.notes[0] and "same parameters" in assumed.notes[0]
    assert of_shapes(tensors, model=name).architecture == architecture(name)


def test_a_dialect_that_does_not_exist_is_refused_wherever_it_stands():
    with pytest.raises(UnknownNameError):
        of_marks("mindcv", Marks("ckpt"), "papper")
    with pytest.raises(UnknownNameError):
        of_marks("mindcv", Marks("ckpt", {"xcit_hub.dialect": "papper"}))
