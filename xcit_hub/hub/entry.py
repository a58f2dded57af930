"""The files of a hub entry that describe and hold the weights; ``publish`` adds the cards and the proof.

``model.safetensors`` and ``config.json`` are as timm reads them, ``xcit_hub.json`` is ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.families import TIMM_TAGS
from xcit_hub.checkpoints.identify import ARCHITECTURE_ASSUMED, HEAD_UNTRAINED
from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.errors import InputError
from xcit_hub.files import scratch_folder, sha256_of, write_text
from xcit_hub.hub import config, metadata, timm_config
from xcit_hub.hub.config import ModelConfig
from xcit_hub.variants import Family

if TYPE_CHECKING:
    import numpy as np
    from mindspore import nn
    from numpy.typing import NDArray


def arrays_of(network: nn.Cell) -> dict[str, NDArray[np.generic]]:
    """Return a network's parameters and buffers as float32 arrays, by our names.

    Raises:
        InputError: the network is fused: its parameters are another network's.
    """
    from xcit_hub import accelerated  # MindSpore is not imported for the rest

    if accelerated.is_fused(network):
        raise InputError(
            "A fused network is not a checkpoint: what was trained is folded into constants.",
            where="the network",
            fix="Save the network that fuse() was called on; it is unchanged.",
        )
    return {name: value.float().asnumpy() for name, value in network.parameters_dict().items()}


def digest_of(cell: nn.Cell) -> str | None:
    """Return the SHA-256 of a cell's parameters as they are now, 64 hex digits; None where it has none."""
    parameters = cell.parameters_dict().values()
    digest = hashlib.sha256(b"".join(value.float().asnumpy().tobytes() for value in parameters))
    return digest.hexdigest() if parameters else None


def write_weights(
    folder: Path,
    arrays: Mapping[str, NDArray[np.generic]],
    description: ModelConfig,
    *,
    head_untrained: bool = False,
    assumed: bool = False,
) -> dict[str, Path]:
    """Write ``model.safetensors`` (timm's naming), ``config.json`` and ``xcit_hub.json`` into ``folder``.

    Args:
        arrays: every parameter and buffer by MindCV's names.
        head_untrained: the classifier is the random numbers that it began as, which the file then says.
        assumed: nothing tells the architecture from the one of the other image size, which the file then says.

    Returns:
        Each file by its path in the entry.
    """
    with scratch_folder() as scratch:
        ours = scratch / "ours.safetensors"
        marks = {
            "xcit_hub.architecture": description.stored_as,
            "xcit_hub.dialect": description.dialect,
            "xcit_hub.family": "xcit-hub",
            **metadata.to_metadata(description),
            **({HEAD_UNTRAINED: "true"} if head_untrained else {}),
            **({ARCHITECTURE_ASSUMED: "true"} if assumed else {}),
        }
        checkpoint.write(ours, arrays, marks)
        return write_from(folder, ours, description, assumed=assumed)


def write_from(
    folder: Path, source: Path | MappedFile, description: ModelConfig, *, ema: bool = False, assumed: bool = False
) -> dict[str, Path]:
    """Write what :func:`write_weights` writes, of a checkpoint of any family.

    Args:
        ema: take the averaged weights of a training checkpoint.
        assumed: as for :func:`write_weights`.
    """
    files = {path: folder / path for path in ("model.safetensors", timm_config.FILE_NAME, config.FILE_NAME)}
    converted(source, files["model.safetensors"], "timm", description, ema=ema, assumed=assumed)
    write_text(files[timm_config.FILE_NAME], timm_config.write(description))
    digests = {"model.safetensors": sha256_of(files["model.safetensors"])}
    write_text(files[config.FILE_NAME], description.to_json(digests))
    return files


def converted(
    source: Path | MappedFile,
    target: Path,
    family: Family,
    description: ModelConfig,
    *,
    ema: bool = False,
    assumed: bool = False,
) -> dict[str, Any]:
    """Convert ``source`` into ``family`` at ``target``, and return the report without what differs from run to run."""
    from xcit_hub.checkpoints.rewrite import rewrite

    # timm's layout holds the other dialect only under the name of this project's class for it.
    tag = f".{TIMM_TAGS[description.dialect]}" if family == "timm" and description.dialect in TIMM_TAGS else ""
    with scratch_folder(target.parent, f".{target.name}.", ".tmp") as aside:
        # The converter describes what it writes in a file of its own; an entry has better descriptions.
        written = aside / target.name
        report = rewrite(
            source,
            written,
            to=family,
            model=(("" if assumed else description.stored_as) + tag) or None,  # a model that is named is a fact
            dialect=description.dialect,
            ema=ema,
            described=metadata.to_metadata(description),
        ).as_dict()
        written.replace(target)
    report.pop("seconds")
    report["versions"] = {"xcit-hub": report["versions"]["xcit-hub"]}
    for side in ("source", "target"):
        report[side]["path"] = Path(report[side]["path"]).name
    return report
