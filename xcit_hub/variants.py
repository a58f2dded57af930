"""Every XCiT architecture and every published checkpoint, in one table. Pure data: imports no framework.

Architectures are timm's (``timm/models/xcit.py``, 1.0.31), under timm's names, and those of the adversarially trained
networks (github.com/dedeswim/vits-robustness-torch). Checkpoints are timm's 42, the DINO backbones, detectors and
segmenters of facebookresearch/xcit, DINO's own files, RobustBench's nine and five more of their authors', MMPretrain's
42 and MindSpore's three. Figures carry their source with them; those and the files' names are in ``published.py``.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict

from xcit_hub import published
from xcit_hub.errors import InputError, UnknownNameError, closest

DialectName = Literal["paper", "mindcv", "mindcv-mint"]
Family = Literal["timm", "facebook", "mindcv", "xcit-hub", "mmpretrain", "paddlevit"]
GlobalPool = Literal["token", "avg", ""]


@dataclass(frozen=True)
class Dialect:
    """What a network computes, as opposed to what its parameters are called. The network reads these fields alone.

    Args:
        normalize_qk: XCA divides queries and keys by their L2 norm over the tokens (paper, section 3.2).
        gelu: the Gaussian error form (``erf``) or the ``tanh`` approximation of it.
        statistics: what batch norm divides by in evaluation: its ``running`` averages, or the statistics of the very
            ``batch``, as MindCV's networks did until 27 April 2023 (``use_batch_statistics=True``).
        explanation: one sentence for error messages and cards.
    """

    name: DialectName
    normalize_qk: bool
    gelu: Literal["erf", "tanh"]
    explanation: str
    statistics: Literal["running", "batch"] = "running"


DIALECTS: dict[str, Dialect] = {
    "paper": Dialect(
        "paper",
        normalize_qk=True,
        gelu="erf",
        explanation="the paper's network: queries and keys L2-normalised over tokens, erf GELU (facebook, timm)",
    ),
    "mindcv": Dialect(
        "mindcv",
        normalize_qk=False,
        gelu="tanh",
        explanation="MindCV's network: no normalisation of queries and keys, tanh GELU (MindSpore's checkpoints)",
    ),
    "mindcv-mint": Dialect(
        "mindcv-mint",
        normalize_qk=False,
        gelu="erf",
        explanation="MindCV's newest network: no normalisation of queries and keys, erf GELU (mint layers, since 0.5)",
    ),
}


@dataclass(frozen=True)
class Architecture:
    """The shape of one network, under timm's name. The fields but ``strides`` are arguments of timm's ``Xcit``.

    Args:
        patch_size: pixels a token covers in each direction.
        embed_dim: channels of a token.
        depth: number of cross-covariance blocks.
        num_heads: heads of both XCA and class attention.
        eta: initial value of the layer scales (paper, section 3.3; 1e-5 for the 24-layer networks).
        tokens_norm: the class-attention blocks' second norm covers all tokens, not only the class token.
        image_size: side of the square input in pixels that the name stands for.
        mlp_ratio: hidden channels of the MLPs over ``embed_dim``.
        cls_attn_layers: number of class-attention blocks.
        use_pos_embed: a positional encoding is added to the tokens.
        strides: of the stem's convolutions, 1 or 2 each; their product is ``patch_size``. By default 2 in each of four
            (patches of 16) or three (of 8). Tensors do not show them.
    """

    name: str
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    eta: float
    tokens_norm: bool
    image_size: int
    mlp_ratio: float = 4
    cls_attn_layers: int = 2
    use_pos_embed: bool = True
    strides: tuple[int, ...] = ()

    @property
    def stem_strides(self) -> tuple[int, ...]:
        """The stride of each of the stem's convolutions.

        Raises:
            InputError: no three or four strides of 1 and 2 give this patch size.
        """
        strides = self.strides or {16: (2, 2, 2, 2), 8: (2, 2, 2)}.get(self.patch_size, ())
        if len(strides) not in (3, 4) or not set(strides) <= {1, 2} or math.prod(strides) != self.patch_size:
            raise InputError(
                f"{self.name} has patches of {self.patch_size} pixels and strides {strides}.",
                where="patch_size=…, strides=…",
                fix="Give patch_size 16 or 8, or three or four strides of 1 and 2 whose product it is.",
            )
        return strides

    @property
    def mlp_hidden(self) -> int:
        """Hidden channels of the MLPs, rounded down as in timm."""
        return int(self.embed_dim * self.mlp_ratio)


class Shape(TypedDict, total=False):
    """Fields of :class:`Architecture` that may be given beside its name, as to timm's ``create_model``."""

    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    cls_attn_layers: int
    use_pos_embed: bool
    eta: float
    tokens_norm: bool
    strides: tuple[int, ...]


