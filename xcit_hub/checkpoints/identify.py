"""The step *identify*: whose names a network's tensors have, and which architecture their shapes are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from xcit_hub.checkpoints import trainer
from xcit_hub.checkpoints.families import LAYOUTS, Kind, Layout
from xcit_hub.checkpoints.identity import Identity
from xcit_hub.checkpoints.reading import Reading
from xcit_hub.errors import WeightsError
from xcit_hub.parameters import Shape, parameter_shapes
from xcit_hub.variants import ARCHITECTURES, NO_POSITIONS, Architecture, architecture, without_positions

# In a file's strings: its architecture was the converter's assumption between two image sizes, and still is.
ARCHITECTURE_ASSUMED = "xcit_hub.architecture_assumed"
# In a file's strings: its classifier is the random one that it began as, and nothing has trained it since.
HEAD_UNTRAINED = "xcit_hub.head_untrained"
UNTRAINED_NOTE = "The classifier was never trained: it is the random one that it began as."


def identify(reading: Reading) -> None:
    """Say which network was found: by its tensors, by what the file calls itself, and by what the caller says.

    Raises:
        WeightsError, UnknownNameError: see :func:`of_shapes`; or a mark of ours has another value than ``true``, or
            what the file says of the pooling is not one.
    """
    for mark in (ARCHITECTURE_ASSUMED, HEAD_UNTRAINED):
        if reading.file.metadata.get(mark, "true") != "true":
            raise WeightsError(
                f"The file's string {mark} is {reading.file.metadata[mark]!r:.60}, and can only be 'true'.",
                fix="Take the file as it was written, or write it again without that string.",
            )
    metadata, model = reading.file.metadata, reading.asked.model
    own = None if ARCHITECTURE_ASSUMED in metadata else metadata.get("xcit_hub.architecture")
    shapes = {name: tensor.shape for name, tensor in reading.found.tensors.items()}
    identity = of_shapes(shapes, model=model or own)
    # A tag, and timm's older "_dist", say which weights; the network is the same.
    names = {key: metadata[key].partition(".")[0].removesuffix("_dist") for key in trainer.CALLED if key in metadata}
    known = {key: name for key, name in names.items() if name in ARCHITECTURES}
    key = next(iter(known or names), None)
    called = "" if key is None else names[key]
    notes = list(identity.notes)
    if len(set(known.values())) > 1:
        said = ", ".join(f"{name} ({key})" for key, name in known.items())
        notes.append(f"Its trainer calls the network by several names, of which none was taken: {said}.")
    elif called in ARCHITECTURES and not _has_same_parameters(ARCHITECTURES[called], identity.architecture):
        notes.append(f"Its trainer calls the network {called} ({key}), whose parameters are others.")
    elif identity.assumed and called in ARCHITECTURES:
        note = f"Its trainer calls the network {called}, which decides between those of the same parameters."
        identity, notes = of_shapes(shapes, model=called), [note]
    elif identity.assumed and key is not None:
        notes.append(
            f"Its trainer calls the network {metadata[key]!r:.60} ({key}), which does not decide between them."
        )
    if model and own and own != identity.architecture.name:
        notes.append(f"The file calls itself {own}; --model says {identity.architecture.name}.")
    untrained = HEAD_UNTRAINED in metadata and identity.kind == "classifier"
    if untrained:
        notes.append(UNTRAINED_NOTE)
    unused = trainer.unused(reading.file, identity.architecture)
    notes += [*trainer.used(reading.file), *unused]
    reading.identity = replace(identity, notes=tuple(notes), head_untrained=untrained, unused=tuple(unused))


def of_shapes(shapes: Mapping[str, Shape], *, model: str | None = None) -> Identity:
    """Read the family's naming and the architecture from tensors' names and shapes.

    Args:
        model: the architecture the caller expects; it decides between names of the same shape (224 and 384).

    Raises:
        WeightsError: the tensors are not an XCiT's, or not ``model``'s.
        UnknownNameError: there is no such model.
    """
    layout = _layout(shapes)
    theirs = _Theirs(layout, shapes)
    stem = [index for index in range(16) if theirs.name(f"patch_embed.proj.{index}.0.weight") in shapes]
    patch_size = {(0, 2, 4): 8, (0, 2, 4, 6): 16}.get(tuple(stem))
    if patch_size is None:
        raise _not_an_xcit(f"the stem's convolutions are numbered {stem}, not 0, 2, 4 and for 16-pixel patches 6")
    embed_dim = theirs.axis(f"patch_embed.proj.{stem[-1]}.0.weight", 0, 4)
    depth = theirs.count("blocks")
    num_heads = theirs.axis("blocks.0.attn.temperature", 0, 3)
    hidden = theirs.axis("blocks.0.mlp.fc1.bias", 0, 1)
    # One misshapen tensor must not pass for the measure of all others.
    blocks = range(depth)
    embed_dim = theirs.majority([f"blocks.{i}.norm{k}.gamma" for i in blocks for k in (1, 2, 3)], 1) or embed_dim
    num_heads = theirs.majority([f"blocks.{i}.attn.temperature" for i in blocks], 3) or num_heads
    hidden = theirs.majority([f"blocks.{i}.mlp.fc1.bias" for i in blocks], 1) or hidden
    cls_attn_layers = theirs.count("cls_attn_blocks")
    if not num_heads or embed_dim % num_heads:
        raise _not_an_xcit(f"width {embed_dim} is not a multiple of {num_heads} heads")
    blocks_only = "cls_token" not in shapes and not cls_attn_layers
    has_head = theirs.name("head.weight") in shapes and not blocks_only
    num_classes = theirs.axis("head.weight", 1 if layout.transposed else 0, 2) if has_head else 0
    num_classes = num_classes and (theirs.majority(["head.bias"], 1) or num_classes)
    kind: Kind = "classifier" if num_classes else "backbone"
    if blocks_only:
        kind = "dense" if any(name.startswith("fpn") for name in shapes) else "features"
    measured = Architecture(
        name=f"xcit_custom_{embed_dim}x{depth}_h{num_heads}_p{patch_size}_224",
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        eta=1.0 if depth <= 12 else 1e-5,
        tokens_norm=embed_dim != 128,
        image_size=224,
        mlp_ratio=hidden / embed_dim if hidden % embed_dim else hidden // embed_dim,
        cls_attn_layers=2 if blocks_only else cls_attn_layers,
        use_pos_embed=_has_position(shapes),
    )
    named, notes, assumed = _named(measured, model)
    in_chans = theirs.axis("patch_embed.proj.0.0.weight", 1, 4)
    return Identity(layout, named, kind, num_classes, in_chans, notes, assumed)


# ---- Whose names ---------------------------------------------------------------------------------


def _layout(shapes: Mapping[str, Shape]) -> Layout:
    """The layout whose names for a norm and for the position's projection are there; where it may be one of two, both
    forms of class attention are tried, too: timm's of 2021 had facebook's name for the position."""
    fitting = [layout for layout in LAYOUTS.values() if layout.family != "xcit-hub" and _fits(layout, shapes)]
    if len(fitting) == 1 and not _is_ambiguous(shapes):
        return _with_class_attention(fitting[0], shapes)
    scales = [leaf for leaf in ("weight", "gamma") if f"blocks.0.norm1.{leaf}" in shapes]
    positions = [module for module in ("pos_embed", "pos_embeder") if f"{module}.token_projection.weight" in shapes]
    raise _not_an_xcit(
        f"blocks.0.norm1 has {' and '.join(scales) or 'neither weight nor gamma'}, and the position's projection is "
        f"under {' and '.join(positions) or 'neither pos_embed nor pos_embeder'}, which is not a family's naming"
    )


def _has_position(shapes: Mapping[str, Shape]) -> bool:
    return any(name.startswith("pos_embed") for name in shapes)


def _fits(layout: Layout, shapes: Mapping[str, Shape]) -> bool:
    names = ["blocks.0.norm1.gamma"]
    if _has_position(shapes):
        names.append("pos_embeder.token_projection.weight")
    elif layout.splits and layout.family == "timm":
        # Without a position only class attention tells timm's names from facebook's.
        names.append("cls_attn_blocks.0.attn.qkv.weight")
    elif layout.family == "facebook" and "cls_attn_blocks.0.attn.q.weight" in shapes:
        return False
    if not all(layout.names(name)[0] in shapes for name in names):
        return False
    return layout.transposed == any(name.endswith("._variance") for name in shapes)


def _is_ambiguous(shapes: Mapping[str, Shape]) -> bool:
    pairs = (("blocks.0.norm1.weight", "blocks.0.norm1.gamma"), ("pos_embed.", "pos_embeder."))
    return any(all(any(name.startswith(start) for name in shapes) for start in pair) for pair in pairs)


def _with_class_attention(layout: Layout, shapes: Mapping[str, Shape]) -> Layout:
    # timm's first releases had facebook's name for the position and split q, k, v.
    timm = LAYOUTS["timm"]
    is_split = "cls_attn_blocks.0.attn.q.weight" in shapes
    if layout.family == "facebook" and is_split:
        return replace(timm, modules={})
    if layout.family == "timm" and not is_split and "cls_attn_blocks.0.attn.qkv.weight" in shapes:
        return replace(LAYOUTS["facebook"], modules=timm.modules)
    return layout


@dataclass(frozen=True)
class _Theirs:
    """Lengths of a family's tensors, asked for by our names."""

    layout: Layout
    shapes: Mapping[str, Shape]

    def name(self, ours: str) -> str:
        return self.layout.names(ours)[0]

    def axis(self, ours: str, axis: int, rank: int) -> int:
        name = self.name(ours)
        shape = self.shapes.get(name)
        if shape is None:
            raise _not_an_xcit(f"there is no {name}")
        if len(shape) != rank or not shape[axis]:
            raise _not_an_xcit(f"{name} has the shape {list(shape)}")
        return shape[axis]

    def count(self, module: str) -> int:
        start = f"{self.layout.modules.get(module, module)}."
        texts = {name[len(start) :].partition(".")[0] for name in self.shapes if name.startswith(start)}
        numbers = sorted(int(text) for text in texts if re.fullmatch("[0-9]{1,4}", text))
        if numbers != list(range(len(numbers))):
            raise _not_an_xcit(f"{start}N are numbered {numbers}, with gaps")
        return len(numbers)

    def majority(self, ours: Iterable[str], rank: int) -> int | None:
        """The length of the first axis that most tensors of those names have; None where none has that rank."""
        found = (self.shapes.get(self.name(name), ()) for name in ours)
        lengths = Counter(shape[0] for shape in found if len(shape) == rank and shape[0])
        return lengths.most_common(1)[0][0] if lengths else None


