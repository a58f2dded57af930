"""What a hub entry says of its model: the record, and its written form ``xcit_hub.json``.

timm's form is read and written by :mod:`xcit_hub.hub.timm_config`, a checkpoint's own strings by
:mod:`xcit_hub.hub.metadata`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as fields_of
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from xcit_hub.deprecated import moved_names
from xcit_hub.errors import InputError
from xcit_hub.hub.fields import (
    IGNORED,
    drop_ignored,
    each_of,
    ignored_note,
    is_digest,
    malformed,
    one_of,
    parsed,
    typed,
)
from xcit_hub.variants import (
    ARCHITECTURES,
    CHECKPOINTS,
    DIALECTS,
    Architecture,
    DialectName,
    Family,
    GlobalPool,
    Preprocessing,
    PublishedCheckpoint,
    Shape,
    architecture,
    has_name,
    reshaped,
)

FILE_NAME = "xcit_hub.json"
# The second is written where the first one's readers would prepare images wrongly: other crop modes, other shapes.
_FORMATS = ("xcit-hub/1", "xcit-hub/2")

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
IMAGENET_MEAN = Preprocessing.mean
IMAGENET_STD = Preprocessing.std

_MOST_CLASSES = 1_000_000
_MOST_CHANNELS = 1024
LARGEST_SIDE = 4096  # pixels of an image
LARGEST_RESIZED = 2 * LARGEST_SIDE  # of the image that it is cut out of
_LARGEST_CROP = 4.0


@dataclass(frozen=True)
class Provenance:
    """Where a network's weights came from.

    Args:
        source: the address they were read from.
        revision: the hub's commit, where there is one.
        sha256: digest of the weights file that was read, 64 hex digits.
        family: the naming that file used.
        verified: what the digest was held against: the hub's own digest, a published prefix, or nothing.
        notes: anything a reader has to know, such as an unreachable hub or a replaced classifier.
    """

    source: str = ""
    revision: str | None = None
    sha256: str | None = None
    family: Family | None = None
    verified: Literal["full", "prefix", "none"] = "none"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelConfig:
    """Everything but the weights: enough to build the network, feed it and read its answer.

    Args:
        architecture: a name of :data:`xcit_hub.variants.ARCHITECTURES`; any other with ``custom``.
        dialect: ``paper`` or ``mindcv``; what the network computes.
        num_classes: rows of the classifier; 0 for a backbone.
        in_chans: channels of the input image.
        global_pool: what the classifier sees.
        preprocessing: how a photograph becomes the input.
        labels: the classes' names in order; empty where nobody named them.
        provenance: where the weights came from; empty in a file that has not been published.
        custom: the dimensions of an architecture that is in no table.
    """

    architecture: str
    dialect: DialectName
    num_classes: int = 1000
    in_chans: int = 3
    global_pool: GlobalPool = "token"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    labels: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    custom: Architecture | None = None

    @property
    def shape(self) -> Architecture:
        """The architecture's dimensions: its entry in the variant table, or its own."""
        return self.custom or architecture(self.architecture)

    @property
    def stored_as(self) -> str:
        """The name by which a checkpoint's reader calls the architecture; in one of no table, strides do not show."""
        shape = self.shape
        if has_name(self.architecture) and architecture(self.architecture) == shape:
            return self.architecture
        return self.measured_as

    @property
    def measured_as(self) -> str:
        """The name that tensors alone give the architecture."""
        shape = self.shape
        return f"xcit_custom_{shape.embed_dim}x{shape.depth}_h{shape.num_heads}_p{2 ** len(shape.stem_strides)}_224"

    def to_json(self, weights: Mapping[str, str] | None = None) -> str:
        """Write ``xcit_hub.json``: this record and the SHA-256 of each weights file beside it."""
        seen = self.preprocessing
        is_old = seen.crop_mode == "center" and seen.image_width is None and len(seen.mean) == len(seen.std) == 3
        record = {"format": _FORMATS[0 if is_old else 1], **asdict(self), "weights": dict(weights or {})}
        if self.custom is None:
            del record["custom"]
        if is_old:
            del record["preprocessing"]["crop_mode"], record["preprocessing"]["image_width"]
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