_COUNTS = ("patch_size", "embed_dim", "depth", "num_heads", "cls_attn_layers")
_POSITIVE = ("mlp_ratio", "eta")
_LARGEST_COUNT = 1 << 16
_LARGEST_RATIO = 1 << 10
_SWITCHES = ("use_pos_embed", "tokens_norm")


def reshaped(architecture: Architecture, shape: Shape) -> Architecture:
    """Return an architecture with other fields; another ``patch_size`` brings its own strides.

    Raises:
        InputError: there is no such field, or no network has such a value.
    """
    given: dict[str, Any] = dict(shape)
    for name, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = (
            (name in _COUNTS and number and isinstance(value, int) and 1 <= value <= _LARGEST_COUNT)
            or (name in _POSITIVE and number and 0 < value < _LARGEST_RATIO)
            or (name in _SWITCHES and isinstance(value, bool))
            or (name == "strides" and isinstance(value, list | tuple) and all(type(stride) is int for stride in value))
        )
        if not fits:
            known = ", ".join(Shape.__annotations__)
            raise InputError(
                f"{name} is {value!r:.60}, which no network can have.",
                where=f"{name}=…",
                fix=f"Give counts of 1 or more, ratios above 0, and True or False; the fields of a shape are {known}.",
            )
    if "strides" in given or "patch_size" in given:
        given["strides"] = tuple(given.get("strides", ()))
    changed = replace(architecture, **given)
    doublings = len(changed.stem_strides) - 1
    if changed.embed_dim % changed.num_heads or changed.embed_dim % 2**doublings or changed.mlp_hidden < 1:
        raise InputError(
            f"{changed.embed_dim} channels do not divide among {changed.num_heads} heads, or cannot be halved "
            f"{doublings} times by the stem, or leave none for an MLP of ratio {changed.mlp_ratio}.",
            where="embed_dim=…, num_heads=…, mlp_ratio=…",
            fix="Choose another embed_dim, num_heads or mlp_ratio.",
        )
    entry = ARCHITECTURES.get(changed.name)
    bare = None if entry is None else without_positions(entry)
    return bare if bare is not None and replace(changed, name=bare.name) == bare else changed


# width, heads, tokens_norm: paper, Table 1; tokens_norm from facebookresearch/xcit's model functions.
_WIDTHS: dict[str, tuple[int, int, bool]] = {
    "nano": (128, 4, False),
    "tiny": (192, 4, True),
    "small": (384, 8, True),
    "medium": (512, 8, True),
    "large": (768, 16, True),
}
_DEPTHS: dict[str, tuple[int, ...]] = {
    "nano": (12,),
    "tiny": (12, 24),
    "small": (12, 24),
    "medium": (24,),
    "large": (24,),
}
_ETA: dict[int, float] = {12: 1.0, 24: 1e-5}
_PATCH_SIZES = (16, 8)
_IMAGE_SIZES = (224, 384)


