"""Semantic FPN and UPerNet on the pyramid: images in, a class for every pixel out.

Source: open-mmlab/mmsegmentation 0.11, the version of facebook's configs: necks ``FPN``, decode heads ``FPNHead``,
``UPerHead`` and the ``PPM`` of ``PSPHead``, resized as ``EncoderDecoder`` does; ``align_corners`` is False throughout.
Shapes: B images, K classes, C channels of a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops import constexpr

from xcit_hub import resampling, segmenters
from xcit_hub.models.functions import functions
from xcit_hub.models.pyramid import XCiTPyramid
from xcit_hub.models.xcit import Indices, XCiT, batch_norm
from xcit_hub.segmenters import LEVELS, POOL_SCALES, STRIDES
from xcit_hub.variants import Dialect

_DROPPED = 0.1  # whole channels, before the classifier, in training
_CLASSIFIER_DEVIATION = 0.01


@lru_cache(maxsize=256)
def _matrix_tensor(kind: resampling.Kind, length: int, wanted: int, turned: bool) -> Tensor:
    made = resampling.matrix(kind, length, wanted)
    return Tensor(np.ascontiguousarray(made.T if turned else made))


@constexpr
def _matrix(kind: resampling.Kind, length: int, wanted: int, turned: bool) -> Tensor:
    return _matrix_tensor(kind, length, wanted, turned)


def resampled(x: Tensor, height: int, width: int, kind: resampling.Kind) -> Tensor:
    """Map (B, C, h, w) to (B, C, height, width), see :mod:`xcit_hub.resampling`."""
    if x.shape[3] != width:
        x = ops.matmul(x, _matrix(kind, x.shape[3], width, True).astype(x.dtype))
    if x.shape[2] != height:
        x = ops.matmul(_matrix(kind, x.shape[2], height, False).astype(x.dtype), x)
    return x


def _convolution(in_channels: int, out_channels: int, side: int, *, bias: bool) -> nn.Conv2d:
    return functions().convolution(in_channels, out_channels, side, pad_mode="pad", padding=side // 2, has_bias=bias)


class Conv(nn.Cell):
    """A convolution with a bias and nothing after it; mmcv's ``ConvModule`` without norm and activation."""

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        super().__init__()
        self.conv = _convolution(in_channels, out_channels, side, bias=True)

    def construct(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        return self.conv(x)


class ConvNormReLU(nn.Cell):
    """A convolution without a bias, batch norm, ReLU; mmcv's ``ConvModule``."""

    def __init__(self, in_channels: int, out_channels: int, side: int, dialect: Dialect) -> None:
        super().__init__()
        self.conv = _convolution(in_channels, out_channels, side, bias=False)
        self.bn = batch_norm(out_channels, dialect)

    def construct(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        return ops.relu(self.bn(self.conv(x)))


class Neck(nn.Cell):
    """Feature pyramid network: every level adds the coarser ones, doubled by copying."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.CellList([Conv(dim, channels, 1) for _ in range(LEVELS)])
        self.fpn_convs = nn.CellList([Conv(channels, channels, 3) for _ in range(LEVELS)])

    def construct(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map four maps (B, C, h, w) to four of ``channels``, each of its own size."""
        summed = _top_down([self.lateral_convs[level](maps[level]) for level in range(LEVELS)], "nearest")
        return [self.fpn_convs[level](summed[level]) for level in range(LEVELS)]


def _top_down(maps: list[Tensor], kind: resampling.Kind) -> list[Tensor]:
    """Add to every map those coarser than it."""
    summed = [maps[-1]]
    for level in range(len(maps) - 2, -1, -1):
        finer = maps[level]
        summed = [finer + resampled(summed[0], finer.shape[2], finer.shape[3], kind), *summed]
    return summed


class Classifier(nn.Cell):
    """Whole channels dropped in training, then a 1×1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p=_DROPPED)

    def dropped(self, x: Tensor) -> Tensor:
        """Drop channels of (B, channels, H, W) in training."""
        if self.training:
            x = x * self.dropout(ops.ones((x.shape[0], x.shape[1], 1, 1), mstype.float32)).astype(x.dtype)
        return x


class Doubled(nn.Cell):
    """Both sides doubled by bilinear interpolation."""

    def construct(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        return resampled(x, 2 * x.shape[2], 2 * x.shape[3], "bilinear")


def _scale_head(in_channels: int, channels: int, stride: int, dialect: Dialect) -> nn.SequentialCell:
    """One level of Semantic FPN: convolutions, with a doubling after each but on the finest level."""
    cells: list[nn.Cell] = []
    for index in range(segmenters.convolutions(stride)):
        cells.append(ConvNormReLU(channels if index else in_channels, channels, 3, dialect))
        if stride != STRIDES[0]:
            cells.append(Doubled())
    return nn.SequentialCell(cells)


class SemanticFPNHead(Classifier):
    """The sum of all levels at the finest one's size, classified."""

    def __init__(self, segmenter: segmenters.Segmenter, dialect: Dialect) -> None:
        super().__init__()
        channels = segmenter.channels
        self.scale_heads = nn.CellList([_scale_head(segmenter.neck, channels, stride, dialect) for stride in STRIDES])
        self.conv_seg = _convolution(channels, segmenter.num_classes, 1, bias=True)

    def construct(self, maps: Sequence[Tensor]) -> Tensor:
        """Map four maps to logits (B, K, H / 4, W / 4)."""
        total = self.scale_heads[0](maps[0])
        for level in range(1, LEVELS):
            total = total + resampled(self.scale_heads[level](maps[level]), total.shape[2], total.shape[3], "bilinear")
        return self.conv_seg(self.dropped(total))


class Means(nn.Cell):
    """Means over a grid of ``side`` × ``side`` cells."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def construct(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, side, side)."""
        return resampled(x, self.side, self.side, "mean")


class UPerNetHead(Classifier):
    """Pyramid pooling on the coarsest level, a feature pyramid network, and all its levels together, classified."""

    def __init__(self, dim: int, segmenter: segmenters.Segmenter, dialect: Dialect) -> None:
        super().__init__()
        channels = segmenter.channels
        self.psp_modules = nn.CellList(
            [nn.SequentialCell([Means(side), ConvNormReLU(dim, channels, 1, dialect)]) for side in POOL_SCALES]
        )
        self.bottleneck = ConvNormReLU(dim + len(POOL_SCALES) * channels, channels, 3, dialect)
        finer = range(LEVELS - 1)
        self.lateral_convs = nn.CellList([ConvNormReLU(dim, channels, 1, dialect) for _ in finer])
        self.fpn_convs = nn.CellList([ConvNormReLU(channels, channels, 3, dialect) for _ in finer])
        self.fpn_bottleneck = ConvNormReLU(LEVELS * channels, channels, 3, dialect)
        self.conv_seg = _convolution(channels, segmenter.num_classes, 1, bias=True)

    def construct(self, maps: Sequence[Tensor]) -> Tensor:
        """Map four maps (B, C, h, w) to logits (B, K, H / 4, W / 4)."""
        laterals = [self.lateral_convs[level](maps[level]) for level in range(LEVELS - 1)]
        coarsest = self._pooled(maps[LEVELS - 1])
        summed = _top_down([*laterals, coarsest], "bilinear")
        height, width = summed[0].shape[2], summed[0].shape[3]
        levels = [self.fpn_convs[0](summed[0])]
        for level in range(1, LEVELS - 1):
            levels.append(resampled(self.fpn_convs[level](summed[level]), height, width, "bilinear"))
        levels.append(resampled(coarsest, height, width, "bilinear"))
        return self.conv_seg(self.dropped(self.fpn_bottleneck(ops.concat(levels, axis=1))))

    def _pooled(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) beside its means over each grid, each back at its size, to (B, channels, H, W)."""
        found = [x]
        for module in self.psp_modules:
            found.append(resampled(module(x), x.shape[2], x.shape[3], "bilinear"))
        return self.bottleneck(ops.concat(found, axis=1))


class XCiTSegmenter(XCiTPyramid):
    """The pyramid with a head on it: images (B, in_chans, H, W) in, logits (B, K, H, W) out.

    Args:
        network: the whole network that the blocks are of.
        segmenter: which head.
        out_indices: as for :class:`XCiTPyramid`.
    """

    def __init__(self, network: XCiT, segmenter: segmenters.Segmenter, out_indices: Indices = None) -> None:
        super().__init__(network, out_indices)
        self.segmenter = segmenter
        self.num_classes = segmenter.num_classes
        if segmenter.head == "sem_fpn":
            self.neck = Neck(self.embed_dim, segmenter.neck)
            self.neck.update_parameters_name("neck.")
            self.decode_head = SemanticFPNHead(segmenter, self.dialect)
        else:
            self.neck = nn.Identity()
            self.decode_head = UPerNetHead(self.embed_dim, segmenter, self.dialect)
        self.decode_head.update_parameters_name("decode_head.")

    def construct(self, image: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to the logits of every pixel, (B, K, H, W).

        Raises:
            InputError: the image is too small for a cell of stride 32.
        """
        logits = self.decode_head(self.neck(self._pyramid(image)))
        return resampled(logits, image.shape[2], image.shape[3], "bilinear")


def begin_head(network: XCiTSegmenter, seed: int | None = None) -> None:
    """Fill a head with its first values, as mmsegmentation does.

    The neck's are Xavier's uniform ones, the classifier's normal of deviation 0.01, all other convolutions' He's normal
    ones over what goes out.
    """
    generator = np.random.default_rng(seed)
    for parameter in network.get_parameters():
        name, shape = parameter.name, parameter.shape
        if not name.startswith(("neck.", "decode_head.")):
            continue
        leaf = name.rpartition(".")[2]
        if leaf in ("gamma", "moving_variance"):
            value = np.ones(shape, np.float32)
        elif leaf != "weight":
            value = np.zeros(shape, np.float32)
        else:
            area = math.prod(shape[2:])
            if name.startswith("neck."):
                bound = math.sqrt(6.0 / ((shape[0] + shape[1]) * area))
                value = generator.uniform(-bound, bound, shape).astype(np.float32)
            else:
                he = math.sqrt(2.0 / (shape[0] * area))
                deviation = _CLASSIFIER_DEVIATION if name.endswith("conv_seg.weight") else he
                value = (deviation * generator.standard_normal(shape)).astype(np.float32)
        parameter.set_data(Tensor.from_numpy(value))
