"""From a checkpoint to a hub entry: prove it, describe it, put it there in one commit, read it back.

``converters → strict load → parity → card, checked → store.publish → fetch by revision, hashes compared``. Nothing
leaves the machine before every check has passed, and the entry is the same, byte for byte, for the same checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcit_hub.deprecated import moved_names
from xcit_hub.errors import HubError, InputError, XcitHubError
from xcit_hub.files import scratch_folder, sha256_of
from xcit_hub.hub import address, cache
from xcit_hub.hub import also as exports
from xcit_hub.hub.config import ModelConfig
from xcit_hub.hub.prepare import OnStage, PathLike, Prepared, Said, held_or_made, prepare
from xcit_hub.hub.sites import SITES
from xcit_hub.hub.stores import Checking, Context, Limited, Receipt, Sharing, Snapshot, Store, open_store, outdated
from xcit_hub.variants import DialectName

_HUGGING_FACE = "https://huggingface.co"

_NOT_ASKED = "whether the repository is there and public, where --private is refused, a dry run does not ask"


@dataclass(frozen=True)
class PublishedFile:
    """One file of an entry: where in the entry, how many bytes, which bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Publication:
    """What :func:`publish` did, or would do.

    Args:
        name: the model's name in the hub.
        address: where it is.
        revision: the commit; ``None`` for a dry run, and for hubs without history.
        url: where to see it.
        changed: whether there was anything to commit.
        dry_run: whether nothing was written.
        files: every file of the entry.
        config: the model's description.
        card: the card's text, English.
        parity: the comparison's figures; ``None`` where it was left out.
        todo: what is left to a person, in order.
        repaired: files that were damaged where they are kept, and are whole again.
        removed: an earlier publication's files that this one has not, and that are gone with it; of a dry run those
            that would go, where the hub can be asked.
        notes: what was assumed of the checkpoint and what of it or beside it was not used, which tensors look untrained
            or damaged, and which names several classes have.
    """

    name: str
    address: str
    revision: str | None
    url: str
    changed: bool
    dry_run: bool
    files: tuple[PublishedFile, ...]
    config: ModelConfig
    card: str
    parity: Mapping[str, Any] | None
    todo: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return {
            "name": self.name,
            "address": self.address,
            "revision": self.revision,
            "url": self.url,
            "changed": self.changed,
            "dry_run": self.dry_run,
            "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in self.files],
            "parity": dict(self.parity) if self.parity is not None else None,
            "todo": list(self.todo),
            "repaired": list(self.repaired),
            "removed": list(self.removed),
            "notes": list(self.notes),
            "card": self.card,
        }


