"""huggingface_hub's cache layout, for every store: blobs named by their digest, snapshots that point at them, refs.

::

    models--org--name/
      blobs/<sha256>                 the bytes, once, never changed
      snapshots/<revision>/<path>    links to blobs
      refs/<branch>                  the revision a branch is at

``layout.py`` reads it, ``repository.py`` writes to it; ``listing.py`` and ``pruning.py`` are the cache commands, which
go by huggingface_hub's own scan and deletion (``scan.py``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xcit_hub.hub.cache.digests import (
    digest_in,
    digest_like,
    git_sha1_in,
    git_sha1_of,
    is_commit,
    revision_of,
    wrong_bytes,
)
from xcit_hub.hub.cache.layout import SHARED_BLOBS_DIR_NAME, Layout, default_folder
from xcit_hub.hub.cache.repository import Repository, copy_into

if TYPE_CHECKING:
    from xcit_hub.hub.cache.listing import Damage, Entry, entries, names, verify
    from xcit_hub.hub.cache.pruning import HOUR, prune

__all__ = [
    "HOUR",
    "SHARED_BLOBS_DIR_NAME",
    "Damage",
    "Entry",
    "Layout",
    "Repository",
    "copy_into",
    "default_folder",
    "digest_in",
    "digest_like",
    "entries",
    "git_sha1_in",
    "git_sha1_of",
    "is_commit",
    "names",
    "prune",
    "revision_of",
    "verify",
    "wrong_bytes",
]

_COMMANDS = {
    **dict.fromkeys(("Damage", "Entry", "entries", "names", "verify"), "listing"),
    **dict.fromkeys(("HOUR", "prune"), "pruning"),
}


def __getattr__(name: str) -> Any:
    # The commands' modules take time to import, which who loads a model does not wait for.
    if name not in _COMMANDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_COMMANDS[name]}"), name)
