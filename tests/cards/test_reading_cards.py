"""Every card on MindSpore Hub can be read, and read again after it was written."""

from pathlib import Path

import pytest
import yaml

from cards import figures, hugging_face, mindspore_hub
from cards.card import Card, read_text
from cards.check import check, form_of, read
from cards.faults import UnreadableCardError
from cards.metadata import CardMetadata, Result
from cards.translate import left, translate
from xcit_hub.errors import CardError

FIXTURES = Path(__file__).parent / "fixtures"
HUB_CARDS = sorted(FIXTURES.glob("*.md"))
HUBS_CARD = FIXTURES / "official" / "mindspore__2.5__xcit_tiny_12_p16_224_imagenet2012.md"


def card_of(fields: str) -> Card:
    return mindspore_hub.read(f"# title\n\n---\n{fields}\n---\n\nprose\n")


def test_there_are_sixteen_real_cards():
    assert len(HUB_CARDS) == 16


@pytest.mark.parametrize("path", [*HUB_CARDS, HUBS_CARD], ids=lambda path: path.stem)
@pytest.mark.parametrize("form", [mindspore_hub, hugging_face], ids=["mindspore-hub", "hugging-face"])
def test_a_real_card_has_equal_metadata_after_it_was_written_in_either_form(path, form):
    card = mindspore_hub.read(read_text(path))
    again = form.read(form.write(card))
    assert again.metadata == card.metadata
    assert again == card


@pytest.mark.parametrize("path", [*HUB_CARDS, HUBS_CARD], ids=lambda path: path.stem)
def test_every_field_of_a_real_card_is_found(path):
    metadata = mindspore_hub.read(read_text(path)).metadata
    text = path.read_text(encoding="utf-8")
    head = text.split("\n---", 2)[1]
    assert metadata.model_name and metadata.model_name in head
    assert metadata.fine_tunable is True
    assert metadata.mindspore_version and metadata.mindspore_version in head
    assert metadata.repo_link and metadata.repo_link.startswith("https://")
    written = head.count("asset-sha256")
    assert len(metadata.asset) == written
    for asset in metadata.asset:
        assert asset.file_format == "ckpt"
        assert f"<{asset.asset_link}>" in head
        assert asset.asset_sha256 in head


# The Hub's own YAML parser cannot read these two: a lone dash as a value, and full-width colons.
NOT_YAML = {"mindspore__1.8__apdrawinggan_generator_apdrawingdb", "noah-cvlab__ascend__0.7__ghostnet_ssd_v1.0_cn"}
YAML_CARDS = [path for path in HUB_CARDS if path.stem not in NOT_YAML]


@pytest.mark.parametrize("path", YAML_CARDS, ids=lambda path: path.stem)
def test_nothing_is_read_that_a_yaml_parser_reads_otherwise(path):
    head = path.read_text(encoding="utf-8").split("\n---", 2)[1].removeprefix("\n")
    independent = yaml.load(head, Loader=yaml.BaseLoader)  # every scalar as text, as in the file
    ours = mindspore_hub.read(read_text(path)).metadata.model_dump(by_alias=True)
    for name, value in independent.items():
        if name == "asset":
            assert [entry["asset-sha256"] for entry in ours["asset"]] == [entry["asset-sha256"] for entry in value]
        elif name == "input-shape":
            assert [str(side) for side in ours[name]] == value
        else:
            assert str(ours[name]) == value.strip("<>")


def test_a_version_keeps_its_last_zero():
    metadata = mindspore_hub.read(read_text(FIXTURES / "mindspore__1.10__osnet_msmt17.md")).metadata
    assert (metadata.mindspore_version, metadata.model_version) == ("1.10", "1.10")
    written = mindspore_hub.write(Card("osnet", metadata, "prose"))
    head = yaml.safe_load(written.split("\n---\n")[1])
    assert head["mindspore-version"] == "1.10"  # for the Hub's parser too, which would read 1.1


def test_the_chinese_card_is_read_field_by_field():
    metadata = mindspore_hub.read(read_text(FIXTURES / "noah-cvlab__ascend__0.7__ghostnet_ssd_v1.0_cn.md")).metadata
    assert metadata.model_name == "GhostNet_SSD"
    assert metadata.input_shape == [3, 300, 300]
    assert metadata.author == "Noah's Ark Lab"
    assert metadata.used_for == "推理"
    assert metadata.repo_link == "https://gitee.com/mindspore/models/tree/master/research/cv/ssd_ghostnet"
    assert metadata.model_extra == {"mAP": 0.241}


