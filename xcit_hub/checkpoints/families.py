"""What each family calls and lays out an XCiT's parameters, and which network they belong to. Knows no files.

Every family is one :class:`Layout`. It maps the project's names (``xcit_hub.parameters``, which are MindCV's) to the
family's; the way back is the same table read from the right. What cannot be seen in names, the dialect, is settled by
:func:`settle_dialect` from marks that leave no doubt, and refused where there are none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from xcit_hub.checkpoints.tensor import DTYPES, StoredTensor
from xcit_hub.errors import WeightsError
from xcit_hub.parameters import Shape, parameter_shapes
from xcit_hub.variants import ARCHITECTURES, DIALECTS, Architecture, Family, architecture
from xcit_hub.variants import dialect as dialect_of_name

# A whole classifier; the same without its head; a detector's backbone, with a pyramid in place of class attention; and
# the blocks alone, which is what timm's `features_only` is.
Kind = Literal["classifier", "backbone", "dense", "features"]


# ---- Names and layout ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How one family names and lays out what the project calls by MindCV's names.

    Args:
        leaves: the last part of a name, ours → theirs. ``gamma`` is a norm's, ``gamma1`` a layer scale.
        modules: any other part of a name, ours → theirs.
        splits: (part of the module's path, module, its parts): one matrix of ours is their parts stacked by rows.
        dialects: what a network of this family can compute.
        pyramid: whether the family has a detector's backbone.
        counters: whether BatchNorm counts batches (``num_batches_tracked``).
    """

    family: Family
    leaves: Mapping[str, str]
    modules: Mapping[str, str] = field(default_factory=dict)
    splits: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    dialects: tuple[str, ...] = ("paper", "mindcv")
    pyramid: bool = True
    counters: bool = False

    def names(self, name: str) -> tuple[str, ...]:
        """Return what the family calls ``name``: one name, or the parts of a matrix that it stores in parts."""
        *modules, leaf = name.split(".")
        theirs = [self.modules.get(module, module) for module in modules]
        leaf = self.leaves.get(leaf, leaf)
        for path, module, parts in self.splits:
            if theirs and theirs[0] == path and theirs[-1] == module:
                return tuple(".".join([*theirs[:-1], part, leaf]) for part in parts)
        return (".".join([*theirs, leaf]),)


_PYTORCH_LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

LAYOUTS: dict[Family, Layout] = {
    layout.family: layout
    for layout in (
        Layout(
            "timm",
            leaves=_PYTORCH_LEAVES,
            modules={"pos_embeder": "pos_embed"},
            splits=(("cls_attn_blocks", "qkv", ("q", "k", "v")),),
            dialects=("paper",),
            pyramid=False,
            counters=True,
        ),
        Layout("facebook", leaves=_PYTORCH_LEAVES, dialects=("paper",), counters=True),
        Layout("mindcv", leaves={}, dialects=("mindcv",), pyramid=False),
        Layout("xcit-hub", leaves={}),
    )
}

# The tensor by which `xcit_hub.timm` keeps networks of the other dialect out of timm's own class, and the reverse.
MINDCV_MARK = "mindcv_dialect"


def shapes_of(architecture: Architecture, kind: Kind, num_classes: int, in_chans: int) -> dict[str, Shape]:
    """Return the names, ours, and shapes of a network of that kind."""
    shapes = parameter_shapes(architecture, num_classes=num_classes, in_chans=in_chans)
    if kind in ("classifier", "backbone"):
        return shapes
    absent = ("cls_token", "cls_attn_blocks.", "norm.", "head.")
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith(absent)}
    return shapes | _pyramid(architecture) if kind == "dense" else shapes


