"""An evaluation of a model by its id: the id says which network it is, and the record says what was done."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import xcit_hub
from xcit_hub.bulk_evaluation import evaluate_all
from xcit_hub.errors import InputError
from xcit_hub.files import sha256_of
from xcit_hub.recipe_runs import evaluate
from xcit_hub.run_record import RunRecord
from xcit_hub.training import recipe_rules
from xcit_hub.training.recipe_file import idle_flags, load_recipe
from xcit_hub.training.recipe_keys import KEYS, RecipeKeys
from xcit_hub.training.scoring import score, stored_network

OF_THE_ID: list[dict[str, Any]] = [
    {"model": "xcit_small_12_p8_224"},
    {"num_classes": 7},
    {"in_channels": 1},
    {"ckpt_path": "missing.ckpt"},
    {"pretrained": True},
    {"ema": True},
    {"library": "timm", "initial_checkpoint": "missing.ckpt"},
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for label in range(5):
        folder = root / "val" / f"class{label}"
        folder.mkdir(parents=True)
        Image.new("RGB", (40, 40), (50 * label, 20, 200 - 40 * label)).save(
            folder / f"ILSVRC2012_val_{label + 1:08}.JPEG"
        )
    return root


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks") / "nano"
    xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=5, dialect="paper", seed=1).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("flags", OF_THE_ID, ids=lambda flags: list(flags)[-1])
def test_a_flag_that_says_what_the_id_says_is_refused_by_name(flags: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--{list(flags)[-1]}: ") as refused:
        evaluate("no/such-model", None, flags)
    assert "leave out the ID" in (refused.value.fix or "")
    table = tmp_path / "table.csv"
    with pytest.raises(InputError, match=f"--{list(flags)[-1]}: "):
        evaluate_all(["no/such-model"], table, flags=flags)
    assert not table.exists()


def test_what_a_recipes_file_says_of_the_network_is_listed_and_the_record_names_the_file_that_was_read(
    nano: Path, data: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: xcit_small_12_p8_224\nnum_classes: 7\nckpt_path: missing.ckpt\nema: true\nimage_resize: [224, 224]\n"
        "mean: [123.675, 116.28, 103.53]\ncrop_pct: 0.5\nin_channels: 3\ndataset: imagefolder\nmode: 1\n"
    )
    said: list[str] = []
    flags = {"data_dir": str(data), "batch_size": 5, "crop_pct": 0.75, "num_parallel_workers": 1}
    report = evaluate(str(nano), recipe, flags, output=tmp_path / "out", say=said.extend)
    idle = [line for line in said if "no effect" in line]
    assert idle == [
        f"model, num_classes, ckpt_path, ema of {recipe} have no effect: "
        "the network is what the model's description says"
    ]
    record = RunRecord.read(tmp_path / "out" / "run.json")
    assert report is not None and record == report.record
    assert (record.checkpoint, record.checkpoint_sha256) == ("model.safetensors", sha256_of(nano / "model.safetensors"))
    assert (record.model, record.num_classes, record.image_size) == ("xcit_nano_12_p16_224", 5, (224, 224))


def test_a_recipe_that_agrees_with_the_model_is_not_said_to_be_idle(nano: Path, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: xcit_nano_12_p16_224\nnum_classes: 5\ndialect: paper\ndataset: imagefolder\nmode: 1\n")
    said: list[str] = []
    flags = {"data_dir": str(data), "batch_size": 5, "image_resize": 32, "num_parallel_workers": 1}
    evaluate(str(nano), recipe, flags, say=said.extend)
    assert not [line for line in said if "no effect" in line]


@pytest.mark.parametrize(
    "words", [{"library": "timm", "img_size": 32}, {"library": "facebook", "input_size": 32, "data_set": "IMNET"}]
)
def test_a_flag_in_anothers_words_counts_before_what_the_models_description_says(
    nano: Path, data: Path, words: dict[str, Any]
) -> None:
    flags = {"data_dir": str(data), "batch_size": 4, "num_parallel_workers": 1, "mode": 1, **words}
    report = evaluate(str(nano), None, flags)
    assert report is not None and report.record.preprocessing is not None
    assert report.record.preprocessing.input_size == (3, 32, 32)


def test_the_record_says_what_decides_the_figure(nano: Path, data: Path, tmp_path: Path) -> None:
    """Views, precision, a list of classes and reassessed labels: from recipe and flags alike."""
    names, real, recipe = tmp_path / "names.txt", tmp_path / "real.json", tmp_path / "recipe.yaml"
    names.write_text("".join(f"class{label}\n" for label in range(5)))
    real.write_text(json.dumps([[label] for label in range(5)]))
    recipe.write_text(f"tta: 10\nreal_labels: {real}\ndataset: imagefolder\nmode: 1\n")
    flags = {"data_dir": str(data), "batch_size": 5, "image_resize": 32, "num_parallel_workers": 1}
    flags |= {"class_map": str(names)}
    report = evaluate(str(nano), recipe, flags, output=tmp_path / "out")
    record = RunRecord.read(tmp_path / "out" / "run.json")
    assert (record.eval_split, record.tta, record.val_amp_level, record.amp_dtype) == ("val", 10, "O0", None)
    assert (record.class_map, record.real_labels) == ("names.txt", "real.json")
    assert report is not None and report.ours.real_figures is not None
    assert record.real_top1 == report.ours.real_figures["top1"]
    alone = evaluate(str(nano), None, {**flags, "dataset": "imagefolder", "mode": 1, "class_map": ""})
    assert alone is not None
    assert (alone.record.tta, alone.record.class_map, alone.record.real_labels) == (0, None, None)


def test_a_flag_without_effect_in_an_evaluation_is_listed_with_its_reason(nano: Path, data: Path) -> None:
    """Cards give a training's flags to the evaluation as well; what looks like one of its own is said above all."""
    said: list[str] = []
    flags = {"data_dir": str(data), "batch_size": 5, "image_resize": 32, "num_parallel_workers": 1, "mode": 1}
    flags |= {"num_samples": 3, "amp_level": "O2", "lr": 0.5, "jit_level": "O1", "amp_dtype": "bfloat16", "mixup": 0.0}
    report = evaluate(str(nano), None, flags, say=said.extend)
    assert report is not None and report.ours.samples == 5
    assert said == [
        "num_samples has no effect: of a training; every image is evaluated",
        "amp_level has no effect: of a training; an evaluation's is val_amp_level",
        "lr has no effect: of a training",
        "jit_level has no effect: PyNative mode compiles nothing",
        "amp_dtype has no effect: val_amp_level is O0",
    ]