def test_an_evaluation_of_a_lone_dash_is_kept():
    path = FIXTURES / "mindspore__1.8__apdrawinggan_generator_apdrawingdb.md"
    metadata = mindspore_hub.read(read_text(path)).metadata
    assert metadata.evaluation == "-"
    assert metadata.asset[0].asset_sha256 == "1a8537d6df84e657d820facc6648e267700f6685d1e940b27035c149718ec7c5"


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ("author:\tMindSpore team", "author", "MindSpore team"),
        ("author:   'MindSpore team'", "author", "MindSpore team"),
        ("Author: MindSpore team", "author", "MindSpore team"),
        ("repo_link: https://example.org/a", "repo_link", "https://example.org/a"),
        ("repo-link: <https://example.org/a>", "repo_link", "https://example.org/a"),
        ("fine-tunable: true", "fine_tunable", True),
        ("fine-tunable: maybe", "fine_tunable", "maybe"),
        ("accuracy: 0.92", "accuracy", 0.92),
        ("accuracy: 92 %", "accuracy", "92 %"),
        ("input-shape: [[1000, 39], [1000, 39]]", "input_shape", [[1000, 39], [1000, 39]]),
        ("input-shape: 3 x 224", "input_shape", "3 x 224"),
        ("license: [Apache2.0]", "license", "[Apache2.0]"),
        ("summary: a: b: c", "summary", "a: b: c"),
        ("summary: 100% @ home", "summary", "100% @ home"),
        ("evaluation: -\nauthor: someone", "author", "someone"),
        ("summary: 'unclosed\nauthor: someone", "author", "someone"),
        ("allow-cache-ckpt: False", "allow_cache_ckpt", False),
        ("evaluation:\nauthor: x", "evaluation", None),
    ],
)
def test_uneven_fields_are_read(fields, name, value):
    card = card_of(fields)
    assert getattr(card.metadata, name) == value
    assert mindspore_hub.read(mindspore_hub.write(card)).metadata == card.metadata
    assert hugging_face.read(hugging_face.write(card)).metadata == card.metadata


@pytest.mark.parametrize(
    "fields",
    [
        "asset:\n\n- file-format: ckpt\n  asset-link: <https://a.b/c>\n  asset-sha256: 12345678\n"
        "- file-format: mindir\n  asset-link: <https://a.b/d>\n  asset-sha256: 87654321",
        "asset:\n\n  -\n    file-format: ckpt\n    asset-link: <https://a.b/c>\n    asset-sha256: 12345678\n"
        "  -\n    file-format: mindir\n    asset-link: <https://a.b/d>\n    asset-sha256: 87654321",
        "asset:\n\n-\n\tfile-format: ckpt\n\tasset-link: <https://a.b/c>\n\tasset-sha256: 12345678\n"
        "-\n\tfile-format: mindir\n\tasset-link: <https://a.b/d>\n\tasset-sha256: 87654321",
        "asset:\n-\nfile-format: ckpt\nasset-link: <https://a.b/c>\nasset-sha256: 12345678\n"
        "-\nfile-format: mindir\nasset_link: <https://a.b/d>\nasset_sha256: 87654321",
        "asset:\n\n   - file-format: ckpt\n     asset-link: <https://a.b/c>\n     asset-sha256: 12345678\n"
        "\n   - file-format: mindir\n     asset-link: <https://a.b/d>\n     asset-sha256: 87654321",
    ],
    ids=["flush", "indented", "tabs", "no indent at all", "blank line between"],
)
def test_several_assets_are_read_however_they_are_indented(fields):
    assets = card_of(fields).metadata.asset
    assert [asset.model_dump() for asset in assets] == [
        {"file_format": "ckpt", "asset_link": "https://a.b/c", "asset_sha256": "12345678"},
        {"file_format": "mindir", "asset_link": "https://a.b/d", "asset_sha256": "87654321"},
    ]


