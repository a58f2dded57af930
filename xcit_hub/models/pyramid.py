"""The backbone of facebook's detectors and segmenters: four maps of strides 4, 8, 16 and 32.

Source: facebookresearch/xcit, ``semantic_segmentation/backbone/xcit.py`` and ``detection/backbone/xcit.py``, which are
one network. Shapes: B images, C channels of a token, Hp×Wp tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import initializer
from mindspore.ops import constexpr

from xcit_hub.errors import InputError
from xcit_hub.models.xcit import Gelu, Indices, XCiT, XCiTFeatures, batch_norm
from xcit_hub.segmenters import LEVELS, STRIDES, pyramid_indices


class Doubling(nn.Cell):
    """Transposed convolution of kernel and stride 2: each cell becomes four, by one matrix product."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = Parameter(initializer("zeros", (dim, dim, 2, 2), mstype.float32), name="weight")
        self.bias = Parameter(initializer("zeros", (dim,), mstype.float32), name="bias")
        self.product = ops.MatMul(transpose_a=True)

    def construct(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        batch, dim, height, width = x.shape
        columns = x.transpose(1, 0, 2, 3).reshape(dim, -1)
        cells = self.product(self.weight.reshape(dim, -1), columns).reshape(dim, 2, 2, batch, height, width)
        doubled = cells.transpose(3, 0, 4, 1, 5, 2).reshape(batch, dim, 2 * height, 2 * width)
        return doubled + self.bias.reshape(1, -1, 1, 1)


class XCiTPyramid(XCiTFeatures):
    """Images in, a list of four maps (B, C, H / stride, W / stride) out; tokens that a patch rounds up count whole.

    Args:
        network: the whole network, of patches of 16 or 8 pixels; its blocks' parameters keep their names.
        out_indices: the four blocks whose maps are taken, ascending; facebook's by default, see
            :func:`xcit_hub.segmenters.pyramid_indices`.

    Raises:
        InputError: there are not four such blocks, or the patches have other sides.
    """

    def __init__(self, network: XCiT, out_indices: Indices = None) -> None:
        super().__init__(network, pyramid_indices(network.depth) if out_indices is None else out_indices)
        if len(self.out_indices) != LEVELS or list(self.out_indices) != sorted(set(self.out_indices)):
            raise InputError(
                f"A pyramid is made of four blocks in their order, and out_indices is {tuple(self.out_indices)}.",
                where="out_indices=…",
                fix="Give four, such as (3, 5, 7, 11), or leave them out.",
            )
        if self.patch_size not in (16, 8) or set(network.architecture.stem_strides) != {2}:
            raise InputError(
                f"A pyramid is made of patches of 16 or 8 pixels by strides of 2, and {network.architecture.name} has "
                f"{self.patch_size} by {network.architecture.stem_strides}.",
                where="the architecture",
                fix="Take another architecture.",
            )
        dim, gelu = network.embed_dim, network.dialect.gelu
        if self.patch_size == 16:
            self.fpn1 = nn.SequentialCell([Doubling(dim), batch_norm(dim, network.dialect), Gelu(gelu), Doubling(dim)])
            self.fpn2 = nn.SequentialCell([Doubling(dim)])
            self.fpn3 = nn.Identity()
            self.fpn4 = nn.MaxPool2d(2, 2)
        else:
            self.fpn1 = nn.SequentialCell([Doubling(dim)])
            self.fpn2 = nn.Identity()
            self.fpn3 = nn.MaxPool2d(2, 2)
            self.fpn4 = nn.MaxPool2d(4, 4)
        for name in ("fpn1", "fpn2"):
            getattr(self, name).update_parameters_name(f"{name}.")

    def construct(self, image: Tensor) -> list[Tensor]:
        """Map (B, in_chans, H, W) to the four maps, the finest first.

        Raises:
            InputError: the image is too small for a cell of stride 32.
        """
        return self._pyramid(image)

    def _pyramid(self, image: Tensor) -> list[Tensor]:
        check_sides(image.shape, self.patch_size)
        tokens, height, width = self._embed(image)
        first, second, third, fourth = [
            self._as_map(found, height, width) for found in self._after_each(tokens, height, width, self.out_indices)
        ]
        return [self.fpn1(first), self.fpn2(second), self.fpn3(third), self.fpn4(fourth)]

    @property
    def reductions(self) -> list[int]:
        """Pixels of the image that one cell of each map covers, along a side."""
        return list(STRIDES)


@constexpr
def check_sides(shape: Sequence[int], patch_size: int) -> bool:
    """Refuse an image of which the coarsest map would have no cell.

    Raises:
        InputError: a side of it is too short.
    """
    least = STRIDES[-1] - patch_size + 1  # the last patch may be a part of one
    if min(shape[2:]) < least:
        raise InputError(
            f"An image of {shape[2]}×{shape[3]} pixels is too small for a map of stride {STRIDES[-1]}.",
            where="the image",
            fix=f"Give images whose sides have {least} pixels or more.",
        )
    return True
