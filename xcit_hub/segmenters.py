"""What stands on facebook's dense-prediction backbones: the pyramid, and the heads that segment. Names and shapes.

Source: facebookresearch/xcit, ``semantic_segmentation`` (backbone and configs) and ``detection``; the heads are
open-mmlab/mmsegmentation's of version 0.11: ``FPN`` and ``FPNHead`` (Semantic FPN, arXiv:1901.02446), ``UPerHead``
(UPerNet, arXiv:1807.10221) and ``FCNHead``, which serves UPerNet's training alone. Leaves are called as in
:mod:`xcit_hub.parameters`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from xcit_hub.errors import InputError
from xcit_hub.parameters import Shape
from xcit_hub.variants import Architecture

HeadKind = Literal["sem_fpn", "upernet"]

HEADS: tuple[HeadKind, ...] = get_args(HeadKind)
CHANNELS: dict[HeadKind, int] = {"sem_fpn": 128, "upernet": 512}
"""Channels of each head before its classifier, in facebook's configs."""

POOL_SCALES = (1, 2, 3, 6)
"""Sides of the grids that UPerNet's pyramid pooling averages over."""

LEVELS = 4
STRIDES = (4, 8, 16, 32)
"""Pixels of the image that a cell of each level covers, along a side."""

SHORTER_SIDE, LONGER_SIDE = 512, 2048
"""Pixels of an image at evaluation: the shorter side becomes the first, unless the longer would exceed the second."""

NO_CLASS = -1
"""The label of a pixel that is of no class: it neither teaches nor counts."""

MASK = "xcit_hub.mask"
"""The text in a PNG of answered classes: its value N is class N from 0 on, where an annotation's is class N - 1."""


@dataclass(frozen=True)
class Window:
    """A window that slides over an image: its sides, and how far apart two of them begin; (height, width) in pixels."""

    size: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        pairs = all(isinstance(each, tuple | list) and len(each) == 2 for each in (self.size, self.stride))
        if not pairs:
            raise InputError(
                f"A window of {self.size!r:.40} that moves by {self.stride!r:.40} does not have two sides.",
                where="window=… (--window, --stride)",
                fix="Give (height, width) of each.",
            )
        sides = (*self.size, *self.stride)
        whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in sides)
        if not whole or any(step > side for side, step in zip(self.size, self.stride, strict=True)):
            raise InputError(
                f"A window of {_by(self.size)} pixels cannot move by {_by(self.stride)}.",
                where="window=… (--window, --stride)",
                fix="Give sides of 1 pixel or more, and a stride that is not larger: pixels between would be left out.",
            )


@dataclass(frozen=True)
class Segmenter:
    """A head on the pyramid.

    Args:
        head: ``sem_fpn`` (the neck ``FPN`` and ``FPNHead``) or ``upernet`` (``UPerHead``).
        num_classes: rows of its classifier.
        channels: before its classifier.
        neck: channels of Semantic FPN's neck; 0 for UPerNet, which has none.
    """

    head: HeadKind
    num_classes: int
    channels: int
    neck: int = 0


def facebooks(head: HeadKind, architecture: Architecture, num_classes: int) -> Segmenter:
    """Return a head as facebook's configs have it on this backbone.

    Raises:
        InputError: there is no such head, or no class.
    """
    if head not in HEADS:
        raise InputError(
            f"There is no head {head!r:.40}.", where="head=… (--head)", fix=f"Choose one of {', '.join(HEADS)}."
        )
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise InputError(f"num_classes is {num_classes!r:.40}.", where="num_classes=…", fix="Give 1 or more.")
    return Segmenter(head, num_classes, CHANNELS[head], architecture.embed_dim if head == "sem_fpn" else 0)