def _pyramid(architecture: Architecture) -> dict[str, Shape]:
    # facebookresearch/xcit, detection/backbone/xcit.py: transposed convolutions (in, out, 2, 2), same in MindSpore.
    dim = architecture.embed_dim
    weight, vector = (dim, dim, 2, 2), (dim,)
    shapes: dict[str, Shape] = {"fpn1.0.weight": weight, "fpn1.0.bias": vector}
    if architecture.patch_size == 16:
        norm = ("moving_mean", "moving_variance", "gamma", "beta")
        shapes |= {f"fpn1.1.{leaf}": vector for leaf in norm}
        shapes |= {"fpn1.3.weight": weight, "fpn1.3.bias": vector}
        shapes |= {"fpn2.0.weight": weight, "fpn2.0.bias": vector}
    return shapes


def to_ours(
    tensors: Mapping[str, StoredTensor], family: Family, expected: Mapping[str, Shape]
) -> dict[str, StoredTensor]:
    """Translate one family's tensors into the project's names and layout. Nothing is copied.

    Raises:
        WeightsError: a tensor is missing, unexpected, of another shape, or no floating-point one; all are named.
    """
    layout = LAYOUTS[family]
    theirs = {name: layout.names(name) for name in expected}
    known = {part: name for name, parts in theirs.items() for part in parts}
    faults = [f"missing: {part}" for part in known if part not in tensors]
    faults += [f"unexpected: {name!r} {list(tensors[name].shape)}" for name in tensors if name not in known]
    for name, parts in theirs.items():
        shape = part_shape(expected[name], len(parts))
        for part in parts:
            if part in tensors and tensors[part].shape != shape:
                faults.append(f"wrong shape: {part} {list(tensors[part].shape)}, not {list(shape)}")
            if part in tensors and not DTYPES[tensors[part].dtype].is_floating:
                faults.append(f"not a floating-point tensor: {part} {tensors[part].dtype}")
        if len({tensors[part].dtype for part in parts if part in tensors}) > 1:
            faults.append(f"different dtypes: {', '.join(parts)}")
    if faults:
        raise WeightsError("\n    ".join([f"These are not the weights of one XCiT in {family}'s layout:", *faults]))
    return {name: StoredTensor.stack([tensors[part] for part in parts]) for name, parts in theirs.items()}


def from_ours(tensors: Mapping[str, StoredTensor], family: Family) -> dict[str, StoredTensor]:
    """Translate the project's names and layout into another family's. Nothing is copied."""
    layout = LAYOUTS[family]
    translated: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        parts = layout.names(name)
        rows = tensor.shape[0] // len(parts)
        for index, part in enumerate(parts):
            whole = len(parts) == 1
            translated[part] = tensor if whole else tensor.rows(index * rows, (index + 1) * rows)
    return translated


