"""Modelers, GitCode and ModelScope through their real clients, against loopback hubs that speak their protocols."""

from __future__ import annotations

import numpy as np
import pytest
from site_server import OTHER_TOKEN, TOKEN, Repository

import xcit_hub
from xcit_hub.errors import HubError, InputError, XcitHubError
from xcit_hub.hub import cache
from xcit_hub.hub.locate import info, list_hub, locate

SITES = ("modelers", "gitcode", "modelscope")
NAME = "someone/nano"
pytestmark = pytest.mark.usefixtures("sites")


@pytest.fixture(params=SITES)
def site(request) -> str:
    return request.param


@pytest.fixture
def publish(nano_ckpt):
    def run(to, name="someone/nano", **options):
        return xcit_hub.publish(nano_ckpt, name, to=to, parity=False, **options)

    return run


def weights_of(network) -> dict[str, np.ndarray]:
    return {name: value.asnumpy() for name, value in network.parameters_and_names()}


def test_what_is_published_in_one_commit_loads_back_bit_for_bit(sites, site, publish, nano_arrays):
    done = publish(site)
    assert done.changed
    commits = sites.sites[site][NAME].commits.values()
    assert [commit.title for commit in commits] == ["initial commit", "Publish nano with xcit-hub"]
    network = xcit_hub.load(f"{site}://{NAME}")
    found = weights_of(network)
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: nano_arrays[name].tobytes() for name in found
    }
    assert network.config.provenance.verified == "full"
    assert network.config.provenance.revision == done.revision
    assert not publish(site).changed
    assert len(commits) == 2
