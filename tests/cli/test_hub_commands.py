"""``xcit-hub list|info|load|publish|whoami|cache``: what they print, as JSON too, and their exit codes."""

from __future__ import annotations

import json
import os
import time

import pytest
from hub_server import TOKEN
from typer.testing import CliRunner

import xcit_hub
from xcit_hub.cli.app import app
from xcit_hub.errors import HubError, InputError, XcitHubError
from xcit_hub.variants import list_models


@pytest.fixture
def run():
    def invoke(*arguments, code=0) -> str:
        done = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200"})
        if isinstance(done.exception, HubError | ValueError | LookupError):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.stdout

    return invoke


@pytest.fixture
def hub(tmp_path, nano_ckpt):
    xcit_hub.publish(nano_ckpt, "org/xcit-nano", to=tmp_path / "hub", parity=False)
    return tmp_path / "hub"


def test_list_names_architectures_checkpoints_and_hubs(run, hub):
    assert json.loads(run("list", "xcit_tiny*", "--json")) == list_models("xcit_tiny*")
    assert len(json.loads(run("list", "*.fb*in1k", "--pretrained", "--json"))) == 42
    assert "77.12" in run("list", "xcit_tiny_12_p16_224.fb_in1k", "--pretrained")
    assert run("list", "--hub", hub).split() == ["org/xcit-nano"]
    assert run("list", "--hub", "mindspore-hub").split() == ["mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012"]


def test_info_says_what_is_there(run, hub):
    assert "weights" in run("info", "org/xcit-nano", "--hub", hub)
    found = json.loads(run("info", "org/xcit-nano", "--hub", hub, "--json"))
    assert found["config"]["architecture"] == "xcit_nano_12_p16_224"
    assert found["files"]["model.safetensors"]["size"] > 10_000_000


