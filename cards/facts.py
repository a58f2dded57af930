"""Everything a card says, with the source of every figure. A card is a function of this and of nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cards import figures, measured
from cards.inputs import read_json, read_yaml
from cards.metadata import CardMetadata, Link, MindSporeHubFields, Names, Result
from cards.provenance import Conversion
from cards.public import is_model_id, public_values
from cards.vocabulary import FILE_FORMATS, HUB_LICENSES, HUGGING_FACE_DATASETS
from xcit_hub import variants
from xcit_hub.checkpoints.families import TIMM_TAGS
from xcit_hub.deprecated import moved_names
from xcit_hub.run_record import RunRecord, SeenImages, Versions

_WORDNET = re.compile(r"n\d{8}")  # what ImageNet's folders are called

Origin = Literal["measured", "published"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class AccuracyFigure(_Strict):
    """Top-1 and top-5 in per cent, and where they come from.

    Args:
        origin: ``measured`` by this project's evaluation, or ``published`` by ``source``.
        source: who published it, or on what it was measured.
        samples: images the figure was measured on, where that is known.
        loss: their mean cross-entropy.
    """

    top1: float | None = Field(None, ge=0, le=100)
    top5: float | None = Field(None, ge=0, le=100)
    origin: Origin = "published"
    source: str
    source_url: Link = None
    dataset: str = "ImageNet-1k"
    split: str = "validation"
    samples: int | None = None
    loss: float | None = None

    @property
    def dataset_id(self) -> str:
        """The dataset's id on Hugging Face."""
        return self.dataset.lower()


class Performance(_Strict):
    """One row of the performance table: a run record, and who measured it.

    Args:
        weights_url: where its weights are, if they are not the card's.
    """

    origin: Origin
    source: str
    record: RunRecord
    recipe_url: Link = None
    weights_url: Link = None


class WeightsFile(_Strict):
    """The file a card speaks of. ``size`` in bytes; ``sha256`` is a prefix only where only that was published."""

    name: str | None = None
    format: str | None = None
    size: int | None = None
    sha256: str | None = None
    link: Link = None


class ExportedFile(_Strict):
    """A file of the entry that runs without MindSpore or torch; ``takes`` are its input's sides, None for any."""

    name: str
    size: int
    sha256: str
    takes: list[int | None]
    proven: list[str] = []


class CardYaml(MindSporeHubFields, _Strict):
    """What cannot be measured and nobody but the author knows: ``card.yaml``.

    MindSpore Hub's fields, and beside them:

    Args:
        license: Hugging Face's identifier; nothing is taken for it where nobody says it.
        base_model: the repository that the weights were made from.
        repository: where the weights are, or will be: ``ORG/NAME`` on Hugging Face.
        uid: MindSpore Hub's id, ``publisher/version/model_dataset``.
        requirements: the versions a published figure was measured with.
        accuracy: published figures; ``source`` says who published each.
        performance: published rows of the performance table, likewise.
        limits: sentences about what the model should not be used for, by language.
    """

    model_config = ConfigDict(extra="forbid")  # of the two bases' this one counts

    backbone_name: str = "xcit"
    module_type: str = "cv"
    fine_tunable: bool = True
    used_for: str = "inference/extract-feature/transfer-learning"
    license: str | None = None
    accuracy: list[AccuracyFigure] = []  # type: ignore[assignment]
    base_model: Names = []
    tags: Names = []
    repository: str | None = None
    uid: str | None = None
    recipe: str | None = None
    recipe_url: Link = None
    requirements: Versions = Versions()
    requirements_source: str | None = None
    performance: list[Performance] = []
    limits: dict[Literal["en", "zh"], str] = {}

    @field_validator("accuracy")
    @classmethod
    def _possible(cls, accuracy: list[AccuracyFigure]) -> list[AccuracyFigure]:
        for figure in accuracy:
            if figure.top1 is not None and figure.top5 is not None and figure.top1 > figure.top5:
                raise ValueError(f"top-1 ({figure.top1:g}) cannot exceed top-5 ({figure.top5:g})")
        return accuracy

    @classmethod
    def read(cls, path: str | Path) -> CardYaml:
        """Read a ``card.yaml``.

        Raises:
            InputError: the file cannot be read or a field of it is wrong; every wrong field is named.
        """
        return read_yaml(path, cls)

    @staticmethod
    def template() -> str:
        """Return a ``card.yaml`` to fill in: every field, with an example."""
        return Path(__file__).with_name("templates").joinpath("card.yaml").read_text(encoding="utf-8")


