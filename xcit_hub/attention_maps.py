"""What a network looks at in an image: its class attention over the grid of patches, and XCA's attention of channels.

The maps are those that hooks on ``attn_drop`` see in timm's network; a test holds them against each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub.data.shards import Stored
from xcit_hub.errors import InputError
from xcit_hub.exported import ExportedNetwork
from xcit_hub.prediction import preprocess

if TYPE_CHECKING:
    from PIL import Image

    from xcit_hub.data.transforms import ImageLike
    from xcit_hub.hub.network import XCiT

Array = NDArray[np.float32]

# Dark violet, red, orange, light yellow: read in grey, they rise evenly.
_COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)


@dataclass(frozen=True)
class Attention:
    """The attention of one image.

    Args:
        classes: (L, h, Hp, Wp): how much the class token takes from each patch, by class attention layer and head.
        class_token: (L, h): how much it keeps of itself; with the patches' shares that makes 1.
        channels: (D, h, d, d): how much a channel (third axis) takes from another one, by block and head; rows make 1.
    """

    classes: Array
    class_token: Array
    channels: Array

    def map(self, layer: int = -1, head: int | None = None) -> Array:
        """Return one layer's map (Hp, Wp), of one head or the mean of all.

        Raises:
            InputError: there is no such layer or head.
        """
        layers, heads = self.classes.shape[:2]
        if not -layers <= layer < layers or not (head is None or -heads <= head < heads):
            raise InputError(
                f"There is no class attention layer {layer}, head {head}.",
                where="map(layer=…, head=…)",
                fix=f"Choose a layer below {layers} and a head below {heads}.",
            )
        chosen: Array = self.classes[layer].mean(0) if head is None else self.classes[layer, head]
        return chosen


def attention(network: XCiT | ExportedNetwork, image: ImageLike | Array, *, exif: bool = False) -> Attention:
    """Run one image through a network and return what it attends to.

    The network computes step by step meanwhile, in PyNative mode; it and MindSpore's mode are left as they were.

    Args:
        network: a loaded network in evaluation, not a fused one; or a file that was exported with its attention.
        image: a PIL image or a path, prepared as the network's description says; or what is prepared already,
            (C, H, W) float32.
        exif: turn the image as its EXIF orientation says.

    Raises:
        InputError: the image cannot be read or does not fit the network; the network is fused, trains, or has no class
            attention; the file was exported without it.
    """
    pixels = image if isinstance(image, np.ndarray) else preprocess(network, exif=exif)(image)
    if pixels.ndim != 3:
        raise InputError(
            f"An image of shape {pixels.shape} is not (channels, height, width).",
            where="the image",
            fix="Give one image at a time.",
        )
    if isinstance(network, ExportedNetwork):
        return Attention(*(values[0] for values in network.attention(pixels[None])))
    if network.training:
        raise InputError(
            "The network is in training mode.", where="the network", fix="Call network.set_train(False) first."
        )
    if not hasattr(network, "cls_attn_blocks"):
        raise InputError(
            "These weights have no class attention, and a backbone attends with its channels alone.",
            where="the network",
            fix="Load a network that classifies.",
        )
    import mindspore

    plain = network.portable()
    grid: list[tuple[int, int]] = []
    with _in_pynative_mode(), ExitStack() as hooks:
        handle = plain.patch_embed.register_forward_hook(lambda _, __, output: grid.append(output[1]))
        hooks.callback(handle.remove)
        classes = _watched(plain.cls_attn_blocks, hooks)
        channels = _watched(plain.blocks, hooks)
        plain(mindspore.Tensor(np.ascontiguousarray(pixels[None], np.float32)))
    shares = np.stack(classes)[:, 0, :, 0]  # (L, h, 1 + N)
    return Attention(
        classes=shares[:, :, 1:].reshape(*shares.shape[:2], *grid[0]),
        class_token=shares[:, :, 0],
        channels=np.stack(channels)[:, 0],
    )


def draw_attention(image: Image.Image, attention_map: Array, *, strength: float = 0.6) -> Image.Image:
    """Draw a map over the image that it is of: as coloured as it is bright where the network looks.

    Args:
        image: as the network saw it, cut to its input; see :func:`seen`.
        attention_map: (Hp, Wp), any scale; its smallest value is dark, its largest light.
        strength: of the colours, 0 to 1.

    Raises:
        InputError: the map is not (Hp, Wp) of finite numbers, or the strength is not between 0 and 1.
    """
    from PIL import Image

    values = np.asarray(attention_map, np.float32)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InputError(
            f"A map of shape {values.shape} cannot be drawn.",
            where="draw_attention(attention_map=…)",
            fix="Give (Hp, Wp) finite numbers.",
        )
    if not 0.0 <= strength <= 1.0:
        raise InputError(
            f"A strength of {strength} cannot be drawn.", where="draw_attention(strength=…)", fix="Choose 0 to 1."
        )
    spread = float(np.ptp(values))
    scaled = (values - values.min()) / spread if spread else np.zeros_like(values)
    smooth = np.asarray(Image.fromarray(scaled).resize(image.size, Image.Resampling.BICUBIC)).clip(0.0, 1.0)
    place = smooth * (len(_COLOURS) - 1)
    below = np.minimum(place.astype(int), len(_COLOURS) - 2)
    share = (place - below)[..., None]
    colours = _COLOURS[below] * (1.0 - share) + _COLOURS[below + 1] * share
    mixed = np.asarray(image.convert("RGB"), np.float32) * (1.0 - strength) + colours * strength
    return Image.fromarray(mixed.round().astype(np.uint8))


def seen(network: XCiT | ExportedNetwork, image: ImageLike, *, exif: bool = False) -> Image.Image:
    """Return an image as the network sees it: resized and cut, not normalised.

    Raises:
        InputError: it cannot be read.
    """
    from xcit_hub.data.transforms import EvalTransform, open_image

    if not hasattr(image, "convert") and not isinstance(image, str | os.PathLike | Stored):
        raise InputError(
            f"{type(image).__name__} is not an image.", where="the image", fix="Give a PIL image or a path."
        )
    transform = EvalTransform(network.config.preprocessing, in_chans=network.config.in_chans, exif=exif)
    return transform.cut(open_image(image, transform.mode, exif=exif))


def _watched(blocks: Any, hooks: ExitStack) -> list[Array]:
    """Keep what every block's attention dropout is given, as long as the hooks stand."""
    kept: list[Array] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        kept.append(output.asnumpy().astype(np.float32))

    for block in blocks:
        handle = block.attn.attn_drop.register_forward_hook(keep)
        hooks.callback(handle.remove)
    return kept


@contextmanager
def _in_pynative_mode() -> Iterator[None]:
    """MindSpore's graphs leave hooks out."""
    import mindspore

    mode = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    try:
        yield
    finally:
        mindspore.set_context(mode=mode)
