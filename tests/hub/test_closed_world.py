"""A field that nobody knows, put at random into every kind of description: refused by its name, or listed."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xcit_hub
from cards.check import check
from cards.facts import CardYaml, Facts
from cards.gather import of_published
from cards.generate import render
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.errors import XcitHubError
from xcit_hub.hub import config, metadata, timm_config
from xcit_hub.hub.config import ModelConfig
from xcit_hub.run_record import RunRecord
from xcit_hub.training.recipe_file import load_recipe, parse_flags
from xcit_hub.variants import without_positions

NANO = "xcit_nano_12_p16_224"
Listed = Callable[[str, object], "list[str] | None"]
"""Put a field into a description of its kind and read it: what is listed then; None where it has to be refused."""


def at(record: dict, path: str, name: str, value: object) -> str:
    """Return a record as JSON with one more field in the object at ``path``."""
    changed = json.loads(json.dumps(record))
    place = changed
    for step in filter(None, path.split(".")):
        place = place[step]
    place[name] = value
    return json.dumps(changed)


def timms(path: str, record: dict) -> Listed:
    return lambda name, value: _both(timm_config.read(at(record, path, name, value)))


def ours(path: str) -> Listed:
    custom = config.of_architecture(without_positions(xcit_hub.variants.ARCHITECTURES[NANO]), "paper")
    record = json.loads((custom if path == "custom" else ModelConfig(NANO, "paper")).to_json())
    return lambda name, value: _both(config.from_json(at(record, path, name, value)))


def _both(read: config.Description) -> list[str]:
    listed = list(read.unused)
    assert all(any(name in note for note in read.notes) for name in listed if ".zz_" in f".{name}")
    return listed


def card(form: str) -> Listed:
    text = render(of_published("xcit_tiny_12_p16_224.ms_in1k"), form=form, lang="en")
    first = "backbone-name:" if form == "mindspore-hub" else "license:"
    assert first in text
    return lambda name, value: [
        str(fault.field) for fault in check(text.replace(first, f"{name}: {json.dumps(value)}\n{first}", 1))
    ]


def asset(name: str, value: object) -> list[str]:
    text = render(of_published("xcit_tiny_12_p16_224.ms_in1k"), form="mindspore-hub", lang="en")
    place = "asset-link:"
    line = next(line for line in text.splitlines() if place in line)
    indent = " " * line.index(place)
    return [str(fault) for fault in check(text.replace(line, f"{line}\n{indent}{name}: {json.dumps(value)}"))]


def written(reader: Callable[[Path], object], text: Callable[[str, object], str]) -> Callable[[Path], Listed]:
    def in_folder(folder: Path) -> Listed:
        def read(name: str, value: object) -> None:
            (folder / "it").write_text(text(name, value))
            reader(folder / "it")

        return read

    return in_folder


FLAT = {"architecture": NANO, "num_classes": 10, "crop_pct": 0.9}
NESTED = {"architecture": NANO, "num_classes": 10, "pretrained_cfg": {"crop_pct": 0.9}, "model_args": {}}
WRAPPER = {**NESTED, "architectures": ["TimmWrapperModel"], "model_type": "timm_wrapper", "do_pooling": True}
CONVERTED = {
    "architecture": NANO,
    "num_classes": 10,
    "in_chans": 3,
    "xcit_hub": {"dialect": "paper", "sha256": "0" * 64},
}

LISTED: dict[str, Listed] = {
    "timm flat": timms("", FLAT),
    "timm nested": timms("", NESTED),
    "timm pretrained_cfg": timms("pretrained_cfg", NESTED),
    "timm_wrapper": timms("", WRAPPER),
    "timm_wrapper pretrained_cfg": timms("pretrained_cfg", WRAPPER),
    "the converter's config.json": timms("", CONVERTED),
    "the converter's own part": timms("xcit_hub", CONVERTED),
    "xcit_hub.json": ours(""),
    "xcit_hub.json preprocessing": ours("preprocessing"),
    "xcit_hub.json provenance": ours("provenance"),
    "a card of MindSpore Hub": card("mindspore-hub"),
    "a card of Hugging Face": card("hugging-face"),
    "an asset of a card": asset,
}
REFUSED: dict[str, Callable[[Path], Listed]] = {
    "model_args": lambda _: timms("model_args", NESTED),
    "timm_wrapper model_args": lambda _: timms("model_args", WRAPPER),
    "xcit_hub.json custom": lambda _: ours("custom"),
    "MindCV's yaml": written(load_recipe, lambda n, v: f"mode: 0\nmodel: {NANO}\n{n}: {json.dumps(v)}\n"),
    "a recipe of ours": written(
        load_recipe, lambda n, v: f"model: {NANO}\ndialect: paper\nema_warmup: 5\n{n}: {json.dumps(v)}\n"
    ),
    "a flag of train": lambda _: lambda name, value: parse_flags([f"--{name}", json.dumps(value)]),
    "run.json": written(RunRecord.read, lambda n, v: json.dumps({"top1": 50.0, n: v})),
    "run.json preprocessing": written(
        RunRecord.read,
        lambda n, v: json.dumps(
            {"preprocessing": {**json.loads(metadata.preprocessing_to_metadata(config.Preprocessing(), 3)), n: v}}
        ),
    ),
    "card.yaml": written(CardYaml.read, lambda n, v: f"author: me\n{n}: {json.dumps(v)}\n"),
    "a card's facts": written(
        Facts.read, lambda n, v: at(of_published(f"{NANO}.fb_in1k").model_dump(mode="json"), "", n, v)
    ),
    "a file's own string": lambda _: (
        lambda name, value: metadata.preprocessing_from_metadata(
            at(json.loads(metadata.preprocessing_to_metadata(config.Preprocessing(), 3)), "", name, value), None
        )
    ),
}

NAMES = st.text(st.characters(codec="ascii", categories=("Ll",)), min_size=3, max_size=12).map("zz_".__add__)
VALUES = st.one_of(
    st.none(), st.integers(), st.text("ab :", max_size=5), st.booleans(), st.lists(st.integers(), max_size=2)
)
EACH = settings(max_examples=8)


@pytest.mark.parametrize("kind", LISTED)
@EACH
@given(name=NAMES, value=VALUES)
def test_a_random_unknown_field_is_listed(kind: str, name: str, value: object) -> None:
    assert any(name in entry for entry in LISTED[kind](name, value) or ())


@pytest.mark.parametrize("kind", REFUSED)
@EACH
@given(name=NAMES, value=VALUES)
def test_a_random_unknown_field_is_refused_by_name(kind: str, name: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(XcitHubError, match=name):
        REFUSED[kind](tmp_path)(name, value)


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (at(NESTED, "", "zz", 1), "zz"),
        (at(NESTED, "pretrained_cfg", "crop_mode", "cubist"), "pretrained_cfg.crop_mode"),
        (at(NESTED, "model_args", "act_layer", "relu"), "model_args.act_layer"),
        (at(NESTED, "model_args", "act_layer", "relu"), "model_args"),
        (at(FLAT, "", "interpolation", "magic"), "interpolation"),
        (at(WRAPPER, "", "label_names", ["one"]), "label_names"),
        (at(CONVERTED, "", "crop_pct", -1), "crop_pct"),
        (at(CONVERTED, "xcit_hub", "zz", 1), "xcit_hub.zz"),
        (at(json.loads(ModelConfig(NANO, "paper").to_json()), "preprocessing", "std", [0]), "preprocessing.std"),
        (at(json.loads(ModelConfig(NANO, "paper").to_json()), "", "labels", ["one"]), "labels"),
    ],
)
def test_a_field_can_be_ignored_by_its_name_or_its_path_which_is_recorded(record, field, tmp_path, nano_timm) -> None:
    name = "xcit_hub.json" if '"format"' in record else "config.json"
    (tmp_path / name).write_text(record)
    (tmp_path / "model.safetensors").write_bytes(nano_timm["model.safetensors"])
    for asked in {field, field.rpartition(".")[2]}:
        found = xcit_hub.info(str(tmp_path), ignore_fields=[asked])
        assert found.unused[field] == "ignored, as was asked for"
        assert any(f"{field} was ignored" in note for note in found.notes)
    with pytest.raises(XcitHubError, match="no field 'zz_other' that could be ignored"):
        xcit_hub.info(str(tmp_path), ignore_fields=[field, "zz_other"])


def test_what_was_ignored_is_recorded_in_what_is_saved(tmp_path, nano_ckpt) -> None:
    rewrite(nano_ckpt, tmp_path / "model.safetensors", to="timm")
    record = {**NESTED, "model_args": {"act_layer": "relu"}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = xcit_hub.load(str(tmp_path), ignore_fields=["act_layer"])
    network.save_pretrained(tmp_path / "saved")
    notes = json.loads((tmp_path / "saved" / "xcit_hub.json").read_text())["provenance"]["notes"]
    assert any("model_args.act_layer was ignored" in note for note in notes)
    assert checkpoint.read(tmp_path / "saved" / "model.safetensors").metadata["xcit_hub.architecture"] == NANO


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("provenance", "verified", True),
        ("provenance", "verified", "wholly"),
        ("provenance", "sha256", 5),
        ("provenance", "revision", ["main"]),
        ("provenance", "family", "torchvision"),
        ("provenance", "notes", [1]),
        ("custom", "name", "another"),
        ("custom", "image_size", 10**30),
        ("custom", "depth", True),
        ("custom", "embed_dim", 1e300),
        ("custom", "strides", [2, 2]),
        ("preprocessing", "crop_pct", "0.9"),
        ("preprocessing", "mean", [0.5, 0.5]),
        ("preprocessing", "image_width", 0),
        ("", "num_classes", True),
        ("", "in_chans", "3"),
        ("", "global_pool", None),
        ("", "labels", {"0": "one"}),
        ("", "dialect", "latin"),
        ("", "weights", ["model.safetensors"]),
        ("", "format", "xcit-hub/9"),
    ],
)
def test_a_wrong_value_in_our_own_description_is_refused_by_name(path: str, name: str, value: object) -> None:
    custom = config.of_architecture(without_positions(xcit_hub.variants.ARCHITECTURES[NANO]), "paper")
    with pytest.raises(XcitHubError, match=f"{name}|called|dimensions|images? of|numbers for"):
        config.from_json(at(json.loads(custom.to_json()), path, name, value))


@pytest.mark.parametrize(
    ("level", "name", "taken"),
    [("", "in_chans", "3"), ("", "global_pool", "'token'"), ("", "num_classes", "1000")]
    + [("preprocessing", name, "") for name in ("image_size", "crop_pct", "interpolation", "mean", "std")],
)
def test_what_our_own_description_does_not_say_is_named_with_what_was_assumed(level: str, name: str, taken: str):
    record = json.loads(ModelConfig(NANO, "paper").to_json())
    assert config.from_json(json.dumps(record)).notes == ()
    del (record[level] if level else record)[name]
    called = f"{level}.{name}" if level else name
    (note,) = config.from_json(json.dumps(record)).notes
    assert note.startswith(f"the description does not say {called}: {taken}") and note.endswith("was assumed")


def test_what_a_description_says_of_the_published_file_is_listed() -> None:
    record = json.loads(ModelConfig(NANO, "paper").to_json())
    record["provenance"] |= {"revision": "main", "sha256": "a" * 64, "verified": "full"}
    assert {f"provenance.{name}" for name in ("revision", "sha256", "verified")} == set(
        config.from_json(json.dumps(record)).unused
    )


def _entry(folder: Path, nano_timm: dict[str, bytes], **apart: object) -> Path:
    """An entry with both descriptions, where config.json says something else at ``apart``'s places."""
    described = config.of_architecture(NANO, "paper", num_classes=10)
    record = json.loads(timm_config.write(described))
    for place, value in apart.items():
        inner = record
        *outer, name = place.split("__")
        for step in outer:
            inner = inner.setdefault(step, {})
        inner[name] = value
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "xcit_hub.json").write_text(described.to_json())
    (folder / "model.safetensors").write_bytes(nano_timm["model.safetensors"])
    return folder


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("architecture", "xcit_nano_12_p8_224", "patch_size is 16 and 8"),
        ("architecture", f"{NANO}_mindcv", "dialect is paper and mindcv"),
        ("num_classes", 1000, "num_classes is 10 and 1000"),
        ("label_names", [str(index) for index in range(10)], "labels"),
        ("model_args__global_pool", "avg", "global_pool is token and avg"),
        ("model_args__tokens_norm", True, "tokens_norm is False and True"),
        ("pretrained_cfg__input_size", [3, 256, 256], "preprocessing.image_size is 224 and 256"),
        ("pretrained_cfg__crop_pct", 0.5, "preprocessing.crop_pct is 1.0 and 0.5"),
        ("pretrained_cfg__crop_mode", "squash", "preprocessing.crop_mode is center and squash"),
        ("pretrained_cfg__interpolation", "bilinear", "preprocessing.interpolation is bicubic and bilinear"),
        ("pretrained_cfg__mean", [0.5, 0.5, 0.5], "preprocessing.mean is"),
        ("pretrained_cfg__std", [0.5, 0.5, 0.5], "preprocessing.std is"),
    ],
)
def test_two_descriptions_that_contradict_each_other_are_refused_by_field(
    place, value, said, tmp_path, nano_timm
) -> None:
    entry = _entry(tmp_path / "entry", nano_timm, **{place: value})
    with pytest.raises(XcitHubError, match="contradict each other") as caught:
        xcit_hub.info(str(entry))
    assert said in str(caught.value)
    ours_alone = xcit_hub.info(str(entry), ignore_fields=["config.json"])
    assert ours_alone.config == config.of_architecture(NANO, "paper", num_classes=10)
    assert any("config.json was ignored" in note for note in ours_alone.notes)
    if place != "model_args__tokens_norm":  # of which there is no network of this name
        assert xcit_hub.info(str(entry), ignore_fields=["xcit_hub.json"]).config != ours_alone.config


