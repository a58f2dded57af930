"""A card as one self-contained HTML page: what was measured, its place among published models, its facts and prose."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from markdown_it import MarkdownIt
from markdown_it.token import Token

from cards import drawings, figures
from cards.card import Card, language_of
from cards.drawings import Confusion, Graph, Tick
from cards.forms import Language
from cards.front_matter import block
from cards.generate import environment
from cards.metadata import CardMetadata
from cards.mindspore_hub import written_fields
from cards.vocabulary import HUGGING_FACE_DATASETS
from xcit_hub.run_record import RunRecord, Sample
from xcit_hub.variants import CHECKPOINTS, PublishedCheckpoint

_SAMPLES = 3
_Shown = TypeVar("_Shown")


@dataclass(frozen=True)
class Dot:
    """One model of the chart; ``top1`` in per cent."""

    name: str
    top1: float
    mine: bool


@dataclass(frozen=True)
class Scale:
    """The part of 0 to 100 % that the chart shows."""

    low: float
    high: float

    @classmethod
    def of(cls, dots: Sequence[Dot]) -> Scale:
        """Leave a point on both sides of the models."""
        values = [dot.top1 for dot in dots]
        return cls(max(math.floor(min(values)) - 1, 0), min(math.ceil(max(values)) + 1, 100))

    def place(self, top1: float) -> float:
        """Return where an accuracy stands, in per cent of the chart's width."""
        return 100 * (top1 - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[Tick]:
        """The numbers below the chart."""
        return [Tick(self.place(value), f"{value:g}") for value in drawings.ticks(self.low, self.high)]


@dataclass(frozen=True)
class Page:
    """What the template shows. ``prose`` is HTML, everything else plain text."""

    title: str
    lang: Language
    fields: list[tuple[str, str]]
    dots: list[Dot]
    sources: list[str]
    prose: str
    top1: tuple[float, str] | None = None
    graphs: tuple[Graph, ...] = ()
    confusion: Confusion | None = None
    samples: tuple[Sample, ...] = ()

    @property
    def scale(self) -> Scale:
        """The chart's scale."""
        return Scale.of(self.dots)

    @property
    def has_own_dot(self) -> bool:
        """Whether the card states a figure to draw."""
        return any(dot.mine for dot in self.dots)

    @property
    def elsewhere(self) -> str | None:
        """The card's top-1 accuracy on other images than the chart's, with their name."""
        return None if self.has_own_dot or self.top1 is None else f"{self.top1[0]:g} % ({self.top1[1]})"


def html(card: Card, lang: Language | None = None, runs: Sequence[RunRecord] = ()) -> str:
    """Return the page: no scripts and nothing that is fetched. HTML and images inside the card's Markdown are left out.

    Args:
        lang: of the page's own words; the card's language without it.
        runs: records of the model's training and evaluation: their curves, confusion and sample images are shown first;
            of several records that have one, the last one's.
    """
    page = Page(
        title=card.title or card.metadata.model_name or "XCiT",
        lang=lang or language_of(card),
        fields=fields(card.metadata),
        dots=dots(card.metadata),
        sources=sorted({entry.accuracies[0].source for entry in _classifiers()}),
        prose=_markdown().render(card.prose),
        top1=_stated_top1(card.metadata),
        graphs=_last(drawings.curves(run) for run in runs) or (),
        confusion=_last(drawings.confusion(run) for run in runs),
        samples=_last(tuple(run.samples[:_SAMPLES]) for run in runs) or (),
    )
    return environment().get_template("page.html.j2").render(page=page)


def fields(metadata: CardMetadata) -> list[tuple[str, str]]:
    """Return the fields that say something, each as one line of text, for a table of them."""
    ours = metadata.model_dump(include={"library_name", "pipeline_tag", "language", "datasets", "base_model"})
    shown = written_fields(metadata) | {name: value for name, value in ours.items() if value}
    return [(name, text) for name, value in shown.items() for text in _lines(name, value)]


def dots(metadata: CardMetadata) -> list[Dot]:
    """Return the published classifiers and this card's model, best first. One published model counts once."""
    own = _own_top1(metadata)
    links = {asset.asset_link for asset in metadata.asset}
    found = [
        Dot(entry.name, entry.accuracies[0].top1, mine=False)
        for entry in _classifiers()
        if own is None or not (entry.name == metadata.model_name or entry.url in links)
    ]
    if own is not None:
        found.append(Dot(metadata.model_name or "XCiT", own, mine=True))
    return sorted(found, key=lambda dot: (-dot.top1, dot.name))


def _last(found: Iterable[_Shown | None]) -> _Shown | None:
    return next((each for each in reversed(list(found)) if each), None)


def _classifiers() -> list[PublishedCheckpoint]:
    return [
        entry for entry in CHECKPOINTS.values() if entry.num_classes == 1000 and entry.accuracies and not entry.copy_of
    ]


def _own_top1(metadata: CardMetadata) -> float | None:
    """Return the card's top-1 accuracy on ImageNet-1k: a figure from another dataset has no place in the chart."""
    on_imagenet = [result for result in metadata.results if "imagenet-1k" in result.dataset_type.lower()]
    if metadata.results:
        return metadata.model_copy(update={"results": on_imagenet}).accuracy_of(1)
    known = HUGGING_FACE_DATASETS.get(metadata.train_dataset or "") == "imagenet-1k"
    return figures.read(metadata.evaluation).ranked.get(1) if known else None


def _stated_top1(metadata: CardMetadata) -> tuple[float, str] | None:
    """Return the top-1 accuracy that the card states first, and on what."""
    if (found := metadata.measurement_of(1)) is not None:
        value, measurement = found
        return value, measurement.dataset_name
    stated = figures.read(metadata.evaluation).ranked.get(1)
    return None if stated is None else (stated, metadata.train_dataset or "?")


def _lines(name: str, value: Any) -> list[str]:
    if name == "asset":
        return [", ".join(str(part) for part in asset.values()) for asset in value]
    return [value if isinstance(value, str) else re.sub(r"^\[|\]$", "", block(value))]


def _markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": True}).enable("table").disable("image")
    made.add_render_rule("html_block", _nothing)
    made.add_render_rule("html_inline", _nothing)
    made.add_render_rule("table_open", _table_open)
    made.add_render_rule("table_close", _table_close)
    return made


def _nothing(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:  # noqa: ARG001
    return ""


def _table_open(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:  # noqa: ARG001
    return '<div class="wide"><table>\n'


def _table_close(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:  # noqa: ARG001
    return "</table></div>\n"
