"""The operands of every compiled operation, in their order: the one table that Python reads and C++ is written from.

:func:`header` writes ``operands.h``, which gives C++ the places as enumerators and the operands as named structs.
Nothing is imported here: the package's build reads it where nothing is installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

PANEL = 48  # columns of a packed weight are filled up to a multiple of this, whatever the register's width


class Operand(NamedTuple):
    """An operand of a block, or of another part of the network that has many.

    Args:
        name: in C++ and in the derivative's signature.
        shape: its axes, such as ``3C C``. C: channels, M: the MLP's hidden channels, h: heads, d: channels of a head.
        parameter: the path of the parameter, or of what ``fuse`` makes of parameters, in the part of the network.
        trained: whether it has a gradient.
        packed: as panels of a product's right factor, see ``gemm.h``.
    """

    name: str
    shape: str
    parameter: str
    trained: bool = True
    packed: bool = False

    def sizes(self, of: Mapping[str, int]) -> list[int]:
        """Return the shape where the axes' letters have the values of ``of``."""
        return [int(axis[:-1] or 1) * of[axis[-1]] if axis[-1] in of else int(axis) for axis in self.shape.split()]


# A cross-covariance block, and a stack of them: then each has the layers as one more axis in front.
BLOCK = (
    Operand("norm1_gamma", "C", "norm1.gamma"),
    Operand("norm1_beta", "C", "norm1.beta"),
    Operand("qkv", "3C C", "attn.qkv.weight"),
    Operand("qkv_bias", "3C", "attn.qkv.bias"),
    Operand("temperature", "h 1 1", "attn.temperature"),
    Operand("proj", "C C", "attn.proj.weight"),
    Operand("proj_bias", "C", "attn.proj.bias"),
    Operand("gamma1", "C", "gamma1"),
    Operand("norm3_gamma", "C", "norm3.gamma"),
    Operand("norm3_beta", "C", "norm3.beta"),
    Operand("conv1", "C 1 3 3", "local_mp.conv1.weight"),
    Operand("conv1_bias", "C", "local_mp.conv1.bias"),
    Operand("bn_gamma", "C", "local_mp.bn.gamma"),
    Operand("bn_beta", "C", "local_mp.bn.beta"),
    Operand("conv2", "C 1 3 3", "local_mp.conv2.weight"),
    Operand("conv2_bias", "C", "local_mp.conv2.bias"),
    Operand("gamma3", "C", "gamma3"),
    Operand("norm2_gamma", "C", "norm2.gamma"),
    Operand("norm2_beta", "C", "norm2.beta"),
    Operand("fc1", "M C", "mlp.fc1.weight"),
    Operand("fc1_bias", "M", "mlp.fc1.bias"),
    Operand("fc2", "C M", "mlp.fc2.weight"),
    Operand("fc2_bias", "C", "mlp.fc2.bias"),
    Operand("gamma2", "C", "gamma2"),
    Operand("moving_mean", "C", "local_mp.bn.moving_mean", trained=False),
    Operand("moving_variance", "C", "local_mp.bn.moving_variance", trained=False),
)

# The same in evaluation, with norms 1 and 2 and the layer scales folded into their neighbours; layers in front as well.
FUSED_BLOCK = (
    Operand("qkv", "3C C", "attn.qkv.weight", packed=True),
    Operand("qkv_bias", "3C", "attn.qkv.bias"),
    Operand("temperature", "h 1 1", "attn.temperature"),
    Operand("proj", "C C", "attn.proj.weight", packed=True),
    Operand("proj_bias", "C", "attn.proj.bias"),
    Operand("norm3_gamma", "C", "norm3.gamma"),
    Operand("norm3_beta", "C", "norm3.beta"),
    Operand("conv1", "9 C", "local_mp.conv1.weight"),
    Operand("conv1_bias", "C", "local_mp.conv1.bias"),
    Operand("bn_scale", "C", "local_mp.bn.scale"),
    Operand("bn_shift", "C", "local_mp.bn.shift"),
    Operand("conv2", "9 C", "local_mp.conv2.weight"),
    Operand("conv2_bias", "C", "local_mp.conv2.bias"),
    Operand("fc1", "M C", "mlp.fc1.weight", packed=True),
    Operand("fc1_bias", "M", "mlp.fc1.bias"),
    Operand("fc2", "C M", "mlp.fc2.weight", packed=True),
    Operand("fc2_bias", "C", "mlp.fc2.bias"),
)

# A class attention block in evaluation, its class token's layer scales folded.
CLASS_BLOCK = (
    Operand("norm1_gamma", "C", "norm1.gamma"),
    Operand("norm1_beta", "C", "norm1.beta"),
    Operand("query", "C C", "query.weight", packed=True),
    Operand("query_bias", "C", "query.bias"),
    Operand("key", "h d C", "key.weight"),
    Operand("value", "C C", "value.weight"),
    Operand("value_bias", "C", "value.bias"),
    Operand("proj", "C C", "attn.proj.weight", packed=True),
    Operand("proj_bias", "C", "attn.proj.bias"),
    Operand("norm2_gamma", "C", "norm2.gamma"),
    Operand("norm2_beta", "C", "norm2.beta"),
    Operand("fc1", "M C", "mlp.fc1.weight", packed=True),
    Operand("fc1_bias", "M", "mlp.fc1.bias"),
    Operand("fc2", "C M", "mlp.fc2.weight", packed=True),
    Operand("fc2_bias", "C", "mlp.fc2.bias"),
    Operand("gamma1", "C", "gamma1"),
)


def layout(operands: Sequence[Operand]) -> dict[str, bool]:
    """Return the operands' parameters in their order, and whether each is packed."""
    return {operand.parameter: operand.packed for operand in operands}


