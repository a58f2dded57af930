"""Every field of a model card, defined once: its name on each hub, what it holds, and how its text is read.

MindSpore Hub's fields are aliased by its own dashed names (mindspore_hub/_utils/check.py and the cards in
mshub_res/assets); Hugging Face's by the names of its model card metadata (huggingface_hub, ``ModelCardData``).
A field that should be a truth value, a list or a number keeps the text that was found in its place, so that nothing of
an uneven card is lost; :mod:`cards.check` reports it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, field_validator, model_validator

from cards import figures, measured, vocabulary
from cards.front_matter import Text, resolved, text_of


def _read_text(value: object) -> object:
    return text_of(value) if isinstance(value, (Text, list, dict)) else value


def _read_link(value: object) -> object:
    # Cards write links bare or as Markdown autolinks; the link is the same.
    text = _read_text(value)
    return text.strip("<> \t\r\n") if isinstance(text, str) else text


def _read_truth(value: object) -> object:
    found = resolved(value) if isinstance(value, Text) else value
    return found if isinstance(found, bool) else _read_text(value)


def _read_number(value: object) -> object:
    found = resolved(value) if isinstance(value, Text) else value
    return found if isinstance(found, (int, float)) and not isinstance(found, bool) else _read_text(value)


def _read_shape(value: object) -> object:
    return resolved(value) if isinstance(value, list) else _read_text(value)


def _read_names(value: object) -> object:
    # Hugging Face allows one name where a list is meant.
    entries = value if isinstance(value, list) else [value]
    return [text for entry in entries if (text := _read_text(entry)) is not None]


def _read_assets(value: object) -> object:
    if isinstance(value, Text) and text_of(value) is None:
        return []
    return [value] if isinstance(value, dict) else value


def _dashed(name: str) -> str:
    return name.replace("_", "-")


Words = Annotated[str | None, BeforeValidator(_read_text)]
Link = Annotated[str | None, BeforeValidator(_read_link)]
Truth = Annotated[bool | str | None, BeforeValidator(_read_truth)]
Number = Annotated[float | int | str | None, BeforeValidator(_read_number)]
Shape = Annotated[list[Any] | str | None, BeforeValidator(_read_shape)]
Names = Annotated[list[str], BeforeValidator(_read_names)]

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SHA256_PREFIX = re.compile(r"[0-9a-fA-F]{8,63}")


class Asset(BaseModel):
    """One file of a model.

    Args:
        asset_sha256: its SHA-256 as 64 hex digits; several official cards give only the first 8.
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True, alias_generator=_dashed)

    file_format: Words = None
    asset_link: Link = None
    asset_sha256: Words = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, written: Any) -> Any:
        if not isinstance(written, dict):
            return written
        known = {field.alias for field in cls.model_fields.values()}
        values: dict[str, Any] = {}
        for name, value in written.items():
            dashed = str(name).strip().lower().replace("_", "-")
            values.setdefault(*((dashed, value) if dashed in known else (name, resolved(value))))
        return values

    @property
    def has_whole_digest(self) -> bool:
        """Whether the file can be verified, not only recognised."""
        return self.asset_sha256 is not None and _SHA256.fullmatch(self.asset_sha256) is not None

    @property
    def has_digest_prefix(self) -> bool:
        """Whether only the beginning of the digest is given."""
        return self.asset_sha256 is not None and _SHA256_PREFIX.fullmatch(self.asset_sha256) is not None


class Result(BaseModel):
    """One figure of Hugging Face's ``model-index``, under the names of huggingface_hub's ``EvalResult``."""

    model_config = ConfigDict(protected_namespaces=())

    task_type: str
    dataset_type: str
    dataset_name: str
    metric_type: str
    metric_value: float | int | str
    task_name: str | None = None
    dataset_config: str | None = None
    dataset_split: str | None = None
    dataset_revision: str | None = None
    dataset_args: dict[str, Any] | None = None
    metric_name: str | None = None
    metric_config: str | None = None
    metric_args: dict[str, Any] | None = None
    verified: bool | None = None
    verify_token: str | None = None
    source_name: str | None = None
    source_url: str | None = None


class MindSporeHubFields(BaseModel):
    """What MindSpore Hub's cards say, in the order they say it.

    Args:
        fine_tunable: all weights can be trained further.
        evaluation: one line, ``top1acc77.27 | top5acc93.56``.
        license: in the Hub's words (``Apache2.0``).
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True, protected_namespaces=(), alias_generator=_dashed)

    model_name: Words = None
    backbone_name: Words = None
    module_type: Words = None
    fine_tunable: Truth = None
    input_shape: Shape = None
    model_version: Words = None
    train_dataset: Words = None
    evaluation: Words = None
    accuracy: Number = None
    author: Words = None
    update_time: Words = None
    repo_link: Link = None
    user_id: Words = None
    used_for: Words = None
    train_backend: Words = None
    infer_backend: Words = None
    mindspore_version: Words = None
    asset: Annotated[list[Asset], BeforeValidator(_read_assets)] = []
    allow_cache_ckpt: Truth = None
    featured_image: Words = None
    license: Words = None
    summary: Words = None


class HuggingFaceFields(BaseModel):
    """What only Hugging Face's cards say.

    Args:
        license_id: its identifier of the licence (``apache-2.0``); written as ``license``.
        results: its ``model-index``.
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True, protected_namespaces=())

    language: Names = []
    license_id: Words = None
    library_name: Words = None
    tags: Names = []
    pipeline_tag: Words = None
    datasets: Names = []
    metrics: Names = []
    base_model: Names = []
    results: list[Result] = []


