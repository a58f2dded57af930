"""The example of a third party's store, found through its entry point as an installed package's is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import xcit_hub
from xcit_hub.errors import HubError, InputError
from xcit_hub.hub import cache

EXAMPLE = Path(__file__).parents[2] / "examples" / "https_store"


@pytest.fixture
def installed(tmp_path, monkeypatch) -> None:
    """What pip leaves behind: the module and its metadata on the path."""
    site = tmp_path / "site"
    info = site / "xcit_https_store-0.1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(EXAMPLE / "xcit_https_store.py", site)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: xcit-https-store\nVersion: 0.1.0\n")
    declared = (EXAMPLE / "pyproject.toml").read_text().partition('[project.entry-points."xcit_hub.stores"]')[2]
    line = declared.partition("[tool")[0].strip().replace('"', "")
    (info / "entry_points.txt").write_text(f"[xcit_hub.stores]\n{line}\n")
    monkeypatch.syspath_prepend(str(site))


@pytest.fixture
def site(server, installed, published_nano, tmp_path) -> str:
    from xcit_https_store import write_manifest

    folder = tmp_path / "site-files"
    shutil.copytree(published_nano[0] / "org" / "nano", folder, symlinks=False)
    write_manifest(folder)
    for path in folder.iterdir():
        server.pages[f"/models/org/xcit-nano/{path.name}"] = path.read_bytes()
    return f"web+{server.storage_url}/models"


def test_models_load_from_a_plain_web_server_into_the_shared_cache(server, site, nano_arrays, tmp_path):
    network = xcit_hub.load(f"{site}/org/xcit-nano")
    assert np.array_equal(network.head.weight.asnumpy(), nano_arrays["head.weight"])
    assert network.config.provenance.verified == "full"
    assert xcit_hub.info("org/xcit-nano", hub=site).config.num_classes == 10
    assert [entry.name for entry in cache.entries(tmp_path / "cache")] == ["org/xcit-nano"]
    assert cache.verify(tmp_path / "cache")[1] == []
    server.storage_requests.clear()
    xcit_hub.load(f"{site}/org/xcit-nano")
    assert len(server.storage_requests) == 1
    server.storage_requests.clear()
    xcit_hub.load(f"{site}/org/xcit-nano", offline=True)
    assert not server.storage_requests


def test_other_bytes_than_the_manifests_are_refused(server, site):
    server.pages["/models/org/xcit-nano/model.safetensors"] = b"other"
    with pytest.raises(HubError, match="not the ones that were published"):
        xcit_hub.load(f"{site}/org/xcit-nano")


@pytest.mark.parametrize("path", ["../x", "/x", "a//b"])
def test_a_manifest_that_leaves_its_folder_is_refused(server, site, path):
    server.pages["/models/org/xcit-nano/manifest.json"] = json.dumps({"files": {path: "0" * 64}}).encode()
    with pytest.raises(HubError, match="not usable"):
        xcit_hub.load(f"{site}/org/xcit-nano")


def test_publishing_there_says_how_it_is_done_instead(site, nano_ckpt):
    with pytest.raises(InputError, match="no uploads"):
        xcit_hub.publish(nano_ckpt, "org/nano", to=site, parity=False)


def test_a_scheme_that_nobody_installed_says_which_are():
    with pytest.raises(InputError, match="no store for addresses that begin carrier"):
        xcit_hub.load("carrier+pigeon://loft/org/name")
