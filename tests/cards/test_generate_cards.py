"""A card says what was measured, who published the rest, and nothing else."""

import hashlib
import json
import re
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from cards import hugging_face, mindspore_hub
from cards.check import check, read
from cards.facts import CardYaml, Facts
from cards.forms import FORMS, LANGUAGES
from cards.gather import of_checkpoint, of_published
from cards.generate import prose, render
from cards.metadata import Asset
from cards.provenance import Conversion
from cards.translate import translate
from cards.write import write
from xcit_hub import variants
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.errors import CardError, InputError
from xcit_hub.parameters import parameter_shapes
from xcit_hub.run_record import RunRecord

NANO = "xcit_nano_12_p16_224"

RUN = {
    "recipe": "configs/xcit/xcit_nano_12_p16_224.yaml",
    "versions": {"mindspore": "2.10.0", "numpy": "1.26.4", "xcit_hub": "0.1.0"},
    "device": "CPU",
    "cards": 2,
    "batch_size": 16,
    "image_size": [224, 224],
    "jit_level": "O0",
    "graph_compile_seconds": 7.4,
    "ms_per_step": 812.5,
    "images_per_second": 39.38,
    "top1": 69.98,
    "top5": 89.78,
    "eval_samples": 50000,
    "dataset": "ImageNet-1k",
    "epochs": 400,
}
META = """\
model_name: my_nano
model_version: 1.0
train_dataset: ImageNet2012
author: somebody
update_time: 2026-01-31
repo_link: <https://example.com/somebody/repo>
user_id: somebody
mindspore_version: 2.10
license: apache-2.0
summary: a small XCiT
repository: somebody/my_nano
asset:
  - file-format: ckpt
    asset-link: https://example.org/my_nano.ckpt
"""
PARITY = {
    "passed": True,
    "max_error": 1.4e-6,
    "relative_error": 2.0e-6,
    "bar": 1e-4,
    "checks": [{"what": "logits", "error": 2.0e-6, "bar": 1e-4, "passed": True}],
    "versions": {"mindspore": "2.8.0", "timm": "1.0.31"},
}
SECTIONS = {
    "en": ["Introduction", "Requirements", "Accuracy", "Performance", "How to load it", "Training",
           "Distributed training", "Validation", "Deployment", "Conversion and parity", "The file",
           "Limits and licence", "References"],
    "zh": ["简介", "环境要求", "精度", "性能", "加载", "训练", "分布式训练", "验证", "部署", "转换与一致性", "文件",
           "局限与许可", "参考文献"],
}  # fmt: skip


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A real checkpoint that the real converter wrote, and its report."""
    folder = tmp_path_factory.mktemp("converted")
    generator = np.random.default_rng(0)
    shapes = parameter_shapes(variants.architecture(NANO))
    arrays = {name: generator.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(arrays, folder / "source.safetensors")
    target = folder / "my_nano.ckpt"
    report = rewrite(folder / "source.safetensors", target, to="xcit-hub", model=NANO, dialect="paper").as_dict()
    report["parity"] = PARITY
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "card.yaml").write_text(META)
    (folder / "run.json").write_text(json.dumps(RUN))
    return target, folder


@pytest.fixture
def facts(converted: tuple[Path, Path]) -> Facts:
    target, folder = converted
    return of_checkpoint(
        target,
        architecture=NANO,
        dialect="paper",
        meta=CardYaml.read(folder / "card.yaml"),
        run=RunRecord.read(folder / "run.json"),
        conversion=folder / "report.json",
    )


def headings(text: str) -> list[str]:
    return re.findall(r"^#{2,3} (.+)$", text, re.MULTILINE)


def test_the_facts_are_the_files_own(facts, converted):
    path = converted[0]
    assert facts.weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts.weights.size == path.stat().st_size
    assert facts.params == 3_053_224  # timm's results file says 3.05 million
    (asset,) = facts.metadata("mindspore-hub", "en").asset
    assert asset.asset_sha256 == facts.weights.sha256
    assert asset.has_whole_digest


def test_every_field_of_a_real_report_has_its_place(converted):
    assert Conversion.model_validate(json.loads((converted[1] / "report.json").read_text())).unread == []


def test_architecture_dialect_and_classes_are_asked_of_the_file(converted):
    found = of_checkpoint(converted[0], architecture=NANO)
    assert (found.architecture, found.dialect, found.num_classes) == (NANO, "paper", 1000)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("form", FORMS)
def test_a_complete_card_is_fit_to_publish_and_has_every_section(facts, form, lang):
    text = render(facts, form=form, lang=lang)
    assert check(text) == []
    assert [name for name in headings(text) if name in SECTIONS[lang]] == SECTIONS[lang]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_measured_figure_is_in_the_prose_with_its_origin(facts, lang):
    text = prose(facts, lang)
    measured = {"en": "measured here: 2 × CPU, MindSpore 2.10.0", "zh": "本项目实测：2 × CPU, MindSpore 2.10.0"}[lang]
    (accuracy,) = [line for line in text.split("\n") if "69.98" in line and "50000" in line]
    assert measured in accuracy
    (row,) = [line for line in text.split("\n") if "812.5" in line]
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert cells[1:12] == ["3.05", "CPU", "2", "16", "224x224", "O0", "7.4s", "812.5", "39.38", "69.98", "89.78"]
    assert measured in row
    for figure in ("1.4e-06", "2.0e-06", "1.0e-04", "timm 1.0.31", facts.weights.sha256, str(facts.weights.size)):
        assert figure in text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_nobody_measured_is_left_out_and_said(converted, lang):
    bare = prose(of_checkpoint(converted[0], architecture=NANO, dialect="paper"), lang)
    absent = {"Requirements", "Accuracy", "Performance", "Conversion and parity"}
    expected = [name for name, english in zip(SECTIONS[lang], SECTIONS["en"], strict=True) if english not in absent]
    assert [name for name in headings(bare) if name in SECTIONS[lang]] == expected
    assert "acc@" not in bare and "ms/step" not in bare


@pytest.mark.parametrize(("lang", "sentence"), [("en", "was not measured for this file"), ("zh", "没有测过这个文件")])
def test_a_conversion_nobody_compared_is_said_to_be_unproven(facts, lang, sentence):
    unproven = facts.model_copy(update={"conversion": facts.conversion.model_copy(update={"parity": None})})
    assert sentence in prose(unproven, lang)
    assert sentence not in prose(facts, lang)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    "name", ["xcit_tiny_12_p16_224.fb_in1k", "xcit_small_12_p8_224.fb_dino", "xcit_tiny_12_p16_224.ms_in1k"]
)
def test_every_published_figure_names_its_publisher(name, lang):
    text = prose(of_published(name), lang)
    for figure in variants.checkpoint(name).accuracies:
        rows = [line for line in text.split("\n") if f"| {figure.top1:g} |" in line and figure.source in line]
        assert len(rows) == 1
        assert ("published by" if lang == "en" else "发布方") in rows[0]
    assert ("has not measured the accuracy" if lang == "en" else "没有实测过") in text


def test_the_commands_are_the_projects_own(facts):
    text = prose(facts, "en")
    recipe = "configs/xcit/xcit_nano_12_p16_224.yaml"
    assert 'xcit_hub.load("somebody/my_nano")' in text
    assert 'timm.create_model("hf-hub:somebody/my_nano", pretrained=True)' in text
    assert f"python train.py --config {recipe} --data_dir /path/to/imagenet" in text
    assert f"msrun --bind_core=True --worker_num 8 python train.py --config {recipe}" in text
    assert f"python validate.py -c {recipe} --data_dir /path/to/imagenet --ckpt_path /path/to/my_nano.ckpt" in text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_weights_of_mindcvs_dialect_are_offered_to_timm_with_our_network_only(lang):
    text = prose(of_published("xcit_tiny_12_p16_224.ms_in1k"), lang)
    taught = 'import timm\nimport xcit_hub.timm\n\nmodel = timm.create_model("xcit_tiny_12_p16_224.ms_in1k", '
    assert taught in text
    assert text.count("timm.create_model") == 1
    newest = of_published("xcit_tiny_12_p16_224.ms_in1k").model_copy(update={"dialect": "mindcv-mint"})
    text = prose(newest, lang)
    assert taught.replace("ms_in1k", "ms_mint") in text
    assert "**mindcv-mint**" in text
    assert ("exact error-function form" if lang == "en" else "精确的误差函数形式") in text


def test_references_are_written_as_gb_t_7714_asks():
    for name in ("xcit_tiny_12_p16_224.fb_in1k", "xcit_tiny_12_p16_224.ms_in1k"):
        references = prose(of_published(name), "en").split("## References")[1]
        assert re.search(
            r"^\[1\] Ali A, Touvron H, Caron M, et al\. .+\[J\]\. .+, 2021, 34: 20014-20027\.$", references, re.M
        )
        assert re.search(r"^\[2\] .+\[CP/OL\]\. https://\S+\.$", references, re.M)


def test_hugging_faces_own_reader_finds_the_model_index_and_the_dialect(facts):
    text = render(facts, form="hugging-face", lang="en")
    data = huggingface_hub.ModelCard(text).data
    assert data["dialect"] == "paper"
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "timm", "image-classification")
    assert [(result.metric_value, result.dataset_type, result.dataset_split) for result in data.eval_results] == [
        (69.98, "imagenet-1k", "validation"),
        (89.78, "imagenet-1k", "validation"),
    ]
    assert data.eval_results[0].metric_name.startswith("top-1")
    assert data.eval_results[1].metric_name.startswith("top-5")
    assert data["mindspore-hub"]["mindspore-version"] == "2.10"


def test_the_hubs_own_parser_finds_every_required_field(facts):
    text = render(facts, form="mindspore-hub", lang="zh")
    head = yaml.load(text.split("\n---\n")[1], Loader=yaml.FullLoader)  # what the Hub's checker calls
    assert head["fine-tunable"] is True
    assert head["mindspore-version"] == "2.10"
    assert head["evaluation"] == "top1acc69.98 | top5acc89.78"
    assert head["dialect"] == "paper"


def test_a_figure_from_another_dataset_is_not_imagenets(converted):
    run = RunRecord(top1=91.5, top5=99.0, dataset="cifar10", eval_samples=10_000)
    facts = of_checkpoint(converted[0], architecture=NANO, dialect="paper", run=run)
    results = facts.metadata("hugging-face", "en").results
    assert {result.dataset_type for result in results} == {"cifar10"}
    assert facts.metadata("hugging-face", "en").datasets == []


@pytest.mark.parametrize(
    ("dataset", "samples", "named"),
    [
        ("imagenet", 50_000, "ImageNet-1k"),
        ("imagenet", 500, "imagefolder"),
        ("imagenet", None, "imagefolder"),
        ("imagefolder", 50_000, "imagefolder"),
        (None, 50_000, "imagefolder"),
        ("cifar10", 10_000, "cifar10"),
    ],
)
def test_only_the_whole_validation_set_is_called_imagenet(converted, dataset, samples, named):
    run = RunRecord(top1=50.0, dataset=dataset, eval_samples=samples)
    meta = CardYaml(train_dataset="ImageNet2012")
    facts = of_checkpoint(converted[0], architecture=NANO, dialect="paper", meta=meta, run=run)
    assert facts.accuracy[0].dataset == named
    # One-figure fields speak of the training data; a figure from elsewhere must not pass for one of those.
    evaluation = facts.metadata("mindspore-hub", "en").evaluation
    assert evaluation == ("top1acc50" if named == "ImageNet-1k" else None)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("/home/me/xcit/configs/xcit/xcit_nano_12_p16_224.yaml", "configs/xcit/xcit_nano_12_p16_224.yaml"),
        ("configs/xcit/cpu_smoke.yaml", "configs/xcit/cpu_smoke.yaml"),
        ("/home/me/mine.yaml", "mine.yaml"),
        ("C:\\xcit\\configs\\xcit\\cpu_smoke.yaml", "configs/xcit/cpu_smoke.yaml"),
        ("cpu_smoke", "configs/xcit/cpu_smoke.yaml"),
        ("mine.yaml", "mine.yaml"),
        ("cpu_smoke.yaml", "cpu_smoke.yaml"),
        ("/home/me/my-configs/private/r.yaml", "r.yaml"),
        ("/home/me/configs/private/r.yaml", "r.yaml"),
        ("/home/me/my-configs/xcit/cpu_smoke.yaml", "cpu_smoke.yaml"),
        ("/home/me/configs/xcit/mine.yaml", "mine.yaml"),
    ],
)
def test_the_recipe_is_told_without_the_disk_it_lay_on(converted, recipe, told):
    run = RunRecord(recipe=recipe, ms_per_step=1.0)
    facts = of_checkpoint(converted[0], architecture=NANO, dialect="paper", run=run)
    assert facts.run is not None and facts.run.recipe == told
    assert facts.recipe == (told if told.startswith("configs/") else f"configs/xcit/{NANO}.yaml")
    assert "/home/me" not in prose(facts, "en")


@pytest.mark.parametrize(("name", "is_imagenets"), [("own {}", False), ("n{:08}", True)])
def test_a_thousand_classes_of_other_names_are_not_called_imagenets(converted, name, is_imagenets):
    classes = [name.format(index) for index in range(1000)]
    facts = of_checkpoint(converted[0], architecture=NANO, dialect="paper", num_classes=1000, classes=classes)
    for form, lang in (("hugging-face", "en"), ("hugging-face", "zh")):
        text = render(facts, form=form, lang=lang)
        assert (f"999 {classes[999]}" in text, f"99 {classes[99]}" in text) == (False, True)
        assert ("any image whatever" in text or "ImageNet-1k 的 1000" in text) == is_imagenets


def test_measured_figures_come_before_published_ones(converted):
    meta = CardYaml(accuracy=[{"top1": 70.0, "source": "somebody"}])
    facts = of_checkpoint(
        converted[0],
        architecture=NANO,
        dialect="paper",
        meta=meta,
        run=RunRecord(top1=69.0, dataset="imagenet", eval_samples=50_000),
    )
    assert facts.metadata("mindspore-hub", "en").evaluation == "top1acc69"


def test_a_run_record_of_another_file_is_refused(converted):
    run = RunRecord(top1=69.0, checkpoint_sha256="0" * 64)
    with pytest.raises(InputError, match="another file"):
        of_checkpoint(converted[0], architecture=NANO, dialect="paper", run=run)


def test_a_digest_that_is_not_the_files_is_refused(converted):
    meta = CardYaml(asset=[{"file-format": "ckpt", "asset-link": "https://a.b/c", "asset-sha256": "deadbeef"}])
    with pytest.raises(InputError, match="deadbeef"):
        of_checkpoint(converted[0], architecture=NANO, dialect="paper", meta=meta)


def assets_of(path: Path, *listed: dict[str, str]) -> tuple[Facts, list[Asset]]:
    facts = of_checkpoint(path, architecture=NANO, dialect="paper", meta=CardYaml(asset=[*listed]))
    return facts, facts.metadata("mindspore-hub", "en").asset


def test_only_the_file_that_the_card_is_about_is_given_its_digest(converted):
    facts, (mine, onnx, average) = assets_of(
        converted[0],
        {"asset-link": "https://example.org/my_nano.ckpt?download=true"},
        {"asset-link": "https://example.org/my_nano.onnx"},
        {"asset-link": "https://example.org/ema.ckpt", "file-format": "ckpt"},
    )
    assert (mine.file_format, mine.asset_sha256) == ("ckpt", facts.weights.sha256)
    assert (onnx.file_format, onnx.asset_sha256) == ("onnx", None)
    assert (average.file_format, average.asset_sha256) == ("ckpt", None)


def test_a_file_of_another_name_is_the_only_one_of_its_format(converted):
    facts, (onnx, mine) = assets_of(
        converted[0], {"asset-link": "https://example.org/n.onnx"}, {"asset-link": "https://example.org/n.ckpt"}
    )
    assert (mine.asset_sha256, onnx.asset_sha256) == (facts.weights.sha256, None)
    assert facts.weights.link == "https://example.org/n.ckpt"


def test_a_card_links_no_other_file_as_its_own(converted):
    facts, (onnx,) = assets_of(converted[0], {"asset-link": "https://example.org/n.onnx"})
    assert (onnx.file_format, onnx.asset_sha256, facts.weights.link) == ("onnx", None, None)


def test_which_of_several_files_a_card_is_about_has_to_be_said(converted):
    path = converted[0]
    first, other = {"asset-link": "https://example.org/a.ckpt"}, {"asset-link": "https://example.org/ema.ckpt"}
    with pytest.raises(InputError, match=r"Each of 2 files of card.yaml may be my_nano.ckpt: .*a.ckpt, .*ema.ckpt"):
        assets_of(path, first, other)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _, (average, mine) = assets_of(path, {**other, "asset-sha256": "0" * 64}, first)
    assert (average.asset_sha256, mine.asset_sha256) == ("0" * 64, digest)
    _, (average, mine) = assets_of(path, other, {**first, "asset-sha256": digest[:8]})
    assert (average.asset_sha256, mine.asset_sha256) == (None, digest)


def test_the_conversion_is_told_without_the_disk_it_was_made_on(converted):
    told = Conversion.model_validate(json.loads((converted[1] / "report.json").read_text()))
    assert told.source.path == "source.safetensors"
    assert told.tensors == len(parameter_shapes(variants.architecture(NANO)))
    assert str(converted[1]) not in prose(of_checkpoint(
        converted[0], architecture=NANO, dialect="paper", conversion=converted[1] / "report.json"
    ), "en")  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"target": {"path": "other.ckpt", "sha256": "0" * 64}}, "about another file: it names other.ckpt"),
        ({"target": {"path": "best.ckpt"}}, "does not say which file it is about"),
        ({"parity": PARITY | {"passed": False}}, "the proof against PyTorch failed"),
    ],
)
def test_a_report_of_another_file_or_of_a_failed_proof_is_refused(converted, changed, what):
    report = json.loads((converted[1] / "report.json").read_text()) | changed
    with pytest.raises(InputError, match=what):
        of_checkpoint(converted[0], architecture=NANO, dialect="paper", conversion=report)


def test_what_was_left_behind_is_counted_by_its_reason():
    dropped = [{"name": f"moment1.{index}", "reason": "optimizer state"} for index in range(367)]
    left = [{"kind": "value", "reason": "a value", "count": 2, "names": ["epoch"]}]
    told = Conversion.model_validate(
        {"source": {"path": "a"}, "target": {"path": "b"}, "dropped": dropped, "left": left}
        | {"made_up": [{"name": "head.bias"}]}
    )
    assert told.dropped == {"optimizer state": 367}
    assert told.left == {"a value": 2}
    assert told.made_up == ["head.bias"]


def test_a_value_cannot_break_out_of_its_table_cell():
    meta = CardYaml(accuracy=[{"top1": 1.0, "source": "a | b\n\n# c"}])
    text = prose(of_published("xcit_tiny_12_p16_224.fb_in1k", meta), "en")
    assert "a \\| b # c" in text
    assert "\n# c" not in text


def test_writing_refuses_to_replace_and_then_has_written_nothing(facts, tmp_path):
    (tmp_path / "README_zh.md").write_text("mine")
    with pytest.raises(CardError, match=r"README_zh\.md"):
        write(facts, tmp_path, forms=FORMS, langs=LANGUAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["README_zh.md"]
    written = write(facts, tmp_path, forms=FORMS, langs=LANGUAGES, force=True)
    assert {path.name for path in written} == {
        "README.md", "README_zh.md", "my_nano_imagenet2012.md", "my_nano_imagenet2012_cn.md"
    }  # fmt: skip
    assert Facts.read(tmp_path / "facts.json") == facts


def test_a_card_in_the_other_language_is_written_from_the_facts(facts, tmp_path):
    write(facts, tmp_path, forms=FORMS, langs=["en"])
    assert translate(tmp_path / "README.md", lang="zh") == render(facts, form="hugging-face", lang="zh")
    (tmp_path / "facts.json").unlink()
    with pytest.raises(CardError, match="facts"):
        translate(tmp_path / "README.md", lang="zh")


def test_a_card_in_the_other_form_says_the_same(facts, tmp_path):
    write(facts, tmp_path, forms=["hugging-face"], langs=["en"])
    hub = mindspore_hub.read(translate(tmp_path / "README.md", form="mindspore-hub"))
    assert hub == read(tmp_path / "README.md")
    assert check(mindspore_hub.write(hub)) == []
    (tmp_path / "hub.md").write_text(mindspore_hub.write(hub))
    assert hugging_face.read(translate(tmp_path / "hub.md", form="hugging-face")) == hub
