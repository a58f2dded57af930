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
