"""What a trainer's own settings in a checkpoint say of the network and of its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xcit_hub.checkpoints.checkpoint import Checkpoint
from xcit_hub.checkpoints.strings import (
    GLOBAL_POOL,
    NORMALIZATION,
    POOLS,
    PREPROCESSING,
    global_pool,
    said_of_pool,
    same_levels,
)
from xcit_hub.variants import Architecture, Preprocessing

# Where trainers keep the name of the network that they were told to build: timm's saver, its and facebook's arguments,
# Lightning's parameters. It decides between networks of the same tensors, as sizes and strides do not show.
CALLED = ("arch", "args.model", "args.arch", "model_name", "hyper_parameters.model", "hyper_parameters.model_name")
# timm's arguments of the network, and what its factory takes from an option.
_ARGUMENTS, _EPSILON = "args.model_kwargs.", "args.bn_eps"
_LEVELS = ("args.mean", "args.std")
_SIZES = ("args.img_size", "args.input_size")
_WORDS = ("args.interpolation", "args.crop_mode")
_CROP = "args.crop_pct"
_OF_IMAGES = (*_LEVELS, *_SIZES, *_WORDS, _CROP)
# Arguments that change nothing of what is computed at inference, or that the tensors' shapes say.
_OF_TRAINING = ("drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "eta")
_MEASURED = ("num_classes", "in_chans")


def is_of_network(name: str) -> bool:
    """Whether a string or value of that name is a trainer's setting of the network or of its images."""
    is_of_images = name.startswith("args.") and ".".join(name.split(".")[:2]) in _OF_IMAGES
    return name in (*CALLED, *POOLS[1:], _EPSILON) or name.startswith(_ARGUMENTS) or is_of_images


def used(file: Checkpoint) -> list[str]:
    """Return a note where the pooling is what a trainer was told, and not the class token's.

    Raises:
        WeightsError: what the file says of the pooling is not a pooling.
    """
    name, pool = said_of_pool(file.metadata), global_pool(file.metadata)
    if name in (None, GLOBAL_POOL) or pool == "token":
        return []
    return [f"Its trainer says {name} = {pool!r}, which the classifier reads instead of the class token."]


def unused(file: Checkpoint, architecture: Architecture) -> list[str]:
    """Return a note for each setting that says something else than the network that is built, or than its images.

    Raises:
        WeightsError: what the file says of the pooling is not a pooling.
    """
    said: dict[str, Any] = {**file.metadata, **file.numbers}
    pool = global_pool(file.metadata)
    apart = {name: said[name] for name in POOLS[1:] if said.get(name, pool) != pool}
    apart |= _of_network(file, said, architecture)
    if PREPROCESSING not in said:  # which is what is read
        apart |= _of_images(file, architecture)
    return [
        f"Its trainer says {name}{'' if value is None else f' = {value!r:.60}'}, which is not used."
        for name, value in apart.items()
    ]


def _of_network(file: Checkpoint, said: Mapping[str, Any], built: Architecture) -> Iterator[tuple[str, Any]]:
    for full in (*file.metadata, *file.values):
        name = full.removeprefix(_ARGUMENTS)
        if full == _EPSILON and full in said:
            yield full, said[full]
        is_argument = name != full and full not in POOLS and name not in (*_OF_TRAINING, *_MEASURED)
        if is_argument and (full not in said or said[full] != getattr(built, name, None)):
            yield full, said.get(full)


def _of_images(file: Checkpoint, built: Architecture) -> Iterator[tuple[str, Any]]:
    seen = Preprocessing(image_size=built.image_size)
    for name, usual in zip(_LEVELS, (seen.mean, seen.std), strict=True):
        numbers = _numbers(file, name)
        if NORMALIZATION not in file.metadata and numbers and not same_levels(numbers, usual):
            yield name, numbers
    for name in _SIZES:
        numbers = _numbers(file, name)
        if set(numbers[-2:]) - {seen.image_size}:  # channels come first where there are three
            yield name, numbers
    for name, ours in zip(_WORDS, (seen.interpolation, seen.crop_mode), strict=True):
        if file.metadata.get(name) not in (None, "", ours):
            yield name, file.metadata[name]
    if file.numbers.get(_CROP) not in (None, seen.crop_pct):
        yield _CROP, file.numbers[_CROP]


def _numbers(file: Checkpoint, name: str) -> list[float]:
    """Return the numbers of a list, or the one that stands there alone; none where there are none."""
    several: list[float] = []
    while (number := file.numbers.get(f"{name}.{len(several)}")) is not None:
        several.append(number)
    return several or ([file.numbers[name]] if name in file.numbers else [])
