"""The card of a trained model speaks of that model: its data, its origin, the flags that were used."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from cards import measured
from cards.check import check, read
from cards.facts import CardYaml, Facts
from cards.forms import FORMS, LANGUAGES
from cards.gather import of_checkpoint
from cards.generate import prose, render
from cards.metadata import CardMetadata
from cards.page import html
from cards.provenance import LEFT_OUT, Conversion
from cards.write import write
from xcit_hub import variants
from xcit_hub.errors import InputError
from xcit_hub.parameters import parameter_shapes
from xcit_hub.run_record import RunRecord
from xcit_hub.shipped import shipped_recipes

NANO = "xcit_nano_12_p16_224"
FLOWERS = {
    "format": 2,
    "recipe": "/home/me/configs/xcit/xcit_nano_12_p16_224.yaml",
    "flags": {
        "data_dir": "/home/me/flowers", "ckpt_save_dir": "/home/me/out", "lr": 2.5e-4, "epoch_size": 20,
        "image_resize": 32, "interpolation": "bilinear", "ckpt_path": "/home/me/start.ckpt",
        "note": "it's; rm -rf /", "mixup": False,
    },
    "configuration": {"lr": 2.5e-4},
    "started_from": "timm/xcit_nano_12_p16_224.fb_in1k",
    "versions": {"mindspore": "2.8.0", "numpy": "1.26.4", "something": "7"},
    "device": "CPU", "cards": 2, "batch_size": 8, "image_size": [32, 48], "mode": "graph",
    "model": NANO, "dialect": "paper", "num_classes": 3, "classes": ["daisy", "rose | red", "tulip"],
    "dataset": "flowers", "train_samples": 300, "seed": 42, "epochs": 20, "final_loss": 0.125,
    "top1": 99.5, "top5": 100.0, "eval_loss": 0.0625, "eval_samples": 200, "eval_seconds": 1.5,
    "preprocessing": {"input_size": [3, 32, 48], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
                      "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"},
    "weights": "average", "checkpoint": "/home/me/out/best.ckpt", "skipped_updates": 1, "unreadable": ["a.jpg"],
}  # fmt: skip

PLAIN = {
    "started_from": None, "flags": {"data_dir": "/x"}, "dataset": "imagenet", "eval_samples": 50_000,
    "configuration": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    shapes = parameter_shapes(variants.architecture(NANO), num_classes=3)
    path = tmp_path_factory.mktemp("flowers") / "best.safetensors"
    save_file({name: generator.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}, path)
    return path


def facts_of(checkpoint: Path, changed: dict | None = None, meta: CardYaml | None = None, **options: object) -> Facts:
    run = RunRecord.model_validate(FLOWERS | (changed or {}))
    return of_checkpoint(checkpoint, run=run, meta=meta, **options)


def test_every_field_of_a_run_record_has_one_place():
    places = [*measured.ELSEWHERE, *measured.TABLE, *measured.LEFT_OUT]
    assert sorted(places) == sorted(RunRecord.model_fields)
    assert all(measured.LEFT_OUT.values())


def test_the_record_settles_architecture_dialect_and_classes(checkpoint):
    facts = facts_of(checkpoint)
    assert (facts.architecture, facts.dialect, facts.num_classes) == (NANO, "paper", 3)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_fine_tuned_card_speaks_of_its_own_model(checkpoint, lang):
    facts = facts_of(checkpoint)
    text = prose(facts, lang)
    for said in ("flowers", "300", "99.5", "0.0625", "`timm/xcit_nano_12_p16_224.fb_in1k`", "daisy", "rose \\| red",
                 "32 × 48", "0.5, 0.5, 0.5", "0.25, 0.25, 0.25", "bilinear", "something 7", "| 0.125 |", "| 42 |",
                 "| lr | 0.00025 |", "(1, 3, 32, 48)"):  # fmt: skip
        assert said in text, said
    for unsaid in ("ImageNet-1k", "/path/to/imagenet", "/home/me", "100", "holds every number", "train 和 val`下"):
        assert unsaid not in text.replace("100 %", ""), unsaid
    assert ("beginning with" if lang == "en" else "起点是") in text


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("views", [2, 5, 10])
def test_a_figure_of_several_views_is_not_told_as_that_of_one_crop(checkpoint, views, lang):
    changed = {"tta": views, "val_amp_level": "O2", "amp_dtype": "float16", "class_map": "/home/me/names.txt"}
    facts = facts_of(checkpoint, changed)
    rows = [line for line in prose(facts, lang).splitlines() if line.startswith("|") and "99.5" in line]
    assert rows and all(f"tta {views}, val_amp_level O2, class_map names.txt" in row for row in rows)
    assert (f"logits of {views} views" if lang == "en" else f"{views} 个视图的 logits") in prose(facts, lang)
    results = read(render(facts, form="hugging-face", lang=lang)).metadata.results
    assert results and all(f"tta {views}" in result.metric_name for result in results)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_figure_of_one_crop_says_nothing_of_views(checkpoint, lang):
    told = {"tta": 0, "val_amp_level": "O0", "amp_dtype": None, "class_map": None, "real_labels": None}
    assert prose(facts_of(checkpoint, told), lang) == prose(facts_of(checkpoint), lang)


def test_the_real_labels_and_their_figures_stand_in_the_table_of_the_run(checkpoint):
    text = prose(facts_of(checkpoint, {"real_labels": "/home/me/real.json", "real_top1": 87.5}), "en")
    assert "| reassessed labels | real.json |" in text and "| top-1 by these (%) | 87.5 |" in text


def test_the_command_repeats_the_run():
    flags = {
        "data_dir": "/home/me/flowers", "lr": 2.5e-4, "mixup": False, "ckpt_path": "C:\\me\\start.ckpt",
        "nothing": None,
        "names": ["/home/me/a", "b"], "note": "it's; rm -rf $HOME\n```\n", "model": "timm/xcit_nano_12_p16_224.fb_in1k",
    }  # fmt: skip
    run = RunRecord.model_validate(FLOWERS | {"recipe": "configs/xcit/r.yaml", "flags": flags})
    assert measured.command(run) == (
        "msrun --bind_core=True --worker_num 2 --local_worker_num 2 python -m xcit_hub train "
        "--config configs/xcit/r.yaml "
        "--data_dir /path/to/flowers --lr 0.00025 --mixup False --ckpt_path /path/to/start.ckpt --nothing None "
        """--names '["/path/to/a", "b"]' --note 'it'"'"'s; rm -rf $HOME ``` ' """
        "--model timm/xcit_nano_12_p16_224.fb_in1k"
    )
    measuring = measured.validation(run, "best.ckpt")
    assert measuring.startswith("xcit-hub eval -c configs/xcit/r.yaml --data_dir /path/to/flowers --lr 0.00025 ")
    assert measuring.endswith(" --ckpt_path /path/to/best.ckpt") and measuring.count("--ckpt_path") == 1
    alone = measured.command(run.model_copy(update={"cards": 1, "flags": {}}))
    assert alone == "xcit-hub train --config configs/xcit/r.yaml --data_dir /path/to/flowers"


def test_the_metadata_names_what_it_was_made_from_and_what_was_measured(checkpoint):
    found = read(render(facts_of(checkpoint), form="hugging-face", lang="en")).metadata
    assert found.base_model == ["timm/xcit_nano_12_p16_224.fb_in1k"]
    assert [(result.dataset_name, result.metric_value) for result in found.results] == [("flowers", 99.5)]
    assert found.datasets == []
    hub = read(render(facts_of(checkpoint), form="mindspore-hub", lang="en")).metadata
    assert hub.evaluation == "top1acc99.5"


def test_a_start_from_a_file_is_told_by_its_name_and_is_not_a_base_model(checkpoint):
    facts = facts_of(checkpoint, {"started_from": "/home/me/secret/start.ckpt"})
    assert facts.base_model == []
    assert "`start.ckpt`" in prose(facts, "en") and "secret" not in prose(facts, "en")
    known = facts_of(checkpoint, {"started_from": "xcit_nano_12_p16_224.fb_in1k"})
    assert known.base_model == ["timm/xcit_nano_12_p16_224.fb_in1k"]


@pytest.mark.parametrize(("classes", "kept"), [(2, False), (5, False), (6, True), (1000, True)])
def test_top5_of_fewer_than_six_classes_is_left_out(tmp_path, classes, kept):
    shapes = parameter_shapes(variants.architecture(NANO), num_classes=classes)
    path = tmp_path / "m.safetensors"
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, path)
    facts = facts_of(path, {"num_classes": classes, "classes": None})
    assert (facts.accuracy[0].top5 is not None) is kept
    assert (facts.run.top5 is not None) is kept
    assert any("top-5" in note for note in facts.assumed) is not kept


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_page_names_the_top1_that_has_no_place_in_the_chart(checkpoint, lang):
    page = html(read(render(facts_of(checkpoint), form="hugging-face", lang=lang)), lang)
    assert "99.5 % (flowers)" in page
    page = html(read(render(facts_of(checkpoint), form="mindspore-hub", lang=lang)), lang)
    assert "99.5 %" in page


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": "xcit_tiny_12_p16_224"}, "xcit_tiny_12_p16_224"),
        ({"num_classes": 4}, "num_classes 4"),
        ({"top1": 60.0, "top5": 50.0}, "top1 60"),
        ({"classes": ["a"] * 4}, "4 names"),
        ({"checkpoint_sha256": "0" * 64}, "another file"),
    ],
)
def test_a_record_of_another_network_is_refused(checkpoint, changed, named):
    with pytest.raises(InputError, match=named):
        facts_of(checkpoint, changed, architecture=NANO, dialect="paper", num_classes=3)


def test_a_plain_run_on_imagenet_keeps_the_projects_words(checkpoint):
    plain = PLAIN | {"configuration": yaml.safe_load(shipped_recipes()[NANO].read_text())}
    text = prose(facts_of(checkpoint, plain), "en")
    assert "unpack [ImageNet-1k]" in text and "The recipe holds every number of the run" in text
    assert "| seed | 42 |" in text


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_run_of_a_recipe_of_the_project_is_told_as_its_own(name):
    used = yaml.safe_load(shipped_recipes()[name].read_text())
    for written in (name, f"{name}.yaml", f"/home/me/xcit-hub/configs/xcit/{name}.yaml"):
        run = RunRecord(recipe=written, configuration=used | {"data_dir": "/x"})
        assert measured.published_recipe(run) == f"configs/xcit/{name}.yaml"


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    "changed",
    [
        {"recipe": "/home/me/my-configs/private/r.yaml", "configuration": {"lr": 5.0}},
        {"recipe": "/home/me/my-configs/xcit/r.yaml"},
        {"recipe": f"/home/me/configs/xcit/{NANO}.yaml", "configuration": {"lr": 5.0}},
    ],
)
def test_a_recipe_of_somebodys_own_does_not_pass_for_the_projects(checkpoint, changed, lang):
    facts = facts_of(checkpoint, PLAIN | changed)
    name = Path(changed["recipe"]).name
    assert facts.own_run is not None and facts.own_run.recipe == name
    text = prose(facts, lang)
    assert {"en": "does not come with xcit-hub", "zh": "不随 xcit-hub 提供"}[lang] in text and f"`{name}`" in text
    for unsaid in ("private", "my-configs", f"configs/xcit/{name}", "every number of the run"):
        assert unsaid not in text, unsaid


def test_a_key_that_the_command_line_changed_does_not_make_the_recipe_anothers(checkpoint):
    used = yaml.safe_load(shipped_recipes()[NANO].read_text()) | {"lr": 5.0}
    facts = facts_of(checkpoint, PLAIN | {"configuration": used, "flags": {"lr": 5.0}})
    assert facts.own_run is not None and facts.own_run.recipe == f"configs/xcit/{NANO}.yaml"
    assert "does not come with" not in prose(facts, "en")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_card_speaks_of_no_training_that_nobody_recorded(checkpoint, lang):
    bare = of_checkpoint(checkpoint, architecture=NANO, dialect="paper", num_classes=3)
    measured_only = {"epochs": None, "dataset": "imagenet", "eval_samples": 40, "recipe": None, "flags": {}}
    for facts in (bare, facts_of(checkpoint, measured_only)):
        text = prose(facts, lang)
        for unsaid in ("train.py", "validate.py", "configs/", "ImageNet-1k", "imagefolder", "msrun"):
            assert unsaid not in text, unsaid
        assert "run.json" in text and "xcit-hub eval" in text
    assert ("a folder of images" if lang == "en" else "图像文件夹") in text


SECRETS = (
    "https://me:hunter2@example.com/a.ckpt", "https://example.com/a.ckpt?token=hunter2",
    "https://example.com/a.ckpt?x=1&access_token=hunter2&y=2", "https://example.com/a.ckpt?X-Amz-Signature=hunter2",
    "https://:hunter2@example.com/a.ckpt", "https://hunter2@example.com/a.ckpt", "s3://k:hunter2@bucket/a.ckpt",
)  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_no_card_holds_a_password_or_a_token_of_an_address(checkpoint, tmp_path, secret):
    meta = CardYaml.model_validate(
        {"repo_link": secret, "summary": f"see {secret} there", "asset": [{"asset-link": secret}],
         "recipe_url": secret, "accuracy": [{"top1": 1, "source": secret, "source_url": secret}]}
    )  # fmt: skip
    target = {"path": "b", "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()}
    report = {"source": {"path": secret}, "target": target, "notes": [f"from {secret}"]}
    facts = facts_of(checkpoint, {"started_from": secret, "flags": {"from": secret}}, meta, conversion=report)
    for path in write(facts, tmp_path, forms=FORMS, langs=LANGUAGES):
        assert "hunter2" not in path.read_text(encoding="utf-8"), path
    assert "hunter2" not in (tmp_path / "facts.json").read_text(encoding="utf-8")
    told = f"# t\n\n---\nrepo-link: {secret}\n---\n\nx\n"
    assert any("password or a token" in fault.message for fault in check(told))


def test_every_field_of_a_report_is_told_left_out_by_name_or_listed(checkpoint):
    report = {
        "source": {"path": "a.pth", "surprise": 1}, "architecture": NANO,
        "target": {"path": "b", "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()},
        "architecture_assumed": True, "kind": "classifier", "num_classes": 3, "head_untrained": True, "in_chans": 3,
        "seconds": 1.0, "dialect": "paper", "tensors": 5, "versions": {"xcit-hub": "1"}, "novelty": {"a": 1},
        "parity": {"passed": True, "max_error": 0, "relative_error": 0, "bar": 1e-5, "rule": {}, "more": 2,
                   "checks": [{"what": "logits", "error": 0, "bar": 1, "passed": True, "tolerance": {}}]},
    }  # fmt: skip
    told = Conversion.model_validate(report)
    assert told.unread == ["more", "novelty", "surprise"]
    facts = facts_of(checkpoint, conversion=report)
    text = prose(facts, "en")
    for said in ("more, novelty, surprise", "new and random", "assumed"):
        assert said in text
    assert any("novelty" in note for note in facts.assumed)
    assert all(LEFT_OUT.values())


names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=3, max_size=20)


@settings(max_examples=60)
@given(name=names, value=st.none() | st.booleans() | st.integers() | st.text("abc") | st.lists(st.integers()))
def test_a_random_unknown_field_is_refused_by_name_or_listed(tmp_path, name, value):
    known = {*RunRecord.model_fields, *CardYaml.model_fields, *Conversion.model_fields, *LEFT_OUT}
    if name in known:
        return
    (tmp_path / "run.json").write_text(json.dumps(FLOWERS | {name: value}))
    with pytest.raises(InputError, match=name):
        RunRecord.read(tmp_path / "run.json")
    (tmp_path / "card.yaml").write_text(f"author: me\n{name}: {json.dumps(value)}\n")
    with pytest.raises(InputError, match=name):
        CardYaml.read(tmp_path / "card.yaml")
    report = {"source": {"path": "a"}, "target": {"path": "b"}, name: value}
    assert Conversion.model_validate(report).unread == [name]
    with pytest.raises(InputError, match=name):
        (tmp_path / "facts.json").write_text(json.dumps({name: value}))
        Facts.read(tmp_path / "facts.json")
    card = f"# t\n\n---\nauthor: me\n{name}: {json.dumps(value)}\n---\n\nx\n"
    assert name in (read(card).metadata.model_extra or {})


def test_a_dataset_card_is_not_a_model_card():
    dataset = "---\nlicense: mit\ntask_categories:\n- image-classification\nsize_categories:\n- 1K<n<10K\n---\n\n# d\n"
    assert any("card of a dataset" in fault.message for fault in check(dataset) if fault.severity == "error")
    space = "---\ntitle: x\nsdk: gradio\napp_file: app.py\n---\n\n# s\n"
    assert any("card of a Space" in fault.message for fault in check(space) if fault.severity == "error")
    assert CardMetadata().results == []


@pytest.mark.parametrize(
    ("changed", "split", "folders"),
    [
        ({}, "validation", ("train", "val")),
        ({"eval_split": "val", "train_split": "train"}, "validation", ("train", "val")),
        ({"eval_split": "train"}, "train", ("train", "train")),
        ({"eval_split": "held/out", "train_split": "seen"}, "out", ("seen", "out")),
        ({"eval_split": "test", "train_split": "train", "dataset": "cifar10"}, "test", None),
    ],
)
def test_a_card_names_the_part_of_the_data_that_was_measured(checkpoint, changed, split, folders):
    """What was measured on the training images was called the validation's."""
    facts = facts_of(checkpoint, changed)
    (result,) = facts.metadata("hugging-face", "en").results
    assert result.dataset_split == split and (facts.headline is None) == (split == "train")
    for lang in LANGUAGES:
        text = prose(facts, lang)
        assert f"| {split} | 200 |" in text
        named = re.findall(r"(?:per class below|图像放在) `(\S+)` (?:and|和) `(\S+)`", text)
        assert named == ([folders] if folders else [])


@pytest.mark.parametrize("loader", ["tar", "mindrecord", "imagefolder"])
def test_how_images_are_packed_is_not_the_name_of_a_data_set(checkpoint, loader):
    facts = facts_of(checkpoint, {"dataset": loader, "train_split": "train", "eval_split": "val"})
    assert [figure.dataset for figure in facts.accuracy] == [measured.UNNAMED] and facts.headline is None
