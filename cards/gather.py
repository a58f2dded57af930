"""Gathers the facts of a card: from the variant table, from a file on this disk, from the records beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cards.facts import UNNAMED, AccuracyFigure, CardYaml, Facts, Performance, WeightsFile
from cards.inputs import read_json, validated
from cards.metadata import Asset
from cards.provenance import Conversion
from cards.vocabulary import SOURCE_LINKS
from xcit_hub import variants
from xcit_hub.checkpoints.weights import load
from xcit_hub.errors import InputError
from xcit_hub.files import sha256_of
from xcit_hub.parameters import parameter_count
from xcit_hub.run_record import RunRecord

_FORMATS = {".ckpt": "ckpt", ".safetensors": "safetensors", ".mindir": "mindir", ".onnx": "onnx", ".pth": "pth"}

_IMAGENET = "ImageNet-1k"
_IMAGENET_NAMES = frozenset({"imagenet", "imagenet-1k", "imagenet2012", "imagenet-2012"})
_IMAGENET_IMAGES = 50_000


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
            name=entry.url.rpartition("/")[2],
            format=_format_of(entry.url),
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
    name: str | None = None,
) -> Facts:
    """Gather the facts about a file on this disk; its SHA-256 is computed, not believed.

    Args:
        architecture, dialect, num_classes: of the network; asked of the file where they are not given.
        run: what training and evaluation measured of it.
        conversion: the converter's report, or the file it was written to.
        name: the card's title; the architecture without it.

    Raises:
        CheckpointError, WeightsError: the file is not an XCiT, or nothing tells its dialect.
        UnknownNameError: there is no such architecture.
        InputError: the run record speaks of another file.
        XcitHubError: the file cannot be read.
    """
    path = Path(path)
    assumed: list[str] = []
    if architecture is None or dialect is None or num_classes is None:
        weights = load(path, model=architecture, dialect=dialect)
        architecture, num_classes = weights.architecture.name, weights.num_classes
        dialect = "mindcv" if weights.dialect == "mindcv" else "paper"
        assumed = list(weights.notes)
    known = variants.architecture(architecture)
    meta = meta or CardYaml()
    digest = sha256_of(path)
    if run is not None:
        _same_file(run, digest, path)
        run = run.model_copy(update={"recipe": _published_path(run.recipe)})
    if isinstance(conversion, (str, Path)):
        told: Conversion | None = read_json(conversion, Conversion)
    else:
        told = None if conversion is None else validated(conversion, Conversion, "the conversion report")
    seen = run.image_size[0] if run is not None and run.image_size is not None else known.image_size
    meta = meta.model_copy(update={"asset": [_completed(asset, path, digest) for asset in meta.asset]})
    measured = [] if run is None else [Performance(origin="measured", source=_on(run), record=run)]
    return Facts(
        name=name or meta.model_name or known.name,
        architecture=known.name,
        dialect=dialect,
        num_classes=num_classes,
        params=_count(known.name, num_classes),
        weights=WeightsFile(
            name=path.name,
            format=_format_of(path.name),
            size=path.stat().st_size,
            sha256=digest,
            link=meta.asset[0].asset_link if meta.asset else None,
        ),
        image_size=seen if preprocessing is None else preprocessing.image_size,
        crop_pct=None if preprocessing is None else preprocessing.crop_pct,
        interpolation=None if preprocessing is None else preprocessing.interpolation,
        accuracy=[*_measured_accuracy(run), *meta.accuracy],
        performance=[*measured, *meta.performance],
        versions=run.versions if run is not None else meta.requirements,
        versions_source=_on(run) if run is not None else meta.requirements_source,
        conversion=told,
        assumed=assumed,
        meta=meta,
    )


def _count(architecture: str, num_classes: int) -> int:
    return parameter_count(variants.architecture(architecture), num_classes=num_classes)


def _format_of(name: str) -> str | None:
    return _FORMATS.get(Path(name).suffix)


def _on(run: RunRecord) -> str:
    software = " ".join(part for part in ("MindSpore", run.versions.mindspore) if part)
    machine = f"{run.cards or 1} × {run.device}" if run.device else None
    return ", ".join(part for part in (machine, software if run.versions.mindspore else None) if part) or "run.json"


def _measured_accuracy(run: RunRecord | None) -> list[AccuracyFigure]:
    if run is None or (run.top1 is None and run.top5 is None):
        return []
    return [
        AccuracyFigure(
            top1=run.top1,
            top5=run.top5,
            origin="measured",
            source=_on(run),
            samples=run.eval_samples,
            dataset=_dataset_of(run),
        )
    ]


def _dataset_of(run: RunRecord) -> str:
    """Return the name of what a run measured on. ImageNet-1k's validation set has 50,000 images and nothing less."""
    name = run.dataset or UNNAMED
    if name.lower() not in _IMAGENET_NAMES:
        return name
    return _IMAGENET if run.eval_samples == _IMAGENET_IMAGES else UNNAMED


def _published_path(recipe: str | None) -> str | None:
    """Return a recipe's path as the project has it; of any other file only the name: the disk is nobody's business."""
    if recipe is None:
        return None
    before, found, inside = recipe.replace("\\", "/").rpartition("configs/")
    return f"{found}{inside}" if found else before.rpartition("/")[2] or inside.rpartition("/")[2]


def _completed(asset: Asset, path: Path, digest: str) -> Asset:
    """Fill in an asset's digest if the asset is the file at ``path``.

    Raises:
        InputError: ``card.yaml`` states a digest that the file does not have.
    """
    if asset.file_format not in (None, _format_of(path.name)):
        return asset
    if asset.asset_sha256 is not None and not digest.startswith(asset.asset_sha256.lower()):
        raise InputError(
            f"card.yaml says that the asset's SHA-256 is {asset.asset_sha256}, and {path.name} has {digest}.",
            where=path,
            fix="Leave asset-sha256 out of card.yaml: it is computed from the file.",
        )
    return asset.model_copy(update={"file_format": _format_of(path.name), "asset_sha256": digest})


def _same_file(run: RunRecord, digest: str, path: Path) -> None:
    if run.checkpoint_sha256 is not None and run.checkpoint_sha256 != digest:
        raise InputError(
            f"The run record is about another file: it names SHA-256 {run.checkpoint_sha256[:16]}…, "
            f"and {path.name} has {digest[:16]}….",
            where=path,
            fix="Give the run.json that belongs to this checkpoint, or evaluate the checkpoint again.",
        )
