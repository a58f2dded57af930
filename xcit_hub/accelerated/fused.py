"""The network's parts for inference alone: what evaluation leaves constant is folded into the neighbouring weights.

Exact but for rounding. What is folded: each batch norm of the patch embedding into its convolution; gain and offset of
the layer norms before attention and before the MLP into the affine map after them; the layer scales into the last
weights of their branch, the class token's too where its block is one operation; the position encoding's projection
into the last convolution where that is one. What stays: gain and offset of the layer norm before local patch
interaction, and the batch norm inside it, because zeros are padded around the image after them, and a shift does not
pass through those; those of class attention, which patch tokens pass.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore import dtype as mstype
from numpy.typing import NDArray

from xcit_hub import folding
from xcit_hub.accelerated import fused_cells
from xcit_hub.accelerated.build import EXTENSIONS, extension_absence
from xcit_hub.accelerated.cells import (
    Block,
    Dense,
    PatchEmbed,
    PositionalEncoding,
    computes_in_half,
    is_accelerated,
    make_accelerated,
    unusual_part,
)
from xcit_hub.errors import InputError
from xcit_hub.models import XCiT, XCiTFeatures
from xcit_hub.models.functions import device_target
from xcit_hub.models.private import copied, no_init_parameters
from xcit_hub.models.xcit import (
    ClassAttentionBlock,
    ConvPatchEmbed,
    Gelu,
    PositionalEncodingFourier,
    XCABlock,
    conv3x3,
)
from xcit_hub.parameters import FOURIER_CHANNELS
from xcit_hub.variants import Architecture, Dialect

N = TypeVar("N", XCiT, XCiTFeatures)
Wide = NDArray[np.float64]
# What a derived class computes otherwise would be folded away.
_PARTS = (
    ConvPatchEmbed,
    PatchEmbed,
    PositionalEncodingFourier,
    PositionalEncoding,
    XCABlock,
    Block,
    ClassAttentionBlock,
)
FusedDtype = Literal["float32", "bfloat16", "int8"]


def fuse(network: N, dtype: FusedDtype = "float32") -> N:
    """Return a copy for inference alone, faster and equal to rounding; the network stays as it is.

    Of an accelerated network every block is one operation in the copy; of a plain one the copy is of MindSpore's own
    operations, too. It computes in float32, has the methods of the network, parameters of names of its own and no
    gradients; hooks inside what is folded are not in it, and it cannot be saved as a checkpoint or trained.

    Args:
        dtype: what the affine maps of the blocks multiply: queries, keys and values, the projection, the MLP. Weights
            are rounded once, tokens as they come to a map; sums and all else are float32, inputs and outputs too.
            ``"bfloat16"`` is for CPUs with AVX512-BF16. ``"int8"`` is for CPUs with AVX512-VNNI, with a scale for every
            output channel of a weight and for every token: measure what it does to the answers. Both use AMX where the
            processor and the system offer it.

    Raises:
        InputError: the network is fused already, normalises by the statistics of each batch, or has parts of others;
            or nothing here computes in this dtype.
    """
    refuse_if_fused(network, "fused again")
    if network.dialect.statistics == "batch":
        raise InputError(
            "A network that normalises by the statistics of each batch cannot be fused: they are not constants.",
            where="fuse()",
            fix="Use the network itself.",
        )
    compiled = is_accelerated(network)
    folds_position = compiled and network.pos_embeder is not None and set(network.architecture.stem_strides) == {2}
    position: list[nn.Cell] = [network.pos_embeder] if folds_position else []
    for part in (network.patch_embed, *position, *network.blocks, *getattr(network, "cls_attn_blocks", ())):
        if unusual := _unusual(part):
            raise InputError(
                f"A network with parts of other classes cannot be fused: {unusual}.",
                where="fuse()",
                fix="Use the network itself, or fuse it before its parts are replaced.",
            )
    _check_dtype(dtype, compiled)
    replaced = _compiled_parts(network, dtype) if compiled else _folded_parts(network)
    for name, part in replaced.items():
        if part is not None:  # the position encoding goes into the patch embedding
            part.update_parameters_name(f"{name}.")
    fused = copied(network, {id(getattr(network, name)): part for name, part in replaced.items()})
    fused.__class__ = _fused_kind(type(network), compiled)  # type: ignore[arg-type]
    if computes_in_half(network):
        fused.to_float(mstype.float32)
    for parameter in fused.get_parameters():
        if parameter.dtype != mstype.int32:  # else the words of narrow weights
            parameter.set_dtype(mstype.float32)
        parameter.requires_grad = False
    fused.set_train(False)
    return fused


def _unusual(part: nn.Cell) -> str | None:
    """Say what of a part, or inside it, the network is not built of; None where there is nothing."""
    return unusual_part(part) if type(part) in _PARTS else f"one is a {type(part).__name__}"


def _check_dtype(dtype: str, compiled: bool) -> None:
    """Refuse what nothing here computes in; ``compiled``: by compiled operations."""
    if dtype == "float32":
        return
    if dtype not in EXTENSIONS:
        raise InputError(
            f"fuse() does not compute in {dtype!r:.100}.",
            where="fuse(dtype=…)",
            fix=f"Choose float32, {' or '.join(EXTENSIONS)}.",
        )
    if (device := device_target()) != "CPU":
        raise InputError(
            f"fuse() computes in {dtype} on a CPU, and this is {device}.",
            where="fuse(dtype=…)",
            fix="Leave dtype out, or call network.cast(mindspore.bfloat16) instead of fuse().",
        )
    if absence := extension_absence(dtype):
        exported = ", or `xcit-hub export --int8 IMAGES`: onnxruntime and OpenVINO run that file in int8 anywhere"
        raise InputError(
            f"A network cannot be fused in {dtype} here: {absence}.",
            where="fuse(dtype=…)",
            fix=f"Leave dtype out: float32 runs everywhere{exported if dtype == 'int8' else ''}.",
        )
    if not compiled:
        raise InputError(
            f"A network of MindSpore's own operations cannot be fused in {dtype}: they have none for a CPU.",
            where="fuse(dtype=…)",
            fix="Fuse the network itself, not what portable() returned, or leave dtype out.",
        )


def is_fused(network: object) -> bool:
    """Tell whether :func:`fuse` made a network."""
    return isinstance(network, _Fused)


def refuse_if_fused(network: object, what: str) -> None:
    """Raise an InputError that says that a fused network cannot be ``what``."""
    if is_fused(network):
        raise InputError(
            f"A fused network cannot be {what}: it holds constants made for one way of computing.",
            where="the network",
            fix=f"Call fuse() last; the network it was called on is unchanged and can be {what}.",
        )


class _Fused:
    """What a fused network refuses; stands before the network's own class."""

    def set_train(self, mode: bool = True) -> nn.Cell:
        """Stay in evaluation.

        Raises:
            InputError: training was asked for.
        """
        if mode:
            raise InputError(
                "A fused network cannot be trained: what it would learn is folded into constants.",
                where="set_train(True)",
                fix="Train the network that fuse() was called on; it is unchanged.",
            )
        trained: nn.Cell = super().set_train(False)  # type: ignore[misc]
        return trained

    def cast(self, dtype: Any) -> None:  # noqa: ARG002
        """Refuse: see :func:`refuse_if_fused`."""
        refuse_if_fused(self, "cast")

    def set_grad_checkpointing(self, enable: bool = True) -> None:  # noqa: ARG002
        """Refuse: see :func:`refuse_if_fused`."""
        refuse_if_fused(self, "recomputed")


