"""From a checkpoint to a hub entry: prove it, describe it, put it there in one commit, read it back.

``converters → strict load → parity → card, checked → store.publish → fetch by revision, hashes compared``. Nothing
leaves the machine before every check has passed, and the entry is the same, byte for byte, for the same checkpoint.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcit_hub.checkpoints.strings import PREPROCESSING
from xcit_hub.errors import CardError, HubError, InputError, WeightsError, XcitHubError
from xcit_hub.files import read_bounded, scratch_folder, sha256_of, write_text
from xcit_hub.hub import address, cache, config, entry
from xcit_hub.hub import also as exports
from xcit_hub.hub.config import ModelConfig, Provenance
from xcit_hub.hub.read import of_weights
from xcit_hub.hub.sites import SITES
from xcit_hub.hub.stores import Checking, Context, Receipt, Snapshot, Store, open_store
from xcit_hub.variants import CHECKPOINTS, DialectName, has_name

if TYPE_CHECKING:
    from cards.facts import CardYaml, Facts
    from xcit_hub.checkpoints.checkpoint import Checkpoint
    from xcit_hub.checkpoints.weights import Weights
    from xcit_hub.run_record import RunRecord

_LARGEST_LABELS = 64 << 20
_LISTED = 5

PathLike = str | os.PathLike[str]
_HUGGING_FACE = "https://huggingface.co"

# store → the form of its cards; where it is none of these, Hugging Face's.
_FORMS = {address.MINDSPORE_HUB: "mindspore-hub", "modelers": "modelers", "gitcode": "modelers",
          "modelscope": "modelscope"}  # fmt: skip
OnStage = Callable[[str], None]

_LARGEST_RECORD = 8 << 20
_MOST_TIMES = 8  # an export is not larger than so many times its weights


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
        notes: which tensors look untrained or damaged, and which names several classes have.
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
    _read_early(run, meta)
    targets = list({str(each): each for each in (address.parse_target(hub, name, revision) for hub in to)}.values())
    if isinstance(token, str) and len(targets) > 1:
        raise InputError(
            "One token was given for several hubs, and each has its own.",
            fix="Put each hub's token into its own variable: HF_TOKEN, MODELERS_TOKEN, MODELSCOPE_API_TOKEN …",
        )
    kinds = exports.checked(also)
    if kinds and any(target.store == address.MINDSPORE_HUB for target in targets):
        raise InputError("MindSpore Hub keeps cards, not files.", where="--also", fix="Leave it out for this hub.")
    context = Context(cache=cache.default_folder(), offline=address.offline_by_environment(), token=token)
    stores = [open_store(target, context) for target in targets]
    for target, store in zip(targets, stores, strict=True):
        if not dry_run and isinstance(store, Checking):
            store.check_publish(target.name, revision=target.revision, private=private, create_pr=create_pr)
    pages = {title: page for title, page in map(_page_of, targets) if page is not None}
    done: list[Publication] = []
    failed: dict[str, XcitHubError] = {}
    with scratch_folder() as scratch:
        entries: list[_Entry] = []
        for number, (target, store) in enumerate(zip(targets, stores, strict=True)):
            folder = scratch / str(number)
            folder.mkdir()
            own = _page_of(target)[0]
            entries.append(
                _prepare(
                    Path(checkpoint), target, folder, run=run, meta=meta, model=model, dialect=dialect, labels=labels,
                    ema=ema, parity=parity, proven=entries[0].parity if entries else None, also=kinds,
                    held=partial(_held_or_made, store, target, entries[0].files if entries else {}),
                    elsewhere={title: page for title, page in pages.items() if title != own}, on_stage=on_stage,
                )
            )  # fmt: skip
        for target, store, prepared in zip(targets, stores, entries, strict=True):
            try:
                done.append(
                    _send(target, store, context, prepared, private=private, create_pr=create_pr, dry_run=dry_run,
                          on_stage=on_stage)
                )  # fmt: skip
            except XcitHubError as error:
                if len(targets) == 1:
                    raise
                failed[str(target)] = error
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
    return str(target), None


def _send(
    target: address.Address,
    store: Store,
    context: Context,
    prepared: _Entry,
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
        _read_back(target, context, receipt, listed)
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
        notes=prepared.notes,
    )


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
            raise InputError(f"{argument} is a {type(value).__name__}, and has to be {wanted}.", fix=fix)


def _read_early(run: PathLike | None, meta: PathLike | None) -> None:
    """Find out before the proof what is wrong with the files that the card is made of."""
    from cards.facts import CardYaml
    from xcit_hub.run_record import RunRecord

    if run is not None:
        RunRecord.read(Path(run))
    if meta is not None:
        CardYaml.read(Path(meta))


@dataclass(frozen=True)
class _Entry:
    files: dict[str, Path]
    config: ModelConfig
    card: str
    parity: dict[str, Any] | None
    notes: tuple[str, ...]


def _prepare(
    source: Path,
    target: address.Address,
    folder: Path,
    *,
    run: PathLike | None,
    meta: PathLike | None,
    model: str | None,
    dialect: DialectName | None,
    labels: PathLike | None,
    ema: bool,
    parity: bool,
    proven: dict[str, Any] | None,
    elsewhere: Mapping[str, str],
    also: Sequence[str],
    held: Callable[[Path, str], Path | None],
    on_stage: OnStage,
) -> _Entry:
    on_stage("read")
    from xcit_hub.checkpoints.checkpoint import opened as opened_once
    from xcit_hub.checkpoints.weights import load as read_checkpoint
    from xcit_hub.run_record import RunRecord

    opened = opened_once(source)
    weights = read_checkpoint(opened, model=model, dialect=dialect, ema=ema)
    measured = RunRecord.read(Path(run)) if run is not None else None
    description = _description(weights, labels, measured)
    arrays = weights.arrays()

    on_stage("load")
    from xcit_hub.hub.network import XCiT

    XCiT.of_config(description, arrays)

    figures = proven
    if parity and proven is None:
        on_stage("parity")
        figures = _proved(arrays, description, on_stage)

    on_stage("write")
    files = entry.write_from(folder, opened, description, ema=ema)
    files["model.ckpt"] = folder / "model.ckpt"
    report = entry.converted(opened, files["model.ckpt"], "xcit-hub", description, ema=ema)
    figures = figures and (_known_figures(held(files["model.safetensors"], "parity.json")) or figures)
    report["parity"] = figures
    digest = sha256_of(files["model.ckpt"])
    files["model.ckpt.sha256"] = _text(folder / "model.ckpt.sha256", f"{digest}  model.ckpt\n")
    files["conversion.json"] = _text(folder / "conversion.json", _json(report))
    if figures is not None:
        files["parity.json"] = _text(folder / "parity.json", _json(figures))

    exported = []
    for kind in also:
        on_stage(kind)
        exported.append(
            exports.write(
                kind, folder, arrays, description, target.name,
                held=held(files["model.safetensors"], exports.FILES[kind]), proof=parity,
                stage=lambda words, kind=kind: on_stage(f"{kind}: {words}"),  # type: ignore[misc]
            )
        )  # fmt: skip
        files[exported[-1].path] = exported[-1].file

    on_stage("card")
    texts = _cards(
        files["model.ckpt"],
        weights.file,
        target,
        description,
        report,
        run=measured,
        meta=meta,
        elsewhere=elsewhere,
        exported=exported,
    )
    for path, text in texts.items():
        files[path] = _text(folder / path, text)
    return _Entry(
        dict(sorted(files.items())),
        description,
        texts["README.md"],
        figures,
        (*weights.doubts, *_alike(description.labels)),
    )


def _description(weights: Weights, labels: PathLike | None, run: RunRecord | None) -> ModelConfig:
    architecture, source = weights.architecture.name, weights.file.path
    if not has_name(architecture):
        raise WeightsError(
            f"These weights are of no architecture with a name ({architecture}), and a hub entry needs one.",
            where=source,
            fix="Publish one of timm's architectures; see `xcit-hub list`.",
        )
    if weights.kind == "dense":
        raise WeightsError(
            "This is a detector's or segmenter's backbone, which no hub entry describes yet.",
            where=source,
            fix="Publish a classifier, or a backbone with class attention.",
        )
    if weights.head_untrained:
        raise WeightsError(
            "The classifier was never trained: it is the random one that a conversion began.",
            where=source,
            fix="Train it, or publish the backbone: xcit-hub convert SRC OUT --num-classes 0.",
        )
    described = of_weights(weights)
    if run is not None and run.preprocessing is not None:
        # What was evaluated is what the published network does, whatever the file says of itself.
        told = run.preprocessing.model_dump_json()
        described = config.with_metadata(described, {PREPROCESSING: told}, "run.json")
    if run is not None and not described.labels and len(run.classes or ()) == weights.num_classes:
        described = replace(described, labels=tuple(run.classes or ()))
    if labels is not None or not described.labels:
        described = replace(described, labels=_labels(labels, weights.num_classes, source))
    return replace(described, provenance=Provenance(family=weights.family, sha256=weights.file.sha256))


def _labels(labels: PathLike | None, num_classes: int, source: Path) -> tuple[str, ...]:
    if labels is None:
        is_imagenet = num_classes == 1000 and any(entry in source.name for entry in (*CHECKPOINTS, "in1k", "imagenet"))
        return config.imagenet_labels() if is_imagenet else ()
    if os.fspath(labels) == "imagenet-1k":
        named = config.imagenet_labels()
    else:
        try:
            text = read_bounded(labels, _LARGEST_LABELS).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"Cannot read the labels: {error}.", where=labels, fix="Give a UTF-8 file.") from error
        named = tuple(line.strip() for line in text.splitlines())
        if "" in named:
            raise InputError(
                f"Line {named.index('') + 1} of the labels is empty.", where=labels, fix="Name each class."
            )
    if len(named) != num_classes:
        raise InputError(
            f"There are {len(named)} labels for {num_classes} classes.", where=labels, fix="Give one a line for each."
        )
    return named


def _alike(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Say which names several classes have."""
    several = sorted(name for name, count in Counter(labels).items() if count > 1)
    if labels == config.imagenet_labels():  # which has two kinds of crane
        return ()
    return (f"several classes have one name: {', '.join(several[:_LISTED])}",) if several else ()


