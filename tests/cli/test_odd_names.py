"""Whatever somebody writes for a name, every command answers in one sentence, and leaves nothing behind."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner
from typer.main import get_command

from xcit_hub.cli.app import app
from xcit_hub.errors import HubError, XcitHubError
from xcit_hub.hub.locate import locate
from xcit_hub.hub.stores import local

COMMANDS = {
    "info": ["info", "@"],
    "load": ["load", "@"],
    "predict": ["predict", "@", "a.png"],
    "segment": ["predict", "@", "a.png", "--segment", "painted"],
    "images": ["predict", "no.ckpt", "@"],
    "inspect": ["inspect", "@"],
    "convert": ["convert", "@", "out.ckpt"],
    "convert to": ["convert", "file.ckpt", "@.ckpt"],
    "convert all": ["convert", "--all", "@", "out"],
    "export": ["export", "@", "out.onnx"],
    "export to": ["export", "file.ckpt", "@.onnx"],
    "export int8": ["export", "file.ckpt", "out.onnx", "--int8", "@"],
    "publish": ["publish", "@", "org/name", "--to", "./hub"],
    "publish as": ["publish", "file.ckpt", "@", "--to", "./hub"],
    "publish to": ["publish", "file.ckpt", "org/name", "--to", "@"],
    "hub": ["load", "org/name", "--hub", "@"],
    "list": ["list", "--hub", "@"],
    "cache": ["cache", "verify", "--cache-dir", "@"],
    "card new": ["card", "new", "@"],
    "card check": ["card", "check", "@"],
    "card show": ["card", "show", "@"],
    "card html": ["card", "html", "@", "--out", "c.html"],
    "card translate": ["card", "translate", "@", "--lang", "zh"],
    "parity": ["parity", "@"],
    "against": ["parity", "file.ckpt", "--against", "@"],
    "eval": ["eval", "@", "--data_dir", "nothing"],
    "eval models": ["eval", "--models", "@", "--results-file", "r.csv", "--data_dir", "nothing"],
    "eval output": ["eval", "no.ckpt", "--data_dir", "nothing", "--output", "@"],
    "eval segment": ["eval", "no.ckpt", "--task", "segment", "--data_dir", "@"],
    "recipe": ["train", "--config", "@"],
    "serve": ["serve", "@", "--port", "0"],
}
PROGRAM = get_command(app)  # which takes longer than to ask it
NAMES = [
    "x" * 5000,
    "a/" + "b" * 300,
    "loop",
    "loop/x.ckpt",
    "~nobody-of-this-name/x.ckpt",
    "pipe",
    "",
    "new\nline",
    "@",
    "..x/",
]


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file.ckpt").write_bytes(b"not a checkpoint")
    os.mkfifo(tmp_path / "pipe")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_odd_name_is_answered_in_a_sentence(command, tmp_path):
    for name in NAMES:
        words = [word.replace("@", name) if word in ("@", "@.ckpt", "@.onnx") else word for word in COMMANDS[command]]
        done = CliRunner().invoke(PROGRAM, words)
        is_said = isinstance(done.exception, XcitHubError) and done.exception.what
        is_here = name == "" and command == "cache"  # an empty path is this folder
        assert is_said or is_here or done.exit_code in (1, 2), (name[:40], done.exception, done.output)
        assert is_said or is_here or isinstance(done.exception, SystemExit), (name[:40], done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.ckpt", "loop", "pipe"]


def test_a_folder_of_more_files_than_a_model_has_is_not_walked_through(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_MOST_FILES", 3)
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("")
    with pytest.raises(HubError, match="More than 3 files lie below"):
        locate(str(tmp_path))


def test_what_cannot_be_reached_is_not_called_missing(tmp_path):
    for name, says in (
        ("x" * 300 + ".ckpt", "File name too long"),
        ("./loop", "Too many levels"),
        ("./no", "no such file"),
    ):
        with pytest.raises(HubError, match=says):
            locate(name)
