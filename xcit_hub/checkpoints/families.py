"""What each family calls and lays out an XCiT's parameters: one table each, read in both directions. Knows no files.

A :class:`Layout` maps the project's names (``xcit_hub.parameters``, which are MindCV's) to a family's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from xcit_hub.parameters import Shape, parameter_shapes
from xcit_hub.variants import Architecture, DialectName, Family

# A whole classifier; the same without its head; a detector's backbone, with a pyramid in place of class attention; and
# the blocks alone, which is what timm's `features_only` is.
Kind = Literal["classifier", "backbone", "dense", "features"]

FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True)
class Layout:
    """How one family names and lays out what the project calls by MindCV's names.

    Args:
        leaves: the last part of a name, ours → theirs. ``gamma`` is a norm's, ``gamma1`` a layer scale.
        modules: any other part of a name, ours → theirs.
        patterns: (pattern of a name of ours, theirs), tried before the parts; for what is nested otherwise.
        splits: (first part of the module's path, module, its parts): one matrix of ours is their parts stacked by rows.
        prefix: what stands before the names in a whole file, with the dot at its end.
        beside: the first parts of names that stand beside that prefix, not below it.
        under: where the table of tensors is in a ``.pth`` that the family's own code reads.
        transposed: whether matrices are (in, out).
        dialects: what a network of this family can compute.
        pyramid: whether the family has a detector's backbone.
        counters: whether BatchNorm counts batches (``num_batches_tracked``).
    """

    family: Family
    leaves: Mapping[str, str]
    modules: Mapping[str, str] = field(default_factory=dict)
    patterns: tuple[tuple[str, str], ...] = ()
    splits: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    prefix: str = ""
    beside: tuple[str, ...] = ()
    under: str = "model"
    transposed: bool = False
    dialects: tuple[DialectName, ...] = ("paper",)
    pyramid: bool = False
    counters: bool = False
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def names(self, name: str) -> tuple[str, ...]:
        """Return what the family calls ``name``: one name, or the parts of a matrix that it stores in parts."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._named(name)
        return known

    def _named(self, name: str) -> tuple[str, ...]:
        for pattern, theirs_form in self.patterns:
            name = re.sub(pattern, theirs_form, name)
        *modules, leaf = name.split(".")
        theirs = [self.modules.get(module, module) for module in modules]
        leaf = self.leaves.get(leaf, leaf)
        for path, module, parts in self.splits:
            if theirs and theirs[0] == path and theirs[-1] == module:
                return tuple(".".join([*theirs[:-1], part, leaf]) for part in parts)
        return (".".join([*theirs, leaf]),)

    def placed(self, theirs: str) -> str:
        """Return what a name of the family's network is called in a whole file of it."""
        return theirs if theirs.startswith(self.beside or "\0") else f"{self.prefix}{theirs}"

    def counter(self, name: str) -> str | None:
        """Return what the batch counter beside ``name``, one of ours, is called in a whole file, or None."""
        if not self.counters or not name.endswith(".moving_mean"):
            return None
        return f"{self.placed(self.names(name)[0]).rpartition('.')[0]}.num_batches_tracked"


_PYTORCH_LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_ALL: tuple[DialectName, ...] = get_args(DialectName)

LAYOUTS: dict[Family, Layout] = {
    layout.family: layout
    for layout in (
        Layout(
            "timm",
            leaves=_PYTORCH_LEAVES,
            modules={"pos_embeder": "pos_embed"},
            splits=(("cls_attn_blocks", "qkv", ("q", "k", "v")),),
            counters=True,
        ),
        Layout("facebook", leaves=_PYTORCH_LEAVES, pyramid=True, counters=True),
        Layout("mindcv", leaves={}, dialects=("mindcv",)),
        Layout("xcit-hub", leaves={}, dialects=_ALL, pyramid=True),
        # open-mmlab/mmpretrain, mmpretrain/models/backbones/xcit.py: mmcv's ConvModule and FFN around the same layers.
        Layout(
            "mmpretrain",
            leaves=_PYTORCH_LEAVES,
            modules={"blocks": "xca_layers", "cls_attn_blocks": "ca_layers", "pos_embeder": "pos_embed"},
            patterns=(
                *((rf"^(patch_embed\.proj)\.{2 * index}\.0\.", rf"\1.{index}.conv.") for index in range(4)),
                *((rf"^(patch_embed\.proj)\.{2 * index}\.1\.", rf"\1.{index}.bn.") for index in range(4)),
                (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
                (r"\.mlp\.fc2\.", ".ffn.layers.1."),
                (r"\.local_mp\.(conv\d)\.", r".local_mp.\1.conv."),
                (r"\.local_mp\.bn\.", ".local_mp.conv1.bn."),
                (r"\.token_projection\.", ".token_projection.conv."),
                (r"^head\.", "head.fc."),
            ),
            splits=(("ca_layers", "qkv", ("q", "k", "v")),),
            prefix="backbone.",
            beside=("head.fc.",),
            under="state_dict",
            counters=True,
        ),
        # BR-IDL/PaddleViT, image_classification/XCiT/xcit.py: facebook's modules, Paddle's leaves and matrices.
        Layout(
            "paddlevit",
            leaves={**_PYTORCH_LEAVES, "moving_mean": "_mean", "moving_variance": "_variance"},
            transposed=True,
        ),
    )
}

# The tensors by which `xcit_hub.timm` keeps networks of the other dialects out of timm's own class, and the reverse.
MARKS: dict[DialectName, str] = {"mindcv": "mindcv_dialect", "mindcv-mint": "mindcv_mint_dialect"}
# The tags of the names under which `xcit_hub.timm` registers its classes for them.
TIMM_TAGS: dict[DialectName, str] = {"mindcv": "ms_in1k", "mindcv-mint": "ms_mint"}


def shapes_of(architecture: Architecture, kind: Kind, num_classes: int, in_chans: int) -> dict[str, Shape]:
    """Return the names, ours, and shapes of a network of that kind."""
    shapes = parameter_shapes(architecture, num_classes=num_classes, in_chans=in_chans)
    if kind in ("classifier", "backbone"):
        return shapes
    from xcit_hub.segmenters import pyramid_shapes

    absent = ("cls_token", "cls_attn_blocks.", "norm.", "head.")
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith(absent)}
    return shapes | pyramid_shapes(architecture) if kind == "dense" else shapes
