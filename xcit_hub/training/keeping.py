"""The checkpoints of a run: written whole with what they are, and deleted under a retention policy.

Every file is written whole or not at all and only then are older ones deleted, so a full disk or a kill at any moment
costs at most the current epoch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from xcit_hub import strict_json
from xcit_hub._version import __version__
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.checkpoint import Checkpoint
from xcit_hub.checkpoints.strings import CLASSES, PREPROCESSING
from xcit_hub.checkpoints.weights import Weights
from xcit_hub.errors import CheckpointError, InputError
from xcit_hub.run_record import SeenImages
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import alike
from xcit_hub.training.resume import Kept, average_name

_SHOWN, _LISTED = 40, 5  # characters and numbers of what a file says


def save_checkpoint(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    recipe: Recipe,
    *,
    dialect: str,
    classes: Sequence[str],
    weights: str,
    metrics: Mapping[str, float],
) -> str:
    """Write weights that say what network they belong to and how it was evaluated; returns the file's SHA-256.

    Args:
        classes: what the outputs are called.
        weights: ``trained`` or ``average``.
        metrics: epoch, and what was measured.
    """
    metadata = {
        "xcit_hub.architecture": recipe.model,
        "xcit_hub.dialect": dialect,
        "xcit_hub.family": "mindcv",
        "xcit_hub.version": __version__,
        "xcit_hub.image_size": "×".join(str(side) for side in dict.fromkeys(recipe.input_size)),
        "xcit_hub.weights": weights,
        PREPROCESSING: recipe.seen_images.model_dump_json(),
        CLASSES: json.dumps(list(classes)),
        **{f"xcit_hub.{name}": repr(value) for name, value in metrics.items()},
    }
    return checkpoint.write(path, arrays, metadata)


def output_names(classes: Sequence[str], outputs: int) -> list[str]:
    """Return a name for every output of a network: those of its classes, then what tells that nothing trained it."""
    return [*classes, *(f"(unused {number})" for number in range(len(classes), outputs))]


def stored_classes(stored: Checkpoint) -> list[str] | None:
    """Return what a checkpoint calls its outputs; None where it does not say.

    Raises:
        InputError: what it says is not a list of different names.
    """
    text = stored.metadata.get(CLASSES)
    if text is None:
        return None
    try:
        names = strict_json.parsed(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(
            f"{CLASSES} of the checkpoint is not a list of different names.",
            where=stored.path,
            fix="Take the file as the training wrote it.",
        )
    return names


def stored_images(stored: Checkpoint) -> dict[str, Any]:
    """Return what a checkpoint says of the images it was shown, by the fields of ``SeenImages``; often nothing.

    Raises:
        CheckpointError: what it says is not such fields.
    """
    try:
        told = json.loads(stored.metadata.get(PREPROCESSING, "{}"))
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise CheckpointError(
            f"{PREPROCESSING} of the checkpoint cannot be read.",
            where=stored.path,
            fix="Take the file as its training wrote it.",
        )
    return {name: told[name] for name in SeenImages.model_fields if told.get(name) is not None}


def stored_notes(loaded: Weights) -> tuple[str, ...]:
    """Return what is to be known of weights that were read, but which architecture was assumed: a recipe names it."""
    return tuple(note for note in loaded.notes if not (loaded.assumed and note.startswith("Assumed ")))


def other_images(told: Mapping[str, Any], recipe: Recipe) -> str:
    """Return in words where weights were shown images otherwise than a recipe shows them; empty where they were not.

    Args:
        told: fields of ``SeenImages`` with what is said of the weights.
    """
    used = recipe.seen_images.model_dump(mode="json")
    return ", ".join(
        f"{name} {_shown(value)} (here {_shown(used[name])})"
        for name, value in told.items()
        if not alike(value, used[name])
    )


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value[:_LISTED]))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:_SHOWN]


def telling_names(labels: Sequence[str]) -> list[str] | None:
    """Return a description's names of classes; None where no data's classes can be held against them.

    ImageNet's words are such: two of its birds are called crane, and its folders otherwise.
    """
    return list(labels) if labels and len(set(labels)) == len(labels) else None


def retire(folder: Path, kept: list[Kept], policy: Literal["top_k", "latest_k"] | None, limit: int) -> list[Kept]:
    """Delete the checkpoints that the policy no longer keeps, averages with them; return those that stay, oldest first.

    ``latest_k`` keeps the newest, ``top_k`` those with the best top-1 (unevaluated ones go first), None keeps all.
    """
    if policy is None or len(kept) <= limit:
        return kept
    ages = range(len(kept))
    if policy == "latest_k":
        staying = set(ages[-limit:])
    else:
        scores = [-1.0 if entry.top1 is None else entry.top1 for entry in kept]
        staying = set(sorted(ages, key=lambda age: (scores[age], age), reverse=True)[:limit])
    for age in ages:
        if age not in staying:
            for name in (kept[age].name, average_name(kept[age].name)):
                (folder / name).unlink(missing_ok=True)
    return [kept[age] for age in sorted(staying)]
