"""Files that the libraries of the families wrote (fixtures/write_with_*.py): read, and computed as they do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_networks import same

import xcit_hub
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.beside import Reason
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.checkpoints.weights import load
from xcit_hub.errors import CheckpointError

FIXTURES = Path(__file__).with_name("fixtures")
FAMILIES = {
    "mmpretrain.pth": "mmpretrain",
    "robustbench.pth": "timm",
    "lightning.ckpt": "timm",
    "old_timm.pth.tar": "timm",
    "transformers.safetensors": "timm",
    "paddlevit.safetensors": "paddlevit",
}


def facts(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name.partition('.')[0]}.json").read_text())


def image(size: int) -> np.ndarray:
    """The script's two images."""
    positions = np.arange(2 * 3 * size * size, dtype=np.float64)
    values = 0.5 + 0.5 * np.sin(positions * 0.37 + np.cos(positions * 0.011) * 3)
    return values.astype(np.float32).reshape(2, 3, size, size)


def assert_computes(network: Any, pixels: np.ndarray, expected: list[list[float]]) -> None:
    import mindspore

    logits = network(mindspore.Tensor(pixels)).asnumpy()
    wanted = np.array(expected)
    assert np.abs(logits - wanted).max() < 1e-5 * wanted.std()


def test_mmpretrains_classifier_is_read_with_the_average_that_mmengine_exchanges(tmp_path: Path):
    """mmengine puts the averaged weights under state_dict and the plain ones under ema_state_dict."""
    told, pixels = facts("mmpretrain.pth"), image(64)
    network = xcit_hub.load(FIXTURES / "mmpretrain.pth")
    assert_computes(network, pixels, told["logits"])
    rewrite(FIXTURES / "mmpretrain.pth", tmp_path / "plain.ckpt", select="ema_state_dict")
    assert_computes(xcit_hub.load(tmp_path / "plain.ckpt"), pixels, told["plain_logits"])
    for ema in (False, True):
        weights = load(FIXTURES / "mmpretrain.pth", ema=ema)
        assert any("took the averaged ones" in note for note in weights.notes)
        left = {entry.name: entry.reason for entry in weights.dropped}
        assert left["ema_state_dict.module.head.fc.weight"] is Reason.PLAIN
        assert set(left.values()) == {Reason.PLAIN, Reason.OPTIMIZER, Reason.COUNTER, Reason.BATCH_COUNTER}


def test_robustbenchs_normalisation_and_strides_give_its_own_logits():
    import mindspore

    told, weights = facts("robustbench.pth"), load(FIXTURES / "robustbench.pth")
    assert weights.normalization is not None
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in weights.normalization)
    # That the stem keeps the resolution twice, tensors do not show.
    shape = {"embed_dim": 16, "depth": 2, "num_heads": 2, "strides": (1, 1, 2, 2), "patch_size": 4}
    network = xcit_hub.create_model("xcit_small_12_p16_224", num_classes=told["classes"], **shape)
    for name, parameter in network.parameters_and_names():
        parameter.set_data(mindspore.Tensor(weights.tensors[name].numpy().copy()))
    network.set_train(False)
    assert_computes(network, (image(32) - mean) / std, told["logits"])


def test_lightnings_and_timms_first_files_give_their_logits():
    for name in ("lightning.ckpt", "old_timm.pth.tar"):
        assert_computes(xcit_hub.load(FIXTURES / name), image(64), facts(name)["logits"])


def test_paddlevits_network_gives_its_logits_and_paddles_own_file_is_refused_by_its_name():
    assert_computes(xcit_hub.load(FIXTURES / "paddlevit.safetensors"), image(64), facts("paddlevit")["logits"])
    with pytest.raises(CheckpointError, match="not a checkpoint: it is a PaddlePaddle") as caught:
        checkpoint.read(FIXTURES / "paddlevit.pdparams")
    assert "as .safetensors with Paddle" in caught.value.fix


def test_what_transformers_saves_is_read_with_its_configuration(tmp_path: Path):
    shutil.copy(FIXTURES / "transformers.safetensors", tmp_path / "model.safetensors")
    shutil.copy(FIXTURES / "transformers.config.json", tmp_path / "config.json")
    network = xcit_hub.load(tmp_path)
    assert network.config.custom is not None and not network.config.custom.tokens_norm
    assert_computes(network, image(64), facts("transformers.safetensors")["logits"])


@pytest.mark.parametrize(("name", "family"), FAMILIES.items())
def test_every_tensor_of_a_librarys_file_is_taken_or_dropped_with_a_reason(name: str, family: str):
    opened = checkpoint.read(FIXTURES / name)
    weights = load(FIXTURES / name)
    assert weights.family == family
    taken = [source for sources in weights.sources.values() for source in sources]
    dropped = [entry.name for entry in weights.dropped]
    assert sorted([*taken, *dropped]) == sorted(opened.tensors)
    assert Reason.OUTSIDE not in {entry.reason for entry in weights.dropped}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_librarys_file_goes_to_every_family_and_comes_back(tmp_path: Path, name: str):
    weights = load(FIXTURES / name)
    for index, family in enumerate(("timm", "facebook", "xcit-hub", "mmpretrain", "paddlevit")):
        there = tmp_path / f"{index}.pth"
        rewrite(FIXTURES / name, there, to=family)
        back = load(there)
        assert back.family == family
        assert same(dict(back.tensors), dict(weights.tensors))


def test_mmpretrains_files_are_written_under_the_names_of_its_own(tmp_path: Path):
    """The names that mmpretrain 1.2 loads strictly: those of its own file, counters among them."""
    import torch

    rewrite(FIXTURES / "mmpretrain.pth", tmp_path / "x.pth", to="mmpretrain")
    written = torch.load(tmp_path / "x.pth", weights_only=True)
    theirs = {
        name.removeprefix("state_dict."): tensor
        for name, tensor in checkpoint.read(FIXTURES / "mmpretrain.pth").tensors.items()
        if name.startswith("state_dict.")
    }
    assert {name: tuple(tensor.shape) for name, tensor in written["state_dict"].items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }
    assert all(
        (written["state_dict"][name].numpy() == tensor.numpy()).all()
        for name, tensor in theirs.items()
        if not name.endswith("num_batches_tracked")
    )
