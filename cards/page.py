"""A card as one self-contained HTML page: its facts, its prose, and a bar of its model among the published ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from cards.card import Card, Language, language_of
from cards.front_matter import block
from cards.generate import environment
from cards.metadata import CardMetadata, ranked_accuracies
from cards.mindspore_hub import written_fields
from xcit_hub.variants import CHECKPOINTS


@dataclass(frozen=True)
class Bar:
    """One model of the chart; ``top1`` in per cent."""

    name: str
    top1: float
    mine: bool


@dataclass(frozen=True)
class Page:
    """What the template shows. ``prose`` is HTML, everything else plain text."""

    title: str
    lang: Language
    fields: list[tuple[str, str]]
    bars: list[Bar]
    sources: list[str]
    prose: str

    @property
    def has_own_bar(self) -> bool:
        """Whether the card states a figure to draw."""
        return any(bar.mine for bar in self.bars)


def html(card: Card, lang: Language | None = None) -> str:
    """Return the page: no scripts, no images, nothing that is fetched. HTML inside the card's Markdown is left out.

    Args:
        lang: of the page's own words; the card's language without it.
    """
    page = Page(
        title=card.title or card.metadata.model_name or "XCiT",
        lang=lang or language_of(card),
        fields=fields(card.metadata),
        bars=bars(card.metadata),
        sources=sorted({figure.source for entry in CHECKPOINTS.values() for figure in entry.accuracies[:1]}),
        prose=_markdown().render(card.prose),
    )
    return environment().get_template("page.html.j2").render(page=page)


def fields(metadata: CardMetadata) -> list[tuple[str, str]]:
    """Return the fields that say something, each as one line of text, for a table of them."""
    ours = metadata.model_dump(include={"library_name", "pipeline_tag", "language", "datasets", "base_model"})
    shown = written_fields(metadata) | {name: value for name, value in ours.items() if value}
    return [(name, text) for name, value in shown.items() for text in _lines(name, value)]


def bars(metadata: CardMetadata) -> list[Bar]:
    """Return the published classifiers and this card's model, best first. One published model counts once."""
    links = {asset.asset_link for asset in metadata.asset}
    own = ranked_accuracies(metadata.evaluation).get(1)
    if own is None:
        own = ranked_accuracies(metadata.for_mindspore_hub().evaluation).get(1)
    found = [
        Bar(entry.name, entry.accuracies[0].top1, mine=False)
        for entry in CHECKPOINTS.values()
        if entry.num_classes and not (own is not None and (entry.name == metadata.model_name or entry.url in links))
    ]
    if own is not None:
        found.append(Bar(metadata.model_name or "XCiT", own, mine=True))
    return sorted(found, key=lambda bar: (-bar.top1, bar.name))


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
