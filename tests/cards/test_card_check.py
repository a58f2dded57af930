"""The checker finds every fault at once and names its line."""

from pathlib import Path

import pytest

from cards.card import Card
from cards.check import cards_in, check
from cards.faults import Fault
from cards.metadata import CardMetadata
from cards.mindspore_hub import write
from cards.vocabulary import REQUIRED, train_datasets
from xcit_hub.errors import CardError

FIXTURES = Path(__file__).parent / "fixtures"
HUBS_CARD = FIXTURES / "official" / "mindspore__2.5__xcit_tiny_12_p16_224_imagenet2012.md"

GOOD = """\
# model

---

model-name: model
backbone-name: xcit
module-type: cv-classification
fine-tunable: True
input-shape: [3, 224, 224]
model-version: 2.5
train-dataset: ImageNet2012
evaluation: top1acc77.27 | top5acc93.56
author: somebody
update-time: 2025-03-10
repo-link: <https://example.com/somebody/repo>
user-id: somebody
used-for: inference/extract-feature
train-backend: ascend
infer-backend: cpu/gpu/ascend
mindspore-version: 2.5
asset:
- file-format: ckpt
  asset-link: <https://example.org/model.ckpt>
  asset-sha256: 0000000000000000000000000000000000000000000000000000000000000000
license: Apache2.0
summary: a model

---

## Accuracy

| mindspore | acc@top1 | acc@top5 |
|:---:|:---:|:---:|
| 2.5.0 | 77.27 | 93.56 |
"""

HUGGING_FACE = """\
---
license: apache-2.0
library_name: mindspore
pipeline_tag: image-classification
dialect: mindcv
model-index:
- name: model
  results:
  - task:
      type: image-classification
    dataset:
      type: imagenet-1k
      name: ImageNet-1k
      split: validation
    metrics:
    - type: accuracy
      name: top-1 accuracy (%)
      value: 77.27
---

# model

| acc@1 |
|---|
| 77.27 |
"""


def line_of(text: str, beginning: str) -> int:
    return next(number for number, line in enumerate(text.split("\n"), 1) if line.startswith(beginning))


def test_a_good_card_has_no_fault():
    assert check(GOOD) == []
    assert check(HUGGING_FACE) == []


def test_every_real_card_that_the_hubs_checker_takes_has_no_error():
    refused = {path.stem for path in FIXTURES.glob("*.md") if any(fault.severity == "error" for fault in check(path))}
    assert refused == set()


def test_the_hubs_card_disagrees_with_itself_and_has_half_a_digest():
    faults = check(HUBS_CARD)
    assert [(fault.line, fault.field, fault.severity) for fault in faults] == [
        (17, "evaluation", "warning"),
        (17, "evaluation", "warning"),
        (31, "asset", "warning"),
    ]
    assert "77.27" in faults[0].message and "77.16 (line 76)" in faults[0].message
    assert "93.56" in faults[1].message and "93.57" in faults[1].message
    assert "prefix (8 of 64" in faults[2].message


