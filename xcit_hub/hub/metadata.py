"""What a checkpoint's own strings say of images, classifier and classes: read, written, held against a description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from xcit_hub import strict_json
from xcit_hub.checkpoints.strings import CLASSES, GLOBAL_POOL, PREPROCESSING, global_pool, said_of_pool, same_levels
from xcit_hub.hub.config import ModelConfig, check_levels, imagenet_labels, preprocessing_of
from xcit_hub.hub.fields import Reader, malformed, parsed
from xcit_hub.variants import Preprocessing

# Fields of the images' string beside the size, which it has to say.
_SAID_OF_IMAGES = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
_LEVELS = (f"{PREPROCESSING}.mean", f"{PREPROCESSING}.std")


def preprocessing_from_metadata(
    text: str, where: object, in_chans: int | None = None, otherwise: Preprocessing | None = None
) -> Preprocessing:
    """Read the string ``xcit_hub.preprocessing`` of a checkpoint: JSON of all :func:`preprocessing_to_metadata` writes.

    Args:
        in_chans: of the network, where that is known.
        otherwise: what is assumed of the fields that it lacks; :func:`assumed_of_images` names them.

    Raises:
        HubError: it is malformed, has a field that is not known, or is of other channels.
    """
    reader = Reader(parsed(text, where), "xcit_hub.preprocessing.", where)
    size = reader.wholes("input_size", 3)
    if size is None:
        raise malformed("xcit_hub.preprocessing lacks input_size", where)
    if in_chans not in (None, size[0]):
        raise malformed(f"xcit_hub.preprocessing.input_size has {size[0]} channels, the network {in_chans}", where)
    shape = {name: reader.take(name) for name in _SAID_OF_IMAGES}
    if unknown := reader.rest():
        raise malformed(f"xcit_hub.preprocessing has the unknown field {unknown[0]!r}", where)
    given = {name: value for name, value in shape.items() if value is not None}
    assumed = asdict(otherwise or Preprocessing())
    return preprocessing_of({**assumed, **given, "image_size": size[1], "image_width": size[2]}, where)


def not_said_of_images(metadata: Mapping[str, str]) -> list[str]:
    """Name the fields that a checkpoint's string ``xcit_hub.preprocessing`` lacks; none where there is no such string.

    Raises:
        HubError: it is malformed.
    """
    if PREPROCESSING not in metadata:
        return []
    told = parsed(metadata[PREPROCESSING], PREPROCESSING)
    return [name for name in _SAID_OF_IMAGES if told.get(name) is None]


def assumed_of_images(metadata: Mapping[str, str], taken: Preprocessing) -> tuple[str, ...]:
    """Say what a checkpoint's string ``xcit_hub.preprocessing`` lacks, and what was assumed.

    Args:
        taken: what was read of it.
    """
    lacking = not_said_of_images(metadata)
    return tuple(f"{PREPROCESSING} does not say {name}: {getattr(taken, name)} was assumed" for name in lacking)


def preprocessing_to_metadata(preprocessing: Preprocessing, in_chans: int) -> str:
    """Write what :func:`preprocessing_from_metadata` reads."""
    record = {
        "input_size": [in_chans, *preprocessing.size],
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "interpolation": preprocessing.interpolation,
        "crop_pct": preprocessing.crop_pct,
        "crop_mode": preprocessing.crop_mode,
    }
    return json.dumps(record)


def to_metadata(described: ModelConfig) -> dict[str, str]:
    """Write the strings that :func:`with_metadata` reads.

    ImageNet's names are not among them: data is matched by these, and ImageNet's folders are called otherwise.
    """
    is_own = described.labels not in ((), imagenet_labels())
    classes = {CLASSES: json.dumps(described.labels)} if is_own else {}
    pool = {} if described.global_pool == "token" else {GLOBAL_POOL: described.global_pool}
    return {PREPROCESSING: preprocessing_to_metadata(described.preprocessing, described.in_chans), **pool, **classes}


def classes_from_metadata(text: str, num_classes: int, where: object) -> tuple[str, ...]:
    """Read the string ``xcit_hub.classes`` of a checkpoint: a JSON list of the classes' names, in order.

    Raises:
        HubError: it is not one name for each class.
    """
    try:
        names = strict_json.parsed(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or len(names) != num_classes or not all(isinstance(name, str) for name in names):
        raise malformed(f"xcit_hub.classes does not name {num_classes} classes", where)
    return tuple(names)


def with_metadata(described: ModelConfig, metadata: Mapping[str, str], where: object) -> ModelConfig:
    """Return a bare checkpoint's description with what its own strings say of images, classifier and classes.

    Raises:
        HubError, WeightsError: one of them is malformed.
    """
    if said_of_pool(metadata) is not None:
        described = replace(described, global_pool=global_pool(metadata, where))
    if PREPROCESSING in metadata:
        assumed = described.preprocessing
        told = preprocessing_from_metadata(metadata[PREPROCESSING], where, described.in_chans, assumed)
        described = replace(described, preprocessing=told)
    if CLASSES in metadata and described.num_classes:
        labels = classes_from_metadata(metadata[CLASSES], described.num_classes, where)
        described = replace(described, labels=labels)
    check_levels(described, where)
    return described


def unlike(described: ModelConfig, metadata: Mapping[str, str], where: object) -> tuple[str, ...]:
    """Say what a checkpoint's own strings say otherwise than the description that was taken.

    Raises:
        HubError, WeightsError: one of them is malformed.
    """
    told = with_metadata(described, metadata, where)
    taken, otherwise = (
        {said_of_pool(metadata) or GLOBAL_POOL: each.global_pool}
        | {f"{PREPROCESSING}.{name}": value for name, value in asdict(each.preprocessing).items()}
        for each in (described, told)
    )
    notes = [
        f"the weights' own {name} is {value!r}; the description's {taken[name]!r} was taken"
        for name, value in otherwise.items()
        if value != taken[name] and not (name in _LEVELS and same_levels(value, taken[name]))
    ]
    if told.labels != described.labels:
        instead = "the description's were taken" if described.labels else "the description names none"
        notes.append(f"the weights' own {CLASSES} names other classes ({', '.join(told.labels[:3])} …); {instead}")
    return tuple(notes)
