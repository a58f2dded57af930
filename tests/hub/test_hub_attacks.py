"""Where a token goes, and where no answer and no card may lead; the hostile hub itself is tried by tests/attacks."""

from __future__ import annotations

import pytest
from hub_server import TOKEN, Fault

from xcit_hub.errors import XcitHubError
from xcit_hub.hub import guard
from xcit_hub.hub.locate import locate

NAME = "someone/nano"


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

    from xcit_hub.hub.spelling import parsed
    from xcit_hub.hub.transport import download

    named = frozenset([guard.netloc(parsed(server.storage_url))])
    server.pages["/card.md"] = b"x" * (guard.CARD_BYTES + 1)
    with pytest.raises(XcitHubError, match="announces 1048577 bytes"):
        download(f"{server.storage_url}/card.md", io.BytesIO(), "a card", limit=guard.CARD_BYTES, trusted=named)
    for place in ("http://127.0.0.1:9/x", "https://10.0.0.1/x", "file:///etc/passwd", "http://example.org/"):
        server.faults = [Fault("GET /card.md", "status", 302, headers={"Location": place})]
        with pytest.raises(XcitHubError):
            download(f"{server.storage_url}/card.md", io.BytesIO(), "a card", trusted=named)


@pytest.mark.parametrize(
    "host",
    [
        "LOCALHOST", "localhost.", "127.1", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "[::]", "[0:0:0:0:0:0:0:1]",
        "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[2002:0a00:0001::1]", "[fd00::1]", "[ff02::1]",
        "[fec0::1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]", "224.0.0.1", "240.0.0.1", "255.255.255.255", "100.64.0.1",
        "192.0.2.1", "198.18.0.1", "a.localhost", "metadata.google.internal", "router.home.arpa", "127。0。0。1",
        "１２７.0.0.1", "[fe80::1%25eth0]",
    ],
)  # fmt: skip
def test_no_spelling_of_a_private_address_is_a_public_one(host):
    import io

    from xcit_hub.hub.transport import download

    with pytest.raises(XcitHubError, match=r"public address|not an address|under NFKC"):
        download(f"https://{host}/x.ckpt", io.BytesIO(), "a card")


def test_public_addresses_are_public():
    for address in ("8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"):
        assert guard._is_public(address), address


@pytest.mark.parametrize(
    ("home", "place", "is_allowed"),
    [
        ("https://8.8.8.8", "https://8.8.8.8/x", True),
        ("https://8.8.8.8", "https://1.1.1.1/x", True),
        ("https://8.8.8.8", "http://8.8.8.8/x", False),
        ("https://8.8.8.8", "http://1.1.1.1/x", False),
        ("https://8.8.8.8", "https://127.0.0.1/x", False),
        ("https://8.8.8.8", "https://10.0.0.1/x", False),
        ("https://8.8.8.8", "https://169.254.169.254/latest", False),
        ("https://8.8.8.8", "https://[64:ff9b::7f00:1]/x", False),
        ("https://8.8.8.8", "https://me:pw@8.8.8.8/x", False),
        ("https://8.8.8.8", "file:///etc/passwd", False),
        ("http://127.0.0.1:80", "http://localhost:9/x", True),
        ("http://127.0.0.1:80", "ftp://localhost:9/x", False),
        ("http://10.0.0.1", "http://10.0.0.2/storage", True),
        ("https://10.0.0.1", "http://10.0.0.2/storage", False),
    ],
)
def test_a_hub_leads_no_further_than_where_it_stands_itself(home, place, is_allowed):
    exchange = guard.Exchange(home, home, home=home)
    if is_allowed:
        guard.check_destination(place, exchange)
    else:
        with pytest.raises(XcitHubError, match=r"leads to") as caught:
            guard.check_destination(place, exchange)
        assert "pw@" not in str(caught.value)


def test_where_a_name_leads_is_asked_again_when_connecting(server, monkeypatch):
    """A name that resolves to a public address when it is asked, and to this machine a moment later."""
    import io

    from xcit_hub.hub.transport import download

    monkeypatch.setattr(guard, "_is_public_host", lambda parts: True)
    server.pages["/x"] = b"internal"
    link = server.storage_url.replace("http://", "https://") + "/x"
    with pytest.raises(XcitHubError, match="not a public address"):
        download(link, io.BytesIO(), "a card")
    assert server.storage_requests == []


def test_xet_is_not_used_for_files(server, nano_timm, tmp_path):
    server.add(NAME, nano_timm)
    named = {"X-Xet-Hash": "a" * 64, "X-Xet-Refresh-Route": f"{server.url}/xet"}
    server.faults = [Fault("HEAD .*safetensors", "names", times=9, headers=named)]
    opened = locate(NAME, hub=server.url, cache_dir=tmp_path / "c").open()
    assert len(opened) == len(nano_timm["model.safetensors"])
    assert not [path for _, path, _ in server.requests if "xet" in path]
    assert any(path.startswith("/get/") for _, path, _ in server.storage_requests)


@pytest.mark.parametrize("revision", ["main\n", "..", "a/../b", "a/..", "/main", "main/", "-x", "a b", "a\x1b[31m", ""])
def test_no_revision_is_a_path_or_has_control_characters(revision, tmp_path):
    from xcit_hub.hub import cache

    with pytest.raises(XcitHubError, match="is not a revision"):
        locate("org/name", revision, hub=tmp_path)
    assert not cache.is_commit("a" * 40 + "\n")


@pytest.mark.parametrize(
    "name", ["org/name\n", "org/../name", "org/na\x1bme", "org/name ", "..", "org//name", "org/.x"]
)
def test_no_models_name_is_a_path_or_has_control_characters(name, tmp_path):
    from xcit_hub.hub import spelling

    assert not spelling.is_name(name)


def test_secrets_of_the_environment_are_in_no_output(server, nano_timm, run_cli, tmp_path):
    import json
    import os

    server.add(NAME, nano_timm)
    environment = {**os.environ, "XCIT_TOKEN_OF_THE_TEST": "hf_othertokenOTHERTOKEN000000"}
    for arguments in (
        ("info", NAME, "--hub", server.url, "--json", "--token-env", "XCIT_TOKEN_OF_THE_TEST"),
        ("info", NAME, "--hub", server.url, "--json"),
        ("info", "org/nothing", "--hub", server.url, "--json"),
        ("list", "--hub", server.url, "--json"),
    ):
        done = run_cli(*arguments, env=environment)
        assert "Traceback" not in done.stderr
        for secret in (TOKEN, "hf_othertoken"):
            assert secret not in done.stdout + done.stderr
        if done.returncode == 0:
            json.loads(done.stdout)
