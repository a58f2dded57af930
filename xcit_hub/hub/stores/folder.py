"""A hub in a folder, the embedded default: huggingface_hub's cache layout, and beside it a plain view for people.

``FOLDER/models--org--name`` is the hub (so ``timm`` can read it offline with ``cache_dir=FOLDER``);
``FOLDER/org/name`` is a link to the latest revision's files. A plain folder of that name, without the layout (a
clone, a copy), is read too.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from xcit_hub.errors import HubError, InputError, closest
from xcit_hub.files import check_folders, contained, is_folder, open_regular, sha256_of
from xcit_hub.hub import cache
from xcit_hub.hub.address import expanded
from xcit_hub.hub.stores import Context, File, Receipt, Snapshot, outdated
from xcit_hub.hub.stores.local import file_inside, snapshot_of_folder

_DEFAULT_BRANCH = "main"


class FolderStore:
    """A hub in a folder.

    Args:
        location: the folder; it need not exist before something is published.
    """

    def __init__(self, location: str, context: Context) -> None:
        self.root = expanded(location).absolute()
        self.context = context

    def resolve(self, name: str, revision: str | None = None) -> Snapshot:
        """Find a model's revision; a plain folder has only its present one."""
        if not is_folder(self.root):
            raise HubError(
                "There is no such folder hub.", where=self.root, fix="Check the path, or publish something to it first."
            )
        repository = cache.Repository(self.root, name)
        if not repository.exists():
            return self._plain(name, revision)
        commit = repository.commit_of(revision or _DEFAULT_BRANCH)
        if commit is None or not (repository.folder / "snapshots" / commit).is_dir():
            branches = ", ".join(repository.branches()) or "none"
            raise HubError(
                f"{name} has no revision {revision or _DEFAULT_BRANCH!r}.",
                where=self.root,
                fix=f"Its branches: {branches}.",
            )
        files = {
            path: File(file.stat().st_size if file.exists() else None, repository.digest(file))
            for path, file in repository.files(commit).items()
        }
        return Snapshot(name, commit, files, origin=f"{self.root}/{name}")

    def fetch(self, snapshot: Snapshot, path: str) -> Path:
        """Return the file in place, after hashing it; this folder is the origin, so damage cannot be mended from it."""
        file = self.held(snapshot, path)
        expected = snapshot.files[path].digest
        found = self._digest_now(file, expected)
        if expected is not None and found != expected:
            raise HubError(
                f"{path} of {snapshot.name} is damaged: "
                + (f"its SHA-256 begins {found[:16]}…, not {expected[:16]}…." if found else "it is gone."),
                where=file,
                fix="Publish the model to this folder again.",
            )
        return file

    def held(self, snapshot: Snapshot, path: str) -> Path:
        """Return where a file stands."""
        if snapshot.revision is None:
            return file_inside(contained(self.root, snapshot.name), path)
        return cache.Repository(self.root, snapshot.name).files(snapshot.revision)[path]

    def damaged(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Hash every file of a revision and name those that are not what was published."""
        if snapshot.revision is None:
            return ()
        held = cache.Repository(self.root, snapshot.name).files(snapshot.revision)
        return tuple(
            path
            for path, file in snapshot.files.items()
            if file.digest is not None and self._digest_now(held[path], file.digest) != file.digest
        )

    @staticmethod
    def _digest_now(file: Path, expected: str | None) -> str | None:
        try:
            with open_regular(file) as stream:
                return cache.digest_in(stream, expected) if expected else expected
        except OSError:
            return None

    def check_asked(self, *, revision: str | None = None, private: bool = False, create_pr: bool = False) -> None:
        """Refuse what a folder has not."""
        if private:
            raise InputError(
                "A folder hub has no private models: the file system says who may read it.",
                where="private=… (--private)",
                fix="Leave it out, and give the folder the permissions that it should have.",
            )
        if create_pr:
            raise InputError(
                "A folder hub has no pull requests.",
                where="create_pr=… (--create-pr)",
                fix="Use --revision for a branch of its own.",
            )
        if revision is not None and cache.is_commit(revision):
            raise InputError(
                f"{revision} is a commit, and commits cannot be published to.",
                where="revision=… (--revision)",
                fix="Name a branch.",
            )

    def check_publish(
        self, name: str, *, revision: str | None = None, private: bool = False, create_pr: bool = False
    ) -> None:
        """Refuse what a folder has not, and a folder that may not be written."""
        self.check_asked(revision=revision, private=private, create_pr=create_pr)
        del name
        try:
            check_folders({"The folder": self.root})
        except InputError as error:
            raise HubError(f"Cannot publish there. {error.what}", where=self.root, fix=error.fix) from error

    def publish(
        self,
        name: str,
        files: Mapping[str, Path],
        *,
        message: str,  # noqa: ARG002  (a folder keeps revisions, not a log)
        revision: str | None = None,
        private: bool = False,
        create_pr: bool = False,
    ) -> Receipt:
        """Store blobs, then the snapshot, then move the branch: readers see the old revision or the new one."""
        self.check_asked(revision=revision, private=private, create_pr=create_pr)
        branch = revision or _DEFAULT_BRANCH
        repository = cache.Repository(self.root, name)
        is_published = False
        try:
            digests = {path: sha256_of(file) for path, file in files.items()}
            commit = cache.revision_of(digests)
            with repository.locked():
                before = repository.commit_of(branch)
                changed = before != commit
                repaired = self._store(repository, commit, files, digests)
                removed = outdated(_paths(repository, before), files)
                repository.files(commit)  # nothing else stands among them that would keep it from loading
                if changed:
                    repository.set_branch(branch, commit)
                is_published = True
                if branch == _DEFAULT_BRANCH:
                    self._show(repository, commit)
        except OSError as error:
            raise HubError(
                f"Cannot publish to this folder: {error.strerror or error}.",
                where=self.root,
                fix=f"{name} was published, but its plain view could not be shown."
                if is_published
                else "Choose a folder that may be written and has room. Nothing was published.",
            ) from error
        return Receipt(commit, str(self.root / name), changed, repaired=tuple(repaired), removed=tuple(removed))

    @staticmethod
    def _store(
        repository: cache.Repository, commit: str, files: Mapping[str, Path], digests: Mapping[str, str]
    ) -> builtins.list[str]:
        """Store blobs and snapshot; return the paths that were stored with other bytes, or lacked their link."""
        repository.check_inside(commit)
        was_complete = (repository.folder / "snapshots" / commit).is_dir()
        repaired = []
        for path, file in files.items():
            stored = repository.folder / "blobs" / digests[path]
            # A blob damaged since is replaced by publishing again.
            if not _is_whole(stored, digests[path]):
                if stored.exists() or was_complete:
                    repaired.append(path)
                repository.add_blob(cache.copy_into(file), digests[path])
        repository.add_snapshot(commit, digests)
        return repaired + [path for path in repository.relink(commit, digests) if path not in repaired]

    def list(self) -> list[str]:
        """Name every model of either form.

        Raises:
            HubError: the hub's folder does not exist.
        """
        if not is_folder(self.root):
            raise HubError("This folder hub does not exist.", where=self.root, fix="Check the path; publish makes it.")
        laid_out = set(cache.names(self.root))
        plain = {
            path.parent.relative_to(self.root).as_posix()
            for path in self.root.glob("*/*/*.json")
            if path.name in ("xcit_hub.json", "config.json") and not path.parts[-3].startswith("models--")
        }
        return sorted(name for name in laid_out | plain if name.isprintable())

    def _plain(self, name: str, revision: str | None) -> Snapshot:
        folder = contained(self.root, name)
        if not folder.is_dir():
            raise HubError(
                f"This folder hub has no model called {name!r}.",
                where=self.root,
                fix=closest(name, self.list()) or f"It holds: {', '.join(self.list()) or 'nothing yet'}.",
            )
        if revision not in (None, _DEFAULT_BRANCH):
            raise HubError(f"{name} is a plain folder without revisions.", where=folder, fix="Leave the revision out.")
        return snapshot_of_folder(folder, name)

    def _show(self, repository: cache.Repository, commit: str) -> None:
        view = self.root / repository.name
        contained(self.root, str(Path(repository.name).parent))
        if view.exists() and not view.is_symlink():
            return
        view.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(repository.folder / "snapshots" / commit, view.parent)
        while True:
            aside = Path(tempfile.mktemp(prefix=".", suffix=".tmp", dir=view.parent))  # noqa: S306  (a link, not opened)
            aside.symlink_to(target)
            with contextlib.suppress(
                FileNotFoundError
            ):  # another model was pruned, and it was taken for a killed one's
                aside.replace(view)
                return


def _paths(repository: cache.Repository, commit: str | None) -> builtins.list[str]:
    """Name the files of an earlier revision, be it damaged; it stays as it was."""
    with contextlib.suppress(HubError):
        return [] if commit is None else sorted(repository.files(commit))
    return []


def _is_whole(blob: Path, digest: str) -> bool:
    try:
        return sha256_of(blob, follow=False) == digest
    except OSError:  # not there, a link, not a file
        return False
