"""A hub entry before it is sent: a checkpoint is read, loaded, proven, described, and written with its cards."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcit_hub.checkpoints import sidecar
from xcit_hub.checkpoints.beside import Reason
from xcit_hub.checkpoints.identify import UNTRAINED_NOTE
from xcit_hub.checkpoints.strings import CLASSES, PREPROCESSING
from xcit_hub.errors import InputError, WeightsError, XcitHubError
from xcit_hub.files import read_bounded, sha256_of, write_text
from xcit_hub.hub import address, config, entry, entry_cards, metadata
from xcit_hub.hub import also as exports
from xcit_hub.hub.config import ModelConfig, Provenance
from xcit_hub.hub.read import of_weights
from xcit_hub.hub.stores import Store
from xcit_hub.variants import CHECKPOINTS, DialectName, architecture, has_name

if TYPE_CHECKING:
    from cards.facts import CardYaml
    from xcit_hub.checkpoints.weights import Weights
    from xcit_hub.run_record import RunRecord

PathLike = str | os.PathLike[str]
OnStage = Callable[[str], None]

_LARGEST_LABELS = 64 << 20
_LARGEST_RECORD = 8 << 20
_MOST_TIMES = 8  # an export is not larger than so many times its weights
_LISTED = 5


@dataclass(frozen=True)
class Said:
    """What is said of a checkpoint beside its bytes; :func:`xcit_hub.hub.publish.publish` says what it means."""

    run: RunRecord | None
    card: CardYaml
    model: str | None
    dialect: DialectName | None
    labels: PathLike | None
    ema: bool


@dataclass(frozen=True)
class Prepared:
    """An entry, ready to be sent.

    Args:
        files: each file by its path in the entry.
        config: the model's description.
        card: the card's text, English.
        parity: the proof's figures; None where it was left out.
        notes: what was assumed of the checkpoint and what of it or beside it was not used, which tensors look untrained
            or damaged, which names several classes have, and whether the hub holds figures of another proof.
    """

    files: dict[str, Path]
    config: ModelConfig
    card: str
    parity: dict[str, Any] | None
    notes: tuple[str, ...]


def prepare(
    source: Path,
    target: address.Address,
    folder: Path,
    said: Said,
    *,
    parity: bool,
    proven: dict[str, Any] | None,
    loaded: bool,
    elsewhere: Mapping[str, str],
    also: Sequence[str],
    held: Callable[[Path, str], Path | None],
    on_stage: OnStage,
) -> Prepared:
    """Make an entry of a checkpoint.

    Args:
        folder: where its files are written.
        parity: whether to prove weights and exports.
        proven: the figures of a proof of the same checkpoint, which is then not repeated.
        loaded: whether a network took the same checkpoint's weights already, for another hub.
        elsewhere: the pages of the model on other hubs, by their names.
        also: exports that the entry is to have.
        held: returns a file that need not be made again, for the weights' file and a path (:func:`held_or_made`).
    """
    on_stage("read")
    from xcit_hub.checkpoints.checkpoint import opened as opened_once
    from xcit_hub.checkpoints.weights import load as read_checkpoint

    opened = opened_once(source)
    weights = read_checkpoint(opened, model=said.model, dialect=said.dialect, ema=said.ema)
    if weights.assumed and (told := _of_run(said.run, weights)) is not None:
        weights = read_checkpoint(opened, model=told, dialect=said.dialect, ema=said.ema)
    if said.run is not None:
        _check_run(said.run, weights, asked_for_average=said.ema)
    description = _description(weights, said.labels, said.run)
    arrays = weights.arrays()

    if not loaded:
        on_stage("load")
        from xcit_hub.hub.network import XCiT

        XCiT.of_config(description, arrays)

    figures = proven
    if parity and proven is None:
        on_stage("parity")
        figures = _proved(arrays, description, on_stage)

    on_stage("write")
    files = entry.write_from(folder, opened, description, ema=said.ema, assumed=weights.assumed)
    files["model.ckpt"] = folder / "model.ckpt"
    report = entry.converted(
        opened, files["model.ckpt"], "xcit-hub", description, ema=said.ema, assumed=weights.assumed
    )
    notes: tuple[str, ...] = ()
    if figures is not None:
        figures, notes = _with_known(figures, held(files["model.safetensors"], "parity.json"))
    report["parity"] = figures
    # Beside what the weights' reader says: the card and conversion.json tell it, as the descriptions cannot.
    assumed = _assumed_of_images(weights, description, said.run)
    report["notes"] = [*report["notes"], *assumed]
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
    texts = entry_cards.written(
        files["model.ckpt"],
        weights.file,
        target,
        description,
        report,
        run=said.run,
        said=said.card,
        elsewhere=elsewhere,
        exported=exported,
    )
    for path, text in texts.items():
        files[path] = _text(folder / path, text)
    return Prepared(
        dict(sorted(files.items())),
        description,
        texts["README.md"],
        figures,
        (*weights.notes, *assumed, *_said_of_source(weights, description, said), *notes),
    )


def _description(weights: Weights, labels: PathLike | None, run: RunRecord | None) -> ModelConfig:
    name, source = weights.architecture.name, weights.file.path
    if not has_name(name):
        raise WeightsError(
            f"These weights are of no architecture with a name ({name}), and a hub entry needs one.",
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
            UNTRAINED_NOTE,
            where=source,
            fix="Train it, or publish the backbone: xcit-hub convert SRC OUT --num-classes 0.",
        )
    described = of_weights(weights)
    if run is not None and run.preprocessing is not None:
        # What was evaluated is what the published network does, whatever the file says of itself.
        told = run.preprocessing.model_dump_json()
        described = metadata.with_metadata(described, {PREPROCESSING: told}, "run.json")
    if run is not None and not described.labels and len(run.classes or ()) == weights.num_classes:
        described = replace(described, labels=tuple(run.classes or ()))
    if labels is not None or not described.labels:
        described = replace(described, labels=_labels(labels, weights.num_classes, source))
    return replace(described, provenance=Provenance(family=weights.family, sha256=weights.file.sha256))


def _check_run(run: RunRecord, weights: Weights, *, asked_for_average: bool) -> None:
    """Make sure that figures are of the weights that are published, and of their classes in their order.

    An evaluation reads a file's plain weights where both are there.
    """
    left = {entry.reason for entry in weights.dropped}
    taken = "average" if asked_for_average and Reason.PLAIN in left else "trained" if Reason.AVERAGED in left else None
    if taken not in (None, run.weights or "trained"):
        ours, theirs = ("averaged", "plain") if taken == "average" else ("plain", "averaged")
        raise InputError(
            f"The run record is of the file's {theirs} weights, and its {ours} ones would be published.",
            where="run=… (--run)",
            fix=f"Write the {ours} ones to a file of their own (xcit-hub convert), evaluate that and publish it.",
        )
    names = _own_classes(weights)
    if names and run.classes and tuple(run.classes) != names and sorted(run.classes) == sorted(names):
        raise InputError(
            "The run record names the file's classes in another order: its figures are of other answers.",
            where="run=… (--run)",
            fix="Evaluate this checkpoint, and give that run.json.",
        )


def _of_run(run: RunRecord | None, weights: Weights) -> str | None:
    """Return the architecture that was evaluated, where it is one of those that have the weights' parameters."""
    if run is None or run.model is None:
        return None
    shape = replace(architecture(run.model), name="", image_size=0)
    return run.model if shape == replace(weights.architecture, name="", image_size=0) else None


