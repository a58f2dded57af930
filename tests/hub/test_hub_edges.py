"""Settings, folders and cards that lead nowhere, or to several: said at once, and never guessed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import xcit_hub
from xcit_hub.cli.app import app
from xcit_hub.errors import HubError, InputError, XcitHubError
from xcit_hub.hub.locate import list_hub, locate

NANO = "xcit_nano_12_p16_224"
NOBODY = "~nobody-of-this-name/models"


def refused(*words: str) -> XcitHubError:
    error = CliRunner().invoke(app, list(words)).exception
    assert isinstance(error, XcitHubError), error
    return error


@pytest.mark.parametrize("home", ["file", "file/hub", pytest.param("a" * 300, id="too long")])
def test_a_home_that_is_no_folder_is_refused_by_its_name_and_no_other_hub_asked(home, monkeypatch, tmp_path, nano_ckpt):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XCIT_HUB_HOME", str(tmp_path / home))
    for use in (
        lambda: xcit_hub.info("org/name", offline=True),
        lambda: xcit_hub.publish(nano_ckpt, "org/name", parity=False, dry_run=True),
    ):
        with pytest.raises(
            InputError, match=r"XCIT_HUB_HOME is '.*', and .* is not a folder that can be read"
        ) as caught:
            use()
        assert caught.value.where == "the environment variable XCIT_HUB_HOME"


@pytest.mark.parametrize("variable", ["XCIT_HUB_HOME", "XDG_DATA_HOME"])
def test_a_home_that_nobody_has_is_named(variable, monkeypatch):
    monkeypatch.delenv("XCIT_HUB_HOME")
    monkeypatch.setenv(variable, NOBODY)
    with pytest.raises(InputError, match="nobody-of-this-name"):
        xcit_hub.info("org/name", offline=True)


@pytest.mark.parametrize(
    "words",
    [
        ["load", "org/name", "--hub", NOBODY],
        ["load", "hf://org/name", "--cache-dir", NOBODY],
        ["list", "--hub", NOBODY],
        ["list", "--hub", f"mindspore-hub:{NOBODY}"],
        ["cache", "list", "--cache-dir", NOBODY],
        ["publish", "missing.ckpt", "org/name", "--to", NOBODY],
    ],
)
def test_a_home_that_nobody_has_is_named_in_options_too(words):
    assert "nobody-of-this-name" in refused(*words).what


@pytest.mark.parametrize("command", ["list", "verify", "prune"])
def test_a_cache_that_is_named_has_to_be_there(command, tmp_path):
    assert "no such folder" in refused("cache", command, "--cache-dir", str(tmp_path / "typo")).what
    assert CliRunner().invoke(app, ["cache", command]).exit_code == 0, "the default one need not"


def test_a_cache_that_is_named_has_to_be_there_beside_folders_too(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    words = ("cache", "prune", str(tmp_path / "runs"), "--cache-dir")
    assert "no such folder" in refused(*words, str(tmp_path / "typo")).what
    assert "nobody-of-this-name" in refused(*words, NOBODY).what


@pytest.mark.parametrize(
    ("offline", "transformers", "means"), [("", "1", True), ("0", "1", False), (None, "YES", True), (None, "0", False)]
)
def test_offline_is_what_huggingface_hub_takes_for_it(offline, transformers, means, monkeypatch):
    from xcit_hub.hub.address import offline_by_environment

    if offline is not None:
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", transformers)
    code = "from huggingface_hub import constants; print(constants.HF_HUB_OFFLINE)"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert offline_by_environment() is means
    assert theirs == str(means)


@pytest.mark.parametrize("word", ["y", "maybe", "2", " 1"])
@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_word_that_says_neither_offline_nor_online_is_refused(name, word, monkeypatch):
    monkeypatch.setenv(name, word)
    with pytest.raises(InputError, match=f"{name} is '{word}', which says neither yes nor no"):
        locate("hf://org/name")


@pytest.mark.parametrize("word", ["", "0", "off", "No", "FALSE"])
def test_every_word_for_online_is_taken(word, monkeypatch):
    from xcit_hub.hub.address import offline_by_environment

    monkeypatch.setenv("HF_HUB_OFFLINE", word)
    assert not offline_by_environment()


def test_offline_no_endpoint_is_asked_for_anything(server, tmp_path):
    for ask in (
        lambda: list_hub("hugging-face", offline=True),
        lambda: list_hub(server.url, offline=True),
        lambda: locate("hf://org/name", offline=True, cache_dir=tmp_path),
        lambda: locate("org/name", hub=server.url, offline=True, token="secret", cache_dir=tmp_path),
    ):
        with pytest.raises(HubError, match=r"[oO]ffline mode forbids"):
            ask()
    assert server.requests == []


def test_offline_publishing_is_refused_before_anything_is_read(monkeypatch, server):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="Offline mode forbids publishing"):
        xcit_hub.publish("missing.ckpt", "org/name", to="hugging-face")
    assert server.requests == []


def test_what_is_cached_is_found_without_the_client(tmp_path):
    folder = tmp_path / "models--org--name"
    commit = "a" * 40
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit / "model.safetensors").write_bytes(b"x" * 10)
    (folder / ".no_exist" / commit).mkdir(parents=True)
    for name in ("xcit_hub.json", "config.json"):
        (folder / ".no_exist" / commit / name).touch()
    code = f"""
