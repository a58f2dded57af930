"""Fresh weights follow the paper's code, and a seed fixes them."""

from __future__ import annotations

import numpy as np
import pytest

from xcit_hub import create_model


def _values(name: str, **options) -> dict[str, np.ndarray]:
    return {key: value.asnumpy() for key, value in create_model(name, **options).parameters_dict().items()}


def test_fresh_weights_are_distributed_as_timms() -> None:
    import timm
    import torch

    torch.manual_seed(0)
    theirs = {key: value.numpy() for key, value in timm.create_model("xcit_tiny_12_p16_224").state_dict().items()}
    ours = _values("xcit_tiny_12_p16_224", seed=0)
    for our_name, their_name in {
        "cls_token": "cls_token",
        "blocks.3.attn.qkv.weight": "blocks.3.attn.qkv.weight",
        "blocks.3.mlp.fc1.weight": "blocks.3.mlp.fc1.weight",
        "blocks.3.local_mp.conv1.weight": "blocks.3.local_mp.conv1.weight",
        "blocks.3.local_mp.conv2.bias": "blocks.3.local_mp.conv2.bias",
        "patch_embed.proj.2.0.weight": "patch_embed.proj.2.0.weight",
        "pos_embeder.token_projection.weight": "pos_embed.token_projection.weight",
        "pos_embeder.token_projection.bias": "pos_embed.token_projection.bias",
        "head.weight": "head.weight",
    }.items():
        found, expected = ours[our_name].ravel(), theirs[their_name].ravel()
        # Five standard errors of a deviation estimated from n values.
        tolerance = 5.0 / np.sqrt(2 * found.size)
        assert found.std() == pytest.approx(expected.std(), rel=2 * tolerance), our_name
        assert abs(found.mean()) < 5 * expected.std() / np.sqrt(found.size), our_name
        assert np.abs(found).max() == pytest.approx(np.abs(expected).max(), rel=0.35), our_name
    for name, value in ours.items():
        kind = name.rpartition(".")[2]
        dense = name.endswith(("qkv.bias", "proj.bias", "fc1.bias", "fc2.bias", "head.bias"))
        if kind in ("beta", "moving_mean") or dense:
            assert not value.any(), name
        if kind in ("gamma", "gamma1", "gamma2", "gamma3", "moving_variance", "temperature"):
            assert (value == 1.0).all(), name


def test_deep_networks_start_with_small_layer_scales() -> None:
    ours = _values("xcit_tiny_24_p16_224", seed=0)
    scales = [value for name, value in ours.items() if name.endswith(("gamma1", "gamma2", "gamma3"))]
    assert len(scales) == 24 * 3 + 2 * 2
    assert all((value == np.float32(1e-5)).all() for value in scales)


def test_a_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (_values("xcit_nano_12_p16_224", seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["head.weight"], other["head.weight"])


def test_without_a_seed_weights_differ_from_one_time_to_the_next() -> None:
    first, again = _values("xcit_nano_12_p16_224"), _values("xcit_nano_12_p16_224")
    assert not np.array_equal(first["head.weight"], again["head.weight"])
