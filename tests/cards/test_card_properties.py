"""Whatever valid metadata says, it survives; whatever a card has been turned into, the reader does not crash."""

import random
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cards import hugging_face, mindspore_hub
from cards.card import Card
from cards.check import check, read
from cards.facts import AccuracyFigure, CardYaml, Facts, Performance, WeightsFile
from cards.faults import Fault, UnreadableCardError
from cards.generate import render
from cards.metadata import HUGGING_FACE_FIELDS, MINDSPORE_HUB_FIELDS, Asset, CardMetadata, Result
from cards.page import html
from cards.vocabulary import CHINESE_FIELDS, FILE_FORMATS, MODULE_TYPES, USED_FOR, train_datasets
from xcit_hub.run_record import RunRecord, Versions

FORMS = {"mindspore-hub": mindspore_hub, "hugging-face": hugging_face}
FIXTURES = Path(__file__).parent / "fixtures"

# Any text that UTF-8 can hold and no hub's form forbids: quotes, brackets, emoji, Chinese, line breaks, nothing at all.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":"), max_size=40)
tricky = st.sampled_from(
    ["True", "null", "~", "-", "- a", "1.10", "0x1F", "1e3", "007", "2025-03-10", "yes", "#x", "a #b", "'", '"', "\\",
     "[", "{a}", "&a", "*a", "!a", "|", ">", "%", "@", "`", "---", "--- a", "...", "\t", " a ", "é", "中文", "a\nb",
     "a\n---\nb", "\u2028", "\x85", "\x00", "\x1f", "\ufeff", "🙂", "-->", "<!--", "?", "=", "<<", "", "NaN", ".inf"]
)  # fmt: skip
words = st.one_of(texts, tricky)
paths = st.text(string.ascii_letters + string.digits + "/._-~%?&=中", min_size=1, max_size=30)
links = st.builds(lambda scheme, path: f"{scheme}://{path}", st.sampled_from(["http", "https"]), paths)
digests = st.one_of(
    st.text("0123456789abcdef", min_size=64, max_size=64), st.text("0123456789", min_size=8, max_size=8)
)
percents = st.floats(0, 100).map(lambda value: round(value, 3))
numbers = st.one_of(st.integers(-(10**12), 10**12), st.floats(allow_nan=False, allow_infinity=False))
assets = st.builds(Asset, file_format=st.sampled_from(FILE_FORMATS), asset_link=links, asset_sha256=digests)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)
_TAKEN = {*MINDSPORE_HUB_FIELDS, *CardMetadata.model_fields, *CHINESE_FIELDS}


def _is_unknown(name: str) -> bool:
    stripped = name.strip()
    dashed = stripped.lower().replace("_", "-").replace(" ", "-")
    return not {name, stripped, dashed, dashed.replace("-", "_")} & _TAKEN


unknown = st.dictionaries(words.filter(_is_unknown), values, max_size=3)
results = st.builds(
    Result,
    task_type=st.just("image-classification"),
    dataset_type=st.sampled_from(["imagenet-1k", "cifar10"]),
    dataset_name=texts.filter(bool),
    dataset_split=st.none() | st.sampled_from(["validation", "test"]),
    metric_type=st.just("accuracy"),
    metric_value=numbers,
    metric_name=st.none() | words,
)
metadata = st.builds(
    lambda known, extra: CardMetadata(**known, **extra),
    st.fixed_dictionaries(
        {"model_name": texts.filter(bool)},
        optional={
            "backbone_name": words,
            "module_type": st.sampled_from(MODULE_TYPES),
            "fine_tunable": st.booleans(),
            "input_shape": st.lists(st.integers(1, 999) | st.lists(st.integers(1, 9), min_size=1), min_size=1),
            "model_version": words,
            "train_dataset": st.sampled_from(sorted(train_datasets())),
            "evaluation": words | st.builds(lambda a, b: f"top1acc{a} | top5acc{b}", percents, percents),
            "accuracy": numbers,
            "author": words,
            "update_time": st.dates().map(str),
            "repo_link": links,
            "user_id": words,
            "used_for": st.lists(st.sampled_from(USED_FOR), min_size=1, max_size=3).map("/".join),
            "train_backend": st.sampled_from(["cpu", "ascend/gpu"]),
            "infer_backend": st.sampled_from(["cpu", "ascend/gpu"]),
            "mindspore_version": words,
            "asset": st.lists(assets, max_size=3),
            "allow_cache_ckpt": st.booleans(),
            "featured_image": words,
            "license": words,
            "summary": words,
            "library_name": words,
            "tags": st.lists(words, max_size=3),
            "pipeline_tag": words,
            "datasets": st.lists(words, max_size=3),
            "metrics": st.lists(words, max_size=3),
            "base_model": st.lists(words, max_size=3),
            "language": st.lists(st.sampled_from(["en", "zh"]), max_size=2),
            "license_id": words,
            "results": st.lists(results, max_size=3),
            "dialect": st.sampled_from(["paper", "mindcv"]),
        },
    ),
    unknown,
)  # fmt: skip
prose = st.sampled_from(["", "plain", "中文\n\n---\n\n| a |\n|---|\n| b |", "<!-- a -->\n# x\n```\n---\n```"])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@settings(max_examples=300)
@given(said=metadata, body=prose)
def test_any_valid_metadata_survives_writing_and_reading(form, said, body):
    written = form.write(Card("title", said, body))
    assert form.read(written).metadata == said
    if form is mindspore_hub:
        assert sum(line.startswith("---") for line in written.split("\n")) == 2