def test_an_early_card_is_read_with_all_its_oddities():
    # As the cards of 2020 are: lists for names, an r before the version, bare links, trailing spaces, gaps.
    card = card_of(
        "model-name: AlexNet\n\nmodule-type: CV-classification\n\naccuracy: 0.99\n\n\n\nauthor: [network-fo]\n\n"
        "repo-link: https://gitee.com/mindspore/mindspore/tree/r0.6/model_zoo/official/cv/alexnet\n\n"
        "mindspore-version: r0.6\n\nmindspore-lite: true\n\nasset:\n  -\n    file-format: ckpt  \n"
        "    asset-link: https://example.org/alexnet.ckpt  \n    asset-sha256: 722e13be  \n\n"
        "  -\n    file-format: air\n"
        "    asset-link: <https://example.org/alexnet.air>\n    asset-sha256: 722e13be\n\n"
        "license: Apache2.0\nsummary: AlexNet"
    )
    metadata = card.metadata
    assert (metadata.accuracy, metadata.author, metadata.mindspore_version) == (0.99, "[network-fo]", "r0.6")
    assert metadata.repo_link == "https://gitee.com/mindspore/mindspore/tree/r0.6/model_zoo/official/cv/alexnet"
    assert [asset.file_format for asset in metadata.asset] == ["ckpt", "air"]
    assert metadata.asset[1].asset_link == "https://example.org/alexnet.air"
    assert metadata.model_extra == {"mindspore-lite": True}
    assert (metadata.license, metadata.summary) == ("Apache2.0", "AlexNet")
    for form in (mindspore_hub, hugging_face):
        assert form.read(form.write(card)).metadata == metadata


def test_unknown_fields_are_kept_with_their_types_and_written_back():
    card = card_of("mAP: 0.241\nfuture: [1, two, {three: 3}]\nversionish: 1.10\nflag: true\nnothing:")
    extra = {"mAP": 0.241, "future": [1, "two", {"three": 3}], "versionish": "1.10", "flag": True, "nothing": None}
    assert card.metadata.model_extra == extra
    for form in (mindspore_hub, hugging_face):
        assert form.read(form.write(card)).metadata.model_extra == extra


def test_an_empty_unknown_field_of_an_asset_is_kept():
    card = card_of("asset:\n- file-format: ckpt\n  future:\n  mirror: [a, 1]")
    assert card.metadata.asset[0].model_extra == {"future": None, "mirror": ["a", 1]}
    for form in (mindspore_hub, hugging_face):
        assert form.read(form.write(card)).metadata == card.metadata


def test_unknown_fields_of_a_hugging_face_card_stay_where_hugging_face_looks_for_them():
    text = "---\nlicense: mit\nwidget:\n- src: a.jpg\n  example_title: A\ninference: false\n---\n\n# T\n\nprose\n"
    card = hugging_face.read(text)
    assert card.metadata.license_id == "mit"
    head = yaml.safe_load(hugging_face.write(card).split("---\n")[1])
    assert head["widget"] == [{"src": "a.jpg", "example_title": "A"}]
    assert head["inference"] is False


def test_figures_of_one_dataset_keep_their_several_sources():
    results = [
        Result(
            task_type="image-classification",
            dataset_type="imagenet-1k",
            dataset_name="ImageNet-1k",
            metric_type="accuracy",
            metric_value=value,
            metric_name=f"top-1 accuracy (%), {source}",
            source_name=source,
            source_url=f"https://example.org/{source}",
        )
        for source, value in (("metadata", 77.27), ("table", 77.16), ("readme", 77.674))
    ]
    metadata = CardMetadata(model_name="xcit_tiny_12_p16_224", results=results)
    card = Card("t", metadata, "prose")
    assert hugging_face.read(hugging_face.write(card)).metadata.results == results


def test_prose_with_rules_and_tables_leaves_the_hubs_checker_two_lines_of_dashes():
    prose = "a\n\n---\n\nTitle\n-----\n\n--- | ---\n\n```\n---\n```"
    written = mindspore_hub.write(Card("t", CardMetadata(model_name="t"), prose))
    assert sum(line.startswith("---") for line in written.split("\n")) == 2
    again = mindspore_hub.read(written)
    assert [line.strip() for line in again.prose.split("\n")] == prose.split("\n")


def test_windows_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path):
    text = HUBS_CARD.read_text(encoding="utf-8")
    path = tmp_path / "card.md"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read(path) == mindspore_hub.read(text)


def test_the_form_is_told_by_how_a_card_begins():
    assert form_of(HUBS_CARD.read_text(encoding="utf-8")) == "mindspore-hub"
    assert form_of("\n---\nlicense: mit\n---\n") == "hugging-face"


