"""Whatever a hub does, one clear error names it, nothing outside the cache is touched, and it comes to an end.

Each scenario is a file of ``tests/attacks/hub``, named by what it tries.
"""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest
from hub_server import TOKEN, Fault

import xcit_hub
from xcit_hub.errors import XcitHubError
from xcit_hub.hub import guard
from xcit_hub.hub.locate import list_hub, locate
from xcit_hub.hub.stores.hugging_face import whoami

NAME = "someone/nano"
SCENARIOS = sorted((Path(__file__).parent.parent / "attacks" / "hub").glob("*.json"))


@pytest.fixture
def impatient(monkeypatch):
    """The bounds in force, in seconds rather than minutes and hours."""
    from huggingface_hub.utils import _http

    monkeypatch.setattr(guard, "PATIENCE", 1.0)
    for name in ("__init__",):
        original = getattr(guard.Exchange, name)

        def shorter(self, *given, seconds=guard.SECONDS, _original=original, **options):
            _original(self, *given, seconds=min(seconds, 3.0), **options)

        monkeypatch.setattr(guard.Exchange, name, shorter)
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)


def test_there_are_many() -> None:
    assert len(SCENARIOS) >= 60


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_hostile_hub_gets_nothing_but_one_clear_error(path, server, nano_timm, nano_ckpt, tmp_path, impatient):
    scenario = json.loads(path.read_text(encoding="utf-8"))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    cache = tmp_path / "a" / "b" / "cache"
    headers = {name: value.replace("VICTIM", str(victim)) for name, value in scenario["headers"].items()}
    body = scenario.get("body", "").encode()
    if "bomb" in scenario:
        body = gzip.compress(bytes(scenario["bomb"]))
    server.add(NAME, nano_timm)
    server.faults = [
        Fault(scenario["where"], scenario["kind"], scenario["value"], times=999, headers=headers, body=body)
    ]
    calls = {
        "load": lambda: locate(NAME, hub=server.url, cache_dir=cache).fetch(),
        "list": lambda: list_hub(server.url),
        "whoami": lambda: whoami(server.url),
        "publish": lambda: xcit_hub.publish(nano_ckpt, "org/nano", to=server.url, parity=False),
    }
    before = {each for each in tmp_path.rglob("*") if cache not in each.parents and each != cache}
    started = time.monotonic()
    with pytest.raises(XcitHubError, match=scenario["expect"]) as caught:
        calls[scenario["call"]]()
    assert time.monotonic() - started < 30
    assert caught.value.fix
    assert TOKEN not in str(caught.value)
    assert str(caught.value).replace("\n", "").isprintable()
    assert victim.read_text() == "precious"
    made = {each for each in tmp_path.rglob("*") if cache not in each.parents and each != cache}
    assert {each for each in made - before if each not in cache.parents and "cache" not in each.parts} == set()
    assert not [each for each in cache.rglob("*") if each.is_file() and each.read_bytes() == b"precious"]


def test_the_token_goes_to_its_own_endpoint_alone(server, nano_timm, monkeypatch, tmp_path):
    from huggingface_hub import constants

    server.add(NAME, nano_timm)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example.org")
    locate(NAME, hub=server.url, cache_dir=tmp_path / "c").fetch()
    assert server.requests
    assert not [given for _, _, given in server.requests if given]
    server.forget()
    locate(NAME, hub=server.url, cache_dir=tmp_path / "d", token=TOKEN).fetch()
    assert {given for _, path, given in server.requests if "/api/" in path} == {f"Bearer {TOKEN}"}
    with pytest.raises(XcitHubError, match=r"are for https://hub\.example\.org"):
        locate(NAME, hub=server.url, token=True)


def test_no_token_travels_unencrypted_off_this_machine():
    from xcit_hub.hub.stores.hugging_face import token_for

    with pytest.raises(XcitHubError, match="for everybody on the way to read"):
        token_for("http://hub.example.org", "hf_secretsecret")
    assert token_for("http://hub.example.org", None) is False


def test_passwords_in_addresses_are_refused_and_not_repeated(run_cli, tmp_path):
    for arguments in (
        ["info", "org/name", "--hub", "https://me:s3cret@hub.example.org"],
        ["info", "https://me:s3cret@hub.example.org/assets/x.md"],
        ["list", "--hub", "https://me:s3cret@hub.example.org"],
    ):
        done = run_cli(*arguments)
        assert done.returncode == 2
        assert "s3cret" not in done.stdout + done.stderr
        assert "token" in done.stderr


@pytest.mark.parametrize(
    "link",
    [
        "https://127.0.0.1/x.ckpt",
        "https://localhost/x.ckpt",
        "https://[::1]/x.ckpt",
        "https://169.254.169.254/latest/x.ckpt",
        "https://10.0.0.7/x.ckpt",
        "https://192.168.1.1/x.ckpt",
        "https://[fe80::1]/x.ckpt",
        "https://[::ffff:127.0.0.1]/x.ckpt",
        "https://0.0.0.0/x.ckpt",
        "https://2130706433/x.ckpt",
        "https://printer.local/x.ckpt",
        "http://example.org/x.ckpt",
        "ftp://example.org/x.ckpt",
        "https://me:pw@example.org/x.ckpt",
    ],
)
def test_a_card_cannot_send_us_into_the_private_network(link):
    import io

    from xcit_hub.hub.transport import download

    with pytest.raises(XcitHubError, match=r"public address|https address|password") as caught:
        download(link, io.BytesIO(), "a card")
    assert "pw@" not in str(caught.value)


def test_neither_can_a_redirect_nor_a_large_card(server):
    import io

    from xcit_hub.hub.address import parsed
    from xcit_hub.hub.transport import download

    named = frozenset([guard.netloc(parsed(server.storage_url))])
    server.pages["/card.md"] = b"x" * (guard.CARD_BYTES + 1)
    with pytest.raises(XcitHubError, match="announces 1048577 bytes"):
        download(f"{server.storage_url}/card.md", io.BytesIO(), "a card", limit=guard.CARD_BYTES, trusted=named)
    for place in ("http://127.0.0.1:9/x", "https://10.0.0.1/x", "file:///etc/passwd", "http://example.org/"):
        server.faults = [Fault("GET /card.md", "status", 302, headers={"Location": place})]
        with pytest.raises(XcitHubError):
            download(f"{server.storage_url}/card.md", io.BytesIO(), "a card", trusted=named)