def publish(
    checkpoint: PathLike,
    name: str,
    *,
    to: PathLike | None = None,
    run: PathLike | None = None,
    meta: PathLike | None = None,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
    model: str | None = None,
    dialect: DialectName | None = None,
    labels: PathLike | None = None,
    ema: bool = False,
    parity: bool = True,
    also: Sequence[str] = (),
    token: str | bool | None = None,
    on_stage: OnStage = lambda _: None,
) -> Publication:
    """Publish a checkpoint as a complete hub entry, in one commit; unchanged content makes none.

    The entry: ``model.safetensors`` and ``config.json`` as timm reads them, ``xcit_hub.json``, ``model.ckpt`` with its
    hash, the card in English and Chinese, ``conversion.json`` and ``parity.json``.

    Args:
        checkpoint: a file of any family and format.
        name: ``org/name``; a name without an organisation is refused.
        to: a folder, ``"hugging-face"`` (or an endpoint's address), ``"modelers"``, ``"modelscope"``, ``"gitcode"``,
            ``"mindspore-hub:FOLDER"`` (a checkout of MindSpore Hub); by default the folder hub of this machine. Several
            hubs at once: :func:`publish_to`.
        run: ``run.json``, what training and evaluation measured.
        meta: ``card.yaml``, what nobody can measure.
        private: create a private repository.
        revision: a branch of its own; created if need be.
        create_pr: open a pull request instead of committing to the branch.
        dry_run: do all but the last step: write nothing, send nothing.
        model: the architecture, where the tensors fit two (224 and 384).
        dialect: what network the file was trained in, where the file does not say.
        labels: the classes' names, one on each line; ImageNet's for weights trained there.
        ema: take the averaged weights of a training checkpoint.
        parity: False leaves the proof out (it needs PyTorch and timm), and the card says so.
        also: exports that the entry is to have, ``"onnx"`` and ``"mindir"``: ``model.onnx`` of any batch and size,
            ``model.mindir`` of the model's own size; run by their runtimes and judged, unless ``parity`` is False.
        on_stage: told the name of each stage as it begins.

    Raises:
        WeightsError, CheckpointError: the file is not one XCiT's weights.
        XcitHubError: parity fails, or cannot be run and was not left out.
        CardError: the card does not pass the hub's rules.
        HubError: the hub refuses, or gives back something else than was published.
    """
    _check_paths(checkpoint=checkpoint, name=name, run=run, meta=meta, labels=labels)
    (done,) = publish_to(
        checkpoint, name, [to], run=run, meta=meta, private=private, revision=revision, create_pr=create_pr,
        dry_run=dry_run, model=model, dialect=dialect, labels=labels, ema=ema, parity=parity, also=also,
        token=token, on_stage=on_stage,
    )  # fmt: skip
    return done


class PartlyPublishedError(HubError):
    """Some hubs have it and some have not.

    Args:
        done: what was published.
        failed: where it was not, and why.
    """

    def __init__(self, done: Sequence[Publication], failed: Mapping[str, XcitHubError]) -> None:
        self.done, self.failed = tuple(done), dict(failed)
        there = ", ".join(each.address for each in done) or "nowhere"
        reasons = "\n    ".join(f"{place}: {' '.join(str(error).split())}" for place, error in failed.items())
        super().__init__(
            f"Published {there}, and not everywhere:\n    {reasons}",
            where=", ".join(failed),
            fix="Run the same command again: what is there already is not sent again.",
        )


