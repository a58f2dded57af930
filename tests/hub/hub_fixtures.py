"""A loopback hub, small real weights, and a machine without anybody's login or cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import TOKEN, HubServer, hub_server
from huggingface_hub import constants

from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import architecture

NANO = "xcit_nano_12_p16_224"


@pytest.fixture(scope="session")
def nano_arrays() -> dict[str, np.ndarray]:
    from xcit_hub.parity import random_weights

    return random_weights(parameter_shapes(architecture(NANO), num_classes=10), seed=3)


@pytest.fixture(scope="session")
def nano_ckpt(tmp_path_factory, nano_arrays) -> Path:
    """A nano of the paper's dialect with 10 classes, as MindSpore writes it, marked with its dialect."""
    path = tmp_path_factory.mktemp("weights") / "nano.ckpt"
    checkpoint.write(path, nano_arrays, {"xcit_hub.architecture": NANO, "xcit_hub.dialect": "paper"})
    return path


@pytest.fixture(scope="session")
def nano_mindcv(tmp_path_factory, nano_arrays) -> Path:
    """The same numbers as MindCV would have trained them."""
    path = tmp_path_factory.mktemp("weights") / "nano_mindcv.ckpt"
    checkpoint.write(path, nano_arrays, {"xcit_hub.architecture": NANO, "xcit_hub.dialect": "mindcv"})
    return path


@pytest.fixture(scope="session")
def nano_timm(tmp_path_factory, nano_ckpt) -> dict[str, bytes]:
    """What a timm user's repository holds: config.json and model.safetensors."""
    from xcit_hub.hub import timm_config
    from xcit_hub.hub.config import of_architecture

    folder = tmp_path_factory.mktemp("timm")
    rewrite(nano_ckpt, folder / "model.safetensors", to="timm")
    config = timm_config.write(of_architecture(NANO, "paper", num_classes=10))
    return {"config.json": config.encode(), "model.safetensors": (folder / "model.safetensors").read_bytes()}


@pytest.fixture(scope="session")
def shared_server() -> Iterator[HubServer]:
    with hub_server(part_size=5 << 20) as server:
        yield server


@pytest.fixture
def server(shared_server, monkeypatch) -> HubServer:
    """The hub, empty and well, with a writer's token in the environment."""
    shared_server.forget()
    shared_server.repositories.clear()
    shared_server.objects.clear()
    shared_server.parts.clear()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The token is for the endpoint that the client is configured for, and for no other.
    monkeypatch.setenv("HF_ENDPOINT", shared_server.url)
    monkeypatch.setattr(constants, "ENDPOINT", shared_server.url)
    template = shared_server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return shared_server


@pytest.fixture(autouse=True)
def nobodys_machine(tmp_path, monkeypatch) -> None:
    """No login, no cache, no hub of this machine's user; and little patience."""
    from xcit_hub.hub import transport

    monkeypatch.setenv("XCIT_HUB_HOME", str(tmp_path / "machine-hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(transport, "FIRST_WAIT", 0.01)