def _own_classes(weights: Weights) -> tuple[str, ...]:
    text = weights.file.metadata.get(CLASSES)
    if text is None or not weights.num_classes:
        return ()
    return metadata.classes_from_metadata(text, weights.num_classes, weights.file.path)


def _said_of_source(weights: Weights, description: ModelConfig, said: Said) -> Iterator[str]:
    """Say what was not used of a checkpoint and of what stands beside it, and what its classes are called by."""
    if (unread := sidecar.unread(weights.file)) is not None:
        yield unread
    own, told = _own_classes(weights), tuple((said.run and said.run.classes) or ())
    if told and told != (own or description.labels):
        yield f"run.json names {len(told)} classes ({', '.join(told[:3])} …), which are not those that were published"
    if not own and said.labels is None and not told and description.labels:
        yield f"the classes are called by ImageNet's names because of the file's name, {weights.file.path.name}"
    yield from _alike(description.labels)


def _assumed_of_images(weights: Weights, description: ModelConfig, run: RunRecord | None) -> tuple[str, ...]:
    """Say what was assumed of how images are prepared, where neither the run nor the file's own string says it."""
    seen, strings = description.preprocessing, weights.file.metadata
    if run is not None and run.preprocessing is not None:
        return ()
    if PREPROCESSING in strings:
        return metadata.assumed_of_images(strings, seen)
    taken = {"size": "×".join(map(str, seen.size)), "crop_pct": seen.crop_pct, "interpolation": seen.interpolation}
    if weights.normalization is None:  # else a wrapper around the weights says it
        taken |= {"mean": seen.mean, "std": seen.std}
    return (
        f"nothing says how images are prepared: {', '.join(f'{name} {value}' for name, value in taken.items())} were "
        f"assumed. The run.json of an evaluation says it (--run), or the file's string {PREPROCESSING}.",
    )


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
            error.what,
            where=error.where,
            fix=f"{error.fix} Or publish with --no-parity: the card will say it was not proven.",
        ) from None
    result = verify_weights(
        arrays,
        description.shape,
        description.dialect,
        num_classes=description.num_classes,
        in_chans=description.in_chans,
        global_pool=description.global_pool,
        stage=lambda words: on_stage(f"parity: {words}"),
    )
    if not result.passed:
        blind = next((check for check in result.checks if not check.is_finite), None)
        if blind is not None:
            raise WeightsError(
                f"The network's outputs are not finite with these weights: {blind.what} {blind.remark}.",
                where="the checkpoint",
                fix="Nothing was published. The weights are damaged, or of another dialect; see where they come from.",
            )
        raise XcitHubError(
            f"PyTorch's network and ours do not agree on these weights: {result}",
            where="the checkpoint",
            fix="Nothing was published. Check the dialect; if it is right, this is a fault of ours: report it.",
        )
    # In the order in which the hub gives the figures back: the card lists them.
    figures: dict[str, Any] = json.loads(_json(result.as_dict()))
    return figures


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


def held_or_made(
    store: Store, target: address.Address, made: Mapping[str, Path], weights: Path, path: str
) -> Path | None:
    """Return a file that a hub holds for these weights, or what was exported for the hub before it."""
    return _held(store, target, weights, path) or (made.get(path) if path != "parity.json" else None)


def _with_known(figures: dict[str, Any], held: Path | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the hub's figures of this very proof, or those just measured, and a note where the hub's are other.

    Another machine measures a little differently, and that is not a reason for a commit.
    """
    from xcit_hub.parity import tells_of_the_same_proof

    if held is None:
        return figures, ()
    known: Any = None
    with contextlib.suppress(XcitHubError, ValueError, RecursionError):
        known = json.loads(read_bounded(held, _LARGEST_RECORD))
    if tells_of_the_same_proof(known, figures):
        return known, ()
    return figures, ("the hub's parity.json is not of this proof, or made with other software or another kind of "
                     "processor: its figures were not taken, those just measured were",)  # fmt: skip


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _text(path: Path, text: str) -> Path:
    write_text(path, text)
    return path
