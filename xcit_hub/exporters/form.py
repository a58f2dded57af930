"""Which file is wanted of a network."""

from __future__ import annotations

from dataclasses import dataclass

OPSETS = range(17, 24)
"""Opsets that are written: 17 brought LayerNormalization; 20 brought Gelu."""

DEFAULT_OPSET = 18


ATTENTION = ("attention.classes", "attention.class_token", "attention.channels")
"""Outputs beside the logits: (B, L, h, Hp, Wp), (B, L, h) and (B, D, h, d, d) float32, each image's as
:class:`xcit_hub.attention_maps.Attention` has them."""


@dataclass(frozen=True)
class Form:
    """Which graph is wanted of a network.

    Args:
        num_classes: rows of the classifier; 0 gives the pooled features.
        in_chans: channels of the image.
        global_pool: what the classifier reads: ``"token"``, ``"avg"`` or ``""`` (every token).
        features: blocks whose maps (B, C, Hp, Wp) are the outputs, in place of logits.
        attention: whether :data:`ATTENTION` is given as well.
        opset: of the standard operators.
        dtype: in which the graph computes; inputs and outputs are float32 always.
        fuse: fold what evaluation leaves constant into the weights.
        batch, image_size: fixed sizes, (height, width) in pixels; None leaves them to the caller of the file.
        mean, std: of each channel; given, the input is uint8 (B, H, W, C), scaled and normalised in the graph.
    """

    num_classes: int = 1000
    in_chans: int = 3
    global_pool: str = "token"
    features: tuple[int, ...] = ()
    attention: bool = False
    opset: int = DEFAULT_OPSET
    dtype: str = "float32"
    fuse: bool = True
    batch: int | None = None
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def has_classes(self) -> bool:
        """Whether it gives logits."""
        return self.num_classes > 0 and not self.features