class CardMetadata(HuggingFaceFields, MindSporeHubFields):
    """The facts at the head of a card. Every field may be missing: what a hub insists on is the checker's business.

    Unknown fields are kept in ``model_extra``.

    Args:
        dialect: what the network computes (:data:`xcit_hub.variants.DIALECTS`).
    """

    model_config = ConfigDict(alias_generator=None)  # Hugging Face's names have no dashes

    dialect: Words = None

    @field_validator("tags")
    @classmethod
    def _once(cls, tags: list[str]) -> list[str]:
        # Hugging Face's own writer drops repeated tags.
        return list(dict.fromkeys(tags))

    def for_mindspore_hub(self) -> CardMetadata:
        """Return a copy in which MindSpore Hub's empty fields are filled from what Hugging Face's say.

        ``evaluation`` speaks of the data set that the model was trained on, and of images that it has not seen.
        """
        fitting = self.model_copy(update={"results": [each for each in self.results if self._is_of_own_data(each)]})
        return self._filled(
            license=vocabulary.HUB_LICENSES.get(self.license_id or "", self.license_id),
            train_dataset=vocabulary.HUB_DATASETS.get(self.datasets[0], self.datasets[0]) if self.datasets else None,
            module_type=vocabulary.MODULE_TYPE_OF_TASK.get(self.pipeline_tag or ""),
            evaluation=figures.write(fitting.accuracy_of(1), fitting.accuracy_of(5)),
        )

    def for_hugging_face(self) -> CardMetadata:
        """Return a copy in which Hugging Face's empty fields are filled from what MindSpore Hub's say."""
        dataset = vocabulary.HUGGING_FACE_DATASETS.get(self.train_dataset or "")
        task = vocabulary.TASK_OF_MODULE_TYPE.get(self.module_type or "") if dataset else None
        results = []
        if dataset is not None and task is not None:
            results = [
                Result(
                    task_type=task,
                    dataset_type=dataset,
                    dataset_name=self.train_dataset or dataset,
                    metric_type="accuracy",
                    metric_name=f"top-{rank} accuracy (%)",
                    metric_value=value,
                )
                for rank, value in figures.read(self.evaluation).ranked.items()
            ]
        return self._filled(
            license_id=vocabulary.LICENSE_IDS.get(self.license or ""),
            datasets=[dataset] if dataset else [],
            pipeline_tag=task,
            results=results,
        )

    def _filled(self, **candidates: Any) -> CardMetadata:
        missing = {name: value for name, value in candidates.items() if value and not getattr(self, name)}
        return self.model_copy(update=missing)

    def _is_of_own_data(self, result: Result) -> bool:
        trained_on = self.train_dataset or (self.datasets[0] if self.datasets else None)
        seen = (result.dataset_split or "").lower() in measured.TRAINED_ON
        return trained_on is not None and not seen and _same_dataset(trained_on) == _same_dataset(result.dataset_type)

    def accuracy_of(self, rank: int) -> float | None:
        """Return the top-``rank`` accuracy of the first measurement in :attr:`results` that has one, in per cent.

        Of a measurement that has two different ones, neither is taken.
        """
        found = self.measurement_of(rank)
        return None if found is None else found[0]

    def measurement_of(self, rank: int) -> tuple[float, Result] | None:
        """Return what :meth:`accuracy_of` does, and the result that says it."""
        found = [
            (
                result.model_dump(exclude={"metric_value", "verified", "verify_token"}),
                float(result.metric_value),
                result,
            )
            for result in self.results
            if isinstance(result.metric_value, (int, float))
            and figures.rank_of(f"{result.metric_type} {result.metric_name or ''}") == rank
        ]
        of_first = {value for measurement, value, _ in found if measurement == found[0][0]}
        return found[0][1:] if len(of_first) == 1 and 0 <= min(of_first) <= max(of_first) <= 100 else None


def _same_dataset(name: str) -> str:
    """Return one name for a data set, whichever hub's word ``name`` is."""
    word = vocabulary.HUB_DATASETS.get(name, name)
    return vocabulary.HUGGING_FACE_DATASETS.get(word, word).lower()


MINDSPORE_HUB_FIELDS: dict[str, str] = {
    field.alias or name: name for name, field in MindSporeHubFields.model_fields.items()
}
"""MindSpore Hub's name of a field → its name here, in the order the Hub's cards have them."""

HUGGING_FACE_FIELDS = tuple(HuggingFaceFields.model_fields)
"""Fields that only Hugging Face has, by their names here."""