def pyramid_indices(depth: int) -> tuple[int, ...]:
    """Return the blocks whose maps the pyramid is made of: facebook's 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24.

    Raises:
        InputError: there are fewer than four blocks.
    """
    if depth < LEVELS:
        raise InputError(
            f"A network of {depth} blocks has no four maps for a pyramid.",
            where="the architecture",
            fix="Take one of 4 or more.",
        )
    if depth == LEVELS:
        return (0, 1, 2, 3)
    return (depth // 3 - 1, depth // 2 - 1, 2 * depth // 3 - 1, depth - 1)


def pyramid_shapes(architecture: Architecture) -> dict[str, Shape]:
    """Map every parameter of ``fpn1`` … ``fpn4`` to its shape.

    With patches of 16 pixels the first map is doubled twice and the second once, with those of 8 the first alone once;
    the others are as they are or their maxima. Weights are (in, out, 2, 2), those of transposed convolutions.
    """
    dim = architecture.embed_dim
    weight, vector = (dim, dim, 2, 2), (dim,)
    shapes: dict[str, Shape] = {"fpn1.0.weight": weight, "fpn1.0.bias": vector}
    if architecture.patch_size == 16:
        shapes |= dict(_batch_norm("fpn1.1", dim))
        shapes |= {"fpn1.3.weight": weight, "fpn1.3.bias": vector}
        shapes |= {"fpn2.0.weight": weight, "fpn2.0.bias": vector}
    return shapes


def head_shapes(architecture: Architecture, segmenter: Segmenter) -> dict[str, Shape]:
    """Map every parameter of the head, and of the neck before it, to its shape."""
    return dict(_head(architecture.embed_dim, segmenter))


def auxiliary_shapes(architecture: Architecture, channels: int, num_classes: int) -> dict[str, Shape]:
    """Map every parameter of ``FCNHead`` beside UPerNet to its shape."""
    return dict(
        [
            *_conv_norm("auxiliary_head.convs.0", architecture.embed_dim, channels, 3),
            *_convolution("auxiliary_head.conv_seg", channels, num_classes, 1),
        ]
    )


def convolutions(stride: int) -> int:
    """Return how many convolutions Semantic FPN has on the level of that stride, with a doubling after each."""
    return max(1, (stride // STRIDES[0]).bit_length() - 1)


def _head(dim: int, segmenter: Segmenter) -> Iterator[tuple[str, Shape]]:
    channels = segmenter.channels
    if segmenter.head == "sem_fpn":
        for level in range(LEVELS):
            yield from _convolution(f"neck.lateral_convs.{level}.conv", dim, segmenter.neck, 1)
        for level in range(LEVELS):
            yield from _convolution(f"neck.fpn_convs.{level}.conv", segmenter.neck, segmenter.neck, 3)
        for level, stride in enumerate(STRIDES):
            for index in range(convolutions(stride)):
                # Odd places of the sequence hold the doubling, which has no parameters.
                name = f"decode_head.scale_heads.{level}.{2 * index}"
                yield from _conv_norm(name, channels if index else segmenter.neck, channels, 3)
    else:
        for index in range(len(POOL_SCALES)):
            yield from _conv_norm(f"decode_head.psp_modules.{index}.1", dim, channels, 1)
        yield from _conv_norm("decode_head.bottleneck", dim + len(POOL_SCALES) * channels, channels, 3)
        for level in range(LEVELS - 1):
            yield from _conv_norm(f"decode_head.lateral_convs.{level}", dim, channels, 1)
        for level in range(LEVELS - 1):
            yield from _conv_norm(f"decode_head.fpn_convs.{level}", channels, channels, 3)
        yield from _conv_norm("decode_head.fpn_bottleneck", LEVELS * channels, channels, 3)
    yield from _convolution("decode_head.conv_seg", channels, segmenter.num_classes, 1)


def _convolution(name: str, in_channels: int, out_channels: int, side: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out_channels, in_channels, side, side)
    yield f"{name}.bias", (out_channels,)


def _conv_norm(name: str, in_channels: int, out_channels: int, side: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.conv.weight", (out_channels, in_channels, side, side)
    yield from _batch_norm(f"{name}.bn", out_channels)


def _batch_norm(name: str, dim: int) -> Iterator[tuple[str, Shape]]:
    for leaf in ("moving_mean", "moving_variance", "gamma", "beta"):
        yield f"{name}.{leaf}", (dim,)


def _by(sides: tuple[object, ...]) -> str:
    return "×".join(map(str, sides))