def test_fields_map_between_the_hubs():
    hubs = mindspore_hub.read(read_text(HUBS_CARD)).metadata
    theirs = hubs.for_hugging_face()
    assert theirs.license_id == "apache-2.0"
    assert theirs.datasets == ["imagenet-1k"]
    assert theirs.pipeline_tag == "image-classification"
    assert [(result.metric_name, result.metric_value) for result in theirs.results] == [
        ("top-1 accuracy (%)", 77.27),
        ("top-5 accuracy (%)", 93.56),
    ]
    only_theirs = CardMetadata(
        model_name="x", license_id="apache-2.0", datasets=["imagenet-1k"], pipeline_tag="image-classification",
        results=theirs.results,
    )  # fmt: skip
    ours = only_theirs.for_mindspore_hub()
    assert (ours.license, ours.train_dataset, ours.module_type) == ("Apache2.0", "ImageNet2012", "cv-classification")
    assert figures.read(ours.evaluation).ranked == {1: 77.27, 5: 93.56}


@pytest.mark.parametrize(
    ("dataset", "evaluation"),
    [
        ("{type: flowers, name: Flowers-102, split: validation}", None),
        ("{type: imagenet-1k, name: ImageNet-1k, split: train}", None),
        ("{type: ILSVRC/imagenet-1k, name: ImageNet-1k, split: validation}", "top1acc99.5"),
        ("{type: imagenet-1k, name: ImageNet-1k}", "top1acc99.5"),
    ],
)
def test_only_a_figure_on_unseen_images_of_the_training_data_set_becomes_mindspore_hubs(dataset, evaluation, tmp_path):
    path = tmp_path / "card.md"
    path.write_text(
        "---\nlicense: mit\ndatasets: [imagenet-1k]\npipeline_tag: image-classification\nmodel-index:\n- name: m\n"
        f"  results:\n  - task: {{type: image-classification}}\n    dataset: {dataset}\n"
        "    metrics:\n    - {type: accuracy, name: top-1 accuracy, value: 99.5}\n---\n\n# m\n\nprose\n"
    )
    metadata = mindspore_hub.read(translate(path, form="mindspore-hub")).metadata
    assert (metadata.train_dataset, metadata.evaluation) == ("ImageNet2012", evaluation)
    assert list(left(path, form="mindspore-hub")) == ([] if evaluation else ["evaluation"])


HEAD = "# t\n\n---\nauthor: me\n---\n\n"


def test_every_field_of_the_comment_is_kept_and_the_heads_count_before_it():
    text = (
        HEAD + '<!-- hugging-face {"base_model": ["a/b"], "lisence": "mit", "widget": [1], "author": "you"} -->\n\nx\n'
    )
    card = mindspore_hub.read(text)
    assert (card.metadata.base_model, card.metadata.author, card.prose) == (["a/b"], "me", "x")
    assert card.metadata.model_extra == {"lisence": "mit", "widget": [1], "x-author": "you"}
    assert any(fault.field == "lisence" for fault in check(text))
    assert mindspore_hub.read(mindspore_hub.write(card)) == card


@pytest.mark.parametrize(
    "comment",
    ['<!-- hugging-face\n{"tags": ["a"]}\n-->', '<!-- hugging-face {"tags": ["a"]', "<!-- hugging-face {a} -->"],
)
def test_a_comment_that_cannot_be_read_is_refused_by_its_line(comment):
    with pytest.raises(UnreadableCardError) as caught:
        mindspore_hub.read(f"{HEAD}prose\n\n{comment}\n")
    assert [(fault.line, fault.field) for fault in caught.value.faults] == [(9, "hugging-face")]


def test_a_comment_that_is_shown_as_code_is_prose():
    prose = '```\n<!-- hugging-face {"tags": ["a"]} -->\n```'
    card = mindspore_hub.read(HEAD + prose + "\n")
    assert (card.metadata.tags, card.prose) == ([], prose)


def test_mapping_never_replaces_what_a_card_says_itself():
    metadata = CardMetadata(license="MIT", license_id="apache-2.0", train_dataset="cifar10", datasets=["imagenet-1k"])
    assert metadata.for_mindspore_hub() == metadata
    assert metadata.for_hugging_face().datasets == ["imagenet-1k"]


def test_a_missing_file_is_a_card_error(tmp_path):
    with pytest.raises(CardError, match="Cannot read"):
        check(tmp_path / "none.md")
    with pytest.raises(CardError):
        read(tmp_path)


def test_an_unreadable_card_names_its_file_and_every_fault(tmp_path):
    path = tmp_path / "card.md"
    path.write_text("# no metadata here\n")
    with pytest.raises(UnreadableCardError, match="two lines of dashes") as caught:
        read(path)
    assert caught.value.where == str(path)
    assert set(caught.value.faults) <= set(check(path))
