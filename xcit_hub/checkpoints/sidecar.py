"""The configuration beside a checkpoint: where it stands, what it says, and whether it is of this very file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xcit_hub import strict_json
from xcit_hub.checkpoints import strings as file_strings
from xcit_hub.checkpoints.checkpoint import Checkpoint
from xcit_hub.checkpoints.checkpoint import read as read_checkpoint
from xcit_hub.errors import WeightsError, XcitHubError
from xcit_hub.files import is_file, open_regular
from xcit_hub.variants import NO_POSITIONS

_LARGEST = 8 << 20

# What a folder's reader takes of timm's form, at any of its levels, and no tensor shows; the architecture beside it.
_READ = (
    *("input_size", "fixed_input_size", "img_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"),
    *("global_pool", "tokens_norm", "label_names", "labels", "id2label", "label2id"),
)


def config_path(target: str | os.PathLike[str]) -> Path:
    """Return where the configuration beside a checkpoint stands.

    ``model.safetensors`` and ``pytorch_model.bin`` are the only checkpoint of their folder and have ``config.json``,
    as on Hugging Face; any other file ``name.suffix`` has ``name.config.json``.
    """
    path = Path(target)
    alone = path.stem in ("model", "pytorch_model")
    return path.with_name("config.json" if alone else f"{path.stem}.config.json")


@dataclass(frozen=True)
class ConfigBeside:
    """What the configuration beside a file is to it.

    Args:
        agrees: whether it was written for exactly this file; if not, nothing in it is used.
        sentence: the same in words, for the user.
    """

    agrees: bool
    sentence: str


def check_config(opened: Checkpoint) -> ConfigBeside | None:
    """Hold the configuration beside a file against it; None if there is none, or it is that of another file there.

    Raises:
        WeightsError: the file is not the one it was written for any more, or says something else of itself.
    """
    path = config_path(opened.path)
    config = _read(path)
    ours = config.get("xcit_hub")
    if not isinstance(ours, dict) or not isinstance(ours.get("sha256"), str):
        return None
    if ours["sha256"] != opened.sha256:
        named = ours.get("file")
        if named == opened.path.name:
            raise WeightsError(
                f"{opened.path.name} was changed since {path.name} was written: its SHA-256 is not "
                f"{ours['sha256'][:16]}… any more.",
                where=opened.path,
                fix=f"Restore the file, or delete {path.name} if the change was meant.",
            )
        if _is_of_a_neighbour(path, named):
            return None
        written_for = repr(named) if isinstance(named, str) else "other bytes"
        return ConfigBeside(False, f"{path.name} was written for {written_for}, not for this; nothing in it was used.")
    for key, said in (("architecture", config.get("architecture")), ("dialect", ours.get("dialect"))):
        own = opened.metadata.get(f"xcit_hub.{key}")
        if own is not None and said is not None and said != own:
            raise WeightsError(
                f"{path.name} says {key} {said!r}, and {opened.path.name}, for which it was written, says {own!r}.",
                where=opened.path,
                fix=f"Delete {path.name}, or restore it.",
            )
    return ConfigBeside(True, f"{path.name} was written for this file")


def unread(source: str | os.PathLike[str] | Checkpoint) -> str | None:
    """Say what a configuration beside a file tells and the file does not, where it was not written for this very file.

    Such a one describes the folder: timm's, or a hub entry's. Only who reads the folder reads it. Our own entries' says
    little that the file's strings do not.
    """
    file = source.path if isinstance(source, Checkpoint) else Path(source)
    path = config_path(file)
    if not is_file(path) or is_ours(path):
        return None
    config = _read(path)
    lost = _lost(config, _metadata(source))
    if config and not lost:
        return None
    said = f"what it says of {', '.join(lost)} was not used" if config else "nothing in it was used"
    return f"{path.name} stands beside {file.name}, which was read alone: {said}. xcit_hub.load(FOLDER) reads both."


def strings(opened: Checkpoint) -> dict[str, str]:
    """Return what the configuration beside a file says of it, if it was written for exactly that file."""
    ours = _read(config_path(opened.path)).get("xcit_hub")
    if not isinstance(ours, dict) or ours.get("sha256") != opened.sha256:
        return {}
    return {f"xcit_hub.{key}": value for key, value in ours.items() if isinstance(value, str)}


def is_ours(path: Path) -> bool:
    """Whether a configuration was written by this project, and may be replaced."""
    ours = _read(path).get("xcit_hub")
    return isinstance(ours, dict) and "sha256" in ours


def _lost(config: Mapping[str, Any], metadata: Mapping[str, str]) -> list[str]:
    """Name what a configuration says, its folder's reader reads, and neither tensors nor these strings say the same."""
    inner = (config.get(level) for level in ("pretrained_cfg", "model_args"))
    levels = [config, *(level for level in inner if isinstance(level, dict))]
    own = {"global_pool": "token", **file_strings.described(metadata)}
    lost = [name for name in _READ if any(level.get(name) not in (None, own.get(name)) for level in levels)]
    return lost if _names_it(config.get("architecture"), metadata) else ["architecture", *lost]


def _names_it(told: object, metadata: Mapping[str, str]) -> bool:
    """Whether a configuration's name for the architecture is timm's for the one that these strings name."""
    name, dialect = (metadata.get(f"xcit_hub.{key}", "") for key in ("architecture", "dialect"))
    alike = {each for bare in (name, name.removesuffix(NO_POSITIONS)) for each in (bare, f"{bare}_{dialect}")}
    return told is None or told in [*alike] or name.startswith("xcit_custom_")  # which the tensors' own shapes say


def _metadata(source: str | os.PathLike[str] | Checkpoint) -> Mapping[str, str]:
    if isinstance(source, Checkpoint):
        return source.metadata
    try:
        with read_checkpoint(source, late=True) as opened:
            return opened.metadata
    except XcitHubError:  # who reads its tensors says it
        return {}


def _is_of_a_neighbour(config: Path, name: object) -> bool:
    if not isinstance(name, str):
        return False
    try:
        neighbour = config.with_name(name)
        return config_path(neighbour) == config and neighbour.exists()
    except (OSError, ValueError):  # no file can have that name
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as stream:
            content = strict_json.parsed(stream.read(_LARGEST).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