_FIELDS = frozenset(each.name for each in fields_of(ModelConfig))
_SHAPE_FIELDS = frozenset(each.name for each in fields_of(Preprocessing))
_SOURCE_FIELDS = frozenset(each.name for each in fields_of(Provenance))


@dataclass(frozen=True)
class Description:
    """What the files beside the weights say of a model.

    Args:
        config: None where only the tensors describe it.
        digests: the SHA-256 of each weights file, where it is said.
        unused: each field that changes nothing here, and why.
        notes: what the reader has to know of it.
        converted: the SHA-256 of the one file that a converter wrote it for; None where anything else wrote it.
    """

    config: ModelConfig | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    converted: str | None = None


def from_json(text: str, *, where: object = None, ignore: frozenset[str] = frozenset()) -> Description:
    """Read ``xcit_hub.json``.

    Args:
        ignore: fields to read as if they were not there.

    Raises:
        HubError: it is not such a file, or a field has a value that no model can have.
    """
    record = parsed(text, where)
    inner = {f"{name}.": dict(value) for name, value in record.items() if isinstance(value, dict) and name != "weights"}
    ignored = drop_ignored({"": record, **inner}, ignore)
    record |= {level.removesuffix("."): value for level, value in inner.items() if level.removesuffix(".") in record}
    if record.pop("format", None) not in _FORMATS:
        raise malformed(f"its format is not {_FORMATS[0]!r} or {_FORMATS[1]!r}; a later version wrote it", where)
    weights = record.pop("weights", {})
    if not isinstance(weights, dict) or not all(is_digest(value) for value in weights.values()):
        raise malformed("'weights' does not map files to SHA-256 digests", where)
    unknown = [name for name in record if name not in _FIELDS]
    notes = [ignored_note(name) for name in ignored]
    notes += [f"the description's field {name} is not known, and was not used" for name in unknown]
    for level, known in (("preprocessing", _SHAPE_FIELDS), ("provenance", _SOURCE_FIELDS)):
        inside = record.get(level)
        if isinstance(inside, dict):
            names = [f"{level}.{name}" for name in inside if name not in known]
            notes += [f"the description's field {name} is not known, and was not used" for name in names]
            unknown += names
    unused = dict.fromkeys(ignored, IGNORED) | dict.fromkeys(unknown, "unknown; of a later version?")
    told = record.get("provenance")
    for name, kinds in _OF_THE_READ_FILE.items():
        value = told.get(name) if isinstance(told, dict) else None
        if value not in kinds and not (isinstance(value, str) and str in kinds):
            raise malformed(f"provenance.{name}: {value!r:.40} is not one of its kind", where)
        if value not in (None, "none"):
            unused[f"provenance.{name}"] = _OF_THE_PUBLISHED
    config = validated(record, where)
    unused |= {
        f"provenance.{name}": _OF_THE_PUBLISHED
        for name in ("source", "family", "notes")
        if getattr(config.provenance, name)
    }
    notes += [
        f"the description does not say {name}: {value} was assumed"
        for name, value in _assumed(record, config)
        if name not in ignored
    ]
    return Description(config, weights, unused, tuple(notes))


def _assumed(record: Mapping[str, object], config: ModelConfig) -> Iterator[tuple[str, object]]:
    """What decides the answers, is written by every version, and is not there; with what takes its place."""
    yield from ((name, getattr(config, name)) for name in ("num_classes", "in_chans") if name not in record)
    if "global_pool" not in record:
        yield "global_pool", repr(config.global_pool)
    seen = record.get("preprocessing", {})
    for name in ("image_size", "crop_pct", "interpolation", "mean", "std"):
        if isinstance(seen, dict) and name not in seen:
            yield f"preprocessing.{name}", getattr(config.preprocessing, name)


