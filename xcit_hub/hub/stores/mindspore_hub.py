"""MindSpore Hub: a card says where a checkpoint is and how its SHA-256 begins; the file is anywhere on the web.

Read: from the cards that ship with the package, from a card's link, or from a checkout of the Hub's repository.
Written: a pull request in such a checkout, laid out so that the Hub's own client loads from it: the card, beside it the
folder that ``repo-link`` ends in with ``mindspore_hub_conf.py``, and beside it the file that ``asset-link`` ends in.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cards import index
from cards.card import Card
from cards.check import read as read_card
from cards.metadata import MindSporeHubFields
from xcit_hub.errors import HubError, InputError, XcitHubError, closest
from xcit_hub.files import check_folders, contained, is_folder, read_bounded, sha256_of, write_text
from xcit_hub.hub import address, cache, config, guard, spelling
from xcit_hub.hub.config import ModelConfig
from xcit_hub.hub.stores import Context, File, Receipt, Snapshot
from xcit_hub.hub.transport import download
from xcit_hub.variants import CHECKPOINTS

ASSETS = "mshub_res/assets"
_CARD = "README.md"
_BRANCH = "main"
_LARGEST_TEXT = 8 << 20  # of a file in a checkout
_VERSIONED = re.compile(r"[A-Za-z0-9._-]+/[0-9][0-9.]*/[A-Za-z0-9._-]+")

# The Hub's client imports this file by its path and calls create_network with the card's model-name in lower case, and
# with what else its own caller gave. Cards whose repo-link ends alike share one file.
_CONF = '''"""MindSpore Hub's entry to these networks: `pip install xcit-hub` first."""

import xcit_hub

NETWORKS = {networks}


def create_network(name, num_classes=None, in_chans=None, **options):
    """Return the network that the card called ``name`` describes; the options are xcit_hub.create_model's."""
    if name not in NETWORKS:
        raise ValueError(f"This folder holds {{', '.join(NETWORKS)}}, not {{name}}.")
    known = dict(NETWORKS[name])
    known.pop("card")
    given = {{"num_classes": num_classes, "in_chans": in_chans}}
    known.update({{option: value for option, value in given.items() if value is not None}})
    known.update(options)
    return xcit_hub.create_model(known.pop("architecture"), **known)