def publish_to(
    checkpoint: PathLike,
    name: str,
    to: Sequence[PathLike | None],
    *,
    run: PathLike | None = None,
    meta: PathLike | None = None,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
    model: str | None = None,
    dialect: DialectName | None = None,
    labels: PathLike | None = None,
    ema: bool = False,
    parity: bool = True,
    also: Sequence[str] = (),
    token: str | bool | None = None,
    on_stage: OnStage = lambda _: None,
) -> list[Publication]:
    """Publish a checkpoint on several hubs: proven once, and every card leads to the other hubs.

    Args:
        to: the hubs, in the order in which they are sent to; the other arguments are :func:`publish`'s.
            ``SCHEME://OWNER`` takes the model's name below another owner there.

    Raises:
        PartlyPublishedError: a hub of several refused; the others have it. Running again finishes it.
        HubError, InputError: as in :func:`publish`; where a hub cannot do what is asked, nothing was sent to any.
    """
    _check_paths(checkpoint=checkpoint, name=name, run=run, meta=meta, labels=labels)
    said = _said(run, meta, model, dialect, labels, ema)
    targets = list(
        {_told_apart(each): each for each in (address.parse_target(hub, name, revision) for hub in to)}.values()
    )
    if isinstance(token, str) and len(targets) > 1:
        raise InputError(
            "One token was given for several hubs, and each has its own.",
            where="token=… (--token-env)",
            fix="Put each hub's token into its own variable: HF_TOKEN, MODELERS_TOKEN, MODELSCOPE_API_TOKEN …",
        )
    if isinstance(token, str) and targets[0].store in (address.FOLDER, address.MINDSPORE_HUB):
        raise InputError(
            "A folder takes no token.", where="token=… (--token-env)", fix="Leave it out, or name a hub: to=… (--to)."
        )
    kinds = exports.checked(also)
    if kinds and any(target.store == address.MINDSPORE_HUB for target in targets):
        raise InputError("MindSpore Hub keeps cards, not files.", where="--also", fix="Leave it out for this hub.")
    context = Context(cache=cache.default_folder(), offline=address.offline_by_environment(), token=token)
    stores = [open_store(target, context) for target in targets]
    for target, store in zip(targets, stores, strict=True):
        if isinstance(store, Limited):
            store.check_asked(revision=target.revision, private=private, create_pr=create_pr)
        if not dry_run and isinstance(store, Checking):
            store.check_publish(target.name, revision=target.revision, private=private, create_pr=create_pr)
    pages = {title: page for title, page in map(_page_of, targets) if page is not None}
    done: list[Publication] = []
    failed: dict[str, XcitHubError] = {}
    with scratch_folder() as scratch:
        entries: list[Prepared] = []
        for number, (target, store) in enumerate(zip(targets, stores, strict=True)):
            folder = scratch / str(number)
            folder.mkdir()
            own, first = _page_of(target)[0], entries[0] if entries else None
            entries.append(
                prepare(
                    Path(checkpoint),
                    target,
                    folder,
                    said,
                    parity=parity,
                    proven=first.parity if first else None,
                    loaded=first is not None,
                    elsewhere={title: page for title, page in pages.items() if title != own},
                    also=kinds,
                    held=partial(held_or_made, store, target, first.files if first else {}),
                    on_stage=on_stage,
                )
            )
        for target, store, prepared in zip(targets, stores, entries, strict=True):
            try:
                done.append(
                    _send(target, store, context, prepared, private=private, create_pr=create_pr, dry_run=dry_run,
                          on_stage=on_stage)
                )  # fmt: skip
            except XcitHubError as error:
                if len(targets) == 1:
                    raise
                failed[_told_apart(target)] = error
    if failed:
        raise PartlyPublishedError(done, failed)
    return done


def _page_of(target: address.Address) -> tuple[str, str | None]:
    """Return a hub's name and the address of a model's page there, where it has one that others can open."""
    if target.store in SITES:
        site = SITES[target.store]
        known = not (target.location or "").startswith("http") and site.configured == site.endpoint
        return site.title, f"{site.page}/{target.name}" if known else None
    if target.store == address.HUGGING_FACE:
        endpoint = (target.location or os.environ.get("HF_ENDPOINT") or _HUGGING_FACE).rstrip("/")
        return "Hugging Face", f"{_HUGGING_FACE}/{target.name}" if endpoint == _HUGGING_FACE else None
    return _told_apart(target), None


def _told_apart(target: address.Address) -> str:
    """Return what names a target among others: MindSpore Hub's checkouts have one name."""
    is_checkout = target.store == address.MINDSPORE_HUB and target.location is not None
    return f"{target} in {target.location}" if is_checkout else str(target)


def _send(
    target: address.Address,
    store: Store,
    context: Context,
    prepared: Prepared,
    *,
    private: bool,
    create_pr: bool,
    dry_run: bool,
    on_stage: OnStage,
) -> Publication:
    listed = tuple(PublishedFile(path, file.stat().st_size, sha256_of(file)) for path, file in prepared.files.items())
    receipt = Receipt(None, str(target), changed=False)
    if not dry_run:
        on_stage(f"send to {target}")
        receipt = store.publish(
            target.name,
            prepared.files,
            message=f"Publish {target.name.rpartition('/')[2]} with xcit-hub",
            revision=target.revision,
            private=private,
            create_pr=create_pr,
        )
        on_stage("read back")
        _read_back(target, store, context, receipt, listed)
    return Publication(
        name=target.name,
        address=str(target),
        revision=receipt.revision,
        url=receipt.url,
        changed=receipt.changed,
        dry_run=dry_run,
        files=listed,
        config=prepared.config,
        card=prepared.card,
        parity=prepared.parity,
        todo=receipt.todo,
        repaired=receipt.repaired,
        removed=receipt.removed if not dry_run else _would_go(store, target, prepared.files),
        notes=(*prepared.notes, *([_NOT_ASKED] if private and dry_run else [])),
    )


