"""A logger comes with a package that is installed: here by pip, from wheels; the example's among them."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from image_folder import write_images

from xcit_hub.errors import InputError
from xcit_hub.training.engine import train
from xcit_hub.training.loggers import LoggedRun, Loggers, _words
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

def leaving(run):
    raise SystemExit(0)

class Silent:
    def __init__(self, run):
        pass
"""
NAMES = {
    "lines": "Lines",
    "broken": "Broken",
    "unwilling": "unwilling",
    "silent": "Silent",
    "gone": "NoSuchName",
    "leaving": "leaving",
}


EXAMPLE = Path(__file__).parents[2] / "examples" / "run_loggers"


def write_wheel(folder: Path, name: str, module: str, source: str, entries: dict[str, str]) -> Path:
    """Write a package of one module as a wheel, which pip then installs as any other."""
    information, path = f"{name}-0.1.0.dist-info", folder / f"{name}-0.1.0-py3-none-any.whl"
    lines = "".join(f"{entry} = {what}\n" for entry, what in entries.items())
    files = {
        f"{module}.py": source,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 0.1.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{information}/entry_points.txt": f"[xcit_hub.loggers]\n{lines}",
    }
    files[f"{information}/RECORD"] = "".join(f"{each},,\n" for each in [*files, f"{information}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for each, text in files.items():
            wheel.writestr(each, text)
    return path


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two distributions that pip installed: one of these tests, and the example."""
    place = tmp_path_factory.mktemp("site")
    declared = (EXAMPLE / "pyproject.toml").read_text().partition('[project.entry-points."xcit_hub.loggers"]')[2]
    pairs = [line.replace('"', "").partition(" = ") for line in declared.partition("[tool")[0].split("\n") if line]
    source = (EXAMPLE / "xcit_run_loggers.py").read_text()
    wheels = [
        write_wheel(place, "line_logger", "line_logger", MODULE, {n: f"line_logger:{f}" for n, f in NAMES.items()}),
        write_wheel(place, "xcit_run_loggers", "xcit_run_loggers", source, {entry: what for entry, _, what in pairs}),
    ]
    options = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--target", str(place / "there")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, wheels)], check=True, timeout=300)
    sys.path.insert(0, str(place / "there"))
    yield
    sys.path.remove(str(place / "there"))
    for module in ("line_logger", "xcit_run_loggers"):
        sys.modules.pop(module, None)


def told(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    return [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("pynative")
def test_a_logger_is_told_the_run_and_one_that_fails_stops_nothing(
    least_architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGGER_API_KEY", "a-secret-of-mine")
    data = write_images(tmp_path / "data")
    recipe = load_recipe(
        None,
        {
            "model": least_architecture, "mode": 1, "dataset": "imagefolder", "data_dir": str(data), "dialect": "paper",
            "ckpt_save_dir": str(tmp_path / "run"), "image_resize": 32, "batch_size": 8, "epoch_size": 1,
            "warmup_epochs": 0, "num_parallel_workers": 1, "log_interval": 2, "val_while_train": True, "lr": 0.002,
            "loggers": ["lines", "broken", "unwilling", "leaving", "silent", "gone"],
        },
    )  # fmt: skip
    record = train(recipe)
    assert record.epochs == 1
    said = capsys.readouterr().err
    for name, words in (
        ("broken", "ConnectionError: no answer from https://example.com/?key=…"),
        ("unwilling", "OSError: not logged in"),
        ("leaving", "SystemExit: 0"),
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
    assert "did you mean wandb" in str(caught.value)
    with pytest.raises(InputError, match="no logger '-'") as caught:
        train(load_recipe(None, {**recipe, "loggers": "-"}))
    assert "broken, gone, leaving, lines, silent, swanlab, unwilling, wandb" in str(caught.value)
    with pytest.raises(InputError, match="no logger 'linse'") as caught:
        train(load_recipe(None, {**recipe, "loggers": ["linse"]}))
    assert "lines" in (caught.value.fix or "")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("before", [0, 190, 199])
def test_no_part_of_a_secret_is_shown_wherever_an_error_is_cut(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_LOGGERS_TOKEN", "seCreT")
    monkeypatch.setenv("A_LOGGERS_KEY", "seCreT\nof-two-lines")
    said = _words(ValueError("." * before + "seCreT\nof-two-lines and seCreT"))
    assert said.startswith(f"ValueError: {'.' * before}…")
    assert not {"s", "C", "T"} & set(said.removeprefix("ValueError: ").replace(" and ", ""))


def test_a_logger_gets_a_copy_of_what_it_is_told(tmp_path: Path) -> None:
    record = {"loss": 1.0}
    loggers = Loggers(["lines"], LoggedRun({"lr": 1.0}, tmp_path, 7), pytest.fail)
    loggers.tell("epoch", record)
    assert told(tmp_path) == [["begin", {"lr": 1.0, "first_step": 7}], ["epoch", record]]


class Recorded(ModuleType):
    """Stands in for wandb and swanlab, which are not installed here: their ``init``, and the runs it returns."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[Any, ...]] = []

    def init(self, **given: Any) -> Recorded:
        self.calls.append(("init", given))
        return self

    def log(self, figures: dict[str, Any], step: int) -> None:
        self.calls.append(("log", figures, step))

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.mark.parametrize(("name", "where"), [("wandb", "dir"), ("swanlab", "logdir")])
def test_the_examples_loggers_tell_their_trackers_each_step_once(
    name: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Recorded(name)
    monkeypatch.setitem(sys.modules, name, tracker)
    for first in (0, 7):
        loggers = Loggers([name], LoggedRun({"lr": 0.1}, tmp_path, first), pytest.fail)
        loggers.tell("step", {"step": first + 2, "loss": 1.5})
        loggers.tell("epoch", {"epoch": 1, "top1": 50.0})
        loggers.tell("end", {"top1": 50.0})
    begun, again = (call[1] for call in tracker.calls if call[0] == "init")
    assert begun == again, "a run that is gone on with is the same one there"
    assert begun.keys() == {"project", "config", "id", "resume", where}
    assert (begun["config"], begun["resume"], len(begun["id"])) == ({"lr": 0.1}, "allow", 21)
    assert str(tmp_path) in begun[where]
    assert [call[1:] for call in tracker.calls if call[0] == "log"] == [
        ({"step/loss": 1.5}, 2), ({"epoch/epoch": 1, "epoch/top1": 50.0}, 2),
        ({"step/loss": 1.5}, 9), ({"epoch/epoch": 1, "epoch/top1": 50.0}, 9),
    ]  # fmt: skip
    assert tracker.calls[-1] == ("finish",)
