"""How far a run has come, and the one file from which it continues.

The file may have been changed by anybody: it is taken as a whole or refused. No name in it leads out of the run's
folder, every number is finite, and its counters agree with one another.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xcit_hub import strict_json
from xcit_hub._version import __version__
from xcit_hub.checkpoints import checkpoint
from xcit_hub.data.folders import readable
from xcit_hub.errors import CheckpointError, InputError
from xcit_hub.files import is_file
from xcit_hub.run_record import Epoch
from xcit_hub.training.recipe import Recipe

STATE = "resume.safetensors"
_FORMAT = "2"  # 1: xcit-hub 0.1.0
_LISTED = 5
_POSITIVE = ("adam_v.", "mean_square.", "adan_n.")  # what optimizers keep of squares
_SHOWN = 80  # characters of a value in a message
_ANEW = "Start anew in another ckpt_save_dir, from the last checkpoint with --ckpt_path."

# Of what a continued run may change: where its first weights came from, which it does not look for again.
_BEGUN_WITH = ("ckpt_path", "pretrained")
_UNTOLD = ("resume_opt", "dialect", *_BEGUN_WITH)

_UNTIMED: Mapping[str, Any] = {"first_step": None, "timed_steps": 0, "timed_seconds": 0.0}

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
        "recovery_interval",
        "real_labels",
        "loggers",
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
        "dialect",  # may be left out where the checkpoint says it; the state's own is compared below
    }
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Best(_Strict):
    """The best evaluated weights: their file, what they scored in per cent on how many images, and its SHA-256.

    Args:
        weights: ``trained`` or ``average``.
        loss: mean cross-entropy.
    """

    name: str
    weights: str = Field(pattern="^(trained|average)$")
    top1: float = Field(ge=0, le=100)
    top5: float | None = Field(default=None, ge=0, le=100)
    loss: float = Field(ge=0)
    samples: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Kept(_Strict):
    """A checkpoint that still exists: its file name, and the top-1 of the better of its weights if evaluated."""

    name: str
    top1: float | None = Field(default=None, ge=0, le=100)


class Part(_Strict):
    """What is done of an epoch that has begun: steps, the sum of their losses, and the seconds they took."""

    steps: int = Field(default=0, ge=0)
    loss: float = 0.0
    seconds: float = Field(default=0.0, ge=0)


class Progress(_Strict):
    """How far a run has come.

    Args:
        workers: that take each step together.
        steps: of an epoch.
        dialect: what the network computes.
        classes: of the training data, in the order of the network's outputs.
        images: how many are trained on and a digest of their classes, see :func:`told_of`; None in older states.
        validation: the same of those that are evaluated meanwhile; None where none are.
        teacher: the SHA-256 of the file of the teacher's weights; None where there is no teacher, or no such file.
        started_from: the checkpoint or model id it began with.
        epochs_done: finished epochs.
        part: what is done of the next one.
        history: one record for each of them.
        kept: checkpoints that still exist, oldest first.
        best: the best evaluated weights, if any were evaluated.
        last_sha256: digest of the newest checkpoint.
        skipped_updates: updates left out because of overflow; skipped_in_a_row: the newest of them.
        unreadable: names of images that could not be read.
        first_step: seconds of the very first step.
        timed_steps, timed_seconds: steps that were timed in steady state, and their sum.
        timed_on: what these times depend on and a continued run may change; None in older states.
    """

    workers: int = Field(ge=1)
    steps: int = Field(ge=1)
    dialect: str
    classes: list[str]
    images: str | None = None
    validation: str | None = None
    teacher: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    started_from: str | None = None
    epochs_done: int = Field(default=0, ge=0)
    part: Part = Part()
    history: list[dict[str, int | float]] = []
    kept: list[Kept] = []
    best: Best | None = None
    last_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    skipped_updates: int = Field(default=0, ge=0)
    skipped_in_a_row: int = Field(default=0, ge=0)
    unreadable: list[str] = []
    first_step: float | None = Field(default=None, ge=0)
    timed_steps: int = Field(default=0, ge=0)
    timed_seconds: float = Field(default=0.0, ge=0)
    timed_on: dict[str, str] | None = None

    @property
    def steps_done(self) -> int:
        """Steps since the beginning of the run."""
        return self.epochs_done * self.steps + self.part.steps


def checkpoint_name(model: str, epoch: int, steps: int) -> str:
    """Return the file name of an epoch's checkpoint, in MindCV's form."""
    return f"{model}-{epoch}_{steps}.ckpt"


def average_name(name: str) -> str:
    """Return the file name of the moving average that stands beside a checkpoint."""
    return f"{name.removesuffix('.ckpt')}_ema.ckpt"


def best_name(model: str) -> str:
    """Return the file name of the best weights of a run."""
    return f"{model}_best.ckpt"


def save_state(folder: Path, arrays: Mapping[str, NDArray[Any]], recipe: Recipe, progress: Progress) -> None:
    """Write everything a continued run needs to ``folder``/resume.safetensors.

    Raises:
        XcitHubError: it cannot be written; the previous one is still there.
    """
    metadata = {
        "xcit_hub.state": _FORMAT,
        "xcit_hub.version": __version__,
        "recipe": recipe.model_dump_json(),
        "progress": progress.model_dump_json(),
    }
    checkpoint.write(folder / STATE, arrays, metadata)


def stored_progress(folder: Path, recipe: Recipe) -> Progress:
    """Read the progress alone of ``folder``/resume.safetensors.

    Raises:
        CheckpointError: there is no such file, it is damaged, or of another version.
        InputError: the recipe differs from that it was written under.
    """
    path = _state_in(folder)
    with checkpoint.read(path) as stored:
        return _progress(stored.metadata, recipe, path)


def told_of(labels: NDArray[np.int64]) -> str:
    """Return how many images there are and a digest of which class each is of: other data is another run."""
    return f"{len(labels)} (classes {hashlib.sha256(labels.tobytes()).hexdigest()[:16]})"


def timed_otherwise(stored: Progress, timed_on: Mapping[str, str]) -> list[str]:
    """Return a sentence where the steps of a state were timed under other conditions than those of now."""
    if stored.first_step is None or stored.timed_on == timed_on:
        return []
    before = stored.timed_on or {}
    changed = [
        f"{key} was {_short(before[key])!r} and is {value!r}"
        for key, value in timed_on.items()
        if key in before and before[key] != value
    ]
    why = "; ".join(changed) or "the state does not say what they were taken on"
    return [f"the times of run.json will be those of this process alone: {why}"]


def as_begun(folder: Path, recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Return the recipe with the first weights that the run in ``folder`` had, and what of it is otherwise than there.

    Raises:
        CheckpointError: there is no such run, it is damaged, or of another version.
    """
    path = _state_in(folder)
    with checkpoint.read(path) as stored:
        written = _described(stored.metadata, path)
    now = json.loads(recipe.model_dump_json())
    begun = {key: written[key] for key in _BEGUN_WITH if isinstance(written.get(key), str | bool)}
    notes = [
        f"{key} has no effect: the run goes on with its own weights"
        for key, value in begun.items()
        if now[key] and now[key] != value
    ]
    changed = [
        f"{key} was {_short(repr(_before(key, written)))} and is {_short(repr(now[key]))}"
        for key in sorted(_MAY_CHANGE.difference(_UNTOLD))
        if _before(key, written) != now[key]
    ]
    if changed:
        notes.append(f"changed since the run began: {'; '.join(changed)}")
    return recipe.model_copy(update=begun), notes