import sys, xcit_hub
found = xcit_hub.info("hf://org/name", cache_dir={str(tmp_path)!r}, offline=True)
print(found.weights, found.revision, [name for name in {_HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.split()[:2], done.stderr) == (["model.safetensors", commit], "")
    assert done.stdout.strip().endswith("[]")


_HEAVY = ("mindspore", "pydantic", "huggingface_hub.hf_api", "httpx", "httpx2")


@pytest.mark.parametrize("target", ["./file", "file/below", "mindspore-hub:typo", "mindspore-hub:file"])
def test_where_nothing_can_be_published_to_is_said_before_anything_is_read(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(XcitHubError, match=r"Cannot publish there|pull requests only"):
        xcit_hub.publish("missing.ckpt", "org/name", to=target)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


CARD = """# {name}

---

model-name: {name}
asset:
{assets}
---

A card.
"""


def write_card(checkout, version: str, name: str, links: list[str]) -> None:
    folder = checkout / "mshub_res" / "assets" / "me" / version
    folder.mkdir(parents=True, exist_ok=True)
    assets = "".join(f"\n- file-format: ckpt\n  asset-link: <{link}>\n" for link in links)
    (folder / f"{name}.md").write_text(CARD.format(name=name, assets=assets))


def test_a_card_is_found_by_its_beginning_where_that_is_one_cards(tmp_path):
    hub = f"mindspore-hub:{tmp_path}"
    for version in ("2.5", "2.10"):
        write_card(tmp_path, version, "nano_224_imagenet2012", [f"https://example.org/{version}/nano.ckpt"])
    assert locate("me/nano_224", hub=hub).snapshot.name == "me/2.10/nano_224_imagenet2012"
    write_card(tmp_path, "2.5", "nano_224", ["https://example.org/plain.ckpt"])
    assert locate("me/nano_224", hub=hub).snapshot.name == "me/2.5/nano_224", "the whole name goes before"
    write_card(tmp_path, "2.9", "nano_384_imagenet2012", ["https://example.org/other.ckpt"])
    with pytest.raises(HubError, match="3 cards of this checkout begin with 'nano'"):
        locate("me/nano", hub=hub)
    assert list_hub(hub) == [
        "me/2.10/nano_224_imagenet2012", "me/2.5/nano_224", "me/2.5/nano_224_imagenet2012",
        "me/2.9/nano_384_imagenet2012",
    ]  # fmt: skip
    with pytest.raises(HubError, match="no such checkout"):
        list_hub(f"mindspore-hub:{tmp_path}/typo")


def test_of_a_card_with_several_checkpoints_the_others_are_named(tmp_path):
    links = ["https://example.org/a.ckpt", "https://example.org/b.ckpt"]
    write_card(tmp_path, "2.5", "two", links)
    found = json.loads(
        CliRunner().invoke(app, ["info", "me/two", "--hub", f"mindspore-hub:{tmp_path}", "--json"]).stdout
    )
    assert found["weights"] == "a.ckpt"
    assert any("names 2 checkpoints" in note and links[1] in note for note in found["notes"])


def test_an_architecture_that_the_description_contradicts_is_refused(published_nano):
    hub, _ = published_nano
    with pytest.raises(InputError, match="is xcit_nano_12_p16_224, and xcit_nano_12_p16_384 was asked for"):
        xcit_hub.load("org/nano", hub=hub, model="xcit_nano_12_p16_384")
    assert xcit_hub.load("org/nano", hub=hub, model=NANO).config.architecture == NANO


@pytest.mark.parametrize("host", ["a..b", "x" * 300, "é" * 300, "999.999.999.999", "no such host", ""])
def test_a_host_that_cannot_be_listened_on_is_refused_before_the_model_is_loaded(host):
    pytest.importorskip("uvicorn")
    error = refused("serve", "missing.ckpt", "--host", host, "--port", "0")
    if host:  # every address of this machine
        assert "Cannot listen" in error.what
