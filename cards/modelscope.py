"""ModelScope's form: ``tasks, frameworks, license, language, domain, model-type, backbone, metrics, datasets,
base_model, tags``, and our ``dialect``.

The hub's own rules are not public and its client has no class for a card, so an error here is what its pages could not
show: a field of another kind. Figures stand in the prose; the hub has no field for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cards import rewritten
from cards.card import Card
from cards.faults import Fault
from cards.front_matter import Fields, Text
from cards.hugging_face import FOREIGN, MODEL_INDEX, Parts
from cards.measured import TRAINED_ON, UNNAMED
from cards.metadata import CardMetadata

# Hugging Face's identifier → what ModelScope's pages say (modelscope_hub 0.5.1, ``_LICENSE_DISPLAY_TO_SPDX``).
LICENSES = {
    "apache-2.0": "Apache License 2.0",
    "mit": "MIT License",
    "gpl-2.0": "GPL-2.0",
    "gpl-3.0": "GPL-3.0",
    "lgpl-2.1": "LGPL-2.1",
    "lgpl-3.0": "LGPL-3.0",
    "afl-3.0": "AFL-3.0",
    "ecl-2.0": "ECL-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc0-1.0": "CC0-1.0",
    "unlicense": "Unlicense",
    "other": "other",
}
OWN = frozenset({"tasks", "frameworks", "domain", "model-type", "backbone"})
# Hugging Face's fields that stand under other names here, or nowhere.
_OTHERWISE = frozenset({*OWN, "pipeline_tag", "library_name", MODEL_INDEX, FOREIGN})
_IDS = {shown: known for known, shown in LICENSES.items()}
_LISTS = frozenset(
    {"tasks", "frameworks", "license", "language", "domain", "model-type", "backbone", "metrics", "base_model", "tags"}
)
# Fields that only ModelScope has, and what they are of an XCiT.
_OF_AN_XCIT = {"domain": ["cv"], "model-type": ["xcit"], "backbone": ["xcit"]}
_OF_ONE = ("tasks", "frameworks", "license")
_EXPECTED = ("tasks", "frameworks", "license", "domain")


def write(card: Card) -> str:
    """Write a card so that :func:`read` finds the same metadata, but for figures and MindSpore Hub's fields."""
    return rewritten.write(card, _written)


def read(text: str) -> Card:
    """Read a card.

    Raises:
        UnreadableCardError: there is no metadata, or it holds YAML that a card has no business to contain.
    """
    return rewritten.read(text, named)


def named(fields: Fields) -> Fields:
    """Return the fields under Hugging Face's names; what only ModelScope has is left out."""
    found = rewritten.renamed(fields, {"tasks": "pipeline_tag", "frameworks": "library_name"})
    for name in _OF_AN_XCIT:
        found.values.pop(name, None)
    for name, written in (("pipeline_tag", "tasks"), ("library_name", "frameworks")):
        if words := rewritten.words(fields.values.get(written)):
            found.values[name] = Text(words[0])
    datasets = fields.values.get("datasets")
    if isinstance(datasets, dict):
        # Hugging Face's field is of what a model was trained on.
        found.values["datasets"] = [Text(name) for name in dict.fromkeys(rewritten.words(datasets.get("train")))]
    if words := rewritten.words(fields.values.get("license")):
        found.values["license"] = Text(_IDS.get(words[0], words[0]))
    return found


def unnamed(fields: Fields) -> dict[str, str]:
    """Return what :func:`named` leaves out: the field's name → why."""
    first = {name: next(iter(rewritten.words(fields.values.get(name))), None) for name in _OF_ONE}
    own = {
        name: f"only ModelScope has it; {', '.join(ours)} is written there"
        for name, ours in _OF_AN_XCIT.items()
        if name in fields.values
    }
    datasets = fields.values.get("datasets")
    parts = {part: rewritten.words(names) for part, names in datasets.items()} if isinstance(datasets, dict) else {}
    others = [f"{part} ({', '.join(names)})" for part, names in parts.items() if part != "train" and names]
    of_parts = {"datasets": f"only train is kept, not {', '.join(others)}"} if others else {}
    return rewritten.all_but(fields, first) | own | of_parts


def faults(parts: Parts, metadata: CardMetadata) -> Iterator[Fault]:
    """Yield what the hub's pages could not show, and what a reader should know."""
    values, lines = parts.fields.values, parts.fields.lines
    yield from rewritten.lists(parts.fields, _LISTS)
    datasets = values.get("datasets")
    if isinstance(datasets, dict):
        for part, inside in datasets.items():
            if part not in ("train", "evaluation") or isinstance(inside, dict):
                yield Fault(lines["datasets"], "datasets", f"{part!r} is not a list under train or evaluation")
    for name in _EXPECTED:
        if not rewritten.words(values.get(name)):
            yield Fault(lines.get(name, 1), name, "is missing: the hub does not list the model by it", "warning")
    if metadata.license_id is not None and metadata.license_id not in LICENSES:
        known = f"{metadata.license_id!r} is not a licence that ModelScope's client knows"
        yield Fault(lines.get("license"), "license", known, "warning")
    if rewritten.words(values.get("frameworks"))[:1] == ["mindspore"] and metadata.dialect is None:
        yield Fault(1, "dialect", "is missing: MindSpore's weights mean nothing without it", "warning")


def _written(head: dict[str, Any]) -> dict[str, Any]:
    license_id = head.get("license")
    parts = {"train": list(head.get("datasets") or []), "evaluation": _evaluated(head)}
    datasets = {part: names for part, names in parts.items() if names}
    library = head.get("library_name", "mindspore")
    fields = {
        "tasks": [head["pipeline_tag"]] if head.get("pipeline_tag") else None,
        "frameworks": ["mindspore" if library == "timm" else library],
        "license": LICENSES.get(license_id, license_id) if license_id else None,
        "language": head.get("language"),
        **_OF_AN_XCIT,
        "metrics": head.get("metrics"),
        "datasets": datasets,
        "base_model": head.get("base_model"),
        "tags": head.get("tags"),
        "dialect": head.get("dialect"),
    }
    unknown = {name: value for name, value in head.items() if name not in _OTHERWISE}
    return {name: value for name, value in {**unknown, **fields}.items() if value}


def _evaluated(head: dict[str, Any]) -> list[str]:
    """Return the data sets that a figure of the card is of; images that were trained on, or have no name, are none."""
    measured_on = [
        result["dataset"]
        for model in head.get(MODEL_INDEX) or []
        for result in model["results"]
        if result["dataset"]["type"] != UNNAMED and result["dataset"].get("split") not in TRAINED_ON
    ]
    return list(dict.fromkeys(dataset["type"] for dataset in measured_on))