def test_flags_in_timms_words_are_listed_under_the_names_they_were_given_by() -> None:
    flags = {"library": "timm", "amp": True, "epochs": 3, "workers": 1, "pin_mem": True, "model_ema": True}
    flags |= {"smoothing": 0.1, "img_size": 32, "data": "there", "crop_pct": 1.0}
    idle = idle_flags(load_recipe(None, {"model": "xcit_nano_12_p16_224", **flags}), flags)
    assert list(idle) == ["amp", "epochs", "pin_mem", "model_ema", "smoothing"]


def test_an_evaluation_reads_the_keys_that_are_its_own_and_no_other(
    nano: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, real = tmp_path / "names.txt", tmp_path / "real.json"
    names.write_text("".join(f"class{label}\n" for label in range(5)))
    real.write_text(json.dumps([[label] for label in range(5)]))
    read: set[str] = set()
    plain = RecipeKeys.__getattribute__

    def note(recipe: RecipeKeys, name: str) -> Any:
        read.update({name} & KEYS)
        return plain(recipe, name)

    recipe = load_recipe(
        None,
        {
            "ckpt_path": str(nano / "model.safetensors"), "model": "xcit_nano_12_p16_224", "data_dir": str(data),
            "image_resize": 32, "tta": 2, "val_amp_level": "O2", "mode": 1, "class_map": str(names),
            "real_labels": str(real), "num_parallel_workers": 1,
        },
    )  # fmt: skip
    monkeypatch.setattr(RecipeKeys, "__getattribute__", note)
    score(recipe, stored_network(recipe).network)
    monkeypatch.undo()
    assert read | {"library"} == recipe_rules._OF_EVALUATIONS


def test_classes_that_nobody_matched_by_name_are_said_to_go_by_their_order(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "named"
    network = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=5, dialect="paper", seed=1)
    flags = {"data_dir": str(data), "batch_size": 5, "image_resize": 32, "num_parallel_workers": 1, "mode": 1}
    for labels, told in (
        (["class0", "class4", "class1", "class2", "class3"], None),
        (["ape", "bee", "cat", "dog", "emu"], "the data's are class0, class1, class2, class3, class4, the network's"),
    ):
        network.config = replace(network.description(), labels=tuple(labels))
        network.save_pretrained(folder)
        evaluate(str(folder), None, flags)
        said = capsys.readouterr().err
        assert ("their order decides" in said) == (told is not None), said
        assert told is None or told in said
