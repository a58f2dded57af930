"""What a hub entry says of its model, in two written forms: ``xcit_hub.json`` (ours) and timm's ``config.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from xcit_hub.errors import HubError, InputError
from xcit_hub.variants import (
    ARCHITECTURES,
    CHECKPOINTS,
    Architecture,
    DialectName,
    Family,
    Preprocessing,
    PublishedCheckpoint,
    Shape,
    architecture,
    reshaped,
)

FILE_NAME = "xcit_hub.json"
TIMM_FILE_NAME = "config.json"
_FORMAT = "xcit-hub/1"

T = TypeVar("T")
GlobalPool = Literal["token", "avg", ""]


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

    def to_json(self, weights: Mapping[str, str] | None = None) -> str:
        """Write ``xcit_hub.json``: this record and the SHA-256 of each weights file beside it."""
        record = {"format": _FORMAT, **asdict(self), "weights": dict(weights or {})}
        if self.custom is None:
            del record["custom"]
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"

    def to_timm(self) -> str:
        """Write timm's ``config.json``.

        A network that no timm model computes gets an architecture name that timm does not know, so that timm refuses
        it instead of giving other logits.
        """
        shape = self.shape
        side = self.preprocessing.image_size
        model_args: dict[str, object] = {}
        if self.in_chans != 3:
            model_args["in_chans"] = self.in_chans
        if self.global_pool != "token":
            model_args["global_pool"] = self.global_pool
        record: dict[str, object] = {
            "architecture": timm_architecture(self),
            "num_classes": self.num_classes,
            "num_features": shape.embed_dim,
            "global_pool": self.global_pool,
        }
        if model_args:
            record["model_args"] = model_args
        if self.labels:
            record["label_names"] = list(self.labels)
        record["pretrained_cfg"] = {
            "custom_load": False,
            "input_size": [self.in_chans, side, side],
            "interpolation": self.preprocessing.interpolation,
            "crop_pct": self.preprocessing.crop_pct,
            "crop_mode": "center",
            "mean": list(self.preprocessing.mean),
            "std": list(self.preprocessing.std),
            "num_classes": self.num_classes,
            "first_conv": "patch_embed.proj.0.0",
            "classifier": "head",
        }
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def timm_architecture(config: ModelConfig) -> str:
    """Return the name that ``config.json`` gives: timm's own for the paper's network, another for any other."""
    return config.architecture if config.dialect == "paper" else f"{config.architecture}_{config.dialect}"


def from_json(text: str, *, where: object = None) -> tuple[ModelConfig, dict[str, str]]:
    """Read ``xcit_hub.json``: the record, and the SHA-256 of each weights file.

    Raises:
        HubError: it is not such a file, or a field has a value that no model can have.
    """
    record = _object(text, where)
    if record.pop("format", None) != _FORMAT:
        raise _malformed(f"its format is not {_FORMAT!r}", where)
    weights = record.pop("weights", {})
    config = _validated(record, where)
    if not isinstance(weights, dict) or not all(_is_digest(value) for value in weights.values()):
        raise _malformed("'weights' does not map files to SHA-256 digests", where)
    return config, weights


def from_timm(text: str, *, where: object = None) -> ModelConfig | None:
    """Read timm's ``config.json``; what timm publishes is always the paper's network.

    Returns:
        The description; ``None`` for what our converter writes under that name beside an architecture that is in no
        table, which only its tensors describe.

    Raises:
        HubError: it is no such file, or describes another model than XCiT.
    """
    record = _object(text, where)
    if isinstance(record.get("xcit_hub"), dict):
        return _of_converter(record, where)
    pretrained = record.get("pretrained_cfg", record)
    if not isinstance(pretrained, dict):
        raise _malformed("'pretrained_cfg' is not an object", where)
    name = record.get("architecture")
    if name not in ARCHITECTURES:
        raise HubError(
            f"This repository holds {name!r}, which is no XCiT architecture that timm and xcit-hub share.",
            where=where,
            fix="Name a repository with XCiT weights; `xcit-hub list --pretrained` has timm's.",
        )
    arguments = record.get("model_args") or {}
    size = pretrained.get("input_size") or (3, ARCHITECTURES[name].image_size, ARCHITECTURES[name].image_size)
    labels = record.get("label_names") or pretrained.get("label_names") or ()
    num_classes = record.get("num_classes", pretrained.get("num_classes", 1000))
    if not labels and num_classes == 1000:
        labels = imagenet_labels()
    fields: dict[str, object] = {
        "architecture": name,
        "dialect": "paper",
        "num_classes": num_classes,
        "in_chans": arguments.get("in_chans", size[0]) if isinstance(arguments, dict) else size[0],
        "global_pool": record.get("global_pool", "token"),
        "preprocessing": {
            "image_size": size[-1],
            "crop_pct": pretrained.get("crop_pct", 1.0),
            "interpolation": pretrained.get("interpolation", "bicubic"),
            "mean": pretrained.get("mean", Preprocessing.mean),
            "std": pretrained.get("std", Preprocessing.std),
        },
        "labels": list(labels.values()) if isinstance(labels, dict) else labels,
    }
    return _validated(fields, where)


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
    crop = known.preprocessing.crop_pct if known else {"paper": 1.0, "mindcv": 0.875}[dialect]
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


def _of_converter(record: Mapping[str, Any], where: object) -> ModelConfig | None:
    if record.get("architecture") not in ARCHITECTURES:
        return None
    fields = {name: record[name] for name in ("architecture", "num_classes", "in_chans") if name in record}
    read = _validated(fields | {"dialect": record["xcit_hub"].get("dialect")}, where)
    described = of_architecture(read.architecture, read.dialect, num_classes=read.num_classes, in_chans=read.in_chans)
    return replace(described, labels=imagenet_labels() if read.num_classes == 1000 else ())


def _validated(fields: Mapping[str, object], where: object) -> ModelConfig:
    # By hand: this runs before every load, and building a pydantic model costs a tenth of a second. Unknown fields are
    # let through, as a later version may write more.
    shape = _typed(fields, "preprocessing", dict, {}, where)
    provenance = _typed(fields, "provenance", dict, {}, where)
    config = ModelConfig(
        architecture=_typed(fields, "architecture", str, "", where),
        dialect=_one_of(fields, "dialect", ("paper", "mindcv"), where),
        num_classes=_typed(fields, "num_classes", int, 1000, where),
        in_chans=_typed(fields, "in_chans", int, 3, where),
        global_pool=_one_of(fields, "global_pool", ("token", "avg", ""), where, "token"),
        preprocessing=Preprocessing(
            image_size=_typed(shape, "image_size", int, 224, where),
            crop_pct=_typed(shape, "crop_pct", float, 1.0, where),
            interpolation=_typed(shape, "interpolation", str, "bicubic", where),
            mean=_three(shape, "mean", Preprocessing.mean, where),
            std=_three(shape, "std", Preprocessing.std, where),
        ),
        labels=tuple(_each(fields, "labels", str, where)),
        provenance=Provenance(
            source=_typed(provenance, "source", str, "", where),
            family=_one_of(provenance, "family", ("timm", "facebook", "mindcv", "xcit-hub", None), where),
            notes=tuple(_each(provenance, "notes", str, where)),
        ),
        custom=_custom(fields, where),
    )
    if config.custom is None and config.architecture not in ARCHITECTURES:
        raise _malformed(f"architecture {config.architecture!r} is in no table", where)
    sound = (
        config.num_classes >= 0
        and config.in_chans > 0
        and 0 < config.preprocessing.image_size <= 4096
        and 0 < config.preprocessing.crop_pct <= 1
        and all(config.preprocessing.std)
        and len(config.labels) in (0, config.num_classes)
    )
    if not sound:
        raise _malformed("a number is out of range, or there are not as many labels as classes", where)
    return config


def _custom(fields: Mapping[str, object], where: object) -> Architecture | None:
    if fields.get("custom") is None:
        return None
    record = _typed(fields, "custom", dict, {}, where)
    shape = {name: value for name, value in record.items() if name not in ("name", "image_size")}
    lacking = {"patch_size", "embed_dim", "depth", "num_heads", "tokens_norm"} - shape.keys()
    image_size = _typed(record, "image_size", int, 0, where)
    if lacking or image_size < 1:
        raise _malformed(f"'custom' lacks {', '.join(sorted(lacking)) or 'an image_size'}", where)
    named = replace(
        ARCHITECTURES["xcit_nano_12_p16_224"],
        name=_typed(fields, "architecture", str, "", where),
        image_size=image_size,
    )
    try:
        return reshaped(named, cast(Shape, shape))
    except InputError as error:
        raise _malformed(f"'custom' has dimensions that no XCiT has: {error.what}", where) from error


def _typed(fields: Mapping[str, object], name: str, kind: type[T], default: T, where: object) -> T:
    value = fields.get(name, default)
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool) or not _is_finite(value):
        raise _malformed(f"{name}: {value!r:.40} is no {kind.__name__}", where)
    return value


def _one_of(fields: Mapping[str, object], name: str, known: tuple[Any, ...], where: object, default: Any = None) -> Any:
    value = fields.get(name, default)
    if not isinstance(value, str | None) or value not in known:
        raise _malformed(f"{name}: {value!r:.40} is none of {', '.join(map(repr, known))}", where)
    return value


def _each(fields: Mapping[str, object], name: str, kind: type[T], where: object) -> list[T]:
    values = fields.get(name, ())
    if not isinstance(values, list | tuple):
        raise _malformed(f"{name}: not a list", where)
    return [_typed({name: value}, name, kind, kind(), where) for value in values]


def _three(
    fields: Mapping[str, object], name: str, default: tuple[float, float, float], where: object
) -> tuple[float, float, float]:
    values = _each({name: fields.get(name, default)}, name, float, where)
    if len(values) != 3:
        raise _malformed(f"{name}: {len(values)} numbers instead of 3", where)
    return values[0], values[1], values[2]


def _object(text: str, where: object) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"not JSON ({error})", where) from None
    if not isinstance(record, dict):
        raise _malformed("not a JSON object", where)
    return record


def _is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _malformed(reason: str, where: object) -> HubError:
    return HubError(
        f"The model's description cannot be used: {reason}.",
        where=where,
        fix="Publish the model again, or name another revision.",
    )