class _InOperations(_Fused):
    """How a fused network passes its tokens through blocks that are one operation."""

    blocks: fused_cells.FusedBlocks
    cls_token: Parameter

    def _through(self, tokens: Tensor, height: int, width: int, first: int, last: int) -> Tensor:
        return self.blocks(tokens, height, width, first, last)

    def _class_tokens(self, tokens: Tensor) -> Tensor:  # noqa: ARG002
        return self.cls_token  # the operation takes one for all images


@cache
def _fused_kind(kind: Any, compiled: bool) -> type:
    return type(kind.__name__, (_InOperations if compiled else _Fused, kind), {"__module__": kind.__module__})


def _compiled_parts(network: N, dtype: str) -> dict[str, nn.Cell | None]:
    """Return what takes the place of each part of a network, by its name, in compiled operations."""
    dialect, epsilon = network.dialect, network.blocks[0].norm1.epsilon
    folded = (_folded(block) for block in network.blocks)  # in double precision: one at a time
    parts: dict[str, nn.Cell | None] = {
        "blocks": fused_cells.FusedBlocks(folded, dialect.gelu, dialect.normalize_qk, epsilon, dtype)
    }
    stages = _stages(network.patch_embed)
    if set(network.architecture.stem_strides) == {2}:
        parts["patch_embed"] = fused_cells.FusedPatchEmbed(stages, _position(network), dialect.gelu)
        parts["pos_embeder"] = None
    else:
        parts["patch_embed"] = stem = _FoldedPatchEmbed(stages, network.architecture, dialect)
        make_accelerated(stem)
    if isinstance(network, XCiT):
        tokens_norm = network.architecture.tokens_norm
        blocks = [
            fused_cells.FusedClassBlock(_folded_class_block(block), dialect.gelu, tokens_norm, block.norm1.epsilon)
            for block in network.cls_attn_blocks
        ]
        parts["cls_attn_blocks"] = nn.CellList(blocks)
        if _is_affine(network.head):  # what else stands there computes as it does in the network
            parts["head"] = fused_cells.FusedDense(_wide(network.head.weight), _wide(network.head.bias))
    return parts


