"""Wrong recipes and flags, each refused in one sentence; the files are data (tests/attacks/training)."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from image_folder import write_images

from xcit_hub import process
from xcit_hub.cli.train import SETTINGS, train
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.process import _exit_code
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import FOREIGN, load_recipe, parse_flags
from xcit_hub.training.recipe_rules import ONLY_VALUE

ATTACKS = Path(__file__).parents[1] / "attacks" / "training"
LINES = [line for line in (ATTACKS / "flags.txt").read_text().splitlines() if line and not line.startswith("#")]
# A key that is given twice, and a line's escapes, are matters of the file.
OF_THE_FILE = ("key_given_twice", "escape_in_a_name", "bell_in_a_name")


def _flag(path: Path) -> str | None:
    """Return a file's first hostile line as a flag; None where there is none, as in one that is no text."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return None
    pairs = [line.split(": ", 1) for line in lines if re.match(r"(\w+): ", line)]
    known = [f"--{key}={value}" for key, value in pairs if key in Recipe.model_fields and key != "model"]
    return known[0] if known and path.stem not in OF_THE_FILE else None


FLAGS = {path.name: flag for path in sorted((ATTACKS / "recipes").iterdir()) if (flag := _flag(path))}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"), train=16)


def test_there_are_enough_of_them() -> None:
    assert len(LINES) >= 130
    assert len(list((ATTACKS / "recipes").iterdir())) >= 45
    assert len(FLAGS) >= 30


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_command_line_is_refused_in_one_sentence(
    line: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text, _, names = (part.strip() for part in line.partition("|"))
    words = shlex.split(text)
    standing = {
        "--config": "cpu_smoke",
        "--data_dir": str(data),
        "--ckpt_save_dir": str(tmp_path / "run"),
        "--device_target": "auto",
        "--mode": "1",  # what is taken by mistake is then soon at its end
        "--epoch_size": "1",
    }
    for flag, value in standing.items():
        if flag not in words:
            words = [flag, value, *words]
    monkeypatch.setattr(process._Answers, "are_json", False)
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings=SETTINGS)(train)
    began = time.process_time()
    assert _exit_code(app) == 2
    assert time.process_time() - began < 20
    said = capfd.readouterr().err
    assert names in said, said
    assert "Traceback" not in said
    assert "Call Stack" not in said
    assert "\n  where: " in said and "\n  do:    " in said, said
    sentences = [text for text in said.splitlines() if not text.strip().startswith(("where:", "do:"))]
    assert len(sentences) == 1, said
    assert len(said) < 1500
    assert not list(tmp_path.iterdir()), "nothing was made, not even a folder"


@pytest.mark.parametrize("path", sorted((ATTACKS / "recipes").iterdir()), ids=lambda path: path.name)
def test_a_hostile_recipe_file_is_refused_in_one_sentence(path: Path) -> None:
    began = time.process_time()
    with pytest.raises(XcitHubError) as caught:
        load_recipe(path)
    assert time.process_time() - began < 3
    assert len(str(caught.value)) < 600
    assert len(caught.value.what.splitlines()) == 1
    assert caught.value.where and caught.value.fix


