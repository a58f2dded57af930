"""Gathers the facts of a card: from the variant table, from a file on this disk, from the records beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cards.facts import AccuracyFigure, CardYaml, Facts, Performance, WeightsFile
from cards.inputs import read_json, validated
from cards.measured import dataset_of, device_of, measured_by, published_recipe, split_of
from cards.metadata import Asset
from cards.provenance import Conversion
from cards.public import file_name
from cards.vocabulary import SOURCE_LINKS
from xcit_hub import variants
from xcit_hub.checkpoints import checkpoint, strings
from xcit_hub.checkpoints.weights import Weights, load
from xcit_hub.errors import InputError
from xcit_hub.parameters import parameter_count
from xcit_hub.run_record import FEWEST_FOR_TOP5, RunRecord, SeenImages

_FORMATS = {".ckpt": "ckpt", ".safetensors": "safetensors", ".mindir": "mindir", ".onnx": "onnx", ".pth": "pth",
            ".air": "air", ".ms": "mslite"}  # fmt: skip


@dataclass(frozen=True)
class FileSays:
    """What a weights file's own strings say of its images and classes.

    Args:
        preprocessing: None where they say nothing of it.
        classes: empty where they name none.
        assumed: what they leave open and was assumed, in sentences.
    """

    preprocessing: variants.Preprocessing | None = None
    classes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


def of_published(name: str, meta: CardYaml | None = None) -> Facts:
    """Return what the variant table knows of a published checkpoint.

    Raises:
        UnknownNameError: nobody published weights under ``name``.
    """
    entry = variants.checkpoint(name)
    meta = meta or CardYaml()
    published = [
        AccuracyFigure(
            top1=figure.top1, top5=figure.top5, source=figure.source, source_url=SOURCE_LINKS.get(figure.source)
        )
        for figure in entry.accuracies
    ]
    return Facts(
        name=meta.model_name or entry.name,
        architecture=entry.architecture,
        dialect=entry.dialect,
        published=entry.name,
        num_classes=entry.num_classes,
        params=_count(entry.architecture, entry.num_classes),
        weights=WeightsFile(
            name=entry.file,
            format=_format_of(entry.file),
            sha256=entry.sha256,
            link=entry.url,
        ),
        image_size=entry.preprocessing.image_size,
        crop_pct=entry.preprocessing.crop_pct,
        interpolation=entry.preprocessing.interpolation,
        accuracy=[*meta.accuracy, *published],
        performance=meta.performance,
        versions=meta.requirements,
        versions_source=meta.requirements_source,
        meta=meta,
    )


def of_checkpoint(
    path: str | Path,
    *,
    architecture: str | None = None,
    dialect: variants.DialectName | None = None,
    num_classes: int | None = None,
    meta: CardYaml | None = None,
    run: RunRecord | None = None,
    conversion: dict[str, Any] | str | Path | None = None,
    preprocessing: variants.Preprocessing | None = None,
    classes: Sequence[str] = (),
    name: str | None = None,
    own: Callable[[Weights], FileSays] | None = None,
) -> Facts:
    """Gather the facts about a file on this disk; its SHA-256 is computed, not believed.

    Args:
        architecture, dialect, num_classes: of the network; asked of the run record and the file where they are not
            given.
        preprocessing: how the network's images are prepared; what the run evaluated goes before it.
        classes: their names in the network's order, where they are not ImageNet's; those of the run go before them.
        run: what training and evaluation measured of it.
        conversion: the converter's report, or the file it was written to.
        name: the card's title; the architecture without it.
        own: reads the file's own strings, which the hub's code knows how to; what the run says goes before them.

    Raises:
        HubError: the file's own strings are malformed.
        CheckpointError, WeightsError: the file is not an XCiT, or nothing tells its dialect.
        UnknownNameError: there is no such architecture.
        InputError: the run record speaks of another file, or of another network; the report is of another file, or its
            proof failed; or ``card.yaml`` does not tell which of several files this one is.
        XcitHubError: the file cannot be read.
    """
    path, opened = Path(path), checkpoint.opened(path)
    assumed: list[str] = []
    if run is not None:
        architecture, dialect = architecture or run.model, dialect or _dialect(run.dialect)
    says, channels = FileSays(), None
    pool = strings.global_pool(checkpoint.read(opened, late=True).metadata, path)
    if architecture is None or dialect is None or num_classes is None or own is not None:
        weights = load(opened, model=architecture, dialect=dialect)
        architecture, num_classes = weights.architecture.name, weights.num_classes
        dialect = variants.dialect(weights.dialect or "").name
        says, channels = FileSays() if own is None else own(weights), weights.in_chans
        assumed = [*weights.notes, *(says.assumed if run is None or run.preprocessing is None else ())]
    known = variants.architecture(architecture)
    meta = meta or CardYaml()
    digest = opened.sha256
    if isinstance(conversion, (str, Path)):
        told: Conversion | None = read_json(conversion, Conversion)
    else:
        told = None if conversion is None else validated(conversion, Conversion, "the conversion report")
    if told is not None:
        _same_file(told, digest, path)
    if told is not None and told.unread:
        assumed.append(f"the conversion report says more than a card tells: {', '.join(told.unread)}")
    if run is not None:
        _same_network(run, known, dialect, num_classes, digest, path)
        run = run.model_copy(update={"recipe": published_recipe(run), "samples": []})
        if run.top5 is not None and 0 < num_classes < FEWEST_FOR_TOP5:
            assumed.append(f"top-5 among {num_classes} classes says nothing and is left out")
            run = run.model_copy(update={"top5": None})
    seen = run.image_size[0] if run is not None and run.image_size is not None else known.image_size
    evaluated = None if run is None else run.preprocessing
    if preprocessing is None and says.preprocessing is not None:
        # A run of another image size did not evaluate as the file says.
        is_of_run = run is None or run.image_size in (None, says.preprocessing.size)
        preprocessing = says.preprocessing if is_of_run else None
    channels = channels or (3 if told is None or told.in_chans is None else told.in_chans)
    if evaluated is None and preprocessing is not None:
        evaluated = _seen_images(preprocessing, channels)
    assets, own_asset = completed(meta.asset, path.name, digest)
    meta = meta.model_copy(update={"asset": assets})
    here = [] if run is None else [Performance(origin="measured", source=measured_by(run), record=run)]
    return Facts(
        name=name or meta.model_name or known.name,
        architecture=known.name,
        dialect=dialect,
        num_classes=num_classes,
        params=_count(known.name, num_classes, channels),
        in_chans=channels,
        global_pool=pool,
        classes=(None if run is None else run.classes) or list(classes or says.classes),
        weights=WeightsFile(
            name=path.name,
            format=_format_of(path.name),
            size=len(opened),
            sha256=digest,
            link=None if own_asset is None else own_asset.asset_link,
        ),
        preprocessing=evaluated,
        image_size=seen if evaluated is None else evaluated.input_size[1],
        crop_pct=None if evaluated is None else evaluated.crop_pct,
        interpolation=None if evaluated is None else evaluated.interpolation,
        accuracy=[*_measured_accuracy(run), *meta.accuracy],
        performance=[*here, *meta.performance],
        versions=run.versions if run is not None else meta.requirements,
        versions_source=device_of(run) if run is not None else meta.requirements_source,
        conversion=told,
        assumed=assumed,
        meta=meta,
    )


def _count(architecture: str, num_classes: int, channels: int = 3) -> int:
    return parameter_count(variants.architecture(architecture), num_classes=num_classes, in_chans=channels)


def _format_of(name: str) -> str | None:
    return _FORMATS.get(Path(name).suffix.lower())


def _measured_accuracy(run: RunRecord | None) -> list[AccuracyFigure]:
    if run is None or (run.top1 is None and run.top5 is None and run.eval_loss is None):
        return []
    return [
        AccuracyFigure(
            top1=run.top1,
            top5=run.top5,
            origin="measured",
            source=measured_by(run),
            samples=run.eval_samples,
            dataset=dataset_of(run),
            split=split_of(run),
            loss=run.eval_loss,
        )
    ]


def completed(assets: Sequence[Asset], name: str, digest: str) -> tuple[list[Asset], Asset | None]:
    """Complete what ``card.yaml`` lists: each file's format by its link, and format and SHA-256 of the one it is about.

    Args:
        name, digest: that one's file name and SHA-256.

    Returns:
        The files in their order, and which is the one; None where none of them is.

    Raises:
        InputError: ``card.yaml`` states a digest that the file does not have, or several may be the file.
    """
    listed = [
        asset.model_copy(update={"file_format": asset.file_format or _format_of(_linked(asset))}) for asset in assets
    ]
    at = _own(listed, name, digest)
    if at is None:
        return listed, None
    stated = listed[at].asset_sha256
    if stated is not None and not digest.startswith(stated.lower()):
        raise InputError(
            f"card.yaml says that the asset's SHA-256 is {stated}, and {name} has {digest}.",
            where="asset-sha256 of card.yaml",
            fix="Leave asset-sha256 out of card.yaml: it is computed from the file.",
        )
    own_format = _format_of(name) or listed[at].file_format
    listed[at] = listed[at].model_copy(update={"file_format": own_format, "asset_sha256": digest})
    return listed, listed[at]


def _own(listed: Sequence[Asset], name: str, digest: str) -> int | None:
    """Find the file called ``name``: by its SHA-256, by its link, or because no other can be it."""
    fitting = [at for at, asset in enumerate(listed) if (asset.file_format or "").lower() in ("", _format_of(name))]
    stating = {at: said for at in fitting if (said := listed[at].asset_sha256)}
    named = [at for at in fitting if _linked(listed[at]) == name]
    for at, said in stating.items():
        if digest.startswith(said.lower()):
            return at
    if len(named) == 1:
        return named[0]
    # One whose digest is said to be another is another file; where that is each of them, the first is refused for it.
    silent = [at for at in fitting if at not in stating]
    groups = (
        [at for at in silent if at in named],
        [at for at in silent if listed[at].file_format],
        silent,
        fitting[:1],
    )
    found = next((group for group in groups if group), [])
    if len(found) > 1:
        links = ", ".join(str(listed[at].asset_link) for at in found)
        raise InputError(
            f"Each of {len(found)} files of card.yaml may be {name}: {links}.",
            where="asset of card.yaml",
            fix=f"Say asset-sha256 of the one that it is, {digest}, or of each other one.",
        )
    return found[0] if found else None


def _linked(asset: Asset) -> str:
    return file_name((asset.asset_link or "").partition("?")[0].partition("#")[0])


def _seen_images(preprocessing: variants.Preprocessing, channels: int) -> SeenImages:
    fields = {name: getattr(preprocessing, name) for name in ("mean", "std", "interpolation", "crop_pct", "crop_mode")}
    return SeenImages.model_validate({"input_size": (channels, *preprocessing.size), **fields})


def _dialect(name: str | None) -> variants.DialectName | None:
    return None if name is None else variants.dialect(name).name


def _same_file(told: Conversion, digest: str, path: Path) -> None:
    if told.target.sha256 is None:
        raise InputError(
            "The conversion report does not say which file it is about: its target has no SHA-256.",
            where=path,
            fix="Give the report that was written with this checkpoint, or convert it again.",
        )
    if told.target.sha256 != digest:
        raise InputError(
            f"The conversion report is about another file: it names {told.target.path} with SHA-256 "
            f"{str(told.target.sha256)[:16]}…, and {path.name} has {digest[:16]}….",
            where=path,
            fix="Give the report that was written with this checkpoint.",
        )
    if told.parity is not None and not told.parity.passed:
        raise InputError(
            "The conversion report says that the proof against PyTorch failed.",
            where=path,
            fix="Do not publish this file. Convert the checkpoint again.",
        )


def _same_network(
    run: RunRecord, known: variants.Architecture, dialect: str, num_classes: int, digest: str, path: Path
) -> None:
    fix = "Give the run.json that belongs to this checkpoint, or evaluate the checkpoint again."
    if run.checkpoint_sha256 is not None and run.checkpoint_sha256 != digest:
        raise InputError(
            f"The run record is about another file: it names SHA-256 {run.checkpoint_sha256[:16]}…, "
            f"and {path.name} has {digest[:16]}….",
            where=path,
            fix=fix,
        )
    shape = None if run.model is None else replace(variants.architecture(run.model), name=known.name, image_size=0)
    told = {
        "model": (run.model, shape in (None, replace(known, image_size=0)), known.name),
        "dialect": (run.dialect, run.dialect in (None, dialect), dialect),
        "num_classes": (run.num_classes, run.num_classes in (None, num_classes), num_classes),
        "top1": (run.top1, run.top1 is None or run.top5 is None or run.top1 <= run.top5, f"top5 {run.top5}"),
        "classes": (f"{len(run.classes or [])} names", len(run.classes or []) <= num_classes or not num_classes,
                    num_classes),
    }  # fmt: skip
    wrong = [f"{name} {theirs}, and the file has {ours}" for name, (theirs, same, ours) in told.items() if not same]
    if wrong:
        raise InputError(f"The run record is about another network: {'; '.join(wrong)}.", where=path, fix=fix)
