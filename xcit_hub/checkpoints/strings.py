"""The strings of a checkpoint that speak of its images, classifier and classes; what a conversion makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, get_args

from xcit_hub import strict_json
from xcit_hub.errors import WeightsError
from xcit_hub.variants import GlobalPool

PREPROCESSING = "xcit_hub.preprocessing"  # JSON: how evaluation prepared an image, in timm's words
GLOBAL_POOL = "xcit_hub.global_pool"  # what the classifier reads, where that is not the class token
POOLS = (GLOBAL_POOL, "args.gp", "args.model_kwargs.global_pool", "hyper_parameters.global_pool")
"""Our own string, and what trainers were told: timm's as its option or as an argument of the network, Lightning's."""
CLASSES = "xcit_hub.classes"  # JSON: what the classifier's rows are called, in their order
EXPORT = "xcit-hub-export/1"  # xcit_hub.format of an exported file: the version of what it says of itself
NORMALIZATION = "xcit_hub.normalization"  # JSON: [mean, deviation] of each channel, found in a wrapper

_SAME_LEVEL = 5e-4  # means and deviations are published with three or four digits
_LEVELS = 4  # channels at most
_LARGEST = 1 << 16

Levels = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of each channel."""


class Converted(Protocol):
    """What is asked of weights (:class:`xcit_hub.checkpoints.weights.Weights`, which reads these strings itself)."""

    notes: list[str]
    normalization: Levels | None
    global_pool: GlobalPool

    @property
    def num_classes(self) -> int:
        """Rows of the classifier."""

    @property
    def in_chans(self) -> int:
        """Input channels of the first convolution."""


def carried(weights: Converted, had: int, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the strings that hold of weights after a conversion as well; a note says which are left behind.

    Args:
        weights: as they are to be written.
        had: classes of the source.
        metadata: the source's strings.
    """
    kept: dict[str, str] = {}
    notes, num_classes = weights.notes, weights.num_classes
    if weights.global_pool != "token":
        kept[GLOBAL_POOL] = weights.global_pool
    if weights.normalization is not None:
        if fit(weights.in_chans, *weights.normalization):
            kept[NORMALIZATION] = json.dumps(weights.normalization)
        else:
            notes.append(f"Dropped mean and deviation: they are not of {weights.in_chans} channels.")
    if CLASSES in metadata and num_classes:
        names = _parsed(metadata[CLASSES])
        if not isinstance(names, list) or len(names) != had or not all(isinstance(name, str) for name in names):
            notes.append(f"Dropped {CLASSES}: it does not name the {had} classes of the file.")
        elif num_classes > had:
            notes.append(f"Dropped {CLASSES}: the new classifier's classes are others.")
        else:
            kept[CLASSES] = metadata[CLASSES] if num_classes == had else json.dumps(names[:num_classes])
    if PREPROCESSING in metadata:
        seen = _parsed(metadata[PREPROCESSING])
        size = seen.get("input_size") if isinstance(seen, dict) else None
        if isinstance(seen, dict) and isinstance(size, list) and len(size) == 3:
            same = size[0] == weights.in_chans
            moved = {**seen, "input_size": [weights.in_chans, *size[1:]]}
            levels = [seen[name] for name in ("mean", "std") if isinstance(seen.get(name), list)]
            if not same and not fit(weights.in_chans, *levels):
                moved = {name: each for name, each in moved.items() if name not in ("mean", "std")}
                notes.append(f"Dropped mean and deviation: they are not of {weights.in_chans} channels.")
            kept[PREPROCESSING] = metadata[PREPROCESSING] if same else json.dumps(moved)
        else:
            notes.append(f"Dropped {PREPROCESSING}: it does not say how an image is prepared.")
    return kept


def described(strings: Mapping[str, str]) -> dict[str, Any]:
    """Return what the strings say as fields of a timm-like configuration; who reads them refuses the malformed."""
    found: dict[str, Any] = {}
    levels, seen = (_parsed(strings.get(name, "null")) for name in (NORMALIZATION, PREPROCESSING))
    if isinstance(levels, list) and len(levels) == 2:
        found["mean"], found["std"] = levels
    if isinstance(seen, dict):
        found |= seen
    if (pool := strings.get(GLOBAL_POOL, "token")) != "token":
        found |= {"global_pool": pool, "model_args": {"global_pool": pool}}  # timm builds by the second
    if CLASSES in strings:
        found["label_names"] = _parsed(strings[CLASSES])
    return found


def normalization(metadata: Mapping[str, str]) -> Levels | None:
    """Read :data:`NORMALIZATION`; None where it is absent.

    Raises:
        WeightsError: it is not two lists of as many numbers.
    """
    if NORMALIZATION not in metadata:
        return None
    pair = _parsed(metadata[NORMALIZATION])
    if isinstance(pair, list) and len(pair) == 2 and all(_are_levels(levels) for levels in pair):
        mean, std = (tuple(map(float, levels)) for levels in pair)
        if len(mean) == len(std):
            return mean, std
    raise WeightsError(
        f"{NORMALIZATION} of the file is not a mean and a deviation: {metadata[NORMALIZATION]:.60}.",
        fix="Take the file from where it was written.",
    )


def apart_from_levels(metadata: Mapping[str, str], levels: Levels) -> str | None:
    """Say what :data:`PREPROCESSING` says of mean and deviation, where it is other than these; None where it is not."""
    seen = _parsed(metadata.get(PREPROCESSING, "null"))
    told = [seen.get(name) for name in ("mean", "std")] if isinstance(seen, dict) else [None]
    if not all(map(_are_levels, told)):  # who reads the string says what it lacks
        return None
    is_same = all(same_levels(cast(list[float], one), other) for one, other in zip(told, levels, strict=True))
    return None if is_same else f"mean {told[0]}, deviation {told[1]}"


def fit(in_chans: int, *levels: Sequence[float]) -> bool:
    """Whether these can be mean and deviation of a network of so many channels; only of 3 are others refused."""
    return in_chans != 3 or all(len(each) in (1, 3) for each in levels)


def same_levels(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the channels' numbers are the same as far as they are published; one number is every channel's."""
    several = max(len(one), len(other))
    both = zip(*(list(each) * (several if len(each) == 1 else 1) for each in (one, other)), strict=False)
    return all(abs(left - right) <= _SAME_LEVEL for left, right in both)


def said_of_pool(metadata: Mapping[str, str]) -> str | None:
    """Return which of :data:`POOLS` decides; None where none is there."""
    return next((name for name in POOLS if name in metadata), None)


def global_pool(metadata: Mapping[str, str], where: object = None) -> GlobalPool:
    """Read the first of :data:`POOLS` that is there; "token" where none is.

    Raises:
        WeightsError: it is none of the three.
    """
    name = said_of_pool(metadata) or GLOBAL_POOL
    told = metadata.get(name, "token")
    for pool in get_args(GlobalPool):
        if told == pool:
            return cast(GlobalPool, pool)
    raise WeightsError(
        f"{name} of the file is {told!r:.60}, and a network's is 'token', 'avg' or ''.",
        where=where,
        fix="Take the file from where it was written.",
    )


def _are_levels(levels: object) -> bool:
    if not isinstance(levels, list) or not 0 < len(levels) <= _LEVELS:
        return False
    return all(type(each) in (int, float) and abs(each) < _LARGEST for each in levels)


def _parsed(text: str) -> Any:
    try:
        return strict_json.parsed(text)
    except (ValueError, RecursionError):
        return None