# ---- Which architecture --------------------------------------------------------------------------


def _named(measured: Architecture, model: str | None) -> tuple[Architecture, tuple[str, ...], bool]:
    table = ARCHITECTURES.values()
    forms = table if measured.use_pos_embed else map(without_positions, table)
    same = [entry for entry in forms if _has_same_parameters(entry, measured)]
    if same and not measured.use_pos_embed and model is None:
        raise WeightsError(
            f"The tensors have no positional encoding, and are {same[0].name.removesuffix(NO_POSITIONS)}'s otherwise.",
            fix=f"Fetch the whole file; if it was trained so (use_pos_embed=False), say --model {same[0].name}.",
        )
    if model is not None and model != measured.name:
        wanted = architecture(model)
        if wanted not in same:
            raise WeightsError(
                f"The tensors are not {wanted.name}'s: they have {_in_words(measured)}, it has {_in_words(wanted)}.",
                fix=f"Leave out --model, or use one of {', '.join(entry.name for entry in same)}."
                if same
                else "Leave out --model; no known architecture has this shape.",
            )
        return wanted, (), False
    if not same or model == measured.name:
        _refuse_other_depth(measured, model)
        note = (
            f"No known architecture has {_in_words(measured)}. Assumed for it: eta {measured.eta:g}, and tokens_norm "
            f"{measured.tokens_norm} (False only at nano's width of 128)."
        )
        return measured, (note,), False
    assumed = next((entry for entry in same if entry.image_size == 224), same[0])
    others = [entry.name for entry in same if entry is not assumed]
    if not others:
        return assumed, (), False
    have = "have" if len(others) > 1 else "has"
    return (
        assumed,
        (f"Assumed {assumed.name}; {', '.join(others)} {have} the same parameters. --model decides.",),
        True,
    )