def _would_go(store: Store, target: address.Address, files: Mapping[str, Path]) -> tuple[str, ...]:
    try:
        present = store.resolve(target.name, target.revision)
        return tuple(outdated(present.files, files)) if present.revision is not None else ()
    except (XcitHubError, OSError, ValueError):  # there is nothing yet, or nobody can be asked
        return ()


# argument of publish → what it has to be, and what to do instead.
_PATHS: dict[str, tuple[str, str]] = {
    "checkpoint": (
        "a file's path",
        "Publish a network in memory by network.push_to_hub, or write it first: network.save_pretrained, "
        "mindspore.save_checkpoint.",
    ),
    "name": ("a model's name", "Write org/name."),
    "run": ("the path of a run.json, or None", "Write the record to a file."),
    "meta": ("the path of a card.yaml, or None", "Write the fields to a file."),
    "labels": ("a file's path, 'imagenet-1k' or None", "Write the names to a UTF-8 file, one on each line."),
}


def _check_paths(**arguments: object) -> None:
    for argument, value in arguments.items():
        wanted, fix = _PATHS[argument]
        if not isinstance(value, str | os.PathLike) and not (value is None and wanted.endswith("None")):
            raise InputError(
                f"{argument} is a {type(value).__name__}, and has to be {wanted}.", where=f"{argument}=…", fix=fix
            )


def _said(
    run: PathLike | None,
    meta: PathLike | None,
    model: str | None,
    dialect: DialectName | None,
    labels: PathLike | None,
    ema: bool,
) -> Said:
    """Read what is said beside the checkpoint, once for all hubs, and before the proof, which takes longer."""
    from cards.facts import CardYaml
    from xcit_hub.run_record import RunRecord

    measured = None if run is None else RunRecord.read(Path(run))
    card = CardYaml() if meta is None else CardYaml.read(Path(meta))
    return Said(measured, card, model, dialect, labels, ema)


def _read_back(
    target: address.Address, store: Store, context: Context, receipt: Receipt, listed: tuple[PublishedFile, ...]
) -> None:
    """Fetch the revision into an empty cache and compare every hash."""
    with scratch_folder() as scratch:
        empty = replace(context, cache=scratch)
        fresh = store.beside(empty) if isinstance(store, Sharing) else open_store(target, empty)
        snapshot = fresh.resolve(target.name, receipt.branch or receipt.revision)
        if receipt.branch is not None and snapshot.revision != receipt.revision:
            raise HubError(
                "The hub shows another revision than the one that was just published.",
                where=receipt.url,
                fix="Somebody may have published at the same time: look at the repository, then publish again.",
            )
        if receipt.revision is None:
            _read_back_card(fresh, snapshot, receipt, listed)
            return
        for file in listed:
            found = sha256_of(fresh.fetch(snapshot, file.path)) if file.path in snapshot.files else "nothing"
            if found != file.sha256:
                raise HubError(
                    f"The hub gives back {file.path} with SHA-256 {found[:16]}…, and {file.sha256[:16]}… was sent.",
                    where=receipt.url,
                    fix=f"Do not use revision {receipt.revision}; publish again.",
                )


def _read_back_card(store: Store, snapshot: Snapshot, receipt: Receipt, listed: tuple[PublishedFile, ...]) -> None:
    """Hold the file that a written card points at against what was meant."""
    sent = next(file.sha256 for file in listed if file.path == "model.ckpt")
    promised = {file.digest for file in snapshot.files.values()}
    found = {sha256_of(store.fetch(snapshot, path)) for path in snapshot.files}
    if promised != {sent} or found != {sent}:
        raise HubError("The written card does not lead to the checkpoint.", where=receipt.url, fix="Publish again.")


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
