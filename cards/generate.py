"""Facts in, a card out: in either form, in either language."""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from cards import hugging_face, measured, mindspore_hub, modelers, modelscope
from cards.card import Card
from cards.facts import Facts
from cards.forms import Form, Language
from cards.public import public

_WRITERS = {
    "mindspore-hub": mindspore_hub.write,
    "hugging-face": hugging_face.write,
    "modelers": modelers.write,
    "modelscope": modelscope.write,
}
_ORIGINS = {
    "en": {True: "published", False: "measured here"},
    "zh": {True: "发布方", False: "本项目实测"},
}
_NOTHING = "-"
_IN_ADDRESS = ":/?#[]@!$&'*+,;=%~"


def render(facts: Facts, *, form: Form, lang: Language) -> str:
    """Return the whole card as text.

    Args:
        form: ``mindspore-hub``, ``hugging-face``, ``modelers`` or ``modelscope``.
        lang: ``en`` or ``zh``, of the prose; the names of the fields are English in both.
    """
    return _WRITERS[form](card(facts, form=form, lang=lang))


def card(facts: Facts, *, form: Form, lang: Language) -> Card:
    """Return the card that :func:`render` writes."""
    return Card(facts.name, facts.metadata(form, lang), prose(facts, lang))


def prose(facts: Facts, lang: Language) -> str:
    """Return the Markdown below the metadata. Sections about which nothing is known are left out."""
    template = environment().get_template(f"card.{lang}.md.j2")
    written = template.render(
        facts=facts,
        file_origin=_ORIGINS[lang][facts.published is not None],
        run_table=lambda run: measured.table(run, lang),
        command=measured.command,
        validation=measured.validation,
        changes=measured.changes,
        origin=measured.origin,
        folders=measured.folders,
        is_of_the_project=measured.is_of_the_project,
        dataset_of=lambda run: measured.in_words(measured.dataset_of(run), lang),
        dataset=lambda name: measured.in_words(name, lang),
    )
    return public(re.sub(r"\n{3,}", "\n\n", written).strip("\n"))


@cache
def environment() -> Environment:
    """The templates, with the filters that turn figures into words."""
    # Markdown, not HTML: nothing is escaped but what would leave its table cell.
    made = Environment(
        loader=PackageLoader("cards", "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=select_autoescape(["html.j2"]),
    )
    made.filters |= {
        "cell": _cell,
        "linked": _linked,
        "numbers": lambda values: ", ".join(map(_trimmed, values)),
        "millions": lambda count: f"{count / 1e6:.2f}",
        "resolution": lambda size: _NOTHING if size is None else f"{size[0]}x{size[1]}",
        "scientific": lambda value: f"{value:.1e}",
        "seconds": lambda value: _NOTHING if value is None else f"{_trimmed(value)}s",
        "trimmed": _trimmed,
    }
    return made


def _cell(value: object) -> str:
    if value is None:
        return _NOTHING
    text = _trimmed(value) if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _trimmed(value: float) -> str:
    """Write a number with the digits it was given, and no more."""
    return f"{value:.4g}" if 0 < abs(value) < 1e-3 else f"{value:.6f}".rstrip("0").rstrip(".")


def _linked(text: str, url: str | None) -> str:
    # Quoted, an address cannot end its link or its table cell.
    return f"[{text}]({quote(url, safe=_IN_ADDRESS)})" if url else text