@settings(max_examples=100)
@given(said=metadata, body=prose)
def test_metadata_survives_the_way_through_both_forms_and_back(said, body):
    once = mindspore_hub.read(mindspore_hub.write(Card("title", said, body)))
    twice = hugging_face.read(hugging_face.write(once))
    thrice = mindspore_hub.read(mindspore_hub.write(twice))
    assert thrice.metadata == said


facts = st.builds(
    Facts,
    name=texts.filter(bool),
    architecture=st.sampled_from(["xcit_nano_12_p16_224", "xcit_large_24_p8_384"]),
    dialect=st.sampled_from(["paper", "mindcv", "mindcv-mint"]),
    num_classes=st.sampled_from([0, 10, 1000]),
    params=st.integers(1, 10**9),
    weights=st.builds(
        WeightsFile, name=st.none() | words, format=st.sampled_from([None, "ckpt"]), link=st.none() | links,
        size=st.none() | st.integers(0, 10**12), sha256=st.none() | digests,
    ),
    image_size=st.sampled_from([224, 384]),
    crop_pct=st.sampled_from([0.875, 1.0]),
    interpolation=st.just("bicubic"),
    accuracy=st.lists(
        st.builds(
            AccuracyFigure, top1=st.none() | percents, top5=st.none() | percents, source=words,
            origin=st.sampled_from(["measured", "published"]), source_url=st.none() | links,
        ),
        max_size=3,
    ),
    performance=st.lists(
        st.builds(
            Performance, origin=st.sampled_from(["measured", "published"]), source=words,
            record=st.builds(
                RunRecord, device=st.none() | words, batch_size=st.none() | st.integers(1, 4096),
                image_size=st.none() | st.tuples(st.integers(1, 999), st.integers(1, 999)), recipe=st.none() | words,
                ms_per_step=st.none() | st.floats(0, 1e6), top1=st.none() | percents, jit_level=st.none() | words,
            ),
        ),
        max_size=2,
    ),
    versions=st.builds(Versions, mindspore=st.none() | words, cann=st.none() | words),
    meta=st.builds(CardYaml, author=st.none() | words, summary=st.none() | words, license=words, tags=st.lists(words)),
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lang", ["en", "zh"])
@settings(max_examples=40)
@given(known=facts)
def test_generated_metadata_survives_in_both_forms_and_both_languages(form, lang, known):
    text = render(known, form=form, lang=lang)
    assert FORMS[form].read(text).metadata == known.metadata(form, lang)
    assert all(isinstance(fault, Fault) for fault in check(text))
    assert Facts.model_validate_json(known.model_dump_json(exclude_defaults=True)) == known


def _seeds() -> list[str]:
    paths = sorted(FIXTURES.rglob("*.md"))
    return [path.read_text(encoding="utf-8") for path in paths]


_SPLINTERS = [
    "---\n", "\n---", ":", ": ", "- ", "-\n", "\t", "[", "]", "{", "}", "&a", "*a", "!!python/name:os.system ", "|\n",
    ">\n", "'", '"', "\\", "#", "\x00", "\u2028", "\ufeff", "：", "🙂", "asset:\n", "model-index:\n",
    "<!-- hugging-face {", "} -->", "```", "<<: ", "? ", "%YAML 9.9\n", "...\n", "\r", "9" * 400, " " * 400,
]  # fmt: skip


def _mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 12)):
        # The metadata is what breaks; the prose is longer.
        at = chance.randrange(min(len(text), chance.choice([1200, 1 << 20])) + 1)
        end = min(len(text), at + chance.choice([0, 1, 5, 80]))
        kind = chance.randrange(4)
        if kind == 0:
            text = text[:at] + text[end:]
        elif kind == 1:
            text = text[:at] + chance.choice(_SPLINTERS) + text[at:]
        elif kind == 2:
            text = text[:at] + text[at:end] * chance.choice([2, 3, 50]) + text[end:]
        else:
            text = text[:at] + text[at:end][::-1] + text[end:]
    return text


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.campaign)])
def test_mutated_cards_never_crash_the_reader(count: int):
    chance = random.Random(20210617)
    seeds = _seeds()
    outcomes = {"read": 0, "refused": 0}
    for _ in range(count):
        text = _mutated(chance.choice(seeds), chance) + "\n"
        faults = check(text)
        assert all(isinstance(fault, Fault) for fault in faults)
        try:
            card = read(text)
        except UnreadableCardError as error:
            assert error.faults
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        for form in FORMS.values():
            assert form.read(form.write(card)).metadata == card.metadata
        assert html(card).endswith("</html>\n")
    # Both ways out were walked, so the test looked at more than one of them.
    assert outcomes["read"] > count / 5
    assert outcomes["refused"] > count / 50


def test_every_field_has_one_home():
    everywhere = {*MINDSPORE_HUB_FIELDS.values(), *HUGGING_FACE_FIELDS, "dialect"}
    assert everywhere == set(CardMetadata.model_fields)