def _is_affine(head: nn.Cell) -> bool:
    """Tell whether a classifier is weight and bias and nothing else; a class derived from Dense may be more."""
    return type(head) in (nn.Dense, Dense) and head.has_bias and head.activation is None


def _folded_parts(network: N) -> dict[str, nn.Cell | None]:
    """Return what takes the place of each part of a network, by its name, in MindSpore's own operations."""
    architecture, dialect = network.architecture, network.dialect
    blocks = nn.CellList([_FoldedBlock(_folded(block), architecture, dialect) for block in network.blocks])
    stem = _FoldedPatchEmbed(_stages(network.patch_embed), architecture, dialect)
    return {"blocks": blocks, "patch_embed": stem}


def _stages(patch_embed: ConvPatchEmbed) -> list[tuple[Wide, Wide]]:
    """Weight and bias of each convolution, with its batch norm."""
    stages = []
    for stage in patch_embed.proj:
        if isinstance(stage, nn.SequentialCell):
            convolution, norm = stage
            scale, shift = _scale_and_shift(norm)
            stages.append((_wide(convolution.weight) * scale[:, None, None, None], shift))
    return stages


def _position(network: N) -> tuple[Wide, Wide]:
    """Weight (C, 64) and bias (C) of the position encoding; zeros where there is none."""
    position: PositionalEncodingFourier | None = network.pos_embeder
    if position is None:
        return np.zeros((network.embed_dim, FOURIER_CHANNELS)), np.zeros(network.embed_dim)
    projection = position.token_projection
    return _wide(projection.weight)[:, :, 0, 0], _wide(projection.bias)


def _folded_class_block(block: ClassAttentionBlock) -> dict[str, Wide]:
    attn = block.attn
    query, key, value = np.split(_wide(attn.qkv.weight), 3)
    query_bias, _, value_bias = np.split(_wide(attn.qkv.bias), 3)
    return {
        "norm1.gamma": _wide(block.norm1.gamma),
        "norm1.beta": _wide(block.norm1.beta),
        "query.weight": query * attn.scale,
        "query.bias": query_bias * attn.scale,
        "key.weight": key.reshape(attn.num_heads, -1, key.shape[1]),
        "value.weight": value.T,
        "value.bias": value_bias,
        **_scaled("attn.proj", attn.proj, block.gamma1),
        "norm2.gamma": _wide(block.norm2.gamma),
        "norm2.beta": _wide(block.norm2.beta),
        "mlp.fc1.weight": _wide(block.mlp.fc1.weight),
        "mlp.fc1.bias": _wide(block.mlp.fc1.bias),
        **_scaled("mlp.fc2", block.mlp.fc2, block.gamma2),
        "gamma1": _wide(block.gamma1),
    }