@pytest.mark.parametrize(
    ("old", "new", "field", "severity", "message"),
    [
        ("fine-tunable: True", "fine-tunable: maybe", "fine-tunable", "error", "True or False"),
        ("fine-tunable: True", "fine-tunable: 'True'", "fine-tunable", "error", "True or False"),
        ("input-shape: [3, 224, 224]", "input-shape: 224", "input-shape", "warning", "list of whole numbers"),
        ("input-shape: [3, 224, 224]", "input-shape: [3, a]", "input-shape", "warning", "list of whole numbers"),
        ("input-shape: [3, 224, 224]", "accuracy: good", "accuracy", "error", "number"),
        ("input-shape: [3, 224, 224]", "allow-cache-ckpt: 1", "allow-cache-ckpt", "error", "True or False"),
        ("module-type: cv-classification", "module-type: vision", "module-type", "error", "cvtmodel"),
        ("module-type: cv-classification", "module-type: [cv]", "module-type", "error", "cvtmodel"),
        ("train-dataset: ImageNet2012", "train-dataset: ImageNet2021", "train-dataset", "error", "ImageNet2012"),
        ("used-for: inference/extract-feature", "used-for: inference/fun", "used-for", "error", "transfer-learning"),
        ("infer-backend: cpu/gpu/ascend", "infer-backend: tpu", "infer-backend", "warning", "ascend"),
        ("repo-link: <https://example.com/somebody/repo>", "repo-link: <repo>", "repo-link", "error", "web address"),
        ("summary: a model", "summary: 'a model: mine'", "summary", "error", "':'"),
        ("summary: a model", "unknown: {a: 1}", "unknown", "error", "':'"),
        ("summary: a model", "summary: a model\nsummary: twice", "summary", "warning", "given twice"),
        ("summary: a model", "summary: a model\ndialect: latin", "dialect", "warning", "mindcv"),
        ("update-time: 2025-03-10", "update-time: 2025-3-10", "update-time", "warning", "YYYY-MM-DD"),
        ("top1acc77.27", "top1acc99.27", "evaluation", "warning", "cannot exceed"),
        ("top5acc93.56", "top5acc193.56", "evaluation", "warning", "cannot be"),
        ("top1acc77.27", "top1acc78.0", "evaluation", "warning", "77.27 (line 34)"),
        ("mindspore-version: 2.5", "mindspore-version: 2.6", "mindspore-version", "warning", "2.5.0 (line 34)"),
        ("- file-format: ckpt", "- file-format: exe", "asset", "error", "mindir"),
        ("<https://example.org/model.ckpt>", "model.ckpt", "asset", "error", "web address"),
        ("asset-sha256: 00000000", "asset-sha256: 00000000 #", "asset", "warning", "8 of 64"),
        ("asset-sha256: 00000000", "asset-sha256: xyz #", "asset", "warning", "64 hex digits"),
        ("  asset-sha256: ", "  other: ", "asset", "error", "asset-sha256 is required"),
        ("asset:\n- file-format", "asset: none\nother:\n- file-format", "asset", "error", "not a list"),
        ("## Accuracy", "## Accuracy:", "prose", "error", "end in ':'"),
        ("## Accuracy", "Accuracy:\n=====", "prose", "error", "end in ':'"),
        ("## Accuracy", "## Accuracy\n\n---\n", "metadata", "error", "exactly two"),
        ("# model\n", "\n", "title", "warning", "heading"),
    ],
)  # fmt: skip
def test_each_fault_is_found_at_its_line(old, new, field, severity, message):
    assert GOOD.count(old) == 1 or old == "# model\n"
    broken = GOOD.replace(old, new, 1)
    found = [fault for fault in check(broken) if fault.field == field and fault.severity == severity]
    assert found, check(broken)
    assert any(message in fault.message for fault in found)
    if field not in ("title", "metadata", "prose"):
        # The second of two equal names is the one at fault.
        last = "summary: twice" if "twice" in new else f"{field}:"
        assert found[0].line == line_of(broken, last)


@pytest.mark.parametrize("name", REQUIRED)
def test_each_required_field_is_missed(name):
    without = "\n".join(line for line in GOOD.split("\n") if not line.startswith(f"{name}:"))
    assert [fault.field for fault in check(without) if fault.severity == "error"] == [name]


# The Hub's checker takes these without a value; of the others it looks at the value.
MAY_SAY_NOTHING = [name for name in REQUIRED if name not in {"module-type", "fine-tunable", "used-for"}]


@pytest.mark.parametrize("name", REQUIRED)
def test_each_required_field_that_says_nothing_is_reported(name):
    empty = "\n".join(f"{name}:" if line.startswith(f"{name}:") else line for line in GOOD.split("\n"))
    assert any(fault.field == name for fault in check(empty))
    refused = [fault.field for fault in check(empty) if fault.severity == "error"]
    assert refused == ([] if name in MAY_SAY_NOTHING else [name])


def test_all_faults_are_reported_at_once_in_the_order_of_their_lines():
    broken = (
        GOOD.replace("module-type: cv-classification", "module-type: vision")
        .replace("fine-tunable: True", "fine-tunable: maybe")
        .replace("license: Apache2.0\n", "")
        .replace("## Accuracy", "## Accuracy:")
        .replace("used-for: inference/extract-feature", "used-for: fun")
    )
    errors = [fault for fault in check(broken) if fault.severity == "error"]
    assert {fault.field for fault in errors} == {"module-type", "fine-tunable", "license", "prose", "used-for"}
    lines = [fault.line for fault in errors]
    assert lines == sorted(lines)


