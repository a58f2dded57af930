"""The network as a ModelHubMixin: its users' three methods do what they expect."""

from __future__ import annotations

import mindspore
import numpy as np
import pytest
from huggingface_hub import ModelHubMixin, constants

import xcit_hub
from xcit_hub import models
from xcit_hub.errors import HubError
from xcit_hub.parity import random_images


@pytest.fixture
def network(nano_ckpt):
    return xcit_hub.load(str(nano_ckpt))


@pytest.fixture
def endpoint(server, monkeypatch):
    """The whole client pointed at the loopback hub, as HF_ENDPOINT does in a fresh process."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return server


def same(one, other) -> bool:
    pairs = zip(one.get_parameters(), other.get_parameters(), strict=True)
    return all(a.name == b.name and np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in pairs)


def test_what_load_returns_is_the_network_and_the_mixin(network):
    assert isinstance(network, models.XCiT)
    assert isinstance(network, ModelHubMixin)
    assert isinstance(network, xcit_hub.XCiT)


def test_saved_folders_come_back(network, tmp_path):
    network.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "README.md", "config.json", "model.safetensors", "xcit_hub.json",
    }  # fmt: skip
    again = xcit_hub.XCiT.from_pretrained(tmp_path / "saved")
    assert same(network, again)
    images = mindspore.Tensor(random_images(1, 3, 64, 64))
    assert np.array_equal(network(images).asnumpy(), again(images).asnumpy())
    assert same(network, xcit_hub.load(str(tmp_path / "saved")))


def test_pushed_networks_come_back_in_one_commit(network, endpoint, tmp_path):
    url = network.push_to_hub("org/pushed", commit_message="first")
    assert "/org/pushed/" in url
    titles = [commit.title for commit in endpoint.repositories["org/pushed"].commits.values()]
    assert titles == ["initial commit", "first"]
    again = xcit_hub.XCiT.from_pretrained("org/pushed", cache_dir=tmp_path / "elsewhere")
    assert same(network, again)
    network.push_to_hub("org/pushed")
    assert len(endpoint.repositories["org/pushed"].commits) == 2


def test_saving_can_push(network, endpoint, tmp_path):
    network.save_pretrained(tmp_path / "nano", push_to_hub=True, repo_id="org/saved")
    assert "model.safetensors" in endpoint.repositories["org/saved"].at("main").files


def test_a_replaced_classifier_is_saved_as_it_is_now(network, tmp_path):
    network.reset_classifier(3)
    network.save_pretrained(tmp_path / "three")
    again = xcit_hub.XCiT.from_pretrained(tmp_path / "three")
    assert again.config.num_classes == 3
    assert same(network, again)


def test_from_pretrained_takes_the_options_of_load(endpoint, network, tmp_path):
    network.push_to_hub("org/nano")
    folder = tmp_path / "c"
    first = xcit_hub.XCiT.from_pretrained("org/nano", cache_dir=folder, num_classes=4)
    assert first.config.num_classes == 4
    endpoint.forget()
    xcit_hub.XCiT.from_pretrained("org/nano", cache_dir=folder, local_files_only=True)
    assert not endpoint.requests
    xcit_hub.XCiT.from_pretrained("org/nano", cache_dir=folder, force_download=True)
    assert endpoint.storage_requests
    with pytest.raises(HubError):
        xcit_hub.XCiT.from_pretrained("org/nano", cache_dir=folder, token=False, revision="nowhere")