def part_shape(shape: Shape, parts: int) -> Shape:
    """Return the shape of one of ``parts`` equal slices by rows."""
    return (shape[0] // parts, *shape[1:])


# ---- What else is in a file ----------------------------------------------------------------------


@dataclass(frozen=True)
class Dropped:
    """A tensor of the file that is not taken over, and why."""

    name: str
    reason: str


_OPTIMIZER = "optimizer or training state, which no network is made of"
_OTHER_HEAD = "a head of the detector, segmenter or self-supervised objective around the backbone"

# (pattern of the whole name, reason). Everything else that is not the network's is an error.
DROPPABLE: tuple[tuple[str, str], ...] = (
    (r"(.*\.)?num_batches_tracked", "PyTorch's batch counter, unused by a BatchNorm with momentum"),
    (r"(.*\.)?head_dist\.(weight|bias)", "a distillation head, which XCiT does not use at inference"),
    (r"(.*\.)?total_(ops|params)", "a profiler's counter (thop)"),
    (r"(adam_[mv]|moment[12s]?|lamb_[mv]|lion_m|exp_avg(_sq)?|accum|stat|momentum_buffer)\..*", _OPTIMIZER),
    (r"(optimizer|scheduler|lr_scheduler|scaler|amp_scaler|fp16_scaler|loss_scaler)\..*", _OPTIMIZER),
    (r"(global_step|learning_rate|weight_decay|momentum|beta[12]_power|updates)", _OPTIMIZER),
    (r"(loss_scale|scale_sense|scale_value|scale_factor|growth_tracker|cur_iter)", _OPTIMIZER),
    (r"(current_iterator_step|last_overflow_iterator_step|ema_decay|current_step)", _OPTIMIZER),
    (r"(epoch_num|step_num|cur_epoch_num|cur_step_num|epoch|step)", _OPTIMIZER),
    (r"(best_acc|best_metric|best|metric|max_accuracy)", _OPTIMIZER),
    (r"dino_loss\..*", _OTHER_HEAD),
    (r"(.*\.)?(neck|rpn_head|roi_head|bbox_head|mask_head|decode_head|auxiliary_head)\..*", _OTHER_HEAD),
    (r"(.*\.)?head\.(mlp|last_layer)\..*", _OTHER_HEAD),
)
_DROPPABLE = tuple((re.compile(pattern), reason) for pattern, reason in DROPPABLE)

# First parts of a name that only say what wrapped the network.
_PLAIN_WRAPPERS = frozenset({"model", "state_dict", "module", "backbone", "_orig_mod", "network", "student", "net"})
_AVERAGED_WRAPPERS = frozenset({"ema", "model_ema", "state_dict_ema", "ema_state_dict", "teacher"})


@dataclass(frozen=True)
class Selection:
    """The one network taken from a file.

    Args:
        names: name within the network → name in the file.
        averaged: whether these are the averaged (EMA, teacher) weights.
        both: whether plain and averaged weights were both there.
        dropped: everything else, each with its reason.
    """

    names: dict[str, str]
    averaged: bool
    both: bool
    dropped: list[Dropped]

    @property
    def has_optimizer(self) -> bool:
        """Whether optimizer state was there."""
        return any(entry.reason == _OPTIMIZER for entry in self.dropped)


def select(names: Iterable[str], *, ema: bool = False) -> Selection:
    """Find the network among a file's tensors, under whatever wraps it.

    Args:
        ema: take the averaged weights rather than the plain ones.

    Raises:
        WeightsError: there is none, there are several, or there are no averaged ones.
    """
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    dropped: list[Dropped] = []
    for name in names:
        reason = next((reason for pattern, reason in _DROPPABLE if pattern.fullmatch(name)), None)
        if reason is not None:
            dropped.append(Dropped(name, reason))
            continue
        wrappers, rest = _unwrapped(name)
        groups.setdefault(wrappers, {})[rest] = name
    networks = {wrappers: found for wrappers, found in groups.items() if any(map(_is_xcit, found))}
    averaged = [wrappers for wrappers in networks if _AVERAGED_WRAPPERS.intersection(wrappers)]
    plain = [wrappers for wrappers in networks if wrappers not in averaged]
    wanted = averaged if ema or not plain else plain
    if ema and not averaged:
        raise WeightsError("There are no averaged (EMA) weights in the file.", fix="Leave out --ema.")
    if not wanted:
        raise WeightsError(
            "This is no XCiT: there is no patch_embed.proj.0.0.weight, however it may be wrapped.",
            fix="See what is in the file: python -m converters.inspect FILE",
        )
    if len(wanted) > 1:
        listed = ", ".join(".".join(wrappers) or "(top)" for wrappers in wanted)
        raise WeightsError(
            f"The file holds more than one network of the same kind: {listed}.",
            fix="Save the one that is meant in a file of its own.",
        )
    chosen = wanted[0]
    for wrappers, found in networks.items():
        if wrappers != chosen:
            reason = f"the {'averaged' if wrappers in averaged else 'plain'} weights, which were not asked for"
            dropped += [Dropped(name, reason) for name in found.values()]
    # What lies outside every network and has no reason to be dropped is unexpected: the strict check will name it.
    stray = [name for wrappers, found in groups.items() if wrappers not in networks for name in found.values()]
    for name in stray:
        if name in networks[chosen]:
            raise WeightsError(f"The file holds both {name} and {networks[chosen][name]}.")
    selected = networks[chosen] | {name: name for name in stray}
    return Selection(selected, chosen in averaged, bool(averaged and plain), dropped)


def _unwrapped(name: str) -> tuple[tuple[str, ...], str]:
    parts = name.split(".")
    count = 0
    while count < len(parts) - 1 and parts[count] in _PLAIN_WRAPPERS | _AVERAGED_WRAPPERS:
        count += 1
    return tuple(parts[:count]), ".".join(parts[count:])


def _is_xcit(name: str) -> bool:
    return name == "patch_embed.proj.0.0.weight"


# ---- Which network it is -------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """What the names and shapes of a network's tensors say it is.

    Args:
        naming: whose names these are. MindSpore's are "mindcv" here: names alone do not tell MindCV's from ours.
        notes: what had to be assumed, in sentences.
        assumed: whether the architecture was chosen between two of the same parameters.
    """

    naming: Family
    architecture: Architecture
    kind: Kind
    num_classes: int
    in_chans: int
    notes: tuple[str, ...]
    assumed: bool = False

    @property
    def shapes(self) -> dict[str, Shape]:
        """The names, ours, and shapes that the whole network has to have."""
        return shapes_of(self.architecture, self.kind, self.num_classes, self.in_chans)


# (a norm's scale, the position's module) → whose names these are.
_NAMINGS: dict[tuple[str, str], Family] = {
    ("weight", "pos_embed"): "timm",
    ("weight", "pos_embeder"): "facebook",
    ("gamma", "pos_embeder"): "mindcv",
}


def identify(shapes: Mapping[str, Shape], *, model: str | None = None) -> Identity:
    """Read the family's naming and the architecture from tensors' names and shapes.

    Args:
        model: the architecture the caller expects; it decides between names of the same shape (224 and 384).

    Raises:
        WeightsError: the tensors are no XCiT's, or not ``model``'s.
        UnknownNameError: there is no such model.
    """
    naming = _naming(shapes)
    stem = _indices(shapes, "patch_embed.proj.")
    patch_size = {(0, 2, 4): 8, (0, 2, 4, 6): 16}.get(tuple(stem))
    if patch_size is None:
        raise _no_xcit(f"the stem's convolutions are numbered {stem}, not 0, 2, 4 and for 16-pixel patches 6")
    embed_dim = _axis(shapes, f"patch_embed.proj.{stem[-1]}.0.weight", 0, 4)
    depth = _count(shapes, "blocks.")
    num_heads = _axis(shapes, "blocks.0.attn.temperature", 0, 3)
    hidden = _axis(shapes, "blocks.0.mlp.fc1.weight", 0, 2)
    # One misshapen tensor must not pass for the measure of all others.
    embed_dim = _majority(shapes, r"blocks\.\d+\.norm\d\.(weight|gamma)", 1) or embed_dim
    num_heads = _majority(shapes, r"blocks\.\d+\.attn\.temperature", 3) or num_heads
    hidden = _majority(shapes, r"blocks\.\d+\.mlp\.fc1\.bias", 1) or hidden
    cls_attn_layers = _count(shapes, "cls_attn_blocks.")
    if embed_dim % max(num_heads, 1) or not num_heads or hidden % embed_dim:
        raise _no_xcit(f"width {embed_dim}, {num_heads} heads and hidden width {hidden} do not divide")
    blocks_only = "cls_token" not in shapes and not cls_attn_layers
    num_classes = _axis(shapes, "head.weight", 0, 2) if "head.weight" in shapes and not blocks_only else 0
    num_classes = num_classes and (_majority(shapes, r"head\.bias", 1) or num_classes)
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
        mlp_ratio=hidden // embed_dim,
        cls_attn_layers=2 if blocks_only else cls_attn_layers,
    )
    named, notes = _named(measured, model)
    in_chans = _axis(shapes, "patch_embed.proj.0.0.weight", 1, 4)
    assumed = bool(notes) and named.name in ARCHITECTURES
    return Identity(naming, named, kind, num_classes, in_chans, notes, assumed)


def _naming(shapes: Mapping[str, Shape]) -> Family:
    scale = [leaf for leaf in ("weight", "gamma") if f"blocks.0.norm1.{leaf}" in shapes]
    position = [module for module in ("pos_embed", "pos_embeder") if f"{module}.token_projection.weight" in shapes]
    naming = _NAMINGS.get((scale[0], position[0])) if len(scale) == len(position) == 1 else None
    if naming is None:
        raise _no_xcit(
            f"blocks.0.norm1 has {' and '.join(scale) or 'neither weight nor gamma'}, and the position's projection is "
            f"under {' and '.join(position) or 'neither pos_embed nor pos_embeder'}, which is no family's naming"
        )
    return naming


def _named(measured: Architecture, model: str | None) -> tuple[Architecture, tuple[str, ...]]:
    same = [entry for entry in ARCHITECTURES.values() if _shape_of(entry) == _shape_of(measured)]
    if model is not None and model != measured.name:
        wanted = architecture(model)
        if wanted not in same:
            raise WeightsError(
                f"The tensors are not {wanted.name}'s: they have {_in_words(measured)}, it has {_in_words(wanted)}.",
                fix=f"Leave out --model, or use one of {', '.join(entry.name for entry in same)}."
                if same
                else "Leave out --model; no known architecture has this shape.",
            )
        return wanted, ()
    if not same:
        _refuse_other_depth(measured, model)
        return measured, (
            f"No known architecture has {_in_words(measured)}. Assumed for it: eta {measured.eta:g}, and tokens_norm "
            f"{measured.tokens_norm} (False only at nano's width of 128).",
        )
    assumed = next(entry for entry in same if entry.image_size == 224)
    others = ", ".join(entry.name for entry in same if entry is not assumed)
    return assumed, (f"Assumed {assumed.name}; {others} has the same parameters. --model decides.",)


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


def _shape_of(entry: Architecture) -> Architecture:
    return replace(entry, name="", eta=0.0, tokens_norm=False, image_size=0)


def _in_words(entry: Architecture) -> str:
    return (
        f"width {entry.embed_dim}, depth {entry.depth}, {entry.num_heads} heads, patches of {entry.patch_size} pixels, "
        f"{entry.cls_attn_layers} class-attention layers and an MLP ratio of {entry.mlp_ratio}"
    )


def _indices(shapes: Iterable[str], prefix: str) -> list[int]:
    found = {name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)}
    return sorted(int(text) for text in found if re.fullmatch("[0-9]{1,4}", text))


def _count(shapes: Iterable[str], prefix: str) -> int:
    numbers = _indices(shapes, prefix)
    if numbers != list(range(len(numbers))):
        raise _no_xcit(f"{prefix}N are numbered {numbers}, with gaps")
    return len(numbers)


def _axis(shapes: Mapping[str, Shape], name: str, axis: int, rank: int) -> int:
    shape = shapes.get(name)
    if shape is None:
        raise _no_xcit(f"there is no {name}")
    if len(shape) != rank or not shape[axis]:
        raise _no_xcit(f"{name} has the shape {list(shape)}")
    return shape[axis]


def _majority(shapes: Mapping[str, Shape], pattern: str, rank: int) -> int | None:
    """The length of the first axis that most tensors of those names have; None where none has that rank."""
    matching = (shape for name, shape in shapes.items() if re.fullmatch(pattern, name))
    lengths = Counter(shape[0] for shape in matching if len(shape) == rank and shape[0])
    return lengths.most_common(1)[0][0] if lengths else None


def _no_xcit(why: str) -> WeightsError:
    return WeightsError(
        f"These are not the weights of an XCiT: {why}.",
        fix="See what is in the file: python -m converters.inspect FILE",
    )


# ---- What it computes ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Marks:
    """What a file carries, apart from its tensors' names, that tells whose it is.

    Args:
        file_format: "safetensors", "ckpt" or "pth".
        metadata: the file's strings.
        sidecar: the strings of the ``config.json`` that was written for this very file.
        mindcv_mark: whether the mark of ``xcit_hub.timm``'s class for the mindcv dialect is among the tensors.
        trained_by_mindcv: whether the state of MindCV's trainer is among the tensors.
        published_as: the name under which these very bytes were published, if they were, and its dialect.
        family: whose file the caller says it is.
    """

    file_format: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    sidecar: Mapping[str, str] = field(default_factory=dict)
    mindcv_mark: bool = False
    trained_by_mindcv: bool = False
    published_as: tuple[str, str] | None = None
    family: Family | None = None


def settle_dialect(naming: Family, marks: Marks, asked: str | None = None) -> tuple[str, str]:
    """Return the dialect of a network and the sentence that says how it is known.

    Args:
        naming: whose names the tensors have (:attr:`Identity.naming`).
        asked: the dialect the caller gave, needed where nothing else tells.

    Raises:
        WeightsError: nothing tells, or what tells contradicts ``asked``.
        UnknownNameError: there is no such dialect.
    """
    if asked is not None:
        dialect_of_name(asked)
    known = _known_dialect(naming, marks)
    if known is None:
        if asked == "mindcv" and naming == "facebook":
            raise WeightsError(_MINT, fix="If it is the paper's network after all, say --dialect paper.")
        if asked is None:
            raise _undecided(naming)
        return asked, "the caller said so"
    dialect, evidence = known
    dialect_of_name(dialect)
    if asked not in (None, dialect):
        raise WeightsError(
            f"--dialect {asked} contradicts the file: {evidence}, which makes it {dialect}.",
            fix="Leave out --dialect.",
        )
    return dialect, evidence


def _known_dialect(naming: Family, marks: Marks) -> tuple[str, str] | None:
    for place, strings in (("metadata", marks.metadata), ("config", marks.sidecar)):
        if "xcit_hub.dialect" in strings:
            return strings["xcit_hub.dialect"], f"it says so itself (xcit_hub.dialect in its {place})"
    if marks.mindcv_mark:
        return "mindcv", f"it holds {MINDCV_MARK}, the mark of xcit_hub.timm's class"
    if naming == "timm":
        return "paper", "only timm splits q, k, v and says pos_embed, and its XCiT is the paper's"
    if naming == "facebook":
        from_pytorch = marks.file_format == "pth" or marks.metadata.get("format") == "pt"
        return ("paper", "facebook's names in PyTorch's own format") if from_pytorch else None
    if marks.published_as is not None:
        name, dialect = marks.published_as
        return dialect, f"its SHA-256 is that of the published {name}"
    if marks.trained_by_mindcv:
        return "mindcv", "it holds the state of MindCV's trainer under MindCV's names"
    if marks.family == "mindcv":
        return "mindcv", "the command is for MindCV's files"
    return None


_MINT = (
    "facebook's names in a file of MindSpore's belong either to MindCV's newest network (built of `mint` layers: no "
    "normalisation of queries and keys, but erf GELU), which is neither dialect and is not supported, or to the "
    "paper's network under its own names."
)


def _undecided(naming: Family) -> WeightsError:
    explained = "; ".join(f"--dialect {entry.name}: {entry.explanation}" for entry in DIALECTS.values())
    if naming == "facebook":
        return WeightsError(_MINT, fix="If you know that it is the paper's network, say --dialect paper.")
    return WeightsError(
        "The file does not tell which network these weights belong to. Two share MindSpore's names, and each gives "
        "wrong answers with the other's weights.",
        fix=f"Say which. {explained}.",
    )