def _state_in(folder: Path) -> Path:
    path = folder / STATE
    if not is_file(path):
        raise CheckpointError("There is no run to continue.", where=path, fix="Leave out --resume to start one.")
    return path


def load_state(
    folder: Path, like: Mapping[str, NDArray[Any]], recipe: Recipe, expected: Progress
) -> tuple[dict[str, NDArray[Any]], Progress]:
    """Read ``folder``/resume.safetensors: the state of a run, and its progress.

    Args:
        like: arrays with the names, shapes and dtypes that the state must have.
        expected: the progress of a run that begins here: workers, steps, dialect, classes, images and teacher must be
            the same.

    Raises:
        CheckpointError: there is no such file, it is damaged, of another version, or another network's.
        InputError: the recipe, the data or the number of workers differ from those it was written under.
    """
    path = _state_in(folder)
    with checkpoint.read(path) as stored:
        progress = _progress(stored.metadata, recipe, path)
        before = _described(stored.metadata, path).get("data_dir")
        _check_data(progress, expected, path)
        strangers = set(like) ^ set(stored.tensors)
        if strangers:
            raise CheckpointError(
                f"The state holds another network: {', '.join(sorted(strangers)[:_LISTED])} do not match.",
                where=path,
                fix=_ANEW,
            )
        arrays = {name: np.array(tensor.numpy()) for name, tensor in stored.tensors.items()}
    _check_arrays(arrays, like, path)
    _check_counters(arrays, recipe, progress, path)
    untold = {key: getattr(expected, key) for key in _SAID if getattr(progress, key) is None}
    update: dict[str, Any] = {**untold, "unreadable": _moved(progress.unreadable, before, recipe)}
    if progress.epochs_done < recipe.epoch_size:  # else no step is taken, and those before are timed as they were
        update |= {**(_UNTIMED if progress.timed_on != expected.timed_on else {}), "timed_on": expected.timed_on}
    return arrays, progress.model_copy(update=update)