class Facts(_Strict):
    """Everything one card says.

    Args:
        format: version of this description.
        name: the model's name, as the card's title has it.
        architecture: a key of :data:`xcit_hub.variants.ARCHITECTURES`.
        published: the key in :data:`xcit_hub.variants.CHECKPOINTS`, for weights that somebody else published.
        params: trainable parameters of the network.
        in_chans: channels of an image.
        global_pool: what the classifier reads.
        classes: their names in the network's order, where they are known.
        preprocessing: how the evaluation that was measured prepared its images, else how the file says it;
            ``image_size``, ``crop_pct`` and ``interpolation`` where nobody does.
        conversion: where converted weights came from.
        elsewhere: each other hub that has the same files, and the address there.
        assumed: what the file left open and was assumed, in sentences.
        exports: what the entry has beside the weights for other runtimes.
        crop_pct: the share of the shorter side that evaluation keeps; None where nobody said.
    """

    format: int = Field(default=1, ge=1, le=1)
    name: str
    architecture: str
    dialect: variants.DialectName
    published: str | None = None
    num_classes: int = 1000
    params: int
    in_chans: int = Field(default=3, ge=1)
    global_pool: variants.GlobalPool = "token"
    classes: list[str] = []
    weights: WeightsFile = WeightsFile()
    preprocessing: SeenImages | None = None
    image_size: int
    crop_pct: float | None = None
    interpolation: str | None = None
    accuracy: list[AccuracyFigure] = []
    performance: list[Performance] = []
    versions: Versions = Versions()
    versions_source: str | None = None
    conversion: Conversion | None = None
    elsewhere: dict[str, str] = {}
    assumed: list[str] = []
    exports: list[ExportedFile] = []
    meta: CardYaml = CardYaml()

    @classmethod
    def read(cls, path: str | Path) -> Facts:
        """Read facts that were stored as JSON beside a generated card.

        Raises:
            InputError: the file is missing or is not a record of facts.
        """
        return read_json(path, cls)

    @property
    def license(self) -> str | None:
        """The weights' licence: the author's, or that of the published ones that these are; None if nobody said."""
        known = variants.CHECKPOINTS.get(self.published or "")
        return self.meta.license or (known.license if known else None)

    @property
    def load_id(self) -> str:
        """What ``xcit_hub.load`` takes for these weights."""
        return self.meta.uid or self.meta.repository or self.published or self.weights.name or self.name

    @property
    def timm_repository(self) -> str | None:
        """The repository that ``timm.create_model("hf-hub:…")`` takes; None where timm cannot hold the weights."""
        is_there = self.dialect == "paper" and self.named_in_timm and "://" not in (self.meta.repository or "")
        return self.meta.repository if is_there else None

    @property
    def named_in_timm(self) -> bool:
        """Whether timm builds this architecture, by a name and arguments that ``config.json`` carries."""
        return variants.in_timm(self.shape) is not None

    @property
    def timm_tag(self) -> str | None:
        """The tag of the names under which ``xcit_hub.timm`` registers its class for this dialect; None for timm's."""
        return TIMM_TAGS.get(self.dialect) if self.named_in_timm else None

    @property
    def recipe(self) -> str:
        """The training configuration that fits this model."""
        of_run = None if self.run is None or not measured.is_of_the_project(self.run.recipe) else self.run.recipe
        return self.meta.recipe or of_run or f"configs/xcit/{self.architecture}.yaml"

    @property
    def run(self) -> RunRecord | None:
        """The run that was measured here."""
        return next((row.record for row in self.performance if row.origin == "measured"), None)

    @property
    def own_run(self) -> RunRecord | None:
        """The training run that only this card can tell of: not a recipe of the project as it stands, on ImageNet."""
        run = self.run
        if run is None or run.epochs is None:
            return None
        of_project = run.recipe is None or measured.is_of_the_project(run.recipe)
        on_imagenet = measured.dataset_of(run) == measured.IMAGENET
        return None if of_project and on_imagenet and not run.started_from and not measured.changes(run) else run

    @property
    def is_of_imagenet(self) -> bool:
        """Whether the project's recipes for ImageNet-1k are for such weights."""
        is_trained_so = self.run is not None and self.run.epochs is not None and self.own_run is None
        may_be = self.num_classes in (0, 1000) and not self._has_other_classes
        return is_trained_so or self.published is not None or may_be

    @property
    def knows_imagenet(self) -> bool:
        """Whether the classes are ImageNet-1k's."""
        return self.num_classes == 1000 and self.own_run is None and not self._has_other_classes

    @property
    def _has_other_classes(self) -> bool:
        """Whether the weights, of which there is no run, name classes that are not WordNet's, as ImageNet's are."""
        return self.run is None and not all(_WORDNET.fullmatch(name) for name in self.classes)

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image in evaluation."""
        own = (self.in_chans, self.image_size, self.image_size)
        return own if self.preprocessing is None else self.preprocessing.input_size

    @property
    def base_model(self) -> list[str]:
        """The repositories that the weights were made from."""
        start = None if self.run is None else measured.origin(self.run)
        known = variants.CHECKPOINTS.get(start or "")
        found = (known.repository or known.name) if known else start if start and is_model_id(start) else None
        return self.meta.base_model or ([found] if found else [])

    @property
    def shape(self) -> variants.Architecture:
        """The network's row of the variant table."""
        return variants.architecture(self.architecture)

    @property
    def computes(self) -> variants.Dialect:
        """What the network computes."""
        return variants.dialect(self.dialect)

    @property
    def has_versions(self) -> bool:
        """Whether any version is known that the figures were taken with."""
        return any((self.versions.mindspore, self.versions.driver, self.versions.firmware, self.versions.cann))

    @property
    def measured_accuracy(self) -> bool:
        """Whether any accuracy is this project's own."""
        return any(figure.origin == "measured" for figure in self.accuracy)

    @property
    def published_by_timm(self) -> bool:
        """Whether ``published`` is a name that ``timm.create_model`` takes."""
        return self.published is not None and variants.CHECKPOINTS[self.published].repository is not None

    @property
    def headline(self) -> AccuracyFigure | None:
        """The figure that goes into one-figure fields, which speak of the data the model was trained on.

        Measured before published, and of these the first. A folder of images that has no name has no place there, nor
        have images that were trained on.
        """
        trained_on = HUGGING_FACE_DATASETS.get(self.meta.train_dataset or "")
        fitting = [
            figure
            for figure in self.accuracy
            if figure.split not in measured.TRAINED_ON
            and (figure.dataset_id == trained_on or (trained_on is None and figure.dataset != measured.UNNAMED))
        ]
        return next((figure for figure in fitting if figure.origin == "measured"), fitting[0] if fitting else None)

    def metadata(
        self, form: Literal["mindspore-hub", "hugging-face", "modelers", "modelscope"], lang: Literal["en", "zh"]
    ) -> CardMetadata:
        """Return the fields that the card of ``form`` in ``lang`` has at its head."""
        hub = self._mindspore_hub_fields()
        if form == "mindspore-hub":
            return CardMetadata.model_validate(public_values(hub))
        fields = hub | self._hugging_face_fields(lang)
        if form == "modelers":
            fields["hardwares"] = self._hardwares()
        return CardMetadata.model_validate(public_values(fields))

    def _hardwares(self) -> list[str]:
        """Return what the figures were measured on, in Modelers' words; parity is measured on a CPU."""
        devices = " ".join(str(row.record.device or "") for row in self.performance).lower()
        found = [name for name, mark in (("NPU", "ascend"), ("NPU", "npu"), ("GPU", "gpu")) if mark in devices]
        return list(dict.fromkeys([*found, "CPU"]))

    def _mindspore_hub_fields(self) -> dict[str, Any]:
        said = self.meta.model_dump(include=set(MindSporeHubFields.model_fields) - {"accuracy"})
        return said | {
            "model_name": self.meta.model_name or self.name,
            "evaluation": self.meta.evaluation or self._evaluation(),
            "asset": said["asset"] or self._asset(),
            "license": HUB_LICENSES.get(self.license or "", self.license),
            # The variant table knows the dialect of published weights; no table knows the others'.
            "dialect": None if self.published else self.dialect,
        }

    def _hugging_face_fields(self, lang: str) -> dict[str, Any]:
        in_timm = self.timm_repository is not None or self.published_by_timm
        tags = ["xcit", "mindspore", *(["timm"] if in_timm else []), *self.meta.tags]
        task = "image-classification" if self.num_classes else "image-feature-extraction"
        trained_on = HUGGING_FACE_DATASETS.get(self.meta.train_dataset or "")
        return {
            "library_name": "timm" if in_timm else "mindspore",
            "language": ["zh" if lang == "zh" else "en"],
            "license_id": self.license,
            "pipeline_tag": task,
            "tags": [task, *tags],
            "datasets": [trained_on] if trained_on else [],
            "metrics": ["accuracy"] if self.accuracy else [],
            "base_model": self.base_model,
            "results": [result.model_dump() for result in self._results(task)],
            "dialect": self.dialect,
        }

    def _evaluation(self) -> str | None:
        return None if self.headline is None else figures.write(self.headline.top1, self.headline.top5)

    def _asset(self) -> list[dict[str, Any]]:
        weights = self.weights
        if weights.link is None or weights.format not in FILE_FORMATS:
            return []
        return [{"file_format": weights.format, "asset_link": weights.link, "asset_sha256": weights.sha256}]

    def _results(self, task: str) -> list[Result]:
        return [
            Result(
                task_type=task,
                dataset_type=figure.dataset_id,
                dataset_name=figure.dataset,
                dataset_split=figure.split,
                metric_type="accuracy",
                metric_name=f"top-{rank} accuracy (%), {figure.origin}: {figure.source}",
                metric_value=value,
                source_name=figure.source if figure.source_url else None,
                source_url=figure.source_url,
            )
            for figure in self.accuracy
            for rank, value in ((1, figure.top1), (5, figure.top5))
            if value is not None
        ]


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