def test_a_card_whose_yaml_is_broken_still_gets_its_other_faults():
    broken = GOOD.replace("summary: a model", "summary: [unclosed").replace("fine-tunable: True", "fine-tunable: 7")
    fields = {fault.field for fault in check(broken)}
    assert {"metadata", "fine-tunable"} <= fields


def test_a_colon_is_allowed_in_links_assets_and_the_evaluation():
    assert check(GOOD.replace("top1acc77.27 | top5acc93.56", "'top1acc: 77.27 | top5acc: 93.56'")) == []


def test_a_heading_inside_code_is_no_heading():
    assert check(GOOD + "\n```shell\n# run this:\n```\n") == []


def test_a_card_that_quotes_several_sources_agrees_with_its_metadata_if_one_of_them_is_the_metadatas():
    assert check(GOOD + "| 2.5.0 | 70.00 | 90.00 |\n") == []


@pytest.mark.parametrize(
    ("old", "new", "field", "severity", "message"),
    [
        ("license: apache-2.0\n", "", "license", "warning", "missing"),
        ("dialect: mindcv\n", "", "dialect", "warning", "missing"),
        ("dialect: mindcv", "dialect: both", "dialect", "warning", "paper"),
        ("pipeline_tag: image-classification", "pipeline_tag: fill-mask", "pipeline_tag", "warning", "fill-mask"),
        ("value: 77.27", "value: high", "model-index", "warning", "not a number"),
        ("value: 77.27", "value: 770.27", "model-index", "warning", "cannot be"),
        ("value: 77.27", "value: 77.5", "model-index", "warning", "the prose says 77.27"),
        ("- name: model\n  results:", "- nome: model\n  results:", "model-index", "error", "not a model-index"),
        ("license: apache-2.0", "license: Apache2.0", "license", "error", "apache-2.0"),
        ("license: apache-2.0", "license: mit\nlanguage: zh-CN", "language", "error", "lowercase"),
        ("license: apache-2.0", "license: mit\nbase_model: a/b/c", "base_model", "error", "'a/b/c'"),
        ("license: apache-2.0", "license: mit\ntags: [{a: b}]", "tags", "error", "list of names"),
        ("license: apache-2.0", "license: mit\nlicense: mit", "license", "error", "given twice"),
        (
            "dialect: mindcv",
            "dialect: mindcv\nmindspore-hub: {input-shape: x}",
            "input-shape",
            "warning",
            "whole numbers",
        ),
    ],
)
def test_each_fault_of_a_hugging_face_card_is_found(old, new, field, severity, message):
    assert HUGGING_FACE.count(old) == 1
    broken = HUGGING_FACE.replace(old, new)
    found = [fault for fault in check(broken) if fault.field == field and fault.severity == severity]
    assert found, check(broken)
    assert any(message in fault.message for fault in found)


def test_the_hubs_list_of_datasets_is_whole():
    known = train_datasets()
    assert len(known) == 388
    assert {"ImageNet2012", "imagenet2012", "None", "百度自建数据集", "Oxford-IIIT Pet", "wmtende"} <= known


def test_a_written_card_of_nothing_lists_what_is_missing():
    faults = check(write(Card("", CardMetadata(), "")))
    assert {fault.field for fault in faults} >= set(REQUIRED)


def test_folders_are_searched_and_missing_ones_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.md").write_text(GOOD)
    assert cards_in([tmp_path, tmp_path / "a" / "b.md"]) == [tmp_path / "a" / "b.md"]
    with pytest.raises(CardError, match="no card"):
        (tmp_path / "empty").mkdir()
        cards_in([tmp_path / "empty"])
    with pytest.raises(CardError, match="no such file"):
        cards_in([tmp_path / "none"])


def test_a_fault_prints_its_line_and_field():
    assert str(Fault(3, "license", "is missing")) == "line 3: error: license: is missing"
    assert Fault(None, "file", "x", "warning").as_dict() == {
        "line": None, "field": "file", "message": "x", "severity": "warning"
    }  # fmt: skip