_OF_THE_PUBLISHED = "of the file that was published; load says it of the one that it reads"
# Fields of a description's provenance that load finds out itself → what they may be.
_OF_THE_READ_FILE: dict[str, tuple[object, ...]] = {
    "revision": (None, str),
    "sha256": (None, str),
    "verified": (None, "full", "prefix", "none"),
}


def of_published(entry: PublishedCheckpoint) -> ModelConfig:
    """Return what the variant table knows of a published checkpoint."""
    return ModelConfig(
        architecture=entry.architecture,
        dialect=entry.dialect,
        num_classes=entry.num_classes,
        preprocessing=entry.preprocessing,
        labels=imagenet_labels() if entry.num_classes == 1000 else (),
    )


def of_architecture(
    of: str | Architecture, dialect: DialectName, *, num_classes: int = 1000, in_chans: int = 3
) -> ModelConfig:
    """Return what can be said of a bare checkpoint file: its family's preprocessing, and no labels.

    MindCV evaluates at crop 0.875, the paper's code and timm at 1.0.

    Args:
        of: an architecture's name, or one that need not be in any table.

    Raises:
        UnknownNameError: there is no architecture of that name.
    """
    shape = architecture(of) if isinstance(of, str) else of
    name = shape.name
    known = next((e for e in CHECKPOINTS.values() if e.architecture == name and e.dialect == dialect), None)
    crop = known.preprocessing.crop_pct if known else 1.0 if dialect == "paper" else 0.875
    return ModelConfig(
        architecture=name,
        dialect=dialect,
        num_classes=num_classes,
        in_chans=in_chans,
        preprocessing=Preprocessing(image_size=shape.image_size, crop_pct=crop),
        custom=None if ARCHITECTURES.get(name) == shape else shape,
    )