def _proved(arrays: Mapping[str, Any], description: ModelConfig, on_stage: OnStage) -> dict[str, Any]:
    from xcit_hub.parity import require_timm, verify_weights

    try:
        require_timm()
    except XcitHubError as error:
        raise XcitHubError(
            error.what, fix=f"{error.fix} Or publish with --no-parity: the card will say it was not proven."
        ) from None
    result = verify_weights(
        arrays,
        description.shape,
        description.dialect,
        num_classes=description.num_classes,
        in_chans=description.in_chans,
        stage=lambda words: on_stage(f"parity: {words}"),
    )
    if not result.passed:
        blind = next((check for check in result.checks if "not finite" in check.remark), None)
        if blind is not None:
            raise WeightsError(
                f"The network's outputs are not finite with these weights: {blind.what} {blind.remark}.",
                fix="Nothing was published. The weights are damaged, or of another dialect; see where they come from.",
            )
        raise XcitHubError(
            f"PyTorch's network and ours do not agree on these weights: {result}",
            fix="Nothing was published. Check the dialect; if it is right, this is a fault of ours: report it.",
        )
    # In the order in which the hub gives the figures back: the card lists them.
    figures: dict[str, Any] = json.loads(_json(result.as_dict()))
    return figures


def _cards(
    weights: Path,
    source: Checkpoint,
    target: address.Address,
    description: ModelConfig,
    report: dict[str, Any],
    *,
    run: RunRecord | None,
    meta: PathLike | None,
    elsewhere: Mapping[str, str],
    exported: Sequence[exports.Export],
) -> dict[str, str]:
    from cards.facts import CardYaml, ExportedFile
    from cards.gather import of_checkpoint

    form, name = _FORMS.get(target.store, "hugging-face"), target.name
    said = CardYaml.read(Path(meta)) if meta is not None else CardYaml()
    if form == "mindspore-hub":
        said = said.model_copy(update=_hub_fields(said, name, weights, meta))
    else:
        # How it is loaded from there; Hugging Face is where a name alone is looked for.
        said = said.model_copy(update={"repository": f"{target.store}://{name}" if target.store in SITES else name})
    if run is not None and run.checkpoint_sha256 not in (None, source.sha256):
        raise InputError(
            "The run record was made with another checkpoint.",
            where=source.path,
            fix="Give the run.json of this checkpoint.",
        )
    facts = of_checkpoint(
        weights,
        architecture=description.architecture,
        dialect=description.dialect,
        num_classes=description.num_classes,
        meta=said,
        run=run.model_copy(update={"checkpoint_sha256": None}) if run is not None else None,
        conversion=report,
        preprocessing=description.preprocessing,
        name=name.rpartition("/")[2],
    )
    listed = [
        ExportedFile(
            name=each.path,
            size=each.file.stat().st_size,
            sha256=sha256_of(each.file),
            takes=list(each.takes),
            proven=list(each.proven),
        )
        for each in exported
    ]
    return _checked(facts.model_copy(update={"exports": listed, "elsewhere": dict(elsewhere)}), form)


