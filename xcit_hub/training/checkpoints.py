"""What a run leaves on the disk: checkpoints under a retention policy, and one file from which it continues.

Every file is written whole or not at all and only then are older ones deleted, so a full disk or a kill at any moment
costs at most the current epoch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xcit_hub._version import __version__
from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import CheckpointError, InputError
from xcit_hub.training.recipe import Recipe

STATE = "resume.safetensors"
_STATE_FORMAT = "1"

# What a continued run may change: places, speed, what is reported. Everything else would make it another run.
_MAY_CHANGE = frozenset(
    {
        "data_dir",
        "ckpt_save_dir",
        "num_parallel_workers",
        "log_interval",
        "val_interval",
        "keep_checkpoint_max",
        "ckpt_save_interval",
        "device_target",
        "resume_opt",
        "max_corrupt",
        "ckpt_path",
        "pretrained",
        "teacher_ckpt",
        "dataset_sink_mode",
        "val_while_train",
        "ckpt_save_policy",
        "distribute",
        "recompute",
        "jit_level",
    }
)


@dataclass(frozen=True)
class Best:
    """The best evaluated checkpoint: its file, what it scored in per cent on how many pictures, and its SHA-256."""

    name: str
    top1: float
    top5: float
    samples: int
    sha256: str


@dataclass
class Progress:
    """How far a run has come.

    Args:
        epochs_done: finished epochs.
        history: one record for each of them.
        kept: checkpoints that still exist, oldest first: file name and top-1, if it was evaluated.
        best: the best evaluated checkpoint, if any was evaluated.
        last_sha256: digest of the newest checkpoint.
        skipped_updates: updates left out because of overflow.
        unreadable: names of pictures that could not be read.
    """

    epochs_done: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    kept: list[tuple[str, float | None]] = field(default_factory=list)
    best: Best | None = None
    last_sha256: str | None = None
    skipped_updates: int = 0
    unreadable: list[str] = field(default_factory=list)


def save_state(folder: Path, arrays: Mapping[str, NDArray[Any]], recipe: Recipe, progress: Progress) -> None:
    """Write everything a continued run needs to ``folder``/resume.safetensors.

    Raises:
        XcitHubError: it cannot be written; the previous one is still there.
    """
    metadata = {
        "xcit_hub.state": _STATE_FORMAT,
        "xcit_hub.version": __version__,
        "recipe": recipe.model_dump_json(),
        "progress": json.dumps(asdict(progress)),
    }
    checkpoint.write(folder / STATE, arrays, metadata)


def load_state(
    folder: Path, like: Mapping[str, NDArray[Any]], recipe: Recipe
) -> tuple[dict[str, NDArray[Any]], Progress]:
    """Read ``folder``/resume.safetensors: the state of a run, with the names and shapes of ``like``, and its progress.

    Raises:
        CheckpointError: there is no such file, or it is another network's.
        InputError: the recipe differs from the one it was written under.
    """
    path = folder / STATE
    if not path.is_file():
        raise CheckpointError("There is no run to continue.", where=path, fix="Leave out --resume to start one.")
    with checkpoint.read(path) as stored:
        if stored.metadata.get("xcit_hub.state") != _STATE_FORMAT:
            raise CheckpointError("The file is not the state of a run.", where=path)
        _check_same(json.loads(stored.metadata["recipe"]), recipe, path)
        strangers = set(like) ^ set(stored.tensors)
        if strangers:
            raise CheckpointError(
                f"The state holds another network: {', '.join(sorted(strangers)[:5])} do not match.", where=path
            )
        arrays = {name: np.array(tensor.numpy()) for name, tensor in stored.tensors.items()}
        for name, array in arrays.items():
            if array.shape != like[name].shape:
                raise CheckpointError(f"{name} has shape {array.shape}, not {like[name].shape}.", where=path)
        told = json.loads(stored.metadata["progress"])
    told["kept"] = [(name, top1) for name, top1 in told["kept"]]
    told["best"] = None if told["best"] is None else Best(**told["best"])
    return arrays, Progress(**told)


def _check_same(stored: Mapping[str, Any], recipe: Recipe, path: Path) -> None:
    now = json.loads(recipe.model_dump_json())
    changed = [key for key in now if key not in _MAY_CHANGE and stored.get(key) != now[key]]
    if changed:
        listed = "; ".join(f"{key} was {stored.get(key)!r} and is {now[key]!r}" for key in changed)
        raise InputError(
            f"The run was started under another recipe: {listed}.",
            where=path,
            fix="Continue with the same recipe, or start anew in another ckpt_save_dir with --ckpt_path.",
        )


def save_checkpoint(
    path: Path, arrays: Mapping[str, NDArray[Any]], recipe: Recipe, classes: Sequence[str], metrics: Mapping[str, float]
) -> str:
    """Write weights that say what network they belong to; returns the file's SHA-256."""
    metadata = {
        "xcit_hub.architecture": recipe.model,
        "xcit_hub.dialect": recipe.dialect,
        "xcit_hub.family": "mindcv",
        "xcit_hub.version": __version__,
        "xcit_hub.image_size": str(recipe.image_resize),
        "xcit_hub.classes": json.dumps(list(classes)),
        **{f"xcit_hub.{name}": repr(value) for name, value in metrics.items()},
    }
    return checkpoint.write(path, arrays, metadata)


def retire(
    folder: Path, kept: list[tuple[str, float | None]], policy: Literal["top_k", "latest_k"] | None, limit: int
) -> list[tuple[str, float | None]]:
    """Delete the checkpoints that the policy no longer keeps, and return those that stay, oldest first.

    ``latest_k`` keeps the newest, ``top_k`` those with the best top-1 (unevaluated ones go first), None keeps all.
    """
    if policy is None or len(kept) <= limit:
        return kept
    ages = range(len(kept))
    if policy == "latest_k":
        staying = set(ages[-limit:])
    else:
        ranked = sorted(ages, key=lambda age: (-1.0 if kept[age][1] is None else kept[age][1], age), reverse=True)
        staying = set(ranked[:limit])
    for age in ages:
        if age not in staying:
            (folder / kept[age][0]).unlink(missing_ok=True)
    return [kept[age] for age in sorted(staying)]
