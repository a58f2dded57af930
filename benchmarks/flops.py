"""How much arithmetic and memory an architecture needs, counted from its shape alone."""

from __future__ import annotations

from collections.abc import Iterator

from xcit_hub.parameters import FOURIER_CHANNELS, parameter_count, stem_widths
from xcit_hub.variants import Architecture

_WINDOW = 9  # every convolution that sees neighbours is 3×3


def multiply_adds(
    architecture: Architecture,
    height: int,
    width: int,
    *,
    batch: int = 1,
    num_classes: int = 1000,
    training: bool = False,
) -> int:
    """Count the multiply-adds of the convolutions and matrix products as the paper's network is written.

    It is what every contender has to deliver, however it gets there: one that saves some of it (class attention needs
    neither keys nor values of its own) is credited with the whole. A floating-point operation is half a multiply-add.

    Args:
        height, width: of the images in pixels, multiples of the patch size.
        training: count the backward pass, too: two products for every one, except where an input needs no gradient.
    """
    total = 0
    for count, input_has_gradient in _products(architecture, height, width, batch, num_classes):
        total += count * ((3 if input_has_gradient else 2) if training else 1)
    return total


def tokens(architecture: Architecture, height: int, width: int) -> int:
    """Count the patch tokens of an image."""
    return (height // architecture.patch_size) * (width // architecture.patch_size)


def numbers(architecture: Architecture, height: int, width: int, *, batch: int = 1) -> int:
    """Count the numbers that inference holds at once: the parameters, and the most activations of any one step.

    A step is a convolution of the stem, with what it reads and what it makes, or a block's MLP: the tokens, their norm
    and the hidden numbers.
    """
    dim = architecture.embed_dim
    most = tokens(architecture, height, width) * (2 * dim + architecture.mlp_hidden)
    read = 3 * height * width
    for out_channels in stem_widths(architecture):
        height, width = height // 2, width // 2
        made = out_channels * height * width
        most, read = max(most, read + made), made
    return parameter_count(architecture) + batch * most


def _products(
    architecture: Architecture, height: int, width: int, batch: int, num_classes: int
) -> Iterator[tuple[int, bool]]:
    """Yield the multiply-adds of each kind of product, and whether a gradient flows on to its input."""
    dim, heads = architecture.embed_dim, architecture.num_heads
    hidden = architecture.mlp_hidden
    patches = tokens(architecture, height, width)
    channels = 3
    for stage, out_channels in enumerate(stem_widths(architecture)):
        height, width = height // 2, width // 2
        yield batch * height * width * out_channels * channels * _WINDOW, stage > 0
        channels = out_channels
    yield patches * FOURIER_CHANNELS * dim, False  # once for all images
    attention = 3 * dim * dim + 2 * dim * (dim // heads) + dim * dim
    interaction = 2 * dim * _WINDOW
    yield architecture.depth * batch * patches * (attention + interaction + 2 * dim * hidden), True
    keys_and_values = (patches + 1) * 2 * dim * dim
    scores_and_mean = (patches + 1) * 2 * dim
    class_token = 2 * dim * dim + 2 * dim * hidden
    yield architecture.cls_attn_layers * batch * (keys_and_values + scores_and_mean + class_token), True
    yield batch * dim * num_classes, True
