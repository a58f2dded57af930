"""Wrong flags of ``xcit-hub eval``, each refused in one sentence that says where it is and what to do."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from image_folder import write_images
from mini_train import least

from xcit_hub import process
from xcit_hub.cli.train import SETTINGS, evaluate, train
from xcit_hub.models import create_model
from xcit_hub.process import _exit_code
from xcit_hub.training.keeping import save_checkpoint
from xcit_hub.training.recipe_file import load_recipe

# FILE is a checkpoint of three classes, TEXT a file that is none.
LINES = """
| Nothing says which weights
--ckpt_path missing.ckpt | missing.ckpt
--ckpt_path TEXT | notes.txt
--ckpt_path FILE --model xcit_tiny_12_p16_224 | do not fit xcit_tiny_12_p16_224
--ckpt_path FILE --model resnet50 | resnet50
--ckpt_path FILE --num_classes 7 | knows 3 classes
--ckpt_path FILE --in_channels 1 | sees 3 channels
--ckpt_path FILE --dialect latin | dialect
--ckpt_path FILE --tta 3 | tta
--ckpt_path FILE --tta | tta lacks its value
--ckpt_path FILE --real_labels missing.json | missing.json
--ckpt_path FILE --real_labels TEXT | not JSON
--ckpt_path FILE --class_map missing.txt | missing.txt
--ckpt_path FILE --class_map TEXT | not classes of the class map
--ckpt_path FILE --val_split nowhere | nowhere
--ckpt_path FILE --val_split ../elsewhere | leaves its folder
--ckpt_path FILE --data_dir= | data_dir
--ckpt_path FILE --val_amp_level O4 | val_amp_level
--ckpt_path FILE --val_amp_level O2 --amp_dtype bfloat16 | bfloat16
--ckpt_path FILE --image_resize 4 | image_resize
--ckpt_path FILE --image_resize 32 64 96 | image_resize
--ckpt_path FILE --crop_pct 4.1 | crop_pct
--ckpt_path FILE --std 0.229 0.224 0.225 | 0…255
--ckpt_path FILE --mean 127 127 | mean
--ckpt_path FILE --interpolation cubist | interpolation
--ckpt_path FILE --batch_size 0 | batch_size
--ckpt_path FILE --num_parallel_workers 0 | num_parallel_workers
--ckpt_path FILE --max_corrupt -1 | max_corrupt
--ckpt_path FILE --epochs 3 | timm's name
--ckpt_path FILE --recompile | no key 'recompile'
--ckpt_path FILE --ignore-field mean | no description
--ckpt_path FILE --window 512 | of segmenters
--ckpt_path FILE --output TEXT | Cannot write into
--ckpt_path FILE --distribute maybe | distribute
--models all | --results-file
--results-file results.csv | --models
--models all --results-file results.csv --compare timm | --models goes
--task segment --config cpu_smoke | of classifiers
--task segment --tta 2 --data_dir . | not a flag of a segmenter's
--task segment | which segmenter
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    recipe = load_recipe(None, {"model": "xcit_nano_12_p16_224", "image_resize": 32, "dialect": "paper"})
    network = create_model(least(), num_classes=3, dialect="paper", seed=1)
    arrays = {entry.name: entry.asnumpy() for entry in network.get_parameters()}
    save_checkpoint(
        folder / "weights.ckpt", arrays, recipe.model_copy(update={"model": least().name}), dialect="paper",
        classes=["class0", "class1", "class2"], weights="trained", metrics={},
    )  # fmt: skip
    (folder / "notes.txt").write_text("neither weights\nnor labels\n")
    return {
        "FILE": str(folder / "weights.ckpt"),
        "TEXT": str(folder / "notes.txt"),
        "data": str(write_images(folder / "data", train=1, val=2)),
    }


@pytest.mark.parametrize("line", [line for line in LINES.splitlines() if line])
def test_a_wrong_evaluation_is_refused_in_one_sentence(
    line: str,
    files: dict[str, str],
    least_architecture: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    text, _, names = (part.strip() for part in line.partition("|"))
    words = [files.get(word, word) for word in shlex.split(text)]
    standing = {
        "--model": least_architecture,
        "--data_dir": files["data"],
        "--image_resize": "32",
        "--device_target": "auto",
        "--mode": "1",
    }
    if not {"--models", "--results-file", "--task"} & set(words):
        for flag, value in standing.items():
            if not any(word.split("=")[0] == flag for word in words):
                words = [flag, value, *words]
    monkeypatch.setattr(process._Answers, "are_json", False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["validate.py", *words])
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings=SETTINGS)(evaluate)
    assert _exit_code(app) == 2
    said = capfd.readouterr().err
    assert names in said, said
    assert "Traceback" not in said and "Call Stack" not in said
    assert "\n  where: " in said and "\n  do:    " in said, said
    sentences = [text for text in said.splitlines() if not text.strip().startswith(("where:", "do:"))]
    assert len(sentences) == 1, said
    assert not list(tmp_path.iterdir()), "nothing was made"


@pytest.mark.parametrize("command", [train, evaluate])
@pytest.mark.parametrize(("words", "where"), [(["--lr", "nan"], "lr"), (["--lrs", "1"], "the command line")])
def test_with_json_what_is_wrong_is_json(
    command: Callable[..., Any],
    words: list[str],
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(process._Answers, "are_json", False)
    monkeypatch.setattr(sys, "argv", ["xcit-hub", "--json", "--config", "cpu_smoke", *words])
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings=SETTINGS)(command)
    assert _exit_code(app) == 2
    said = json.loads(capfd.readouterr().err)["error"]
    assert said["where"] == where
    assert said["what"] and said["fix"]