def _has_same_parameters(entry: Architecture, measured: Architecture) -> bool:
    alike = all(
        getattr(entry, field) == getattr(measured, field)
        for field in ("embed_dim", "depth", "num_heads", "mlp_hidden", "cls_attn_layers", "use_pos_embed")
    )
    return alike and parameter_shapes(entry) == parameter_shapes(measured)


def _refuse_other_depth(measured: Architecture, model: str | None) -> None:
    # Blocks lost from a known network leave one that looks custom; only who names it can mean it.
    relatives = [
        entry
        for entry in ARCHITECTURES.values()
        if (entry.embed_dim, entry.num_heads, entry.patch_size)
        == (measured.embed_dim, measured.num_heads, measured.patch_size)
    ]
    if relatives and model != measured.name:
        listed = "; ".join(f"{entry.name} has {_in_words(entry)}" for entry in relatives if entry.image_size == 224)
        raise WeightsError(
            f"The tensors have {_in_words(measured)}, which no known architecture has: {listed}.",
            fix=f"Fetch the whole file; if it is meant to be so, say --model {measured.name}.",
        )


def _in_words(entry: Architecture) -> str:
    positions = "a" if entry.use_pos_embed else "no"
    return (
        f"width {entry.embed_dim}, depth {entry.depth}, {entry.num_heads} heads, patches of {entry.patch_size} pixels, "
        f"{entry.cls_attn_layers} class-attention layers, an MLP ratio of {entry.mlp_ratio} and {positions} positional "
        "encoding"
    )


def _not_an_xcit(why: str) -> WeightsError:
    return WeightsError(
        f"These are not the weights of an XCiT: {why}.",
        fix="Take the weights of an XCiT: `xcit-hub list --pretrained` names the published ones.",
    )