'''


@dataclass(frozen=True)
class _Found:
    """A card and the file that holds it; ``beside`` is the folder its client would look into for local files."""

    uid: str
    card: Card
    origin: str
    beside: Path | None = None
    notes: tuple[str, ...] = ()


class MindSporeHubStore:
    """The cards that ship with the package, or a checkout of the Hub's repository.

    Args:
        location: the checkout's folder; ``None`` for the shipped cards and links to cards.
    """

    def __init__(self, location: str | None, context: Context) -> None:
        self.root = address.expanded(location) if location is not None else None
        self.context = context
        # A card may lead to the server it came from, wherever that is, and to public ones.
        self._trusted: frozenset[str] = frozenset()

    def resolve(self, name: str, revision: str | None = None) -> Snapshot:
        """Find and read a card; nothing is downloaded but a card that was named by its link."""
        if revision not in (None, _BRANCH) and not cache.is_commit(revision or ""):
            raise HubError("MindSpore Hub keeps no revisions.", where=name, fix="Name the version in the uid.")
        found = self._find(name)
        assets = [
            asset
            for asset in found.card.metadata.asset
            if asset.asset_link and (asset.file_format or "").lower() == "ckpt"
        ]
        if not assets:
            raise HubError("The card names no checkpoint.", where=found.origin, fix="See its repo-link by hand.")
        link, digest = assets[0].asset_link or "", (assets[0].asset_sha256 or "").lower() or None
        file_name = _file_name(link, found.origin)
        files = {file_name: File(None, digest, link)}
        notes = list(found.notes)
        if digest is None:
            notes.append("the card publishes no SHA-256: the file cannot be verified")
        elif len(digest) < 64:
            notes.append(f"only the first {len(digest)} hex digits of the SHA-256 are published: a weak check")
        if len(assets) > 1:
            others = ", ".join(str(asset.asset_link) for asset in assets[1:])
            notes.append(f"the card names {len(assets)} checkpoints, and the first was taken; the others: {others}")
        known = next((entry for entry in CHECKPOINTS.values() if entry.url == link), None)
        commit = cache.revision_of({file_name: f"{digest} {link}"})
        if revision not in (None, _BRANCH, commit):
            raise HubError(
                f"The card names another file than at {revision}: now it is at {commit}.",
                where=found.origin,
                fix="Leave the revision out: MindSpore Hub keeps no earlier ones.",
            )
        return Snapshot(
            name=found.uid,
            revision=commit,
            files=files,
            origin=f"{found.origin} → {link}",
            config=None if known is None else config.of_published(known),
            notes=tuple(notes),
        )

    def fetch(self, snapshot: Snapshot, path: str) -> Path:
        """Return the card's file: beside the card, from the cache, or downloaded; one that fails its hash once more."""
        expected = snapshot.files[path].digest or ""
        local = self._beside(snapshot, path)
        if local is not None:
            digest = sha256_of(local)
            if not digest.startswith(expected):
                raise cache.wrong_bytes(str(local), expected, digest)
            return local
        repository = cache.Repository(self.context.cache, snapshot.name)
        commit = snapshot.revision or ""
        link = snapshot.files[path].url or ""
        file = repository.obtain(
            commit,
            path,
            expected,
            lambda stream: download(link, stream, snapshot.name, trusted=self._trusted),
            offline=self.context.offline,
            force=self.context.force,
        )
        if repository.commit_of(_BRANCH) != commit:
            with contextlib.suppress(OSError, XcitHubError):  # a cache that may not be written is still a cache
                repository.set_branch(_BRANCH, commit)
        return file

    def check_asked(self, *, revision: str | None = None, private: bool = False, create_pr: bool = False) -> None:
        """Refuse a branch (git makes it), and privacy: the Hub's cards are public, and published by pull requests."""
        del create_pr
        if revision is not None:
            raise InputError(
                "A pull request's branch is made with git.",
                where="revision=… (--revision)",
                fix="Leave the revision out.",
            )
        if private:
            raise InputError(
                "MindSpore Hub has no private models: a card is published by a pull request, for everybody.",
                where="private=… (--private)",
                fix="Leave it out; who may read the checkout until then, the file system says.",
            )

    def check_publish(
        self, name: str, *, revision: str | None = None, private: bool = False, create_pr: bool = False
    ) -> None:
        """Refuse what is not a checkout, or may not be written, and what the Hub has not."""
        del name, create_pr
        if self.root is None or not is_folder(self.root):
            raise InputError(
                "MindSpore Hub takes pull requests only.",
                where=self.root,
                fix="Clone its repository and publish with --to mindspore-hub:FOLDER.",
            )
        self.check_asked(revision=revision, private=private)
        check_folders({"The checkout": self.root})

    def publish(
        self,
        name: str,
        files: Mapping[str, Path],
        *,
        message: str,
        revision: str | None = None,
        private: bool = False,
        create_pr: bool = False,  # the checkout is where the pull request is made
    ) -> Receipt:
        """Write the card, the entry point and the checkpoint into a checkout of the Hub's repository."""
        self.check_publish(name, revision=revision, private=private, create_pr=create_pr)
        assert self.root is not None  # noqa: S101  (it is a checkout)
        card = read_card(files[_CARD])
        uid = uid_of(name, card.metadata)
        described = _described(files[config.FILE_NAME], name)
        assets = contained(self.root, ASSETS)
        folder = uid.rpartition("/")[0]
        conf = f"{folder}/{_model_folder(card)}/mindspore_hub_conf.py"
        called = (card.metadata.model_name or card.title).lower()
        written = {
            f"{uid}.md": files[_CARD].read_text(encoding="utf-8"),
            conf: _conf_with(contained(assets, conf), called, uid, described),
        }
        link = card.metadata.asset[0].asset_link or ""
        checkpoint = f"{folder}/{_file_name(link, uid)}"
        _check_asset(contained(assets, folder), f"{uid.rpartition('/')[2]}.md", contained(assets, checkpoint), files)
        changed = False
        try:
            for relative, text in written.items():
                path = contained(assets, relative)
                if not path.exists() or read_bounded(path, _LARGEST_TEXT) != text.encode():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_text(path, text)
                    changed = True
            changed |= _copy(files["model.ckpt"], contained(assets, checkpoint))
        except OSError as error:
            raise HubError(
                f"Cannot write the pull request: {error.strerror or error}.", where=assets, fix="Check the checkout."
            ) from error
        todo = (
            f"Upload {contained(assets, checkpoint)} to {link}; leave it out of the commit.",
            f"In {self.root}: commit {', '.join(f'{ASSETS}/{relative}' for relative in written)} "
            f"with the message {message!r} and open a pull request.",
        )
        return Receipt(None, str(assets / f"{uid}.md"), changed, todo)

    def list(self) -> list[str]:
        """Name the XCiT cards that ship, or every card of the checkout."""
        if self.root is None:
            return [uid for uid in index.uids() if uid.startswith("mindspore/")]
        if not is_folder(self.root):
            raise HubError("There is no such checkout.", where=self.root, fix="Clone MindSpore Hub's repository.")
        assets = self.root / ASSETS
        return sorted(path.relative_to(assets).with_suffix("").as_posix() for path in assets.rglob("*.md"))

    def _find(self, name: str) -> _Found:
        if "://" in name:
            return self._by_link(name)
        if self.root is not None:
            return self._in_checkout(name)
        path = index.find(name)
        if path is None:
            known = [uid for uid in index.uids() if uid.startswith("mindspore/")]
            raise HubError(
                f"No card called {name!r} ships with this package.",
                where="MindSpore Hub's cards for XCiT",
                fix=(closest(name, known) or f"There are: {', '.join(known)}.") + " Or give the card's link.",
            )
        uid = path.relative_to(index.folder()).with_suffix("").as_posix()
        return _Found(uid, read_card(path), f"MindSpore Hub {uid}")

    def _in_checkout(self, name: str) -> _Found:
        assets = contained(self.root or Path(), ASSETS)
        publisher, _, rest = name.partition("/")
        if _VERSIONED.fullmatch(name):
            candidates = [contained(assets, f"{name}.md")]
        else:
            candidates = sorted(contained(assets, publisher).glob(f"*/{rest}*.md"), key=_version_of)
        candidates = [path for path in candidates if path.is_file() and not path.stem.endswith("_cn")]
        if not candidates:
            raise HubError(
                f"There is no card called {name!r} in this checkout.",
                where=assets,
                fix=closest(name, self.list()) or "See `xcit-hub list --hub mindspore-hub:FOLDER`.",
            )
        several = sorted({path.stem for path in candidates})
        if len(several) > 1 and rest not in several:
            raise HubError(
                f"{len(several)} cards of this checkout begin with {rest!r}: {', '.join(several[:5])}.",
                where=assets,
                fix="Write the whole name.",
            )
        path = [path for path in candidates if path.stem == (rest if rest in several else several[0])][-1]
        uid = path.relative_to(assets).with_suffix("").as_posix()
        return _Found(uid, read_card(path), f"MindSpore Hub checkout {path}", beside=path.parent)

    def _by_link(self, link: str) -> _Found:
        uid = _uid_in(link)
        shipped = index.find(uid) if uid is not None else None
        if urlsplit(link).path.endswith(".md") and not self.context.offline:
            stream = io.BytesIO()
            self._trusted = frozenset([guard.netloc(spelling.parsed(link))])
            download(_raw(link), stream, link, limit=guard.CARD_BYTES, trusted=self._trusted)
            card = read_card(stream.getvalue().decode("utf-8", errors="replace") + "\n")
            return _Found(uid or f"mindspore/{Path(link).stem}", card, link)
        if shipped is None or uid is None:
            raise HubError(
                "That link is not a card (….md), or offline mode forbids fetching it.",
                where=link,
                fix="Link to the card's Markdown in the Hub's repository.",
            )
        note = ("the card that ships with this package was read, not the link",)
        return _Found(uid, read_card(shipped), f"MindSpore Hub {uid}", notes=note)

    def _beside(self, snapshot: Snapshot, path: str) -> Path | None:
        if self.root is None:
            return None
        beside = contained(self.root / ASSETS / Path(snapshot.name).parent, path)
        return beside if beside.is_file() else None


def uid_of(name: str, fields: MindSporeHubFields) -> str:
    """Return the uid ``publisher/version/model_dataset`` under which a card called ``name`` is filed.

    Raises:
        InputError: neither the name nor the card says the MindSpore version.
    """
    if _VERSIONED.fullmatch(name):
        return name
    publisher, _, model = name.partition("/")
    version = fields.mindspore_version
    if not version or "/" in model:
        raise InputError(
            f"{name!r} needs a MindSpore version.",
            where="the name of the model",
            fix="Say mindspore_version in card.yaml, or give the whole uid: publisher/2.8/model_dataset.",
        )
    dataset = re.sub(r"[^a-z0-9]", "", (fields.train_dataset or "").lower())
    return f"{publisher}/{version}/{model}" + (f"_{dataset}" if dataset and not model.endswith(dataset) else "")


def _described(path: Path, name: str) -> ModelConfig:
    described = config.from_json(path.read_text(encoding="utf-8"), where=name).config
    if described is None:
        raise HubError("The entry has no description.", where=name, fix="Report this: it is a fault of ours.")
    return described


def _conf_with(path: Path, called: str, uid: str, described: ModelConfig) -> str:
    """Return the folder's mindspore_hub_conf.py with this card's network in it, and every other card's.

    Raises:
        InputError: the file there is not one of these, or another card of this folder has the same name.
    """
    networks = _networks_in(path) if path.exists() else {}
    other = networks.get(called, {}).get("card", uid)
    if other != uid:
        raise InputError(
            f"Two cards of this folder would be called {called!r}, and the Hub's client asks by that name.",
            where=f"{path}: {other}",
            fix="Say another model_name in card.yaml, or another repo_link.",
        )
    networks[called] = {
        "card": uid,
        "architecture": described.architecture,
        "dialect": described.dialect,
        "num_classes": described.num_classes,
        "in_chans": described.in_chans,
        "global_pool": described.global_pool,
    }
    return _CONF.format(networks=json.dumps(dict(sorted(networks.items())), indent=4))


def _networks_in(path: Path) -> dict[str, dict[str, object]]:
    # Parsed, never run.
    try:
        tree = ast.parse(read_bounded(path, _LARGEST_TEXT).decode("utf-8"))
        table = next(
            each.value
            for each in tree.body
            if isinstance(each, ast.Assign) and [ast.unparse(name) for name in each.targets] == ["NETWORKS"]
        )
        found: dict[str, dict[str, object]] = ast.literal_eval(table)
        if all(isinstance(entry["card"], str) for entry in found.values()):
            return found
    except (OSError, SyntaxError, ValueError, StopIteration, AttributeError, LookupError, TypeError, RecursionError):
        pass
    raise InputError(
        "There is a mindspore_hub_conf.py that this program did not write.",
        where=path,
        fix="Say another repo_link in card.yaml, whose last part is a folder of the model's own.",
    )


def _check_asset(folder: Path, own: str, target: Path, files: Mapping[str, Path]) -> None:
    """Refuse to replace a checkpoint that another card of the folder points at."""
    if not target.is_file() or sha256_of(target) == sha256_of(files["model.ckpt"]):
        return
    for path in sorted(folder.glob("*.md")):
        if path.name != own and f"/{target.name}".encode() in read_bounded(path, _LARGEST_TEXT):
            raise InputError(
                f"The card {path.name} already has a checkpoint called {target.name}, with other bytes.",
                where=target,
                fix="Give the asset-link in card.yaml another file name.",
            )


def _model_folder(card: Card) -> str:
    # The Hub's client joins the card's folder and the last part of repo-link.
    name = (card.metadata.repo_link or "").rstrip("/").rpartition("/")[2]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(
            "The card's repo-link ends in no folder's name.",
            where="repo_link of the card",
            fix="Say repo_link in card.yaml.",
        )
    return name


def _file_name(link: str, where: str) -> str:
    name = urlsplit(link).path.rpartition("/")[2]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.ckpt", name):
        raise HubError(f"The card's asset-link names no .ckpt file: {name!r}.", where=where, fix="Mend the card.")
    return name


def _uid_in(link: str) -> str | None:
    found = re.search(r"([A-Za-z0-9._-]+/[0-9][0-9.]*/[A-Za-z0-9._-]+?)(?:\.md)?/?$", link)
    return found.group(1).lower() if found else None


def _raw(link: str) -> str:
    """Return where a code-hosting page's file itself is."""
    return re.sub(r"^(https://(?:gitee|github)\.com/[^/]+/[^/]+)/blob/", r"\1/raw/", link)


def _version_of(path: Path) -> tuple[tuple[int, ...], str]:
    return tuple(int(part) for part in path.parent.name.split(".") if part.isdigit()), path.name


def _copy(source: Path, target: Path) -> bool:
    from xcit_hub.files import atomic_write

    if target.is_file() and sha256_of(target) == sha256_of(source):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as stream:
        cache.copy_into(source)(stream)
    return True
