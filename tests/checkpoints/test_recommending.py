"""Whatever is wrong in a checkpoint, the first advice is to look; of what is not one all is said at once."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
from safetensors.numpy import save_file

from xcit_hub.checkpoints import weights
from xcit_hub.checkpoints.inspection import inspect
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.errors import XcitHubError
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import architecture

NANO = "xcit_nano_12_p16_224"


def _nano(path, changed):
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.uniform(0.5, 1.5, shape).astype("f4") for name, shape in parameter_shapes(architecture(NANO)).items()
    }
    changed(arrays)
    save_file(arrays, path, metadata={"xcit_hub.dialect": "paper"})


MADE = {
    "html.ckpt": lambda path: path.write_text("<!doctype html><html>"),
    "pointer.safetensors": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "empty.pth": lambda path: path.write_bytes(b""),
    "noise.bin": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "cut.safetensors": lambda path: path.write_bytes((1 << 20).to_bytes(8, "little") + b'{"a": '),
    "other network.safetensors": lambda path: save_file({"conv1.weight": np.zeros((3, 3), "f4")}, path),
    "one short.safetensors": lambda path: _nano(path, lambda arrays: arrays.pop("norm.gamma")),
    "not finite.safetensors": lambda path: _nano(path, lambda arrays: arrays["norm.gamma"].fill(np.nan)),
    "unknown dialect.safetensors": lambda path: save_file(
        {name: np.ones(shape, "f4") for name, shape in parameter_shapes(architecture(NANO)).items()}, path
    ),
}


NOT_CHECKPOINTS = ["html.ckpt", "pointer.safetensors", "empty.pth", "noise.bin", "cut.safetensors"]


@pytest.mark.parametrize("name", [name for name in MADE if name not in NOT_CHECKPOINTS])
def test_whatever_is_wrong_in_a_checkpoint_inspect_is_recommended_first(name, tmp_path):
    path = tmp_path / name
    MADE[name](path)
    recommended = f"See what is in the file: xcit-hub inspect {shlex.quote(str(path))}"
    for read in (lambda: weights.load(path), lambda: rewrite(path, tmp_path / "out.ckpt")):
        with pytest.raises(XcitHubError) as caught:
            read()
        assert caught.value.fix.startswith(recommended), caught.value
        assert caught.value.fix.count("xcit-hub inspect") == 1
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NOT_CHECKPOINTS)
def test_of_what_is_not_a_checkpoint_inspect_is_not_recommended_which_says_the_same(name, tmp_path):
    path = tmp_path / name
    MADE[name](path)
    said = set()
    for read in (inspect, weights.load, lambda file: rewrite(file, tmp_path / "out.ckpt")):
        with pytest.raises(XcitHubError) as caught:
            read(path)
        assert name in caught.value.what
        assert "xcit-hub inspect" not in str(caught.value)
        said.add(str(caught.value))
    assert len(said) == 1
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_what_is_not_there_cannot_be_inspected(tmp_path):
    for path in (tmp_path / "nothing.ckpt", tmp_path):
        with pytest.raises(XcitHubError) as caught:
            weights.load(path)
        assert "xcit-hub inspect" not in str(caught.value)
