"""Modelers' and ModelScope's forms of a card."""

from __future__ import annotations

import pytest
import yaml
from typer.testing import CliRunner

from cards import check, generate, modelers, modelscope
from cards.card import Card
from cards.check import form_of
from cards.check import read as read_card
from cards.facts import AccuracyFigure, CardYaml, Facts, Performance
from cards.gather import of_published
from cards.metadata import CardMetadata
from xcit_hub.cli.card import app
from xcit_hub.run_record import RunRecord

FORMS = {"modelers": modelers, "modelscope": modelscope}
NAMES = ["xcit_tiny_12_p16_224.fb_in1k", "xcit_tiny_12_p16_224.ms_in1k", "xcit_small_12_p8_224.fb_dino"]


def facts(name: str) -> Facts:
    return of_published(name)


def head(text: str) -> dict:
    return yaml.safe_load(text.split("---", 2)[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("form", FORMS)
def test_a_card_has_its_hubs_fields_passes_its_check_and_is_read_back(form, lang, name):
    text = generate.render(facts(name), form=form, lang=lang)
    assert form_of(text) == form
    assert [fault for fault in check.check(text) if fault.severity == "error"] == []
    assert check.check(text, form) == check.check(text)
    written, known = head(text), facts(name).metadata(form, lang)
    found = read_card(text).metadata
    for field in ("license_id", "language", "pipeline_tag", "datasets", "metrics", "base_model", "tags", "dialect"):
        assert getattr(found, field) == getattr(known, field), field
    if form == "modelers":
        assert written["frameworks"] == ["MindSpore"]
        assert set(written["hardwares"]) <= {"NPU", "CPU", "GPU"}
        assert "library_name" not in written
        assert found.results == known.results
    else:
        assert written["tasks"] == [known.pipeline_tag]
        assert written["license"] == "Apache License 2.0"
        assert (written["domain"], written["model-type"], written["backbone"]) == (["cv"], ["xcit"], ["xcit"])
        assert set(written) <= {
            "tasks", "frameworks", "license", "language", "domain", "model-type", "backbone", "metrics", "datasets",
            "base_model", "tags", "dialect",
        }  # fmt: skip


def test_the_client_of_modelers_reads_the_card_with_its_own_class():
    data = pytest.importorskip("openmind_hub.plugins.openmind.repocard_data")
    for name in NAMES:
        written = head(generate.render(facts(name), form="modelers", lang="en"))
        read = data.ModelCardData(**written).to_dict()
        assert read["frameworks"] == ["MindSpore"]
        assert read["license"] == written["license"]


def test_hardware_is_what_figures_were_measured_on():
    row = Performance(origin="published", source="a page", record=RunRecord(device="Ascend 910B", cards=8))
    measured = facts(NAMES[1]).model_copy(update={"performance": [row]})
    assert measured.metadata("modelers", "en").model_extra["hardwares"] == ["NPU", "CPU"]  # parity is of a CPU
    assert head(generate.render(facts(NAMES[0]), form="modelers", lang="en"))["hardwares"] == ["CPU"]


def test_cards_lead_to_the_other_hubs():
    known = facts(NAMES[0]).model_copy(update={"elsewhere": {"ModelScope": "https://modelscope.cn/models/a/b"}})
    for lang in ("en", "zh"):
        assert "[ModelScope](https://modelscope.cn/models/a/b)" in generate.prose(known, lang)
        assert "ModelScope" not in generate.prose(facts(NAMES[0]), lang)


@pytest.mark.parametrize(
    ("form", "written", "field", "severity"),
    [
        ("modelers", "frameworks: [MindSpore]\ntags: [x]", "license", "error"),
        ("modelers", "license: nobodys\nframeworks: [MindSpore]", "license", "error"),
        ("modelers", "license: apache-2.0\nframeworks: {a: b}", "frameworks", "error"),
        ("modelers", "license: apache-2.0\nframeworks: [Torch]", "frameworks", "warning"),
        ("modelers", "license: apache-2.0\nframeworks: [MindSpore]\nhardwares: [TPU]", "hardwares", "warning"),
        ("modelers", "license: apache-2.0\nframeworks: [MindSpore]", "hardwares", "warning"),
        ("modelscope", "tasks: {a: b}\nlicense: MIT License", "tasks", "error"),
        ("modelscope", "tasks: [image-classification]\ndatasets: {held: [x]}", "datasets", "error"),
        ("modelscope", "tasks: [image-classification]\nlicense: nobodys", "license", "warning"),
        ("modelscope", "domain: [cv]", "tasks", "warning"),
        ("modelscope", "tasks: [image-classification]\nframeworks: [mindspore]", "dialect", "warning"),
        ("modelscope", "tasks: &a [x]\ndomain: *a", "metadata", "error"),
        ("modelers", "frameworks: !!python/object:os.system [x]", "metadata", "error"),
    ],
)
def test_what_does_not_pass(form, written, field, severity):
    found = {(fault.field, fault.severity) for fault in check.check(f"---\n{written}\n---\n# nano\n")}
    assert (field, severity) in found


def test_check_holds_a_card_against_the_form_that_was_asked_for(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("---\nlibrary_name: mindspore\npipeline_tag: image-classification\n---\n# nano\n")
    run = CliRunner().invoke
    assert run(app, ["check", str(card)]).exit_code == 0
    asked = run(app, ["check", str(card), "--form", "modelers"])
    assert asked.exit_code == 1
    assert "license" in asked.output
    assert run(app, ["check", str(card), "--form", "modelscope"]).exit_code == 0


def test_a_card_changes_its_form_and_keeps_its_prose(tmp_path):
    text = generate.render(facts(NAMES[0]), form="hugging-face", lang="en")
    card = read_card(text)
    for form, module in FORMS.items():
        other = module.read(module.write(card))
        assert (other.title, other.prose) == (card.title, card.prose), form
        assert other.metadata.license_id == card.metadata.license_id
    path = tmp_path / "README.md"
    path.write_text(text)
    shown = CliRunner().invoke(app, ["translate", str(path), "--form", "modelscope"])
    assert form_of(shown.stdout) == "modelscope"


SITES_CARD = """---
tasks: [image-classification, image-segmentation]
frameworks: [mindspore, pytorch]
license: [MIT License, Apache License 2.0]
domain: [multi-modal]
backbone: [xcit]
studios: [org/demo]
---
# nano
"""


def translated(tmp_path, text: str, form: str) -> tuple[dict, list[str]]:
    """Return the head of a card in another form, and the lines of stderr."""
    (tmp_path / "card.md").write_text(text)
    done = CliRunner().invoke(app, ["translate", str(tmp_path / "card.md"), "--form", form])
    assert done.exit_code == 0, done.output
    return head(done.stdout), done.stderr.splitlines()


def test_what_modelscope_says_and_another_form_cannot_is_named(tmp_path):
    written, told = translated(tmp_path, SITES_CARD, "hugging-face")
    assert (written["pipeline_tag"], written["studios"]) == ("image-classification", ["org/demo"])
    assert told == [
        "left: tasks: only image-classification is kept, not image-segmentation",
        "left: frameworks: only mindspore is kept, not pytorch",
        "left: license: only MIT License is kept, not Apache License 2.0",
        "left: domain: only ModelScope has it; cv is written there",
        "left: backbone: only ModelScope has it; xcit is written there",
    ]
    _, told = translated(tmp_path, SITES_CARD, "modelscope")
    assert "left: domain: only ModelScope has it; cv is written there" in told
    assert not [line for line in told if "backbone" in line or "studios" in line]


def test_what_modelscope_cannot_say_is_named_and_unknown_fields_are_kept(tmp_path):
    text = "---\nlibrary_name: timm\nmindspore-hub: {author: me}\nco2: 3\nmodel-index:\n" + RESULTS + "---\n# nano\n"
    written, told = translated(tmp_path, text, "modelscope")
    assert written["co2"] == 3
    assert told == [
        "left: library_name: it is 'mindspore' there",
        "left: model-index: that form has no field for it",
        "left: mindspore-hub: that form has no field for it",
    ]


def test_modelscope_is_told_of_evaluation_data_only_where_a_figure_is_of_it():
    name = NAMES[0]
    known = facts(name).model_copy(update={"meta": CardYaml(train_dataset="ImageNet2012")})
    figure = known.accuracy[0]

    def datasets(*accuracy: AccuracyFigure) -> dict:
        told = known.model_copy(update={"accuracy": [*accuracy]})
        return head(generate.render(told, form="modelscope", lang="en"))["datasets"]

    assert datasets() == {"train": ["imagenet-1k"]}
    assert datasets(figure) == {"train": ["imagenet-1k"], "evaluation": ["imagenet-1k"]}
    other = figure.model_copy(update={"dataset": "cifar10"})
    assert datasets(other, other) == {"train": ["imagenet-1k"], "evaluation": ["cifar10"]}
    unnamed = figure.model_copy(update={"dataset": "imagefolder"})
    trained_on = figure.model_copy(update={"split": "train"})
    assert datasets(unnamed, trained_on) == {"train": ["imagenet-1k"]}


def test_what_a_model_was_evaluated_on_does_not_become_what_it_was_trained_on(tmp_path):
    text = "---\ntasks: [image-classification]\ndatasets: {train: [imagenet-1k], evaluation: [cifar10]}\n---\n# nano\n"
    left = "left: datasets: only train is kept, not evaluation (cifar10)"
    for form, kept in (("hugging-face", ["imagenet-1k"]), ("modelscope", {"train": ["imagenet-1k"]})):
        written, told = translated(tmp_path, text, form)
        assert written["datasets"] == kept
        assert left in told, form
    alone = "---\ntasks: [image-classification]\ndatasets: {evaluation: [cifar10]}\n---\n# nano\n"
    written, told = translated(tmp_path, alone, "hugging-face")
    assert "datasets" not in written and left in told


def test_modelers_other_frameworks_are_named(tmp_path):
    text = "---\nframeworks: [PyTorch, MindSpore]\nlicense: mit\nhardwares: [NPU]\n---\n# nano\n"
    assert translated(tmp_path, text, "modelers")[1] == ["left: frameworks: only MindSpore is kept, not PyTorch"]


RESULTS = """- name: nano
  results:
  - task: {type: image-classification}
    dataset: {name: ImageNet-1k, type: imagenet-1k}
    metrics: [{type: accuracy, value: 70.0}]
"""


def test_forms_of_one_file_name_are_written_apart(tmp_path):
    from cards.write import write

    written = write(facts(NAMES[0]), tmp_path, forms=["hugging-face", "modelers", "modelscope"], langs=["en", "zh"])
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        f"{folder}{name}" for folder in ("", "modelers/", "modelscope/") for name in ("README.md", "README_zh.md")
    }
    alone = write(facts(NAMES[0]), tmp_path / "alone", forms=["modelscope"], langs=["en"])
    assert [path.name for path in alone] == ["README.md"]
    assert alone[0].parent == tmp_path / "alone"


def test_an_empty_card_is_written_and_read():
    card = Card("nano", CardMetadata(), "prose")
    for module in FORMS.values():
        assert module.read(module.write(card)).title == "nano"
