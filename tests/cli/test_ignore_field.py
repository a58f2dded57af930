"""``--ignore-field`` stands wherever a model is loaded by its description, and what it did is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from xcit_hub.cli.app import app
from xcit_hub.errors import XcitHubError
from xcit_hub.hub import config, timm_config

NOTE = "model_args.act_layer was ignored, as was asked for"


@pytest.fixture
def folder(tmp_path, nano_timm) -> Path:
    """A timm repository whose description says what no network here can follow."""
    record = json.loads(timm_config.write(config.of_architecture("xcit_nano_12_p16_224", "paper", num_classes=10)))
    record["model_args"] = {"act_layer": "relu"}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text(json.dumps(record))
    (tmp_path / "folder" / "model.safetensors").write_bytes(nano_timm["model.safetensors"])
    return tmp_path / "folder"


def _run(*arguments: object) -> tuple[str, str]:
    done = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200"})
    if isinstance(done.exception, XcitHubError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


@pytest.mark.parametrize("command", ["info", "load", "predict", "eval", "parity", "export", "serve"])
def test_the_option_stands_wherever_an_id_is_loaded(command):
    options = {name for each in get_command(app).commands[command].params for name in each.opts}
    assert "--ignore-field" in options


def test_an_export_is_made_without_the_field_and_says_so(folder, tmp_path):
    arguments = ("export", folder, tmp_path / "nano.onnx", "--no-proof")
    with pytest.raises(XcitHubError, match="act_layer cannot be followed"):
        _run(*arguments)
    assert NOTE in json.loads(_run(*arguments, "--json", "--ignore-field", "act_layer")[0])["notes"][0]
    assert NOTE in _run(*arguments, "--ignore-field", "model_args.act_layer")[0]


def test_two_networks_are_compared_without_a_field_of_one(folder, tmp_path, nano_ckpt):
    arguments = ("parity", folder, "--against", folder / "model.safetensors", "--image-size", 32)
    with pytest.raises(XcitHubError, match="act_layer cannot be followed"):
        _run(*arguments)
    assert "are equal" in _run(*arguments, "--ignore-field", "act_layer")[0]
    with pytest.raises(XcitHubError, match="no field 'zz' that could be ignored"):
        _run(*arguments, "--ignore-field", "act_layer", "--ignore-field", "zz")
    with pytest.raises(XcitHubError, match="without any description"):
        _run("parity", nano_ckpt, "--ignore-field", "act_layer")


def test_a_model_is_evaluated_without_a_field(folder, tmp_path, run_cli):
    for label in range(10):
        image = tmp_path / "data" / "val" / str(label) / "x.png"
        image.parent.mkdir(parents=True)
        Image.new("RGB", (40, 40), (20 * label, 0, 0)).save(image)
    arguments = ("eval", str(folder), "--data_dir", str(tmp_path / "data"), "--json")
    with pytest.raises(XcitHubError, match="act_layer cannot be followed"):
        _run(*arguments)
    done = run_cli(*arguments, "--ignore-field", "act_layer")
    assert done.returncode == 0, done.stderr
    assert NOTE in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["samples"] == 10
    recipe = ("--model", "xcit_nano_12_p16_224", "--ckpt_path", str(folder / "model.safetensors"))
    with pytest.raises(XcitHubError, match="has no description"):
        _run("eval", *recipe, "--data_dir", tmp_path / "data", "--ignore-field", "act_layer")