def test_a_published_files_own_name_is_told_of_where_no_file_is_called_so(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "xcit_tiny_12_p16_best.ckpt"
    found = json.loads(run("info", name, "--json"))
    assert found["weights"] == name and found["config"]["dialect"] == "mindcv"
    assert found["address"].startswith("https://download.mindspore.cn/")
    with pytest.raises(HubError, match="no such file") as caught:
        run("load", name)
    assert "xcit_tiny_12_p16_224.ms_in1k_best" in caught.value.fix
    (tmp_path / name).write_bytes(b"x")
    assert json.loads(run("info", name, "--json"))["address"] == name


@pytest.mark.parametrize(("content", "name"), [(b"\x08\x08\x12\x07pytorch", "x.onnx"), (None, "y.onnx")])
def test_an_exported_file_is_told_from_a_name_and_who_runs_it(run, tmp_path, monkeypatch, content, name):
    monkeypatch.chdir(tmp_path)
    if content is None:
        with pytest.raises(HubError, match="no such file"):
            run("load", name)
        return
    (tmp_path / name).write_bytes(content)
    with pytest.raises(XcitHubError, match="an ONNX model") as caught:
        xcit_hub.load(name)
    assert "xcit-hub predict" in caught.value.fix and "xcit-hub inspect" not in caught.value.fix


def test_a_file_that_nothing_vouches_for_is_said_to_be_so_once(run, nano_ckpt):
    said = run("load", nano_ckpt)
    assert said.count("verified against nothing") == 1


def test_load_says_what_was_loaded_and_classifies(run, hub, tmp_path):
    from PIL import Image

    assert "verified in full" in run("load", "org/xcit-nano", "--hub", hub)
    Image.new("RGB", (300, 200), "red").save(tmp_path / "red.png")
    found = json.loads(run("load", "org/xcit-nano", "--hub", hub, "--image", tmp_path / "red.png", "--json"))
    assert found["verified"] == "full"
    assert len(found["classes"]) == 5


def test_publish_shows_every_file_and_hash(run, nano_ckpt, tmp_path):
    target = tmp_path / "hub"
    shown = run("publish", nano_ckpt, "org/nano", "--to", target, "--no-parity", "--dry-run")
    assert "not published: --dry-run" in shown
    assert "# nano" in shown
    assert "model.safetensors" in shown
    assert not target.exists()
    done = json.loads(run("publish", nano_ckpt, "org/nano", "--to", target, "--no-parity", "--json"))
    assert done["changed"]
    assert "no commit made" in run("publish", nano_ckpt, "org/nano", "--to", target, "--no-parity")


def test_whoami_names_the_user_and_not_the_token(run, server):
    assert json.loads(run("whoami", "--endpoint", server.url, "--json"))["name"] == "me"
    said = run("whoami", "--endpoint", server.url)
    assert said.startswith("me, member of org")
    assert TOKEN not in said


def test_the_cache_is_listed_verified_and_pruned(run, server, nano_timm, tmp_path):
    server.add("someone/nano", nano_timm)
    xcit_hub.load("someone/nano", hub=server.url)
    folder = tmp_path / "cache"
    (folder / "models--bert--base" / "blobs").mkdir(parents=True)
    (folder / "models--bert--base" / "snapshots").mkdir()
    (folder / "models--bert--base" / "blobs" / ("0" * 64)).write_bytes(b"somebody else's")
    (entry,) = json.loads(run("cache", "list", "--json"))
    assert (entry["name"], entry["branches"]) == ("someone/nano", ["main"])
    assert json.loads(run("cache", "verify", "--json")) == {"checked": 2, "damaged": [], "faulty": []}

    server.add("someone/nano", nano_timm | {"model.safetensors": nano_timm["model.safetensors"]})
    xcit_hub.load("someone/nano", hub=server.url)
    assert json.loads(run("cache", "prune", "--dry-run", "--json"))["removed"] == []
    # Two hours later nobody reads the revision that lost its branch.
    for path in (folder / "models--someone--nano").rglob("*"):
        os.utime(path, (time.time() - 7200,) * 2, follow_symlinks=False)
    before = json.loads(run("cache", "prune", "--dry-run", "--json"))
    assert len(before["removed"]) == 1
    assert len(json.loads(run("cache", "list", "--json"))) == 2
    run("cache", "prune")
    assert len(json.loads(run("cache", "list", "--json"))) == 1
    assert xcit_hub.load("someone/nano", hub=server.url, offline=True)
    assert (folder / "models--bert--base" / "blobs" / ("0" * 64)).exists()

    blob = next(path for path in (folder / "models--someone--nano" / "blobs").iterdir() if len(path.name) == 64)
    blob.write_bytes(b"damaged")
    assert json.loads(run("cache", "verify", "--json", code=1))["damaged"][0]["path"] == str(blob)
    assert "damaged" in run("cache", "verify", code=1)


def test_what_is_wrong_with_a_cached_model_is_listed_by_its_name(run, server, nano_timm, tmp_path):
    server.add("someone/nano", nano_timm)
    xcit_hub.load("someone/nano", hub=server.url)
    (entry,) = json.loads(run("cache", "list", "--json"))
    assert entry["faults"] == []
    (next((tmp_path / "cache").rglob("snapshots/*/model.safetensors"))).resolve().unlink()
    (entry,) = json.loads(run("cache", "list", "--json"))
    assert entry["faults"] == ["model.safetensors is a link that leads to no file."]
    said = run("cache", "list")
    assert "faulty: someone/nano: model.safetensors is a link that leads to no file." in said
    assert "load it again" in said
    assert "faulty: someone/nano: model.safetensors is a link" in run("cache", "verify", code=1)
    verified = json.loads(run("cache", "verify", "--json", code=1))
    assert verified["damaged"] == []
    assert verified["faulty"] == [{"name": "someone/nano", "fault": entry["faults"][0]}]
    assert xcit_hub.load("someone/nano", hub=server.url)
    assert json.loads(run("cache", "verify", "--json"))["faulty"] == []
    assert json.loads(run("cache", "list", "--json"))[0]["faults"] == []


def test_what_a_killed_run_left_is_pruned_where_it_was_written(run, tmp_path):
    left = tmp_path / "runs" / "first" / ".epoch-3.ckpt.abcdefgh.tmp"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    (tmp_path / "cache").mkdir(exist_ok=True)
    named = [str(tmp_path / "runs"), "--cache-dir", str(tmp_path / "cache")]
    assert json.loads(run("cache", "prune", *named, "--dry-run", "--json"))["removed"] == [str(left)]
    assert str(left) in run("cache", "prune", *named)
    assert list(left.parent.iterdir()) == []
    with pytest.raises(InputError, match="not a folder"):
        run("cache", "prune", str(tmp_path / "nowhere"))


def test_mistakes_exit_2_with_one_message_and_no_traceback(run_here, tmp_path):
    for arguments in (
        ["load", "xcit_tinny_12_p16_224"],
        ["info", "org/nano", "--hub", str(tmp_path / "nowhere")],
        ["publish", str(tmp_path / "missing.ckpt"), "org/nano", "--to", str(tmp_path / "hub"), "--no-parity"],
    ):
        done = run_here(*arguments)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "do:" in done.stderr
    assert not (tmp_path / "hub").exists()


def test_a_list_without_a_match_says_so(run, tmp_path):
    (tmp_path / "hub").mkdir()
    for arguments, said in (
        (["xcit_tinny*"], "no architecture matches 'xcit_tinny*'; did you mean xcit_tiny"),
        (["zzz", "--pretrained"], "no published checkpoint matches 'zzz'"),
        (["--hub", str(tmp_path / "hub")], "there is no XCiT model in"),
        (["a*", "--hub", str(tmp_path / "hub")], "no XCiT model in"),
    ):
        done = CliRunner().invoke(app, ["list", *arguments], env={"COLUMNS": "200"})
        assert (done.exit_code, done.stdout) == (0, "")
        assert said in done.stderr
        assert json.loads(run("list", *arguments, "--json")) == []
