"""Hugging Face's written form: ``README.md`` with YAML front matter, through huggingface_hub's own card classes.

MindSpore Hub's fields stand under the one key ``mindspore-hub``, so that neither hub's words are taken for the other's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from cards import front_matter
from cards.card import Card, normalized
from cards.faults import Fault, UnreadableCardError
from cards.front_matter import Fields, Tree, resolved
from cards.metadata import CardMetadata, Result
from cards.mindspore_hub import extra_fields, written_fields
from cards.reading import metadata_from, metadata_values

FOREIGN = "mindspore-hub"
MODEL_INDEX = "model-index"
_RESERVED = frozenset({FOREIGN, MODEL_INDEX, "eval_results", "model_name", "license"})
_CLOSING = re.compile(r"---[ \t]*$")


@dataclass(frozen=True)
class Parts:
    """A card taken apart, before anything is believed. Lines are counted from 1.

    Args:
        head: the lines between the dashes.
    """

    head: str
    fields: Fields
    prose: str
    prose_line: int


def split(text: str) -> Parts:
    """Take a card apart. Never raises; ``fields.faults`` and ``fields.readable`` say what went wrong."""
    lines = normalized(text).split("\n")
    first = next((index for index, line in enumerate(lines) if line.strip()), len(lines))
    opens = first < len(lines) and lines[first].strip() == "---"
    closings = (index for index in range(first + 1, len(lines)) if _CLOSING.match(lines[index]))
    closing = next(closings, None) if opens else None
    if closing is None:
        message = "the file does not begin with metadata between two `---` lines"
        return Parts("", Fields(faults=[Fault(1, "metadata", message)], readable=False), "\n".join(lines), 1)
    head = "\n".join(lines[first + 1 : closing])
    return Parts(head, front_matter.load(head, first + 2), "\n".join(lines[closing + 1 :]), closing + 2)


def read(text: str) -> Card:
    """Read a card.

    Raises:
        UnreadableCardError: there is no metadata, or it holds YAML that a card has no business to contain.
    """
    parts = split(text)
    if not parts.fields.readable:
        raise UnreadableCardError(parts.fields.faults)
    values, _ = values_of(parts.fields)
    title, prose = titled(parts.prose)
    return Card(title, metadata_from(values), prose)


def write(card: Card) -> str:
    """Write a card so that :func:`read` finds the same metadata."""
    metadata = card.metadata
    data = ModelCardData(
        language=metadata.language or None,
        license=metadata.license_id,
        library_name=metadata.library_name,
        tags=list(metadata.tags) or None,
        pipeline_tag=metadata.pipeline_tag,
        datasets=metadata.datasets or None,
        metrics=metadata.metrics or None,
        base_model=metadata.base_model or None,
    )
    if metadata.dialect is not None:
        data["dialect"] = metadata.dialect
    if metadata.results:
        data[MODEL_INDEX] = _model_index(metadata)
    foreign = {
        name: value
        for name, value in written_fields(metadata).items()
        if name != "dialect" and not _at_top(name, metadata)
    }
    if foreign:
        data[FOREIGN] = foreign
    for name, unknown in extra_fields(metadata).items():
        if _at_top(name, metadata):
            data[name] = unknown
    data.__dict__ = front_matter.escaped(data.__dict__)
    content = ModelCard("---\n{}\n---\n")
    content.data = data
    title = " ".join(card.title.split())
    content.text = "\n" + (f"# {title}\n\n" if title else "") + card.prose.strip("\n") + "\n"
    return str(content)


def values_of(fields: Fields) -> tuple[dict[str, Any], list[Fault]]:
    """Return :class:`CardMetadata`'s values as the front matter writes them, and what of its model-index is not one."""
    faults: list[Fault] = []
    own: dict[str, Tree] = dict(fields.values)
    foreign = own.pop(FOREIGN, {})
    license_id = own.pop("license", None)
    index = own.pop(MODEL_INDEX, None)
    values: dict[str, Any] = metadata_values(foreign) if isinstance(foreign, dict) else {f"x-{FOREIGN}": foreign}
    values |= metadata_values(own)
    if license_id is not None:
        values["license_id"] = license_id
    if index is not None:
        try:
            name, values["results"] = _results(resolved(index))
            values.setdefault("model-name", name)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            message = f"not a model-index ({type(error).__name__}: {error}); it is kept as it was"
            faults.append(Fault(fields.lines.get(MODEL_INDEX), MODEL_INDEX, message))
            values[f"x-{MODEL_INDEX}"] = index
    return values, faults


def _at_top(name: str, metadata: CardMetadata) -> bool:
    # An unknown field stands at the top, unless Hugging Face would take it for one of its own or drop it as empty.
    return (metadata.model_extra or {}).get(name) is not None and name not in _RESERVED


def _results(index: Any) -> tuple[str, list[dict[str, Any]]]:
    name, results = model_index_to_eval_results(index)
    return str(name), [Result(**vars(result)).model_dump() for result in results]


def _model_index(metadata: CardMetadata) -> list[dict[str, Any]]:
    # huggingface_hub merges all figures of one dataset and keeps only the first one's names and source.
    name = metadata.model_name or "model"
    results: list[Any] = []
    for _, group in groupby(metadata.results, key=_measurement):
        evaluations = [EvalResult(**result.model_dump()) for result in group]
        results += eval_results_to_model_index(name, evaluations)[0]["results"]
    return [{"name": name, "results": results}]


def _measurement(result: Result) -> dict[str, Any]:
    told = result.model_dump()
    return {field: told[field] for field in told if not field.startswith(("metric_", "verif"))}


def titled(prose: str) -> tuple[str, str]:
    """Take the first heading off the prose; empty where it begins with none."""
    stripped = prose.strip("\n")
    first, _, rest = stripped.partition("\n")
    title = first.removeprefix("# ").strip()
    return (title, rest.strip("\n")) if first.startswith("# ") and title else ("", stripped)