def _moved(names: list[str], before: Any, recipe: Recipe) -> list[str]:
    """Return the names of images as they are where the data is now: one that moved would count twice."""
    if not isinstance(before, str):
        return names
    # What the names of a folder's files begin with.
    old, new = (readable(Path(folder) / "x").removesuffix("x") for folder in (before, recipe.data_dir))
    return list(dict.fromkeys(new + name.removeprefix(old) if name.startswith(old) else name for name in names))


def _described(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    version = metadata.get("xcit_hub.state")
    if version is None:
        raise CheckpointError("The file is not the state of a run.", where=path, fix=_ANEW)
    if version != _FORMAT:
        raise CheckpointError(
            f"The state was written by xcit-hub {metadata.get('xcit_hub.version', 'of another version')} "
            f"(format {version}); this one continues format {_FORMAT}.",
            where=path,
            fix="Finish the run with that version, or start anew from its last checkpoint with --ckpt_path.",
        )
    try:
        recipe = strict_json.parsed(metadata["recipe"])
    except (KeyError, ValueError, RecursionError) as error:
        raise _damaged("its recipe cannot be read", path) from error
    if not isinstance(recipe, dict) or "model" not in recipe:
        raise _damaged("its recipe cannot be read", path)
    return recipe


def _progress(metadata: Mapping[str, str], recipe: Recipe, path: Path) -> Progress:
    _check_recipe(_described(metadata, path), recipe, path)  # what follows is judged by it
    try:
        progress = Progress.model_validate_json(metadata["progress"])
    except KeyError as error:
        raise _damaged("it does not say how far the run has come", path) from error
    except ValidationError as error:
        fault = error.errors()[0]
        raise _damaged(f"progress, {'.'.join(map(str, fault['loc']))}: {fault['msg']}", path) from error
    if progress.epochs_done > recipe.epoch_size or len(progress.history) != progress.epochs_done:
        raise _damaged(
            f"{progress.epochs_done} of {recipe.epoch_size} epochs are done and {len(progress.history)} recorded", path
        )
    if progress.part.steps >= progress.steps or (progress.part.steps and progress.epochs_done == recipe.epoch_size):
        raise _damaged(f"{progress.part.steps} steps of epoch {progress.epochs_done + 1} are done", path)
    for number, record in enumerate(progress.history, 1):
        if record.get("epoch") != number or "loss" not in record:
            raise _damaged(f"record {number} of its history is not that of an epoch", path)
        try:
            Epoch.of(record)
        except ValidationError as error:
            fault = error.errors()[0]
            raise _damaged(f"record {number} of its history, {fault['loc'][0]}: {fault['msg']}", path) from error
    ours = re.compile(rf"{re.escape(recipe.model)}-[1-9]\d{{0,8}}_[1-9]\d{{0,17}}\.ckpt")
    names = [entry.name for entry in progress.kept]
    wrong = [name for name in names if not ours.fullmatch(name)]
    if progress.best is not None and progress.best.name != best_name(recipe.model):
        wrong.append(progress.best.name)
    if wrong or len(set(names)) != len(names):
        raise _damaged(f"it calls {_short(repr(wrong[0] if wrong else names[-1]))} a checkpoint of the run", path)
    return progress


def _check_recipe(written: Mapping[str, Any], recipe: Recipe, path: Path) -> None:
    now = json.loads(recipe.model_dump_json())
    changed = [
        f"{key} was {_short(repr(_before(key, written)))} and is {_short(repr(now[key]))}"
        for key in now
        if _changed(key, written, now)
    ]
    _refuse([*changed, *(f"{_short(key)} is not a key" for key in written if key not in now)], path)


def _check_data(stored: Progress, expected: Progress, path: Path) -> None:
    said = {key: (getattr(stored, key), getattr(expected, key)) for key in _SAID}
    _refuse(
        [
            f"the {_SAID[key]} were {_short(before)} and are {_short(after)}"
            for key, (before, after) in said.items()
            if before != after and None not in (before, after)  # an older state does not say all of it
        ],
        path,
    )


def _refuse(changed: list[str], path: Path) -> None:
    if changed:
        raise InputError(
            f"The run was started under another recipe: {'; '.join(changed)}.",
            where=path,
            fix="Continue with the same recipe, data and workers, or start anew in another ckpt_save_dir with "
            "--ckpt_path.",
        )


_SAID = {
    "workers": "workers",
    "steps": "steps of an epoch",
    "dialect": "network's rules (dialect)",
    "classes": "classes",
    "images": "images",
    "validation": "images to evaluate",
    "teacher": "teacher's weights",
}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _changed(key: str, written: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return key not in _MAY_CHANGE and _before(key, written) != now[key]


def _before(key: str, written: Mapping[str, Any]) -> Any:
    """Return what a state says of a key; one that is older than the key means its default."""
    default = Recipe.model_fields[key].default
    return written.get(key, list(default) if isinstance(default, tuple) else default)


def _check_arrays(arrays: Mapping[str, NDArray[Any]], like: Mapping[str, NDArray[Any]], path: Path) -> None:
    for name, array in arrays.items():
        if array.shape != like[name].shape or array.dtype != like[name].dtype:
            raise CheckpointError(
                f"{name} is {array.dtype} {array.shape}, not {like[name].dtype} {like[name].shape}.",
                where=path,
                fix=_ANEW,
            )
        if not np.isfinite(array).all():
            raise _damaged(f"{name} is not finite", path)
        positive = name.startswith(_POSITIVE) or name.endswith(".moving_variance") or not array.ndim
        if positive and (array < 0).any():
            raise _damaged(f"{name} is negative", path)


def _check_counters(arrays: Mapping[str, NDArray[Any]], recipe: Recipe, progress: Progress, path: Path) -> None:
    taken = progress.steps_done
    due, position = divmod(taken, recipe.gradient_accumulation_steps)
    expected = {"updates": due - progress.skipped_updates, "accumulated": position, "dropout_step": taken}
    for name, value in expected.items():
        if name in arrays and float(arrays[name]) != value:
            raise _damaged(f"{name} is {float(arrays[name]):g} after {taken} steps, not {value}", path)


def _damaged(what: str, path: Path) -> CheckpointError:
    return CheckpointError(
        f"The state of the run is damaged: {what}.",
        where=path,
        fix=_ANEW,
    )
