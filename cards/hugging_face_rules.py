"""What Hugging Face refuses in a model card: huggingface_hub's own reader, and what its server says of metadata.

An error here is a refusal there. The server's validation is not public; known are the messages that its users quote:
``"license" must be one of …``, ``"language[0]" must only contain lowercase characters``, ``"base_model" is not valid``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from cards import vocabulary
from cards.faults import Fault
from cards.front_matter import GIVEN_TWICE, resolved
from cards.hugging_face import MODEL_INDEX, Parts
from cards.metadata import CardMetadata
from xcit_hub.errors import closest

# Fields that only another kind of repository's card has (huggingface_hub, DatasetCardData and SpaceCardData).
_OF_DATASETS = frozenset(
    {"dataset_info", "task_categories", "task_ids", "size_categories", "annotations_creators", "language_creators",
     "multilinguality", "source_datasets", "pretty_name", "train-eval-index", "config_names"}
)  # fmt: skip
_OF_SPACES = frozenset(
    {"sdk", "sdk_version", "app_file", "app_port", "colorFrom", "colorTo", "pinned", "python_version"}
)
_TEXTS = frozenset({"library_name", "pipeline_tag"})
_LISTS = frozenset({"tags", "datasets", "metrics", "base_model", "language", "license"})


def faults(parts: Parts, metadata: CardMetadata) -> Iterator[Fault]:
    """Yield what Hugging Face refuses in a card, and what it lets pass and a reader should know.

    Args:
        parts: the card, taken apart by :func:`cards.hugging_face.split`; ``metadata`` is what was read from it.
    """
    lines = parts.fields.lines
    values = {name: resolved(value) for name, value in parts.fields.values.items()}
    for fault in parts.fields.faults:
        if fault.message.startswith(GIVEN_TWICE):
            yield Fault(fault.line, fault.field, "given twice, which the server's YAML reader refuses")
    if not values:
        yield Fault(1, "metadata", "is empty: this is not the card of a model")
    yield from _another_kind(values, lines)
    try:
        # Read safely before: nothing is left in it that could make it large or run something.
        ModelCardData(**(yaml.safe_load(parts.head) or {}))
    except Exception as error:  # whatever it raises, it does not take the card
        message = (str(error).splitlines() or [type(error).__name__])[0]
        yield Fault(lines.get(MODEL_INDEX, 1), MODEL_INDEX, f"huggingface_hub cannot read the card: {message[:300]}")
    yield from _types(values, lines)
    for license_id in _names(values.get("license")):
        if license_id not in vocabulary.hugging_face_licenses():
            hint = closest(license_id.lower(), vocabulary.hugging_face_licenses()) or "`other` is for any other"
            yield Fault(lines["license"], "license", f"{license_id!r} is not an identifier of Hugging Face; {hint}")
    for language in _names(values.get("language")):
        if language != language.lower():
            yield Fault(lines["language"], "language", f"{language!r} must only contain lowercase characters")
    for field, severity in (("base_model", "error"), ("datasets", "warning")):
        for name in _names(values.get(field)):
            if not _is_repository(name):
                message = f"{name!r} is not the id of a repository on Hugging Face"
                yield Fault(lines[field], field, message, "error" if severity == "error" else "warning")
    yield from _advice(metadata, lines)


def _another_kind(values: dict[str, Any], lines: dict[str, int]) -> Iterator[Fault]:
    for kind, fields in (("dataset", _OF_DATASETS), ("Space", _OF_SPACES)):
        found = [name for name in values if name in fields]
        if found and "library_name" not in values and "pipeline_tag" not in values and MODEL_INDEX not in values:
            message = f"{', '.join(found)}: this is the card of a {kind}, not of a model"
            yield Fault(lines[found[0]], found[0], message)


def _types(values: dict[str, Any], lines: dict[str, int]) -> Iterator[Fault]:
    for name, value in values.items():
        if name in _TEXTS and not isinstance(value, (str, type(None))):
            yield Fault(lines[name], name, f"must be text, and is {value!r}"[:200])
        entries = value if isinstance(value, list) else [value]
        if name in _LISTS and any(isinstance(entry, (dict, list, bool)) for entry in entries):
            yield Fault(lines[name], name, f"must be a list of names, and is {value!r}"[:200])


def _names(value: Any) -> list[str]:
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str)]


def _is_repository(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _advice(metadata: CardMetadata, lines: dict[str, int]) -> Iterator[Fault]:
    for name in metadata.model_extra or {}:
        if name.startswith("x-") and (known := name.removeprefix("x-")) in lines:
            yield Fault(lines[known], known, "is not what this field holds", "warning")
    if metadata.license_id is None:
        yield Fault(1, "license", "is missing: nobody may use weights without a licence", "warning")
    if metadata.library_name == "mindspore" and metadata.dialect is None:
        yield Fault(1, "dialect", "is missing: MindSpore's weights mean nothing without it", "warning")
    if metadata.pipeline_tag is not None and metadata.pipeline_tag not in vocabulary.PIPELINE_TAGS:
        message = f"{metadata.pipeline_tag!r} is not a task of this network"
        yield Fault(lines.get("pipeline_tag"), "pipeline_tag", message, "warning")
    line = lines.get(MODEL_INDEX)
    for result in metadata.results:
        value = result.metric_value
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            message = f"the value {value!r} of {result.metric_type} is not a number"
            yield Fault(line, MODEL_INDEX, message, "warning")
        elif result.metric_type == "accuracy" and not 0 <= value <= 100:
            yield Fault(line, MODEL_INDEX, f"an accuracy of {value:g} % cannot be", "warning")
