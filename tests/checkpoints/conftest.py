"""Small whole checkpoints of every family."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_networks import Make, network

from xcit_hub.checkpoints import checkpoint, translate
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.variants import Family


@pytest.fixture
def make() -> Make:
    """Tensors of a network in a family's names: ``make("timm", architecture, kind)``."""

    def made(family: Family = "xcit-hub", *arguments: object, **named: object) -> dict[str, StoredTensor]:
        return translate.from_ours(network(*arguments, **named), family)  # type: ignore[arg-type]

    return made


@pytest.fixture
def paper(tmp_path: Path, make: Make) -> Path:
    path = tmp_path / "paper.safetensors"
    checkpoint.write(path, make("timm"))
    return path


@pytest.fixture
def mindcv(tmp_path: Path, make: Make) -> Path:
    path = tmp_path / "mindcv.ckpt"
    checkpoint.write(path, make("mindcv"), {"xcit_hub.dialect": "mindcv"})
    return path
