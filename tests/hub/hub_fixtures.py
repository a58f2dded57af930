"""A loopback hub, small real weights, and a machine without anybody's login or cache; tests/attacks uses them too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hub_server import TOKEN, HubServer, hub_server
from huggingface_hub import constants

import xcit_hub
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import architecture

if TYPE_CHECKING:
    from xcit_hub.hub.publish import Publication

NANO = "xcit_nano_12_p16_224"


def write_nano(path: Path, arrays: dict[str, np.ndarray], dialect: str) -> Path:
    checkpoint.write(path, arrays, {"xcit_hub.architecture": NANO, "xcit_hub.dialect": dialect})
    return path


def random_nano(seed: int = 3) -> dict[str, np.ndarray]:
    from xcit_hub.parity import random_weights

    return random_weights(parameter_shapes(architecture(NANO), num_classes=10), seed=seed)


def timm_repository(folder: Path, source: Path) -> dict[str, bytes]:
    """What a timm user's repository holds: config.json and model.safetensors."""
    from xcit_hub.hub import timm_config
    from xcit_hub.hub.config import of_architecture

    rewrite(source, folder / "model.safetensors", to="timm")
    config = timm_config.write(of_architecture(NANO, "paper", num_classes=10))
    return {"config.json": config.encode(), "model.safetensors": (folder / "model.safetensors").read_bytes()}


def use(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """Make a hub empty and well, and this process's own, with a writer's token in the environment."""
    server.forget()
    server.repositories.clear()
    server.objects.clear()
    server.parts.clear()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The token is for the endpoint that the client is configured for, and for no other.
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return server


def forget_the_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No login, no cache, no hub of this machine's user; and short waits between tries."""
    from xcit_hub.hub import transport

    monkeypatch.setenv("XCIT_HUB_HOME", str(folder / "machine-hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(transport, "FIRST_WAIT", 0.01)


@pytest.fixture(scope="session")
def nano_arrays() -> dict[str, np.ndarray]:
    return random_nano()


@pytest.fixture(scope="session")
def nano_ckpt(tmp_path_factory, nano_arrays) -> Path:
    """A nano of the paper's dialect with 10 classes, as MindSpore writes it, marked with its dialect."""
    return write_nano(tmp_path_factory.mktemp("weights") / "nano.ckpt", nano_arrays, "paper")


@pytest.fixture(scope="session")
def nano_mindcv(tmp_path_factory, nano_arrays) -> Path:
    """The same numbers as MindCV would have trained them."""
    return write_nano(tmp_path_factory.mktemp("weights") / "nano_mindcv.ckpt", nano_arrays, "mindcv")


@pytest.fixture(scope="session")
def nano_timm(tmp_path_factory, nano_ckpt) -> dict[str, bytes]:
    return timm_repository(tmp_path_factory.mktemp("timm"), nano_ckpt)


@pytest.fixture(scope="session")
def published_nano(tmp_path_factory, nano_ckpt) -> tuple[Path, Publication]:
    """A folder hub with one model, org/nano, and what was said when it was published: to be copied, not changed."""
    hub = tmp_path_factory.mktemp("published") / "hub"
    return hub, xcit_hub.publish(nano_ckpt, "org/nano", to=hub, parity=False)


@pytest.fixture(scope="session")
def shared_server() -> Iterator[HubServer]:
    with hub_server(part_size=5 << 20) as server:
        yield server


@pytest.fixture
def server(shared_server, monkeypatch) -> HubServer:
    return use(shared_server, monkeypatch)


@pytest.fixture(autouse=True)
def nobodys_machine(tmp_path, monkeypatch) -> None:
    forget_the_user(tmp_path, monkeypatch)
