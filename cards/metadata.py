"""Every field of a model card, defined once, whichever hub asks for it.

MindSpore Hub's fields are aliased by its own dashed names (mindspore_hub/_utils/check.py and the cards in
mshub_res/assets); Hugging Face's by the names of its model card metadata (huggingface_hub, ``ModelCardData``).
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from cards import vocabulary


def _link(value: object) -> object:
    # Cards write links bare or as Markdown autolinks; the link is the same.
    return value.strip("<> \t\r\n") if isinstance(value, str) else value


def _list(value: object) -> object:
    # Hugging Face allows one name where a list is meant.
    return [] if value is None else [value] if isinstance(value, str) else value


Link = Annotated[str, BeforeValidator(_link)]
Names = Annotated[list[str], BeforeValidator(_list)]

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SHA256_PREFIX = re.compile(r"[0-9a-fA-F]{8,63}")


class Asset(BaseModel):
    """One file of a model.

    Args:
        asset_sha256: its SHA-256 as 64 hex digits; several official cards give only the first 8.
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    file_format: str | None = Field(None, alias="file-format")
    asset_link: Link | None = Field(None, alias="asset-link")
    asset_sha256: str | None = Field(None, alias="asset-sha256")

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


class CardMetadata(BaseModel):
    """The facts at the head of a card. Every field may be missing: what a hub insists on is the checker's business.

    A field that should be a truth value, a list or a number keeps the text that was found in its place, so that
    nothing of an uneven card is lost; :mod:`cards.check` reports it. Unknown fields are kept in ``model_extra``.

    Args:
        fine_tunable: all weights can be trained further.
        evaluation: MindSpore Hub's one-line form, ``top1acc77.27 | top5acc93.56``.
        license: as MindSpore Hub writes it (``Apache2.0``); ``license_id`` is Hugging Face's (``apache-2.0``).
        results: Hugging Face's ``model-index``.
        dialect: what the network computes (:data:`xcit_hub.variants.DIALECTS`).
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True, protected_namespaces=())

    model_name: str | None = Field(None, alias="model-name")
    backbone_name: str | None = Field(None, alias="backbone-name")
    module_type: str | None = Field(None, alias="module-type")
    fine_tunable: bool | str | None = Field(None, alias="fine-tunable")
    input_shape: list[Any] | str | None = Field(None, alias="input-shape")
    model_version: str | None = Field(None, alias="model-version")
    train_dataset: str | None = Field(None, alias="train-dataset")
    evaluation: str | None = None
    accuracy: float | int | str | None = None
    author: str | None = None
    update_time: str | None = Field(None, alias="update-time")
    repo_link: Link | None = Field(None, alias="repo-link")
    user_id: str | None = Field(None, alias="user-id")
    used_for: str | None = Field(None, alias="used-for")
    train_backend: str | None = Field(None, alias="train-backend")
    infer_backend: str | None = Field(None, alias="infer-backend")
    mindspore_version: str | None = Field(None, alias="mindspore-version")
    asset: list[Asset] = []
    allow_cache_ckpt: bool | str | None = Field(None, alias="allow-cache-ckpt")
    featured_image: str | None = Field(None, alias="featured-image")
    license: str | None = None
    summary: str | None = None

    library_name: str | None = None
    tags: Names = []
    pipeline_tag: str | None = None
    datasets: Names = []
    metrics: Names = []
    base_model: Names = []
    language: Names = []
    license_id: str | None = None
    results: list[Result] = []

    dialect: str | None = None

    @field_validator("tags")
    @classmethod
    def _once(cls, tags: list[str]) -> list[str]:
        # Hugging Face's own writer drops repeated tags.
        return list(dict.fromkeys(tags))

    def for_mindspore_hub(self) -> CardMetadata:
        """Return a copy in which MindSpore Hub's empty fields are filled from what Hugging Face's say."""
        top = {rank: self._result(rank) for rank in (1, 5)}
        said = " | ".join(f"top{rank}acc{value:g}" for rank, value in top.items() if value is not None)
        return self._filled(
            license=vocabulary.HUB_LICENSES.get(self.license_id or "", self.license_id),
            train_dataset=vocabulary.HUB_DATASETS.get(self.datasets[0], self.datasets[0]) if self.datasets else None,
            module_type=vocabulary.MODULE_TYPE_OF_TASK.get(self.pipeline_tag or ""),
            evaluation=said or None,
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
                for rank, value in ranked_accuracies(self.evaluation).items()
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

    def _result(self, rank: int) -> float | None:
        for result in self.results:
            named = re.search(rf"top-?\s?{rank}\b", f"{result.metric_type} {result.metric_name}", re.IGNORECASE)
            if named and isinstance(result.metric_value, (int, float)):
                return float(result.metric_value)
        return None


MINDSPORE_HUB_FIELDS: dict[str, str] = {
    field.alias or name: name
    for name, field in CardMetadata.model_fields.items()
    if name
    not in {
        "library_name",
        "tags",
        "pipeline_tag",
        "datasets",
        "metrics",
        "base_model",
        "language",
        "license_id",
        "results",
        "dialect",
    }
}
"""MindSpore Hub's name of a field → its name here, in the order the Hub's cards have them."""

HUGGING_FACE_FIELDS: tuple[str, ...] = (
    "language",
    "license_id",
    "library_name",
    "tags",
    "pipeline_tag",
    "datasets",
    "metrics",
    "base_model",
    "results",
)
"""Fields that only Hugging Face has, by their names here."""

_RANKED = re.compile(
    r"top[\s@_-]?(?P<rank>[15])[\s_-]?(?:acc(?:uracy)?)?[\s=:]*(?P<value>\d{1,3}(?:\.\d+)?)", re.IGNORECASE
)


def ranked_accuracies(evaluation: str | None) -> dict[int, float]:
    """Read ``top1acc77.27 | top5acc93.56`` as ``{1: 77.27, 5: 93.56}``, in per cent; empty when it says neither."""
    return {int(found["rank"]): float(found["value"]) for found in _RANKED.finditer(evaluation or "")}