class Signature(NamedTuple):
    """What an operation reads and writes, in this order.

    Args:
        name: of its struct in C++; several operations may share it.
        inputs: names; float32 but for ``integers``.
        outputs: names.
        integers: the input that is int32; stacks of blocks, class attention and the fused stem have one.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: str = ""


def _names(operands: Sequence[Operand]) -> tuple[str, ...]:
    return tuple(operand.name for operand in operands)


def _gradients(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"d{name}" for name in names)


BLOCKS = ("x", "keep", "sides", "epsilons", *_names(BLOCK))
TRAINED = tuple(operand.name for operand in BLOCK if operand.trained)
STAGE = ("x", "weight", "epsilon", "gamma", "beta", "mean", "variance")
CLASS_ATTENTION = ("x", "heads", "weight", "bias")
KEPT = ("kept", "batch_mean", "batch_variance")  # what a training operation puts out beside its result

SIGNATURES = (
    Signature("Gelu", ("x",), ("y",)),
    Signature("GeluGrad", ("x", "dy"), ("dx",)),
    Signature("LayerNorm", ("x", "gamma", "beta", "epsilon"), ("y",)),
    Signature("LayerNormGrad", ("x", "gamma", "epsilon", "dy"), ("dx", "dgamma", "dbeta")),
    Signature("Linear", ("x", "weight", "bias"), ("out",)),
    Signature("LinearGrad", ("x", "weight", "dy"), ("dx", "dweight", "dbias")),
    Signature("SquaredSum", ("x",), ("sum",)),
    Signature("ClassAttention", CLASS_ATTENTION, ("out",), integers="heads"),
    Signature("ClassAttentionGrad", (*CLASS_ATTENTION, "dy"), ("dx", "dweight", "dbias"), integers="heads"),
    Signature("PackedLinear", ("x", "weight", "bias"), ("out",)),
    Signature("Stage", STAGE, ("out",)),
    Signature("StageTrain", STAGE, ("out", *KEPT)),
    Signature("StageGrad", (*STAGE, *KEPT, "dy"), ("dx", "dweight", "dgamma", "dbeta")),
    Signature("FirstStageGrad", (*STAGE, *KEPT, "dy"), ("dweight", "dgamma", "dbeta")),
    Signature("ImageGrad", (*STAGE, *KEPT, "dy"), ("dx",)),
    Signature("FusedStem", ("x", "widths", "weights", "biases", "features"), ("out",), integers="widths"),
    Signature("Blocks", BLOCKS, ("out",), integers="sides"),
    Signature("BlocksTrain", BLOCKS, ("out", *KEPT), integers="sides"),
    Signature("BlocksGrad", (*BLOCKS, *KEPT, "dy"), ("dx", *_gradients(TRAINED)), integers="sides"),
    Signature("FusedBlocks", ("x", "where", "epsilon", *_names(FUSED_BLOCK)), ("out",), integers="where"),
    Signature("ClassBlock", ("cls_token", "tokens", "epsilon", *_names(CLASS_BLOCK)), ("tokens_out", "cls_out")),
    Signature("LastClassBlock", ("cls_token", "tokens", "epsilon", *_names(CLASS_BLOCK)), ("cls_out",)),
)


def header() -> str:
    """Write ``operands.h``: a struct for each signature, and for a layer's parameters and their gradients."""
    parts = [
        '// Written from operands.py by the build.\n\n#pragma once\n\n#include <cstdint>\n\n#include "arguments.h"\n',
        f"namespace xcit {{\n\nconstexpr std::int64_t kPanel = {PANEL};\n\nnamespace operands {{\n",
        *map(_struct, SIGNATURES),
        _layer("BlockParameters", "const float*", "Blocks", _names(BLOCK)),
        _layer("BlockGradients", "float*", "BlocksGrad", _gradients(TRAINED)),
        _layer("FusedBlockParameters", "const float*", "FusedBlocks", _names(FUSED_BLOCK)),
        "}  // namespace operands\n}  // namespace xcit\n",
    ]
    return "\n".join(parts)


def _place(name: str) -> str:
    return "k" + "".join(part.capitalize() for part in name.split("_"))


def _struct(signature: Signature) -> str:
    """The operands' places, and the operands but those of layers."""
    of_layers = {*_names(BLOCK), *_gradients(TRAINED), *_names(FUSED_BLOCK)} if signature.integers else set()
    fields = []
    for name in (*signature.inputs, *signature.outputs):
        kind = "std::int32_t*" if name == signature.integers else "float*"
        read = "integers" if name == signature.integers else "floats"
        constant = "const " if name in signature.inputs else ""
        if name not in of_layers:
            fields.append(f"  {constant}{kind} {name} = arguments.{read}({_place(name)});")
    places = ", ".join(map(_place, (*signature.inputs, *signature.outputs)))
    return "\n".join(
        [
            f"struct {signature.name} {{",
            f"  enum Place : int {{ {places} }};",
            "  const Arguments& arguments;",
            *fields,
            f"  explicit {signature.name}(const Arguments& a) : arguments(a) {{}}",
            "};\n",
        ]
    )


def _layer(name: str, kind: str, signature: str, names: Sequence[str]) -> str:
    """One layer's share of operands that have the layers as their first axis."""
    return "\n".join(
        [
            f"struct {name} {{",
            *(f"  {kind} {field};" for field in names),
            f"  static {name} of(const Arguments& a, std::int64_t layers, std::int64_t layer) {{",
            "    const auto share = [&](int place) { return a.floats(place) + layer * (a.size(place) / layers); };",
            f"    return {{{', '.join(f'share({signature}::{_place(field)})' for field in names)}}};",
            "  }",
            "};\n",
        ]
    )