def _architectures() -> Iterator[Architecture]:
    for patch_size in _PATCH_SIZES:
        for width_name, (embed_dim, num_heads, tokens_norm) in _WIDTHS.items():
            for depth in _DEPTHS[width_name]:
                for image_size in _IMAGE_SIZES:
                    yield Architecture(
                        name=f"xcit_{width_name}_{depth}_p{patch_size}_{image_size}",
                        patch_size=patch_size,
                        embed_dim=embed_dim,
                        depth=depth,
                        num_heads=num_heads,
                        eta=_ETA[depth],
                        tokens_norm=tokens_norm,
                        image_size=image_size,
                    )


# name: width, patch size, strides, image size. Source: github.com/dedeswim/vits-robustness-torch. 32 pixels pass
# through timm's networks of patches of 16, of which the first two convolutions (places 0 and 2 of the stem, where its
# GELUs count) keep the resolution.
_ROBUST: dict[str, tuple[str, int, tuple[int, ...], int]] = {
    "xcit_medium_12_p16_224": ("medium", 16, (), 224),
    "xcit_large_12_p16_224": ("large", 16, (), 224),
    "xcit_small_12_p4_32": ("small", 4, (1, 1, 2, 2), 32),
    "xcit_medium_12_p4_32": ("medium", 4, (1, 1, 2, 2), 32),
    "xcit_large_12_p4_32": ("large", 4, (1, 1, 2, 2), 32),
}


def _robust_architectures() -> Iterator[Architecture]:
    for name, (width_name, patch_size, strides, image_size) in _ROBUST.items():
        embed_dim, num_heads, tokens_norm = _WIDTHS[width_name]
        yield Architecture(
            name=name,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=12,
            num_heads=num_heads,
            eta=_ETA[12],
            tokens_norm=tokens_norm,
            image_size=image_size,
            strides=strides,
        )


ARCHITECTURES: dict[str, Architecture] = {entry.name: entry for entry in (*_architectures(), *_robust_architectures())}
TIMM_ARCHITECTURES: tuple[str, ...] = tuple(entry.name for entry in _architectures())

# At the end of a table's name: the same without a positional encoding, timm's `use_pos_embed=False`.
NO_POSITIONS = "_nopos"


def without_positions(entry: Architecture) -> Architecture:
    """Return an architecture without its positional encoding, under the name that says so."""
    return replace(entry, name=f"{entry.name}{NO_POSITIONS}", use_pos_embed=False)


def has_name(name: str) -> bool:
    """Whether :func:`architecture` knows an architecture by that name."""
    return name.removesuffix(NO_POSITIONS) in ARCHITECTURES


# Fields of an architecture that are arguments of timm's ``Xcit``.
_TIMM_ARGUMENTS = (
    "patch_size",
    "embed_dim",
    "depth",
    "num_heads",
    "mlp_ratio",
    "cls_attn_layers",
    "use_pos_embed",
    "eta",
    "tokens_norm",
)


def in_timm(entry: Architecture) -> tuple[str, dict[str, object]] | None:
    """Return how timm builds an architecture: one of its names, and the arguments in which the two differ.

    None where timm cannot: its strides follow from the size of the patch.
    """
    if entry.strides not in ((), (2,) * len(entry.stem_strides)):
        return None

    def differing(base: Architecture) -> dict[str, object]:
        pairs = ((name, getattr(entry, name), getattr(base, name)) for name in _TIMM_ARGUMENTS)
        return {name: value for name, value, other in pairs if value != other}

    # The name itself, if it is timm's; else the nearest one, of the same image size where there is one.
    bases = [ARCHITECTURES[name] for name in TIMM_ARCHITECTURES]
    nearest = min(bases, key=lambda base: (len(differing(base)), base.image_size != entry.image_size))
    base = ARCHITECTURES[entry.name] if entry.name in TIMM_ARCHITECTURES else nearest
    return base.name, differing(base)


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the network's input (timm's ``pretrained_cfg`` fields of the same names).

    Args:
        image_size: side of the square in pixels; the height where ``image_width`` says another width.
        crop_pct: the part of the resized image that the crop keeps.
        mean, std: of the pixels in 0…1, one number, or one for each channel.
        crop_mode: ``center`` (the shorter side is resized, the centre kept), ``squash`` (both sides are resized, the
            aspect is lost) or ``border`` (the longer side is resized, borders are added).
        image_width: where the input is not square.
    """

    image_size: int = 224
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_mode: str = "center"
    image_width: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input in pixels."""
        return self.image_size, self.image_size if self.image_width is None else self.image_width


