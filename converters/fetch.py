"""The file that a source means: itself, or what was published under its name."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.errors import HubError, XcitHubError
from xcit_hub.files import is_there
from xcit_hub.variants import ARCHITECTURES, CHECKPOINTS, checkpoint

_TIMM = "timm/"


def source_file(source: str | os.PathLike[str]) -> tuple[Path | MappedFile, str | None]:
    """Return the file that a source means, and the model it must be if it is a published name: then it is fetched, and
    open, so that what was hashed is what is converted.

    Raises:
        HubError: it cannot be fetched, or is published in no place a program may fetch from.
    """
    path = Path(source)
    name = os.fspath(source).removeprefix(_TIMM)  # as `xcit-hub load` takes it, too
    if is_there(path) or (name not in CHECKPOINTS and name not in ARCHITECTURES):
        return path, None
    entry = checkpoint(name)
    if entry.repository is None:
        raise HubError(
            f"{entry.name} is published as a plain file, not in a repository.",
            where=entry.url,
            fix="Download it, and give the file as the source.",
        )
    from xcit_hub.hub.locate import locate

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are not the user's business
    try:
        return locate(f"hf://{entry.repository}").open(), entry.name
    except XcitHubError as error:
        raise HubError(
            f"{entry.name} could not be fetched: {error.what}",
            where=f"https://huggingface.co/{entry.repository}",
            fix="Check the network and HF_ENDPOINT, or download model.safetensors and give it as the source.",
        ) from error
