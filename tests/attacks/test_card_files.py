"""Every hostile card in ``cards/``: named by what it tries, and beginning with what has to come of it.

``refused``: nothing is read from it. ``error``: its check finds an error. ``harmless``: it is read, and neither its
page nor a card written again from it does what it tries.
"""

import os
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cards import hugging_face, mindspore_hub
from cards.check import check, read
from cards.faults import UnreadableCardError
from cards.page import html
from cards.translate import translate
from xcit_hub.errors import CardError

FILES = sorted((Path(__file__).parent / "cards").glob("*.md"))
LONGEST = 20  # seconds on a busy machine; a second where it is idle
PASSIVE = {
    "html", "head", "meta", "title", "style", "body", "section", "article", "figure", "figcaption", "div", "span", "br",
    "table", "tr", "th", "td", "thead", "tbody", "h1", "h2", "h3", "h4", "h5", "h6", "p", "a", "ul", "ol", "li", "hr",
    "blockquote", "pre", "code", "em", "strong",
}  # fmt: skip


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


def outcome(path: Path) -> str:
    """Return what came of a card; anything but a list of faults or a CardError is a traceback and fails the test."""
    errors = [fault for fault in check(path) if fault.severity == "error"]
    try:
        card = read(path)
    except UnreadableCardError as error:
        assert error.faults
        assert errors, "refused, and its check says nothing"
        return "refused"
    page = html(card)
    assert Page(page).active == []
    assert page.count("<style>") == 1
    for form in (mindspore_hub, hugging_face):
        assert form.read(form.write(card)).metadata == card.metadata
    for form_name in ("mindspore-hub", "hugging-face"):
        assert "hunter2" not in translate(path, form=form_name)
    return "error" if errors else "harmless"


def test_no_hostile_card_is_accepted_and_none_ends_in_a_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(FILES) >= 40
    wrong: list[str] = []
    seen: Counter[str] = Counter()
    longest = 0.0
    for path in FILES:
        began = time.monotonic()
        found, expected = outcome(path), path.name.partition("-")[0]
        longest = max(longest, time.monotonic() - began)
        seen[found] += 1
        # What could not even be read is an error as well.
        if found != expected and not (expected == "error" and found == "refused"):
            wrong.append(f"{path.name}: {found}")
    print(f"{len(FILES)} cards: {dict(seen)}, wrong accepts {len(wrong)}, tracebacks 0, longest {longest:.2f} s")
    assert wrong == []
    assert longest < LONGEST
    assert list(tmp_path.iterdir()) == [], "a card made a file"


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "loop", "missing"])
def test_what_is_not_a_file_is_refused_at_once(kind, tmp_path):
    path = {"device": Path("/dev/zero")}.get(kind, tmp_path / "card.md")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    with pytest.raises(CardError):
        read(path)
    with pytest.raises(CardError):
        check(path)
