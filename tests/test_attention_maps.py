"""What a network attends to is what hooks on timm's network see, and it can be drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import pytest
from PIL import Image

from xcit_hub import create_model, parity, variants
from xcit_hub.attention_maps import attention, draw_attention, seen
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.models import load_weights
from xcit_hub.parameters import parameter_shapes

_NANO = "xcit_nano_12_p16_224"
_DEPTH, _LAYERS, _HEADS = 3, 2, 4
_SHORT = replace(variants.architecture(_NANO), name="short", depth=_DEPTH)


def _weights(temperature: float = 1.0) -> dict[str, np.ndarray]:
    return parity.random_weights(parameter_shapes(_SHORT), temperature=temperature)


def _pair(dialect: variants.DialectName) -> tuple[Any, Any]:
    weights = _weights(1.0 if dialect == "paper" else 1 / 24)
    ours = create_model(_SHORT, dialect=dialect, init=False)
    load_weights(ours, weights)
    return ours.set_train(False), parity.torch_network(weights, _SHORT, dialect)


@pytest.fixture(scope="module")
def network() -> Any:
    return _pair("paper")[0]


def _hooked(network: Any, images: Any) -> dict[str, Any]:
    import torch

    kept: dict[str, Any] = {}
    for block in network.cls_attn_blocks:
        block.attn.fused_attn = False  # PyTorch's own operation shows no attention
    handles = [
        block.attn.attn_drop.register_forward_hook(lambda _, __, output, name=name: kept.update({name: output}))
        for kind in ("cls_attn_blocks", "blocks")
        for name, block in ((f"{kind}.{index}", block) for index, block in enumerate(getattr(network, kind)))
    ]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    return kept


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_the_maps_are_those_that_hooks_see_in_timms_network(dialect: variants.DialectName) -> None:
    ours, theirs = _pair(dialect)
    images = parity.random_images(1, 3, 64, 96)
    before = mindspore.get_context("mode")
    found = attention(ours, images[0])
    assert mindspore.get_context("mode") == before
    assert found.classes.shape == (_LAYERS, _HEADS, 4, 6)
    assert found.channels.shape == (_DEPTH, _HEADS, 32, 32)
    shares = np.concatenate([found.class_token[:, :, None], found.classes.reshape(_LAYERS, _HEADS, -1)], axis=2)
    assert np.allclose(shares.sum(-1), 1.0, atol=1e-6) and np.allclose(found.channels.sum(-1), 1.0, atol=1e-6)
    reference = parity.Reference(theirs, images, _hooked)
    shape = {name: value.shape for name, value in reference.truth.items()}
    values = {f"cls_attn_blocks.{index}": shares[index] for index in range(_LAYERS)}
    values |= {f"blocks.{index}": found.channels[index] for index in range(_DEPTH)}
    checks = reference.check({name: value.reshape(shape[name]) for name, value in values.items()})
    assert len(checks) == _LAYERS + _DEPTH and all(check.passed for check in checks), checks


def test_looking_changes_nothing(network: Any) -> None:
    images = mindspore.Tensor(parity.random_images(1, 3, 64, 64))
    before = network(images).asnumpy()
    attention(network, images.asnumpy()[0])
    assert np.array_equal(network(images).asnumpy(), before)


def test_an_images_sides_that_patches_do_not_divide_are_rounded_up(network: Any) -> None:
    assert attention(network, parity.random_images(1, 3, 70, 33)[0]).classes.shape[2:] == (5, 3)


def test_a_map_is_of_one_head_or_of_their_mean(network: Any) -> None:
    found = attention(network, parity.random_images(1, 3, 64, 64)[0])
    assert np.allclose(found.map(), np.mean([found.map(head=head) for head in range(_HEADS)], axis=0))
    assert np.array_equal(found.map(0, 2), found.classes[0, 2])
    for layer, head in ((2, None), (-3, None), (0, 4), (0, -5)):
        with pytest.raises(InputError, match="no class attention layer"):
            found.map(layer, head)


def test_what_has_no_attention_to_show_is_refused(network: Any) -> None:
    pixels = parity.random_images(1, 3, 64, 64)
    with pytest.raises(InputError, match="one image at a time"):
        attention(network, pixels)
    with pytest.raises(XcitHubError, match="fused"):
        attention(network.fuse(), pixels[0])
    with pytest.raises(InputError, match="no class attention"):
        attention(create_model(_NANO, features_only=True).set_train(False), pixels[0])
    with pytest.raises(InputError, match="training mode"):
        attention(create_model(_NANO).set_train(), pixels[0])
    with pytest.raises(InputError, match="this network takes"):
        attention(network, pixels[0, :2])


def test_the_drawing_is_light_where_the_map_is_large() -> None:
    image = Image.new("RGB", (40, 20), (100, 100, 100))
    values = np.zeros((2, 4), np.float32)
    values[0, 3] = 0.5
    drawn = np.asarray(draw_attention(image, values, strength=1.0)).astype(int)
    assert drawn.shape == (20, 40, 3)
    assert drawn[1, 38].sum() > 550 and drawn[18, 2].sum() < 20
    assert np.array_equal(np.asarray(draw_attention(image, values, strength=0.0)), np.asarray(image))
    assert np.asarray(draw_attention(image, np.ones((2, 2)), strength=1.0)).std() < 3
    for bad in (np.ones(3), np.full((2, 2), np.nan)):
        with pytest.raises(InputError, match="cannot be drawn"):
            draw_attention(image, bad)
    with pytest.raises(InputError, match="strength"):
        draw_attention(image, values, strength=2.0)


def test_an_image_is_seen_as_it_is_cut_for_the_network(tmp_path: Path) -> None:
    import xcit_hub

    create_model(_NANO, seed=0).save_pretrained(tmp_path / "nano")
    loaded = xcit_hub.load(tmp_path / "nano")
    Image.new("RGB", (300, 200), (10, 200, 30)).save(tmp_path / "a.png")
    cut = seen(loaded, tmp_path / "a.png")
    assert cut.size == (224, 224) and cut.getpixel((5, 5)) == (10, 200, 30)
    assert attention(loaded, tmp_path / "a.png").map().shape == (14, 14)
    with pytest.raises(InputError, match="is not an image"):
        seen(loaded, 5)  # type: ignore[arg-type]
