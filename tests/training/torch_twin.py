"""The same network on the other side: timm's model filled with a MindSpore network's weights, and back again."""

from __future__ import annotations

from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def arrays_of(network: Any) -> Arrays:
    return {parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()}


def to_timm_names(arrays: Arrays) -> Arrays:
    """Rename MindSpore arrays to timm's, and cut the class attention's fused matrix in three."""
    renamed: Arrays = {}
    for name, value in arrays.items():
        name = name.replace("pos_embeder", "pos_embed")
        for ours, theirs in (
            (".gamma", ".weight"),
            (".beta", ".bias"),
            (".moving_mean", ".running_mean"),
            (".moving_variance", ".running_var"),
        ):
            if name.endswith(ours):
                name = name.removesuffix(ours) + theirs
        if name.startswith("cls_attn_blocks") and ".attn.qkv." in name:
            for part, third in zip("qkv", np.split(value, 3), strict=True):
                renamed[name.replace(".qkv.", f".{part}.")] = third
        else:
            renamed[name] = value
    return renamed


def timm_twin(network: Any, name: str, num_classes: int, **shape: Any) -> Any:
    import timm
    import torch

    twin = timm.create_model(name, num_classes=num_classes, **shape)
    state = {key: torch.from_numpy(value) for key, value in to_timm_names(arrays_of(network)).items()}
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return twin


def relative_error(ours: Arrays, theirs: Any) -> dict[str, float]:
    """Norm of the difference over norm of timm's value, for each of timm's parameters and buffers."""
    renamed = to_timm_names(ours)
    errors = {}
    for key, value in theirs.items():
        if key.endswith("num_batches_tracked"):
            continue
        expected = value.detach().numpy().astype(np.float64)
        errors[key] = float(np.linalg.norm(renamed[key] - expected) / (np.linalg.norm(expected) + 1e-12))
    return errors