@dataclass(frozen=True)
class Accuracy:
    """A published figure and who published it.

    ``top1`` and ``top5`` are per cent on ImageNet-1k's validation set, or on the data that ``source`` names.
    """

    top1: float
    top5: float | None
    source: str


@dataclass(frozen=True)
class Measure:
    """A published figure that is not an accuracy of a classifier, in per cent, and who published it."""

    name: str
    value: float
    source: str


@dataclass(frozen=True)
class PublishedCheckpoint:
    """One set of weights that somebody published.

    Args:
        name: timm's name with its tag, or the file's own name where timm has none.
        architecture: a key of :data:`ARCHITECTURES`.
        family: the naming and layout its file uses.
        dialect: what network it was trained in.
        url: the address of the original file.
        repository: Hugging Face repository that holds it as safetensors, where there is one.
        num_classes: 0 for a backbone without a head.
        sha256: the published digest; a prefix where only a prefix was published.
        accuracies: every published figure, each with its source; they may disagree.
        measures: the published figures that are not accuracies.
        copy_of: the name of the checkpoint that has the same weights under other names.
        aliases: what else its publisher calls it, beside the file's name.
    """

    name: str
    architecture: str
    family: Family
    dialect: DialectName
    url: str
    preprocessing: Preprocessing
    repository: str | None = None
    num_classes: int = 1000
    sha256: str | None = None
    license: str = "apache-2.0"
    accuracies: tuple[Accuracy, ...] = ()
    measures: tuple[Measure, ...] = ()
    notes: str = ""
    copy_of: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name of the original file; of one on Google Drive, where files have none, that of the checkpoint."""
        return f"{self.name}.pth.tar" if self.url.startswith(_DRIVE) else self.url.rpartition("/")[2]

    @property
    def figures(self) -> tuple[str, ...]:
        """Every published figure in words, with its source."""
        told = (
            f"top-1: {entry.top1:g}" + (f", top-5: {entry.top5:g}" if entry.top5 else "") + f" ({entry.source})"
            for entry in self.accuracies
        )
        return (*told, *(f"{entry.name}: {entry.value:g} ({entry.source})" for entry in self.measures))


_DRIVE = "https://drive.google.com/"
_FACEBOOK = "https://dl.fbaipublicfiles.com/xcit"
_TIMM_RESULTS = "timm results/results-imagenet.csv"
_FACEBOOK_README = "facebookresearch/xcit README (linear probe)"


def _timm_checkpoints() -> Iterator[PublishedCheckpoint]:
    for short_name, (top1, top5) in published.TIMM.items():
        name = f"xcit_{short_name}"
        architecture, _, tag = name.partition(".")
        distilled = "_dist" if tag == "fb_dist_in1k" else ""
        yield PublishedCheckpoint(
            name=name,
            architecture=architecture,
            family="timm",
            dialect="paper",
            url=f"{_FACEBOOK}/{architecture}{distilled}.pth",
            repository=f"timm/{name}",
            preprocessing=Preprocessing(image_size=ARCHITECTURES[architecture].image_size),
            accuracies=(Accuracy(top1, top5, _TIMM_RESULTS),),
        )


def _dino_checkpoints() -> Iterator[PublishedCheckpoint]:
    for short_architecture, stem, linear_top1 in published.DINO:
        yield PublishedCheckpoint(
            name=f"xcit_{short_architecture}.fb_dino",
            architecture=f"xcit_{short_architecture}",
            family="facebook",
            dialect="paper",
            url=f"{_FACEBOOK}/{stem}.pth",
            preprocessing=Preprocessing(),
            num_classes=0,
            accuracies=(Accuracy(linear_top1, None, _FACEBOOK_README),),
            notes="self-supervised (DINO); a backbone without a classifier",
        )


_DINO_FILES = "https://dl.fbaipublicfiles.com/dino"
_DINO_README = "facebookresearch/dino README (linear probe)"


def _dinos_own_checkpoints() -> Iterator[PublishedCheckpoint]:
    for short_architecture, _, linear_top1 in published.DINO:
        stem = f"dino_xcit_{short_architecture.removesuffix('_224')}_pretrain"
        for tag, suffix, what in (
            ("dino", "", "the teacher's backbone, without a classifier"),
            ("dino_full", "_full_checkpoint", "student and teacher with their projection heads; the teacher is taken"),
        ):
            yield PublishedCheckpoint(
                name=f"xcit_{short_architecture}.{tag}",
                architecture=f"xcit_{short_architecture}",
                family="facebook",
                dialect="paper",
                url=f"{_DINO_FILES}/{stem}/{stem}{suffix}.pth",
                preprocessing=Preprocessing(),
                num_classes=0,
                accuracies=(Accuracy(linear_top1, None, _DINO_README),),
                notes=f"self-supervised (DINO); {what}",
            )


# file's name, data set, classes, architecture's ending, perturbation, mean, deviation. RobustBench's networks for
# ImageNet take pixels in 0…1 as they are; those for CIFAR normalise them.
_ROBUST_DATA = (
    ("imagenet", "ImageNet", 1000, "p16_224", "4/255", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ("cifar10", "CIFAR-10", 10, "p4_32", "8/255", (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    ("cifar100", "CIFAR-100", 100, "p4_32", "8/255", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
)
_ROBUST_FILES = "https://github.com/RobustBench/robustbench/releases/download/v1.1"


def _robust_checkpoints() -> Iterator[PublishedCheckpoint]:
    for size, figures in published.ROBUST.items():
        for (stem, data, classes, ending, perturbation, mean, std), (clean, attacked) in zip(
            _ROBUST_DATA, figures, strict=True
        ):
            architecture = f"xcit_{size}_12_{ending}"
            image_size = ARCHITECTURES[architecture].image_size
            yield PublishedCheckpoint(
                name=f"{architecture}.linf_{stem}",
                architecture=architecture,
                family="timm",
                dialect="paper",
                url=f"{_ROBUST_FILES}/debenedetti2022light-xcit-{size[0]}-{stem}-linf.pth.tar",
                preprocessing=Preprocessing(image_size=image_size, mean=mean, std=std),
                num_classes=classes,
                accuracies=(Accuracy(clean, None, f"RobustBench README, {data}, clean images"),),
                measures=(Measure(f"top-1 under AutoAttack, Linf {perturbation}", attacked, "RobustBench README"),),
                notes=f"adversarially trained (arXiv:2209.07399): {attacked} % under AutoAttack, Linf {perturbation}",
                aliases=(f"debenedetti2022light_xcit_{size[0]}12_{stem}_linf",),
            )


_LIGHT_RECIPE = "dedeswim/vits-robustness-torch README"


def _light_recipe_checkpoints() -> Iterator[PublishedCheckpoint]:
    for short_name, file, data, classes, perturbation, clean, attacked in published.LIGHT_RECIPE:
        name = f"xcit_{short_name}"
        # Trained on pixels in 0…1 as they are (no_normalize), but for the fine-tuned ones (normalize_model).
        mean, std = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) if classes == 1000 else ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        yield PublishedCheckpoint(
            name=name,
            architecture=name.partition(".")[0],
            family="timm",
            dialect="paper",
            url=f"{_DRIVE}file/d/{file}/view",
            preprocessing=Preprocessing(mean=mean, std=std),
            num_classes=classes,
            accuracies=(Accuracy(clean, None, f"{_LIGHT_RECIPE}, {data}, clean images"),),
            measures=(Measure(f"top-1 under AutoAttack, Linf {perturbation}", attacked, _LIGHT_RECIPE),),
            notes=f"adversarially trained (arXiv:2209.07399): {attacked} % under AutoAttack, Linf {perturbation}",
        )


_TAKEN = {
    "detection": "its backbone is taken",
    "semantic_segmentation": "xcit_hub.load_segmenter takes it whole, create_model(…, pyramid=True) its backbone",
}


def _dense_checkpoints() -> Iterator[PublishedCheckpoint]:
    for short_architecture, (coco, sem_fpn, upernet) in published.DENSE.items():
        for tag, file, side, network, source, figures in (
            ("fb_coco_mask_rcnn", "coco/maskrcnn", 800, "Mask R-CNN on COCO", "detection", coco),
            ("fb_ade20k_sem_fpn", "ade/sem_fpn", 512, "Semantic FPN on ADE20K", "semantic_segmentation", (sem_fpn,)),
            ("fb_ade20k_upernet", "ade/upernet", 512, "UperNet on ADE20K", "semantic_segmentation", (upernet,)),
        ):
            names = ("box AP", "mask AP") if len(figures) == 2 else ("mIoU",)
            yield PublishedCheckpoint(
                name=f"xcit_{short_architecture}_224.{tag}",
                architecture=f"xcit_{short_architecture}_224",
                family="facebook",
                dialect="paper",
                url=f"{_FACEBOOK}/{file}_xcit_{short_architecture}.pth",
                preprocessing=Preprocessing(image_size=side, interpolation="bilinear"),
                num_classes=0,
                measures=tuple(
                    Measure(name, value, f"facebookresearch/xcit {source}/README")
                    for name, value in zip(names, figures, strict=True)
                ),
                notes=f"{network}: {_TAKEN[source]}, which has no class attention and no classifier; images keep "
                f"their aspect, the shorter side has {side} pixels",
            )


_MMPRETRAIN_FILES = "https://download.openmmlab.com/mmclassification/v0/xcit"


def _mmpretrain_checkpoints() -> Iterator[PublishedCheckpoint]:
    for short_name, (ending, top1, top5) in published.MMPRETRAIN.items():
        architecture, _, tag = f"xcit_{short_name}".partition(".")
        image_size = ARCHITECTURES[architecture].image_size
        stem = f"{architecture.rpartition('_')[0].replace('_', '-')}_3rdparty{'-dist' if 'dist' in tag else ''}_in1k"
        stem += "-384px" if image_size == 384 else ""
        yield PublishedCheckpoint(
            name=f"{architecture}.{tag}",
            architecture=architecture,
            family="mmpretrain",
            dialect="paper",
            url=f"{_MMPRETRAIN_FILES}/{stem}_{ending}.pth",
            # Its configs imagenet_bs64_swin_224 (the shorter side 256, cut to 224) and _384 (both sides resized).
            preprocessing=Preprocessing(crop_pct=0.875)
            if image_size == 224
            else Preprocessing(image_size=384, crop_mode="squash"),
            sha256=ending.partition("-")[2],
            accuracies=(Accuracy(top1, top5, "mmpretrain configs/xcit/metafile.yml"),),
            notes="facebook's weights under MMPretrain's names",
            copy_of=f"{architecture}.{tag.replace('mm_', 'fb_')}",
            aliases=(stem,),
        )


_MINDSPORE_OFFICIAL = PublishedCheckpoint(
    name="xcit_tiny_12_p16_224.ms_in1k",
    architecture="xcit_tiny_12_p16_224",
    family="mindcv",
    dialect="mindcv",
    url="https://download-mindspore.osinfra.cn/toolkits/mindcv/xcit/xcit_tiny_12_p16_224-bd90776e-910v2.ckpt",
    preprocessing=Preprocessing(crop_pct=0.875),
    sha256="bd90776e",
    accuracies=(
        Accuracy(77.27, 93.56, "MindSpore Hub card, metadata (2025)"),
        Accuracy(77.16, 93.57, "MindSpore Hub card, performance table (2025)"),
        Accuracy(77.674, 93.792, "MindCV README (2022, an earlier checkpoint)"),
    ),
    notes="the sources publish three different accuracies under one model name",
)

_BATCH_STATISTICS = (
    "trained and measured with the statistics of each batch (use_batch_statistics=True, which MindCV removed on "
    "27 April 2023): the published figure is not what the running averages give"
)


def _earlier_mindspore_checkpoints() -> Iterator[PublishedCheckpoint]:
    for tag, stem, sha256, accuracy in (
        ("ms_in1k_best", "xcit_tiny_12_p16_best", None, Accuracy(77.674, 93.792, "MindCV README (2022)")),
        (
            "ms_in1k_1b1c9301",
            "xcit_tiny_12_p16_224-1b1c9301",
            "1b1c9301",
            Accuracy(77.67, 93.79, "MindCV README (2023)"),
        ),
    ):
        yield PublishedCheckpoint(
            name=f"xcit_tiny_12_p16_224.{tag}",
            architecture="xcit_tiny_12_p16_224",
            family="mindcv",
            dialect="mindcv",
            url=f"https://download.mindspore.cn/toolkits/mindcv/xcit/{stem}.ckpt",
            preprocessing=Preprocessing(crop_pct=0.875),
            sha256=sha256,
            accuracies=(accuracy,),
            notes=_BATCH_STATISTICS,
        )


CHECKPOINTS: dict[str, PublishedCheckpoint] = {
    entry.name: entry
    for entry in (
        *_timm_checkpoints(),
        *_dino_checkpoints(),
        _MINDSPORE_OFFICIAL,
        *_dinos_own_checkpoints(),
        *_robust_checkpoints(),
        *_light_recipe_checkpoints(),
        *_dense_checkpoints(),
        *_mmpretrain_checkpoints(),
        *_earlier_mindspore_checkpoints(),
    )
}


def architecture(name: str) -> Architecture:
    """Return the architecture called ``name``, or that of the published checkpoint called ``name``.

    A name of the table with :data:`NO_POSITIONS` at its end is that architecture without a positional encoding.

    Raises:
        UnknownNameError: no such architecture; the message offers the closest names.
    """
    found = ARCHITECTURES.get(CHECKPOINTS[name].architecture if name in CHECKPOINTS else name)
    if found is None and name.endswith(NO_POSITIONS) and name.removesuffix(NO_POSITIONS) in ARCHITECTURES:
        found = without_positions(ARCHITECTURES[name.removesuffix(NO_POSITIONS)])
    if found is None:
        raise UnknownNameError(
            f"There is no XCiT architecture called {name!r}.",
            where="the name of the model",
            fix=closest(name, [*ARCHITECTURES, *CHECKPOINTS]) or "See `xcit-hub list` for all names.",
        )
    return found


def checkpoint(name: str) -> PublishedCheckpoint:
    """Return the published checkpoint called ``name``; a bare architecture means its first timm tag, as in timm.

    Raises:
        UnknownNameError: nobody published weights under that name.
    """
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    for entry in CHECKPOINTS.values():
        if entry.architecture == name:
            return entry
    raise UnknownNameError(
        f"There is no published XCiT checkpoint called {name!r}.",
        where="the name of the model",
        fix=closest(name, CHECKPOINTS) or "See `xcit-hub list --pretrained` for all names.",
    )


def dialect(name: str) -> Dialect:
    """Return the dialect called ``name``.

    Raises:
        UnknownNameError: it is none of :data:`DIALECTS`.
    """
    if name not in DIALECTS:
        choices = "; ".join(f"{entry.name}: {entry.explanation}" for entry in DIALECTS.values())
        raise UnknownNameError(
            f"There is no dialect called {name!r}.", where="dialect=… (--dialect)", fix=f"Choose one of: {choices}."
        )
    return DIALECTS[name]


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Return the names that match a shell pattern, sorted: architectures, or checkpoints if ``pretrained``."""
    names = CHECKPOINTS if pretrained else ARCHITECTURES
    return sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))
