"""``python -m tests.online`` against the loopback hub: what holds is said to, and each thing that does not is found."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_fixtures import NANO

from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.hub import timm_config
from xcit_hub.hub.config import of_architecture
from xcit_hub.parameters import parameter_shapes
from xcit_hub.parity import random_weights
from xcit_hub.variants import CHECKPOINTS, architecture

ENTRY = CHECKPOINTS[f"{NANO}.fb_in1k"]
sys.path.insert(0, str(Path(__file__).parent))
main = runpy.run_path(str(Path(__file__).parent / "__main__.py"))["main"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """One network as facebook's file and as timm's repository."""
    folder = tmp_path_factory.mktemp("published")
    arrays = random_weights(parameter_shapes(architecture(NANO)), seed=1)
    marks = {"xcit_hub.architecture": NANO, "xcit_hub.dialect": "paper"}
    checkpoint.write(folder / "nano.ckpt", arrays, marks)
    rewrite(folder / "nano.ckpt", folder / "facebook.pth", to="facebook")
    rewrite(folder / "nano.ckpt", folder / "model.safetensors", to="timm")
    name = "blocks.0.attn.qkv.weight"
    checkpoint.write(folder / "other.ckpt", arrays | {name: arrays[name][::-1]}, marks)
    rewrite(folder / "other.ckpt", folder / "other.pth", to="facebook")
    config = timm_config.write(of_architecture(NANO, "paper", num_classes=1000)).encode()
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"config.json": config}


def _visited(server, files, tmp_path, *, url: str, page: bytes, words: tuple[str, ...] = (), **changes: Any):
    server.add(ENTRY.repository, {name: files[name] for name in ("config.json", "model.safetensors")})
    server.pages[url] = page
    record = tmp_path / "online.json"
    entry = replace(ENTRY, url=server.storage_url + url, **changes)
    code = main(["--sites", "hugging-face", "--json", str(record), *words], [entry])
    told = json.loads(record.read_text())
    return code, told, {step["name"]: step for step in told["checkpoints"][0]["steps"]}


def test_what_is_published_as_the_table_says_holds(server, files, tmp_path) -> None:
    code, told, steps = _visited(server, files, tmp_path, url="/nano.pth", page=files["facebook.pth"])
    assert code == 0, steps
    assert told["sites"] == [{"site": "hugging-face", "reached": True, "said": told["sites"][0]["said"]}]
    assert [(name, step["ok"]) for name, step in steps.items()] == [
        (name, True)
        for name in (
            "original file", "description", "repository", "load", "proof", "top-1", "both files hold the same",
        )
    ]  # fmt: skip
    assert "of 3 answers are right" in steps["top-1"]["said"]
    assert "mindspore" in told["versions"] and str(tmp_path) not in json.dumps(told)


def test_another_digest_than_the_tables_is_found_and_the_file_is_not_loaded(server, files, tmp_path) -> None:
    code, _, steps = _visited(
        server, files, tmp_path, url="/nano.pth", page=files["facebook.pth"], sha256="00000000", repository=None
    )
    assert code == 1
    assert steps["original file"]["ok"] is False and "sha256 00000000" in steps["original file"]["said"]
    assert "load" not in steps


def test_a_repository_with_other_weights_than_the_original_file_is_found(server, files, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(main.__globals__, "photographs", list)
    code, _, steps = _visited(server, files, tmp_path, url="/other.pth", page=files["other.pth"])
    assert code == 1
    assert steps["both files hold the same"]["ok"] is False
    assert "the same values in another order" in steps["both files hold the same"]["said"]


@pytest.mark.parametrize(
    ("page", "words", "says"),
    [
        ("/elsewhere.pth", (), "404"),
        ("/nano.pth", ("--gigabytes-a-file", "0.001"), "more than 1000000 bytes"),
        ("/nano.pth", ("--gigabytes", "0.001"), "raise --gigabytes"),
    ],
)
def test_what_is_missing_or_too_large_is_said_and_not_loaded(server, files, tmp_path, page, words, says) -> None:
    server.pages[page] = files["facebook.pth"]
    entry = replace(ENTRY, url=server.storage_url + "/nano.pth", repository=None)
    record = tmp_path / "online.json"
    assert main(["--sites", "", "--json", str(record), *words], [entry]) == 1
    first, last = json.loads(record.read_text())["checkpoints"][0]["steps"]
    assert first["ok"] is False and says in first["said"]
    assert last["ok"] is None


def test_no_address_but_https_is_gone_to() -> None:
    for address in ("http://example.com/x", "file:///etc/passwd", "ftp://example.com/x"):
        with pytest.raises(Exception, match="not https"):
            main.__globals__["visit"].__globals__["fetch"](address, Path("x"), main.__globals__["Bounds"]())


def test_an_unknown_name_ends_with_code_2(capsys) -> None:
    assert main(["--names", "nothing*"]) == 2
    assert "nothing*" in capsys.readouterr().err