def _hub_fields(said: CardYaml, name: str, weights: Path, meta: PathLike | None) -> dict[str, Any]:
    """Fill what MindSpore Hub's card needs and this machine knows."""
    from importlib.metadata import version

    if not said.asset or not said.asset[0].asset_link:
        raise InputError(
            "MindSpore Hub keeps cards, not files: the card has to say where the checkpoint will be.",
            where=meta,
            fix="Say it in card.yaml, as asset: [{asset-link: https://…/name.ckpt}], and upload it there afterwards.",
        )
    asset = said.asset[0].model_copy(update={"file_format": "ckpt", "asset_sha256": sha256_of(weights)})
    parts = name.split("/")
    mindspore = said.mindspore_version or ".".join(version("mindspore").split(".")[:2])
    folder = f"{parts[0]}/{parts[1] if len(parts) == 3 else mindspore}/{said.backbone_name}"
    return {
        "asset": [asset],
        "mindspore_version": mindspore,
        "model_version": said.model_version or mindspore,
        "user_id": said.user_id or parts[0],
        "repo_link": said.repo_link or f"https://gitee.com/mindspore/hub/tree/master/mshub_res/assets/{folder}",
    }


def _checked(facts: Facts, form: Any) -> dict[str, str]:
    from cards.check import check
    from cards.generate import render

    texts = {"README.md": render(facts, form=form, lang="en")}
    if form != "mindspore-hub":
        texts["README_zh.md"] = render(facts, form=form, lang="zh")
    found = ((path, fault) for path, text in texts.items() for fault in check(text, form))
    faults = [f"{path}: {fault}" for path, fault in found if fault.severity == "error"]
    if faults:
        raise CardError(
            "The card does not pass its hub's rules:\n    " + "\n    ".join(faults),
            fix="Complete the card's fields with --meta card.yaml. Nothing was published.",
        )
    return texts