def _folded(block: XCABlock) -> dict[str, Wide]:
    """The folded block's parameters by the names they have in a block; its batch norm as scale and shift."""
    arrays = {
        **_affine_after("attn.qkv", block.attn.qkv, block.norm1),
        "attn.temperature": _wide(block.attn.temperature),
        **_scaled("attn.proj", block.attn.proj, block.gamma1),
        "norm3.gamma": _wide(block.norm3.gamma),
        "norm3.beta": _wide(block.norm3.beta),
        "local_mp.conv1.weight": _wide(block.local_mp.conv1.weight),
        "local_mp.conv1.bias": _wide(block.local_mp.conv1.bias),
        **_scaled("local_mp.conv2", block.local_mp.conv2, block.gamma3),
        **_affine_after("mlp.fc1", block.mlp.fc1, block.norm2),
        **_scaled("mlp.fc2", block.mlp.fc2, block.gamma2),
    }
    arrays["local_mp.bn.scale"], arrays["local_mp.bn.shift"] = _scale_and_shift(block.local_mp.bn)
    return arrays


def _affine_after(name: str, dense: nn.Dense, norm: nn.LayerNorm) -> dict[str, Wide]:
    folded = folding.affine_after(_wide(dense.weight), _wide(dense.bias), _wide(norm.gamma), _wide(norm.beta))
    return dict(zip((f"{name}.weight", f"{name}.bias"), folded, strict=True))


def _scaled(name: str, cell: nn.Cell, gamma: Parameter) -> dict[str, Wide]:
    folded = folding.scaled(_wide(cell.weight), _wide(cell.bias), _wide(gamma))
    return dict(zip((f"{name}.weight", f"{name}.bias"), folded, strict=True))


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Wide, Wide]:
    gamma, beta, mean, variance = map(_wide, (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    return folding.scale_and_shift(gamma, beta, mean, variance, norm.eps)


def _wide(parameter: Parameter) -> Wide:
    """Double precision: folding must not round twice."""
    return np.asarray(parameter.asnumpy(), np.float64)


def _fill(cell: nn.Cell, name: str, array: Any) -> None:
    for part in name.split("."):
        cell = getattr(cell, part)
    cell.set_data(Tensor(np.ascontiguousarray(array, np.float32)))


class _FoldedPatchEmbed(nn.Cell):
    """Convolutions and GELU."""

    def __init__(self, stages: list[tuple[Wide, Wide]], architecture: Architecture, dialect: Dialect) -> None:
        super().__init__()
        cells: list[nn.Cell] = []
        for (weight, bias), stride in zip(stages, architecture.stem_strides, strict=True):
            with no_init_parameters():
                convolution = conv3x3(weight.shape[1], weight.shape[0], stride=stride, bias=True)
            _fill(convolution, "weight", weight)
            _fill(convolution, "bias", bias)
            cells += [Gelu(dialect.gelu), convolution] if cells else [convolution]
        self.proj = nn.SequentialCell(cells)

    def construct(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map (B, in_chans, H, W) to tokens (B, N, C) and their grid (Hp, Wp)."""
        grid = self.proj(image.astype(mstype.float32))
        tokens = grid.reshape(grid.shape[0], grid.shape[1], -1).transpose(0, 2, 1)
        return tokens, (grid.shape[2], grid.shape[3])


class _FoldedBlock(XCABlock):
    """A block whose norms 1 and 2 only normalise and whose layer scales are gone."""

    def __init__(self, arrays: dict[str, Wide], architecture: Architecture, dialect: Dialect) -> None:
        with no_init_parameters():
            super().__init__(architecture, dialect, proj_drop=0.0, attn_drop=0.0, drop_path=0.0)
        del self.gamma1, self.gamma2, self.gamma3
        scale, shift = arrays.pop("local_mp.bn.scale"), arrays.pop("local_mp.bn.shift")
        unit = {"gamma": np.ones_like(scale), "beta": np.zeros_like(scale)}
        norm = {
            "gamma": scale,
            "beta": shift,
            "moving_mean": unit["beta"],
            "moving_variance": unit["gamma"] - self.local_mp.bn.eps,
        }
        arrays |= {f"{name}.{part}": array for name in ("norm1", "norm2") for part, array in unit.items()}
        arrays |= {f"local_mp.bn.{part}": array for part, array in norm.items()}
        for name, array in arrays.items():
            _fill(self, name, array)

    def construct(self, x: Tensor, height: int, width: int) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        x = x + self.attn(self.norm1(x))
        x = x + self.local_mp(self.norm3(x), height, width)
        return x + self.mlp(self.norm2(x))
