"""Our errors are exactly what MindSpore Hub's own checker refuses.

Three tables hold its verdicts (mindspore-ai/hub at 29e408b, mistune 0.8.4, network calls left out), no card's text:
``mindspore_hub_heads.jsonl`` what it looks at in the head of each of the 2,915 cards, equal heads counted together,
names inside links replaced; ``mindspore_hub_refused.txt`` the first 16 digits of the SHA-256 of each it refuses;
``mindspore_hub_variants.jsonl`` what it says to one-line changes of the card ``GOOD`` of ``test_card_check.py``.
"""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_card_check import GOOD

from cards.card import read_text
from cards.check import cards_in, check
from cards.vocabulary import REQUIRED

FIXTURES = Path(__file__).parent / "fixtures"
HEADS = [json.loads(line) for line in (FIXTURES / "mindspore_hub_heads.jsonl").read_text("utf-8").splitlines()]
VARIANTS = [json.loads(line) for line in (FIXTURES / "mindspore_hub_variants.jsonl").read_text("utf-8").splitlines()]
REFUSED = (FIXTURES / "mindspore_hub_refused.txt").read_text("utf-8").split()
ASSET = GOOD[GOOD.index("asset:") : GOOD.index("license:")]

# What no card may contain here, though the Hub's YAML reader takes it.
UNSAFE = {"evaluation: &a", "author: &x y", "author: !!str x", "summary: a model\n<<: {a: 1}"}


def refused(card: str | Path) -> bool:
    return any(fault.severity == "error" for fault in check(card))


def card_of(head: dict[str, Any]) -> str:
    """Write a card whose head has what a row of the table says, and nothing else that the Hub looks at."""
    fields: dict[str, Any] = dict.fromkeys(REQUIRED, "x")
    fields |= {name: value for name, value in head.items() if name not in {"cards", "refused", *SPECIAL}}
    fields |= dict.fromkeys(head.get("none", []))
    fields |= dict.fromkeys(head.get("colon", []), "a:b")
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    lines = [line for line in lines if line.partition(":")[0] not in head.get("missing", [])]
    lines += ["evaluation: -"] * head.get("no_evaluation", False) + [head["yaml"] for _ in range("yaml" in head)]
    ends = ["---"] * (head.get("dashes", 2) - 1)
    return "\n".join(["# t", "", "---", *lines, *ends, "", "prose", ""])


SPECIAL = {"dashes", "none", "colon", "missing", "no_evaluation", "yaml", "chinese"}


def test_the_table_is_of_all_2915_cards_and_the_134_that_are_refused():
    counted = Counter(dict.fromkeys((True, False), 0))
    for head in HEADS:
        counted[head["refused"]] += head["cards"]
    assert counted == {True: 134, False: 2915 - 134}
    assert len(set(REFUSED)) == 134


def test_the_heads_of_the_hubs_cards_are_refused_here_as_there():
    apart = [head for head in HEADS if "chinese" not in head and refused(card_of(head)) != head["refused"]]
    assert apart == []


def test_one_line_more_or_less_is_refused_here_as_there():
    apart = set()
    for old, new, verdict in VARIANTS:
        old = ASSET if old == "ASSET" else old
        assert GOOD.count(old) >= 1
        if refused(GOOD.replace(old, new, 1)) != verdict:
            apart.add(new)
    assert apart == UNSAFE
    assert Counter(verdict for _, _, verdict in VARIANTS)[True] > 150


@pytest.mark.skipif("MINDSPORE_HUB" not in os.environ, reason="MINDSPORE_HUB names no checkout of mindspore-ai/hub")
def test_every_card_of_a_checkout_is_refused_here_as_there():
    paths = cards_in([Path(os.environ["MINDSPORE_HUB"]) / "mshub_res" / "assets"])
    known = {path: hashlib.sha256(path.read_bytes()).hexdigest()[:16] in REFUSED for path in paths}
    assert len(paths) == 2915
    assert [path for path in paths if refused(path) != known[path]] == []


def test_in_place_of_a_chinese_card_the_english_one_is_checked(tmp_path):
    chinese, english = tmp_path / "model_cn.md", tmp_path / "model.md"
    chinese.write_text(GOOD.replace("used-for: inference/extract-feature", "used-for: 推理"), encoding="utf-8")
    assert [fault.field for fault in check(chinese) if fault.severity == "error"] == ["file"]
    english.write_text(GOOD)
    faults = check(chinese)
    assert not refused(chinese)
    assert any(fault.field == "used-for" for fault in faults)
    english.write_text(GOOD.replace("license: Apache2.0\n", ""))
    (error,) = [fault for fault in check(chinese) if fault.severity == "error"]
    assert "model.md" in error.message and "license" in error.message


def test_what_the_fixtures_cards_are_told_is_the_hubs_verdict():
    for path in FIXTURES.glob("*.md"):
        if path.name.endswith("_cn.md"):
            continue
        assert refused(path) == (hashlib.sha256(read_text(path).encode()).hexdigest()[:16] in REFUSED), path