def _held(store: Store, target: address.Address, weights: Path, path: str) -> Path | None:
    """Return a file that the hub holds beside these very weights, if it does."""
    try:
        snapshot = store.resolve(target.name, target.revision)
        held = snapshot.files.get("model.safetensors")
        if held is None or held.digest != sha256_of(weights) or path not in snapshot.files:
            return None
        if (snapshot.files[path].size or 0) > _MOST_TIMES * weights.stat().st_size:
            return None
        return store.fetch(snapshot, path)
    except (XcitHubError, OSError, ValueError):
        return None


def _held_or_made(
    store: Store, target: address.Address, made: Mapping[str, Path], weights: Path, path: str
) -> Path | None:
    """Return a file that a hub holds for these weights, or what was exported for the hub before it."""
    return _held(store, target, weights, path) or (made.get(path) if path != "parity.json" else None)


def _known_figures(held: Path | None) -> dict[str, Any] | None:
    """Return the parity figures that the hub holds for these very weights.

    Another machine measures a little differently, and that is no reason for a commit.
    """
    try:
        figures = None if held is None else json.loads(read_bounded(held, _LARGEST_RECORD))
    except (XcitHubError, ValueError, RecursionError):
        return None
    return figures if isinstance(figures, dict) and figures.get("passed") is True else None


def _read_back(target: address.Address, context: Context, receipt: Receipt, listed: tuple[PublishedFile, ...]) -> None:
    """Fetch the revision into an empty cache and compare every hash."""
    with scratch_folder() as scratch:
        fresh = open_store(target, replace(context, cache=scratch))
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


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _text(path: Path, text: str) -> Path:
    write_text(path, text)
    return path
