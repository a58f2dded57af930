"""huggingface_hub's scan and deletion of one model, guarded.

Left to itself the scan opens whatever stands among a model's refs, so it waits at a pipe; it breaks off at a ref that
is not text, or that a publisher is just renaming; and it leaves a model out for one broken link, or for a branch that a
killed publisher left half-written. So it is shown a folder of links to what is sound, and what is not is named by
:mod:`xcit_hub.hub.cache.listing`. Its deletion takes a commit from every model that has it, and equal files under two
names have equal commits here: it is shown one model. It removes a revision file by file: that happens beside the
revision's place, so that nobody sees half of one, and no kill leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import replace
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Any

from xcit_hub.errors import InputError
from xcit_hub.files import is_file, read_bounded, real_path, scratch_folder
from xcit_hub.hub.cache.digests import digest_like
from xcit_hub.hub.cache.layout import SHARED_BLOBS_DIR_NAME, Layout, below, listed

if TYPE_CHECKING:
    from huggingface_hub import DeleteCacheStrategy, HFCacheInfo

_LARGEST_LIST = 8 << 20


def scan(layout: Layout) -> HFCacheInfo:
    """Return what huggingface_hub's scan says of a model's revisions.

    The paths of blobs are those of :meth:`Layout.blob_of`; the others are not real ones. Branches are not shown to it,
    nor links to nothing and what is not a file.
    """
    from huggingface_hub import scan_cache_dir

    with scratch_folder() as view:
        snapshots = view / layout.folder.name / "snapshots"
        # Without a revision that stays deletion takes the whole folder, branches and all.
        (snapshots / "kept").mkdir(parents=True)
        for commit in layout.revisions():
            shown = snapshots / commit
            shown.mkdir()
            for number, path in enumerate(filter(is_file, below(layout.folder / "snapshots" / commit))):
                (shown / str(number)).symlink_to(layout.blob_of(path))
        return scan_cache_dir(view)


def deletion(layout: Layout, commits: Set[str]) -> DeleteCacheStrategy:
    """Return what goes with some revisions: their snapshots, and the blobs that no other revision has.

    Executed, it takes also what several models share (:func:`shared_by`), if these blobs were the last that lead there.
    """
    blobs = {layout.blob_of(blob): blob for blob in listed(layout.folder / "blobs")}
    found = scan(layout).delete_revisions(*commits)
    gone = frozenset(blobs[blob] for blob in found.blobs if blob in blobs)
    # huggingface_hub has such a store since 2.4, and looks for it in the cache that is named.
    store: dict[str, Any] = {}
    if hasattr(found, "cache_dir"):
        store["cache_dir"] = layout.folder.parent if _can_be_collected(shared_by(layout, gone)) else None
    snapshots = frozenset(layout.folder / "snapshots" / commit for commit in commits)
    return replace(found, snapshots=snapshots, blobs=gone, **store)


def shared_by(layout: Layout, blobs: Iterable[Path]) -> set[Path]:
    """Return the files, in the store that several models share, that some of a model's blobs are links to."""
    store = real_path(layout.folder.parent / SHARED_BLOBS_DIR_NAME)
    targets = {Path(real_path(blob)) for blob in blobs if blob.is_symlink()}
    return {target for target in targets if target.is_relative_to(store)}


def _can_be_collected(shared: set[Path]) -> bool:
    # Its collection opens marks, lists and locks beside them: it would wait at a pipe, and read a file without end.
    folders = {folder for path in shared for folder in (path.parent, path.parent.parent)}
    return bool(shared) and all(map(_is_tame, (path for folder in folders for path in listed(folder))))


def _is_tame(path: Path) -> bool:
    mode = path.lstat().st_mode
    if S_ISDIR(mode) or (S_ISREG(mode) and digest_like(path.name) is not None):
        return True
    try:
        read_bounded(path, _LARGEST_LIST).decode("utf-8")
    except (InputError, UnicodeDecodeError):
        return False
    return True