def test_a_description_beside_ours_is_listed_with_what_it_says_beyond(tmp_path, nano_timm) -> None:
    found = xcit_hub.info(str(_entry(tmp_path / "same", nano_timm)))
    assert "says the same" in found.unused["config.json"]
    assert found.notes == ()
    unknown = xcit_hub.info(str(_entry(tmp_path / "unknown", nano_timm, zz_new=5)))
    assert "unknown" in unknown.unused["zz_new"]
    for name, text in (("broken", "{"), ("other", '{"architecture": "resnet50"}'), ("list", "[]")):
        entry = _entry(tmp_path / name, nano_timm)
        (entry / "config.json").write_text(text)
        (note,) = xcit_hub.info(str(entry)).notes
        assert "config.json was not used" in note


def test_what_timms_form_cannot_say_is_no_contradiction(tmp_path, nano_timm) -> None:
    """Strides of one's own, and 1000 classes without names, which timm's readers give ImageNet's."""
    strided = config.of_architecture("xcit_medium_12_p4_32", "paper")
    unnamed = config.of_architecture(NANO, "paper")
    for number, described in enumerate((strided, unnamed)):
        entry = _entry(tmp_path / str(number), nano_timm)
        (entry / "config.json").write_text(timm_config.write(described))
        (entry / "xcit_hub.json").write_text(described.to_json())
        found = xcit_hub.info(str(entry))
        assert found.config == described
        assert found.notes == ()
        assert "config.json" in found.unused


def test_a_damaged_description_beside_ours_is_told_and_the_model_loads(tmp_path, published_nano) -> None:
    shutil.copytree(published_nano[0], tmp_path / "hub", symlinks=True)
    assert xcit_hub.info("org/nano", hub=tmp_path / "hub").notes == ()
    damaged = next((tmp_path / "hub").glob("models--*/snapshots/*/config.json")).resolve()
    damaged.write_bytes(damaged.read_bytes() + b" ")
    found = xcit_hub.info("org/nano", hub=tmp_path / "hub")
    assert found.damaged == ("config.json",)
    assert any("config.json was not held against xcit_hub.json" in note for note in found.notes)