@pytest.mark.parametrize("flag", FLAGS.values(), ids=FLAGS.keys())
def test_a_hostile_value_is_refused_as_a_flag_too(flag: str) -> None:
    with pytest.raises(XcitHubError) as caught:
        load_recipe(None, {"model": "xcit_nano_12_p16_224", **parse_flags([flag])})
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["--lr", "nan"], "lr"),
        (["--lr=nan", "--epoch_size=0"], "lr, epoch_size"),
        (["--aux_factor", "-1", "--model", "xcit_nano_12_p16_224"], "aux_factor"),
        (["--mixup", "0.8", "--batch_size", "3"], "mixup, batch_size"),
        (["--mixup", "0.8", "--batch_size", "3", "--seed", "7"], "mixup, batch_size"),
        (["--library", "timm", "--opt-eps", "0"], "opt_eps"),
        (["--library", "timm", "-j", "-1"], "workers"),
        (["--library", "timm", "--input-size", "3", "4", "4"], "input_size"),
        (["--library", "timm", "--epochs", "0"], "epochs"),
        (["--library", "timm", "--clip-grad", "-1", "--lr", "nan"], "clip_grad, lr"),
        (["--library", "facebook", "--num_workers", "-1"], "num_workers"),
        (["--set", "lr=-1", "--set=loss=JSD"], "lr"),
        (["--set", "loss=JSD"], "loss"),
        (["--opt", "sgdd", "--model", "xcit_nano_12_p16_224"], "opt"),
        (["--library", "timm", "--scheduler", "one_cycle"], "scheduler"),
    ],
    ids=str,
)
def test_a_wrong_flag_is_not_blamed_on_the_recipes_file(words: list[str], where: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe("cpu_smoke", parse_flags(words))
    assert caught.value.where == where


def test_a_wrong_flag_is_named_where_the_model_is_missing_as_well() -> None:
    with pytest.raises(InputError, match="model has to be said") as caught:
        load_recipe(None, parse_flags(["--library", "timm", "-j", "-1"]))
    assert caught.value.where == "workers"
    with pytest.raises(InputError, match="anchors") as caught:
        parse_flags(["--lr", "&a"])
    assert caught.value.where == "lr"


def test_a_wrong_line_of_a_recipe_is_its_files_whatever_the_flags_say(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: xcit_nano_12_p16_224\nlr: none at all\n")
    with pytest.raises(InputError) as caught:
        load_recipe(path, {"epoch_size": 0})
    assert caught.value.where == str(path)


def test_a_word_of_timms_in_a_recipes_file_is_that_files_unless_a_flag_says_it(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: xcit_nano_12_p16_224\nlibrary: timm\nsched: plateau\nworkers: -1\n")
    for flags, where in (
        ({}, f"{path}, sched"),
        ({"sched": "wsd"}, "sched"),
        ({"sched": "step"}, str(path)),
        ({"sched": "step", "workers": -2}, "workers"),
        ({"sched": "step", "lr": -2}, str(path)),  # the file's workers are wrong as well
    ):
        with pytest.raises(InputError) as caught:
            load_recipe(path, flags)
        assert caught.value.where == where


def test_a_list_may_be_several_words_as_timms_train_takes_it() -> None:
    words = (
        "--scale 0.08 1 --ratio [0.75, 1.3333] --color_jitter 0.4 0.4 0.4 --image_resize 64 96 --re_value -1 -0.5 0 "
        "--freeze patch_embed blocks.*.attn --multi_step_decay_milestones 30 --betas 0.9 0.95 -b 8 --ema "
        "--loggers lines --no_weight_decay a b,c"
    )
    assert parse_flags(words.split()) == {
        "scale": [0.08, 1], "ratio": [0.75, 1.3333], "color_jitter": [0.4, 0.4, 0.4], "image_resize": [64, 96],
        "re_value": [-1, -0.5, 0], "freeze": ["patch_embed", "blocks.*.attn"], "multi_step_decay_milestones": [30],
        "betas": [0.9, 0.95], "batch_size": 8, "ema": True, "loggers": "lines", "no_weight_decay": ["a", "b", "c"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "word"),
    [("dataset", "ImageNet"), ("interpolation", "BICUBIC"), ("loss_scale_type", "Auto"), ("opt", "AdamW")],
)
def test_a_word_that_mindcv_takes_in_any_case_is_taken_in_any_case(key: str, word: str) -> None:
    found = load_recipe(None, {"model": "xcit_nano_12_p16_224", **parse_flags([f"--{key}", word])})
    assert getattr(found, key) == word.lower()


def test_a_pipe_is_not_a_recipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "recipe.yaml")
    with pytest.raises(InputError, match="FIFO"):
        load_recipe(tmp_path / "recipe.yaml")


KEY = st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=20)
VALUE = st.one_of(st.integers(-5, 5), st.floats(-5, 5), st.booleans(), st.text(max_size=5), st.none())


@given(key=KEY.filter(lambda key: key not in Recipe.model_fields and key not in FOREIGN), value=VALUE)
@settings(max_examples=100)
def test_a_random_unknown_key_is_refused_by_name(tmp_path_factory: Any, key: str, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "r.yaml"
    path.write_text(f"model: xcit_nano_12_p16_224\n{key}: {json.dumps(value)}\n")
    for read in (lambda: load_recipe(path), lambda: parse_flags([f"--{key}", "1"])):
        with pytest.raises(InputError, match=f"no key '{key}'"):
            read()


def test_yaml_and_flags_read_a_value_alike(tmp_path: Path) -> None:
    values = {
        "lr": ["1e-3", ".5", "2.", "1", "+0.1"],
        "epoch_size": ["3", "+3"],
        "ema": ["yes", "No", "on", "OFF", "true", "False"],
        "data_dir": ["2024", "off", "1e5", "a: b c", "010", "null.d"],
        "scale": ["[0.1, 1]", "[1e-1,1.]"],
        "auto_augment": ["null", "rand-m9", "None"],
        "num_samples": ["null", "7"],
        "no_weight_decay": ["[a, b]", "[]"],
        "ckpt_save_policy": ["null", "latest_k"],
        "mean": ["[1, 2, 3]"],
    }
    for key, texts in values.items():
        for text in texts:
            path = tmp_path / "r.yaml"
            quoted = json.dumps(text) if ": " in text else text
            path.write_text(f"model: xcit_nano_12_p16_224\n{key}: {quoted}\n")
            flag = load_recipe(None, {"model": "xcit_nano_12_p16_224", **parse_flags([f"--{key}", text])})
            assert getattr(load_recipe(path), key) == getattr(flag, key), (key, text)


def test_a_folder_may_be_called_like_a_number() -> None:
    assert parse_flags(["--data_dir", "2024", "--ckpt_path="]) == {"data_dir": "2024", "ckpt_path": ""}


def test_a_key_without_effect_is_listed_with_its_reason() -> None:
    found = load_recipe(
        None,
        {
            "model": "xcit_nano_12_p16_224",
            "color_jitter": 0.3,
            "auto_augment": "rand-m9",
            "decay_rate": 0.5,
            "eval_shuffle": True,
            "ema_decay": 0.5,
            "clip_value": 1.0,
            "re_value": "random",
        },
    )
    idle = found.without_effect()
    assert set(idle) == {"color_jitter", "decay_rate", "eval_shuffle", "ema_decay", "clip_value", "re_value"}
    assert all(idle.values())


@pytest.mark.parametrize(
    ("said", "idle"),
    [
        ({"val_split": "test", "val_amp_level": "O2"}, {"val_split", "val_amp_level"}),
        ({"val_split": "test", "val_amp_level": "O2", "val_while_train": True}, set()),
        (
            {"dataset": "cifar10", "train_split": "t", "val_split": "v", "val_while_train": True},
            {"train_split", "val_split"},
        ),
        (
            {"scheduler": "constant", "lr_epoch_stair": True, "warmup_epochs": 2, "warmup_prefix": False},
            {"warmup_prefix"},
        ),
        ({"scheduler": "constant", "lr_epoch_stair": True, "warmup_epochs": 0}, {"lr_epoch_stair"}),
        ({"scheduler": "cosine_decay", "lr_epoch_stair": True, "warmup_epochs": 2, "warmup_prefix": False}, set()),
    ],
)
def test_what_nothing_reads_is_listed(said: dict[str, Any], idle: set[str]) -> None:
    assert load_recipe(None, {"model": "xcit_nano_12_p16_224", **said}).without_effect().keys() == idle


@pytest.mark.parametrize("key", ONLY_VALUE)
def test_a_key_of_machinery_that_is_not_here_says_why(key: str) -> None:
    only, reason = ONLY_VALUE[key]
    other = {bool: not only, float: 0.5, int: 3, str: "other", type(None): "[nn.Conv2d]"}[type(only)]
    with pytest.raises(InputError, match=re.escape(reason)):
        load_recipe(None, {"model": "xcit_nano_12_p16_224", key: other})
