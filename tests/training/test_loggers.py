"""A logger comes with a package that is installed: here a dist-info folder and a module on the path."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from image_folder import write_images

from xcit_hub.errors import InputError
from xcit_hub.training.engine import train
from xcit_hub.training.loggers import LoggedRun, Loggers
from xcit_hub.training.recipe_file import load_recipe

MODULE = """
import json, os

class Lines:
    def __init__(self, run):
        self.path = run.folder / "told.jsonl"
        self.write("begin", {"lr": run.configuration["lr"], "first_step": run.first_step})

    def write(self, event, record):
        with self.path.open("a") as stream:
            stream.write(json.dumps([event, record]) + "\\n")

    def step(self, record):
        self.write("step", record)

    def epoch(self, record):
        self.write("epoch", record)

    def end(self, record):
        self.write("end", record)

class Broken(Lines):
    def step(self, record):
        raise ConnectionError("no answer from https://example.com/?key=" + os.environ["LOGGER_API_KEY"] + "\\nmore")

def unwilling(run):
    raise OSError("not logged in")

class Silent:
    def __init__(self, run):
        pass
"""
NAMES = {"lines": "Lines", "broken": "Broken", "unwilling": "unwilling", "silent": "Silent", "gone": "NoSuchName"}


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    place = tmp_path_factory.mktemp("site")
    (place / "line_logger.py").write_text(MODULE)
    information = place / "line_logger-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: line-logger\nVersion: 1.0\n")
    lines = "".join(f"{name} = line_logger:{found}\n" for name, found in NAMES.items())
    (information / "entry_points.txt").write_text(f"[xcit_hub.loggers]\n{lines}")
    sys.path.insert(0, str(place))
    yield
    sys.path.remove(str(place))
    sys.modules.pop("line_logger", None)


def told(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    return [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("pynative")
def test_a_logger_is_told_the_run_and_one_that_fails_stops_nothing(
    mini_architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGGER_API_KEY", "a-secret-of-mine")
    data = write_images(tmp_path / "data")
    recipe = load_recipe(
        None,
        {
            "model": mini_architecture, "mode": 1, "dataset": "imagefolder", "data_dir": str(data), "dialect": "paper",
            "ckpt_save_dir": str(tmp_path / "run"), "image_resize": 32, "batch_size": 8, "epoch_size": 1,
            "warmup_epochs": 0, "num_parallel_workers": 1, "log_interval": 2, "val_while_train": True, "lr": 0.002,
            "loggers": ["lines", "broken", "unwilling", "silent", "gone"],
        },
    )  # fmt: skip
    record = train(recipe)
    assert record.epochs == 1
    said = capsys.readouterr().err
    for name, words in (
        ("broken", "ConnectionError: no answer from https://example.com/?key=…"),
        ("unwilling", "OSError: not logged in"),
        ("gone", "AttributeError"),
    ):
        assert said.count(f"the logger {name} failed and is told no more: {words}") == 1, said
    assert "a-secret-of-mine" not in said
    whole = [entry for entry in told(tmp_path / "run") if entry != ["begin", {"lr": 0.002, "first_step": 0}]]
    assert [event for event, _ in whole] == ["step", "step", "epoch", "end"]
    assert [each["step"] for event, each in whole if event == "step"] == [0, 2]
    assert whole[2][1]["top1"] == pytest.approx(record.top1, abs=1e-5)
    assert whole[3][1] == json.loads((tmp_path / "run" / "run.json").read_text())


def test_a_logger_that_nobody_installed_is_refused_before_anything_runs(tmp_path: Path) -> None:
    recipe = {"model": "xcit_nano_12_p16_224", "ckpt_save_dir": str(tmp_path / "run"), "data_dir": str(tmp_path)}
    with pytest.raises(InputError, match="no logger 'wandbb'") as caught:
        train(load_recipe(None, {**recipe, "loggers": "wandbb"}))
    assert "broken, gone, lines, silent, unwilling" in str(caught.value)
    with pytest.raises(InputError, match="no logger 'linse'") as caught:
        train(load_recipe(None, {**recipe, "loggers": ["linse"]}))
    assert "lines" in (caught.value.fix or "")
    assert not (tmp_path / "run").exists()


def test_a_logger_gets_a_copy_of_what_it_is_told(tmp_path: Path) -> None:
    record = {"loss": 1.0}
    loggers = Loggers(["lines"], LoggedRun({"lr": 1.0}, tmp_path, 7), pytest.fail)
    loggers.tell("epoch", record)
    assert told(tmp_path) == [["begin", {"lr": 1.0, "first_step": 7}], ["epoch", record]]
