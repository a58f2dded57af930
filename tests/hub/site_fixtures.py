"""The hubs with clients of their own, on loopback, for the real clients of this environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from site_server import TOKEN, SiteServer, site_server


@pytest.fixture(scope="session")
def shared_sites(tmp_path_factory) -> Iterator[SiteServer]:
    with site_server(tmp_path_factory.mktemp("authority")) as server:
        yield server


@pytest.fixture
def sites(shared_sites, monkeypatch) -> SiteServer:
    """The hubs, empty and well; every client is led to them, with a writer's token."""
    from xcit_hub.hub.clients import client

    shared_sites.forget_all()
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, shared_sites.proxy)
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(shared_sites.authority))
    for name in ("MODELERS_TOKEN", "GITCODE_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.setenv(name, TOKEN)
    for name in ("OPENMIND_HUB_ENDPOINT", "MODELSCOPE_ENDPOINT", "GITCODE_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(client, "SOCKET_SECONDS", 10)
    return shared_sites
