"""One server for all tests of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from xcit_hub import parity
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.tensor import StoredTensor
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import architecture

NAME = "xcit_nano_12_p16_224"


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "nano.safetensors"
    arrays = parity.random_weights(parameter_shapes(architecture(NAME), num_classes=4))
    marks = {"xcit_hub.architecture": NAME, "xcit_hub.dialect": "paper", "xcit_hub.family": "xcit-hub"}
    checkpoint.write(path, {name: StoredTensor.of(array) for name, array in arrays.items()}, marks)
    return path


@pytest.fixture(scope="session")
def address(source: Path) -> Iterator[str]:
    """The address of `xcit-hub serve` in a process of its own."""
    command = [sys.executable, "-c", "from xcit_hub.cli import main; main()", "serve", str(source), "--port", "0"]
    environment = {**os.environ, "WEB_CONCURRENCY": "2"}  # it stands in many containers, and must not matter
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    lines: list[str] = []
    found = threading.Event()

    def read() -> None:
        for line in process.stderr:
            lines.append(line)
            if "running on" in line:
                found.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert found.wait(600), "".join(lines)
        yield re.search(r"http://[\d.:]+", next(line for line in lines if "running on" in line))[0]
    finally:
        process.terminate()
        process.wait(600)
