"""Tries, by a card, to run code, to fill memory, to reach into a page or a terminal, to end in a traceback.

Every card is a file of ``cards``, named by what it tries, after what has to come of it. ``refused``: nothing
is read from it. ``error``: its check finds an error. ``harmless``: it is read, and neither its page nor a card written
again from it does what it tries.
"""

from __future__ import annotations

from functools import partial
from html.parser import HTMLParser
from pathlib import Path

from ledger import Attack, Case, expect

from cards import hugging_face, mindspore_hub
from cards.check import check, read
from cards.faults import UnreadableCardError
from cards.page import html
from cards.translate import translate

FILES = sorted((Path(__file__).parent / "cards").glob("*.md"))
LONGEST = 20.0  # seconds on a busy machine; a second where it is idle
PASSIVE = {
    "html", "head", "meta", "title", "style", "body", "section", "article", "figure", "figcaption", "div", "span", "br",
    "table", "tr", "th", "td", "thead", "tbody", "h1", "h2", "h3", "h4", "h5", "h6", "p", "a", "ul", "ol", "li", "hr",
    "blockquote", "pre", "code", "em", "strong",
}  # fmt: skip


def cases(_: int) -> list[Case]:
    return [Case(path.stem, partial(_attempt, path)) for path in FILES]


ATTACK = Attack("hostile cards", cases, sample=1000, within=LONGEST)


class Page(HTMLParser):
    """Collects what a browser would run, fetch or follow elsewhere than into the web."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.active += [] if tag in PASSIVE else [tag]
        for name, value in attrs:
            scheme = (value or "").partition(":")[0].strip().lower() if ":" in (value or "") else "https"
            if name.startswith("on") or name == "src" or (name == "href" and scheme not in ("http", "https", "mailto")):
                self.active.append(f"{tag} {name}={value}")


def _attempt(path: Path, folder: Path) -> None:
    found, expected = _outcome(path), path.name.partition("-")[0]
    # What could not even be read is an error as well.
    expect(found == expected or (expected == "error" and found == "refused"), f"{found}, and should be {expected}")
    expect(list(folder.iterdir()) == [], "a card made a file")


def _outcome(path: Path) -> str:
    errors = [fault for fault in check(path) if fault.severity == "error"]
    try:
        card = read(path)
    except UnreadableCardError as error:
        expect(error.faults, "refused, and nothing is said")
        expect(errors, "refused, and its check says nothing")
        return "refused"
    page = html(card)
    expect(Page(page).active == [], f"its page is active: {Page(page).active}")
    expect(page.count("<style>") == 1, "it brings a style of its own")
    for form in (mindspore_hub, hugging_face):
        expect(form.read(form.write(card)).metadata == card.metadata, f"{form.__name__} writes another card")
    for form_name in ("mindspore-hub", "hugging-face"):
        expect("hunter2" not in translate(path, form=form_name), "a password is written again")
    return "error" if errors else "harmless"