@cache
def imagenet_labels() -> tuple[str, ...]:
    """Return the 1000 ImageNet-1k class names in the order of the classifier's rows (WordNet lemmas)."""
    text = Path(__file__).with_name("imagenet_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def validated(fields: Mapping[str, object], where: object, *, custom: Architecture | None = None) -> ModelConfig:
    """Return the description that ``fields`` are, each of its kind and range.

    Args:
        custom: the dimensions of an architecture that is in no table, where ``fields`` does not say them.

    Raises:
        HubError: a field has a value that no model can have.
    """
    # By hand: this runs before every load, and building a pydantic model costs a tenth of a second.
    provenance = typed(fields, "provenance", dict, {}, where)
    config = ModelConfig(
        architecture=typed(fields, "architecture", str, "", where),
        dialect=one_of(fields, "dialect", tuple(DIALECTS), where),
        num_classes=typed(fields, "num_classes", int, 1000, where),
        in_chans=typed(fields, "in_chans", int, 3, where),
        global_pool=one_of(fields, "global_pool", ("token", "avg", ""), where, "token"),
        preprocessing=preprocessing_of(typed(fields, "preprocessing", dict, {}, where), where),
        labels=tuple(each_of(fields, "labels", str, where)),
        provenance=Provenance(
            source=typed(provenance, "source", str, "", where),
            family=one_of(provenance, "family", (*get_args(Family), None), where),
            notes=tuple(each_of(provenance, "notes", str, where)),
        ),
        custom=custom or _custom(fields, where),
    )
    if config.custom is None and config.architecture not in ARCHITECTURES:
        raise malformed(f"architecture {config.architecture!r:.60} is in no table", where)
    if config.custom is not None:
        _check_dimensions(config.custom, where)
    if not 0 <= config.num_classes <= _MOST_CLASSES or not 0 < config.in_chans <= _MOST_CHANNELS:
        raise malformed(f"{config.num_classes} classes and {config.in_chans} channels", where)
    check_levels(config, where)
    if len(config.labels) not in (0, config.num_classes):
        raise malformed(f"{len(config.labels)} labels for {config.num_classes} classes", where)
    return config


def check_levels(config: ModelConfig, where: object) -> None:
    """Make sure that mean and deviation are of the network's channels.

    Raises:
        HubError: they are not.
    """
    # Of a grey image timm takes the mean of what is said of each channel; what has other channels is not a file's.
    for name in ("mean", "std"):
        levels = getattr(config.preprocessing, name)
        if config.in_chans == 3 and len(levels) not in (1, 3):
            raise malformed(f"{name}: {len(levels)} numbers for 3 channels", where)


def preprocessing_of(fields: Mapping[str, object], where: object) -> Preprocessing:
    """Return the preprocessing that ``fields`` are: ``image_size`` is the height, ``image_width`` the width if another.

    Raises:
        HubError: a field has a value that no preprocessing can have.
    """
    side = typed(fields, "image_size", int, 224, where)
    width = fields.get("image_width")
    read = Preprocessing(
        image_size=side,
        crop_pct=typed(fields, "crop_pct", float, 1.0, where),
        interpolation=one_of(fields, "interpolation", INTERPOLATIONS, where, "bicubic"),
        mean=_per_channel(fields, "mean", IMAGENET_MEAN, where),
        std=_per_channel(fields, "std", IMAGENET_STD, where),
        crop_mode=one_of(fields, "crop_mode", CROP_MODES, where, "center"),
        image_width=None if width is None else _other(typed(fields, "image_width", int, 0, where), side),
    )
    if not all(0 < each <= LARGEST_SIDE for each in read.size):
        raise malformed(f"an image of {read.size[0]}×{read.size[1]} pixels", where)
    if not 0 < read.crop_pct <= _LARGEST_CROP or max(read.size) / read.crop_pct > LARGEST_RESIZED:
        raise malformed(f"crop_pct: {read.crop_pct!r} for an image of {read.size[0]}×{read.size[1]} pixels", where)
    if not all(each > 0 for each in read.std):
        raise malformed("std: a channel's is not above 0", where)
    return read


def _custom(fields: Mapping[str, object], where: object) -> Architecture | None:
    if fields.get("custom") is None:
        return None
    record = typed(fields, "custom", dict, {}, where)
    shape = {name: value for name, value in record.items() if name not in ("name", "image_size")}
    if record.get("name", fields.get("architecture")) != fields.get("architecture"):
        raise malformed(f"'custom' is called {record['name']!r:.60}, the architecture otherwise", where)
    lacking = {"patch_size", "embed_dim", "depth", "num_heads", "tokens_norm", "image_size"} - record.keys()
    if lacking:
        raise malformed(f"'custom' lacks {', '.join(sorted(lacking))}", where)
    named = replace(
        ARCHITECTURES["xcit_nano_12_p16_224"],
        name=typed(fields, "architecture", str, "", where),
        image_size=typed(record, "image_size", int, 0, where),
    )
    try:
        return reshaped(named, cast(Shape, shape))
    except InputError as error:
        raise malformed(f"'custom' has dimensions that no XCiT has: {error.what}", where) from error


def _check_dimensions(shape: Architecture, where: object) -> None:
    try:
        reshaped(shape, cast(Shape, {name: getattr(shape, name) for name in Shape.__annotations__}))
    except InputError as error:
        raise malformed(f"it has dimensions that no XCiT has: {error.what}", where) from error
    if not 0 < shape.image_size <= LARGEST_SIDE:
        raise malformed(f"it is of images of {shape.image_size} pixels", where)


def _per_channel(
    fields: Mapping[str, object], name: str, default: tuple[float, ...], where: object
) -> tuple[float, ...]:
    values = each_of({name: fields.get(name, default)}, name, float, where)
    if not 0 < len(values) <= _MOST_CHANNELS:
        raise malformed(f"{name}: {len(values)} numbers", where)
    return tuple(values)


def _other(width: int, height: int) -> int | None:
    return None if width == height else width


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
