"""The configuration beside a checkpoint: where it stands, what it says, and whether it is of this very file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xcit_hub.checkpoints.checkpoint import Checkpoint
from xcit_hub.errors import WeightsError
from xcit_hub.files import is_file, open_regular

_LARGEST = 8 << 20


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


def unread(checkpoint: str | os.PathLike[str]) -> str | None:
    """Say that a configuration stands beside a file and is not read with it, as it was not written for this very file.

    Such a one describes the folder: timm's, or a hub entry's. Only who reads the folder reads it.
    """
    path = config_path(checkpoint)
    if not is_file(path) or is_ours(path):
        return None
    return (
        f"{path.name} stands beside {Path(checkpoint).name}, which was read alone: nothing that it says, such as how "
        "images are prepared, was used. xcit_hub.load(FOLDER) reads both."
    )


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
            content = json.loads(stream.read(_LARGEST).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
