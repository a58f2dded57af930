"""The cards that ship are what the generator writes, and say what the published cards say."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cards import index, mindspore_hub
from cards.card import read_text
from cards.check import check, read
from xcit_hub import variants

FIXTURES = Path(__file__).parent / "fixtures"
HUBS_CARD = FIXTURES / "official" / "mindspore__2.5__xcit_tiny_12_p16_224_imagenet2012.md"
OFFICIAL = "mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012"
TIMM = [name for name, entry in variants.CHECKPOINTS.items() if entry.repository]


def test_regenerating_the_index_changes_nothing():
    wanted = index.shipped()
    present = {path.relative_to(index.folder()).as_posix(): read_text(path) for path in index.folder().rglob("*.md")}
    assert present == wanted


@pytest.mark.parametrize("path", sorted((FIXTURES / "timm").glob("*.md")), ids=lambda path: path.stem)
def test_a_card_made_on_demand_is_the_file_that_shipped_with_0_1_0(path):
    name, chinese = path.name.removesuffix(".md").removesuffix("_cn"), path.stem.endswith("_cn")
    assert index.entry(name).text("zh" if chinese else "en") == read_text(path)


def test_the_command_says_what_is_not_as_generated():
    done = subprocess.run([sys.executable, "-m", "cards.index", "--check"], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_official_card_has_the_hubs_metadata_field_by_field(lang):
    hubs, ours = (
        mindspore_hub.read(read_text(HUBS_CARD)),
        mindspore_hub.read(read_text(index.find(OFFICIAL, lang=lang))),
    )
    for name in type(hubs.metadata).model_fields:
        assert getattr(ours.metadata, name) == getattr(hubs.metadata, name), name
    assert ours.metadata == hubs.metadata
    assert ours.title == hubs.title


def test_the_official_cards_metadata_is_the_hubs_for_another_parser_too():
    heads = [
        yaml.load(read_text(path).split("\n---\n")[1], Loader=yaml.FullLoader)
        for path in (HUBS_CARD, index.find(OFFICIAL))
    ]
    assert heads[0] == heads[1]
    assert list(heads[0]) == list(heads[1])


def test_the_official_card_keeps_all_three_accuracies_with_their_sources():
    prose = read(index.find(OFFICIAL)).prose
    for top1, top5, source in (
        ("77.27", "93.56", "MindSpore Hub card, metadata"),
        ("77.16", "93.57", "MindSpore Hub card, performance table"),
        ("77.674", "93.792", "MindCV README (2022"),
    ):
        assert [line for line in prose.split("\n") if f"| {top1} | {top5} |" in line and source in line]


def test_the_official_card_repeats_the_hubs_figures():
    prose = read(index.find(OFFICIAL)).prose
    row = next(line for line in prose.split("\n") if "233.86" in line)
    for figure in (
        "6.72",
        " 8 ",
        "128",
        "224x224",
        "O2",
        "329s",
        "233.86",
        "4378.69",
        "77.16",
        "93.57",
        "published by",
    ):
        assert figure in row
    versions = next(line for line in prose.split("\n") if "7.5.0.3.220" in line)
    assert versions == "| 2.5.0 | 24.1.0 | 7.5.0.3.220 | 8.0.0.beta1 |"


def test_the_official_card_repeats_the_figures_of_mindcvs_readme():
    for lang in ("en", "zh"):
        prose = read(index.find(OFFICIAL, lang=lang)).prose
        row = next(line for line in prose.split("\n") if "xcit_tiny_12_p16_best.ckpt" in line)
        for said in (
            "Ascend 910, graph mode",
            "| 8 |",
            "77.674",
            "93.792",
            "[yaml](https://github.com/bnucsy/mindcv/tree/main/configs/xcit/xcit_tiny_12_p16_ascend.yaml)",
            "[weights](https://download.mindspore.cn/toolkits/mindcv/xcit/xcit_tiny_12_p16_best.ckpt)",
            "MindCV README (2022",
        ):
            assert said in row
        for command in (
            "python train.py --config configs/xcit/xcit_tiny_12_p16_224_ascend.yaml --data_dir",
            "python validate.py -c configs/xcit/xcit_tiny_12_p16_224_ascend.yaml --data_dir /path/to/imagenet",
        ):
            assert command in prose


def test_there_is_a_card_of_each_of_timms_42_checkpoints():
    assert len(TIMM) == 42
    assert index.uids() == sorted([OFFICIAL, *(f"timm/{name}" for name in TIMM)])


@pytest.mark.parametrize("name", TIMM)
def test_a_timm_card_says_what_the_variant_table_says(name):
    entry = variants.checkpoint(name)
    for lang in ("en", "zh"):
        text = index.entry(name).text(lang)
        card = read(text)
        assert check(text) == []
        assert card.title == name
        assert [result.metric_value for result in card.metadata.results] == [
            entry.accuracies[0].top1,
            entry.accuracies[0].top5,
        ]
        assert all(result.dataset_split == "validation" for result in card.metadata.results)
        assert card.metadata.dialect == "paper"
        assert card.metadata.base_model == [f"timm/{name}"]
        assert f'xcit_hub.load("{name}")' in card.prose


@pytest.mark.parametrize(
    ("name", "uid"),
    [
        (OFFICIAL, OFFICIAL),
        ("mindspore/xcit_tiny_12_p16_224", OFFICIAL),
        ("xcit_tiny_12_p16_224_imagenet2012", OFFICIAL),
        ("timm/xcit_nano_12_p8_384.fb_dist_in1k", "timm/xcit_nano_12_p8_384.fb_dist_in1k"),
        ("xcit_nano_12_p8_384.fb_dist_in1k", "timm/xcit_nano_12_p8_384.fb_dist_in1k"),
    ],
)
def test_a_card_is_found_by_its_names(name, uid):
    assert index.entry(name).uid == uid
    shipped = index.folder() / f"{uid}.md"
    assert index.find(name) == (shipped if uid == OFFICIAL else None)
    assert index.find(name, lang="zh") == (index.folder() / f"{uid}_cn.md" if uid == OFFICIAL else None)


@pytest.mark.parametrize(
    "name", ["", "..", "../index", "mindspore", "timm", "/etc/passwd", "mindspore/9.9/x", "timm/card"]
)
def test_nothing_else_is_found(name):
    assert index.find(name) is None
    assert index.entry(name) is None


def test_the_official_cards_only_fault_is_its_publishers():
    (fault,) = check(index.find(OFFICIAL))
    assert (fault.severity, fault.field) == ("warning", "asset")
