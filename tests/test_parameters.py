"""The names and shapes derived from the table are those of the networks that are built."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xcit_hub import create_model, variants
from xcit_hub.parameters import parameter_count, parameter_shapes, trainable

# The side of an image makes no parameter: of two networks that differ in nothing else, one is built.
_BUILT = {replace(entry, name="", image_size=0): name for name, entry in sorted(variants.ARCHITECTURES.items())}


@pytest.mark.parametrize("name", _BUILT.values())
def test_the_network_registers_exactly_the_derived_parameters_in_order(name: str) -> None:
    network = create_model(name, init=False)
    built = {parameter.name: tuple(parameter.shape) for parameter in network.get_parameters()}
    assert list(built.items()) == list(parameter_shapes(variants.architecture(name)).items())
    assert {parameter.name for parameter in network.trainable_params()} == {key for key in built if trainable(key)}


@pytest.mark.parametrize("name", ["xcit_nano_12_p16_224", "xcit_tiny_24_p8_224", "xcit_large_24_p16_384"])
def test_parameters_count_as_timm_counts_them(name: str) -> None:
    import timm
    import torch

    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameter_count(variants.architecture(name))


def test_heads_and_input_channels_change_only_their_own_parameters() -> None:
    entry = variants.architecture("xcit_nano_12_p16_224")
    plain = parameter_shapes(entry)
    changed = parameter_shapes(entry, num_classes=0, in_chans=1)
    assert set(plain) - set(changed) == {"head.weight", "head.bias"}
    assert [name for name in changed if changed[name] != plain[name]] == ["patch_embed.proj.0.0.weight"]
