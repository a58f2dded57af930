from __future__ import annotations

from typing import Any

import mindspore
import numpy as np
import pytest
import torch

from xcit_hub.models import XCiT, create_model
from xcit_hub.training.optimizers import AdamW, ParameterSetting, parameter_settings
from xcit_hub.training.recipe_file import load_recipe

NAME = "xcit_nano_12_p16_224"


def settings_of(**keys: Any) -> dict[str, tuple[float, float]]:
    recipe = load_recipe(None, {"model": NAME, "weight_decay": 0.05, **keys})
    return {entry.parameter.name: (entry.rate, entry.decay) for entry in parameter_settings(network(), recipe)}


def network() -> XCiT:
    return create_model(NAME, num_classes=10, init=False)


def timm_name(name: str) -> str:
    name = name.replace("pos_embeder", "pos_embed")
    if name.endswith(".gamma"):
        name = name.removesuffix(".gamma") + ".weight"
    elif name.endswith(".beta"):
        name = name.removesuffix(".beta") + ".bias"
    return name.replace(".qkv.", ".q.") if name.startswith("cls_attn_blocks") else name


@pytest.mark.parametrize("rule", ["paper", "timm"])
def test_what_is_left_out_is_what_timm_leaves_out(rule: str) -> None:
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_weight_decay

    model = timm.create_model(NAME, num_classes=10)
    # facebook's list also names pos_embed, which timm 0.4.8 compared with whole names and therefore never found.
    listed = model.no_weight_decay() if rule == "timm" else {"cls_token"}
    groups = param_groups_weight_decay(model, 0.05, no_weight_decay_list=listed)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    theirs = {names[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, (_, decay) in settings_of(weight_decay_filter=rule).items():
        assert decay == theirs[timm_name(name)], name


def test_layer_decay_is_timms() -> None:
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    model = timm.create_model(NAME, num_classes=10)
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.75)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    theirs = {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    for name, (rate, _) in settings_of(layer_decay=0.75).items():
        assert rate == pytest.approx(theirs[timm_name(name)]), name


def test_mindcvs_filter_leaves_out_what_is_called_gamma_beta_or_bias() -> None:
    for keys in ({"filter_bias_and_bn": True}, {"weight_decay_filter": "norm_and_bias"}):
        decays = {name: decay for name, (_, decay) in settings_of(**keys).items()}
        assert decays["blocks.0.gamma1"] == decays["norm.beta"] == decays["head.bias"] == 0.0
        assert decays["cls_token"] == decays["blocks.0.attn.temperature"] == decays["head.weight"] == 0.05


def test_mindcvs_auto_leaves_out_what_mindspores_optimizers_do() -> None:
    """``mindspore.nn.Optimizer`` decays what is called neither gamma nor beta; biases are decayed."""
    from mindspore import nn

    decays = {name: decay for name, (_, decay) in settings_of(weight_decay_filter="auto").items()}
    optimizer = nn.AdamWeightDecay(network().trainable_params(), weight_decay=0.05)
    expected = dict(zip((entry.name for entry in optimizer.parameters), optimizer.decay_flags, strict=True))
    assert {name: bool(decay) for name, decay in decays.items()} == expected
    assert decays["head.bias"] == 0.05


def test_without_a_filter_everything_is_decayed_as_in_mindcv_0_5() -> None:
    for keys in ({}, {"filter_bias_and_bn": False}, {"weight_decay_filter": "disable"}):
        assert {decay for _, decay in settings_of(**keys).values()} == {0.05}


def test_nothing_is_left_out_when_the_filter_is_off_but_what_is_named() -> None:
    decays = {
        name: decay
        for name, (_, decay) in settings_of(weight_decay_filter="disable", no_weight_decay=["temperature"]).items()
    }
    without = {name for name, decay in decays.items() if not decay}
    assert without == {f"blocks.{index}.attn.temperature" for index in range(12)}


@pytest.mark.usefixtures("pynative")
def test_five_updates_are_torchs_five_updates() -> None:
    generator = np.random.default_rng(0)
    start = generator.standard_normal((40, 300), np.float32)
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.AdamW([theirs], lr=3e-3, weight_decay=0.1)
    ours = mindspore.Parameter(mindspore.Tensor(start), name="weight")
    optimizer = AdamW([ParameterSetting(ours, rate=0.5, decay=0.1)], eps=1e-8)
    for scale in (1.0, 1e-3, 10.0, 0.0, 1.0):
        gradient = scale * generator.standard_normal(start.shape, np.float32)
        theirs.grad = torch.tensor(gradient)
        reference.step()
        optimizer((mindspore.Tensor(gradient),), mindspore.Tensor(6e-3, mindspore.float32))
    assert np.abs(ours.asnumpy() - theirs.detach().numpy()).max() < 2e-6
