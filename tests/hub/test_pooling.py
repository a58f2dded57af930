"""What the classifier reads goes with the weights, wherever their file goes without its folder."""

from __future__ import annotations

from pathlib import Path

import mindspore
import numpy as np
import pytest
from hub_fixtures import NANO

import xcit_hub
from xcit_hub.checkpoints import checkpoint, strings
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.checkpoints.weights import load as read
from xcit_hub.errors import HubError, WeightsError
from xcit_hub.models import load_weights
from xcit_hub.parity import random_images
from xcit_hub.parity.named import verify


def logits(network) -> np.ndarray:
    return network.set_train(False)(mindspore.Tensor(random_images(2, 3, 32, 32))).asnumpy()


@pytest.fixture
def save(nano_arrays, tmp_path):
    def write(pool: str, **options) -> tuple[object, Path]:
        network = xcit_hub.create_model(NANO, num_classes=10, dialect="paper", global_pool=pool, init=False, **options)
        load_weights(network, nano_arrays)
        network.save_pretrained(tmp_path / "saved")
        return network, tmp_path / "saved" / "model.safetensors"

    return write


@pytest.mark.parametrize("pool", ["avg", ""])
def test_a_weights_file_alone_is_the_network_that_was_saved(save, tmp_path: Path, pool: str):
    network, file = save(pool)
    (tmp_path / "converted").mkdir()
    files = [file, *(tmp_path / "converted" / name for name in ("a.ckpt", "b.pth", "model.safetensors"))]
    for target in files[1:]:
        rewrite(file, target, to="timm" if target.suffix != ".ckpt" else None)
    for name in (*files, tmp_path / "saved"):
        loaded = xcit_hub.load(str(name))
        assert loaded.config.global_pool == pool, name
        np.testing.assert_array_equal(logits(loaded), logits(network), err_msg=str(name))
    # The folder is read by the configuration that the converter wrote beside the file.
    (tmp_path / "converted" / "a.ckpt").unlink()
    (tmp_path / "converted" / "b.pth").unlink()
    assert xcit_hub.load(str(tmp_path / "converted")).config.global_pool == pool


def test_the_file_of_a_network_that_reads_the_class_token_is_silent_of_it(save):
    _, file = save("token")
    with checkpoint.read(file) as stored:
        assert strings.GLOBAL_POOL not in stored.metadata
    assert xcit_hub.load(str(file)).config.global_pool == "token"


def test_a_pooling_that_no_network_has_is_refused_by_name(nano_arrays, tmp_path: Path):
    file = tmp_path / "x.ckpt"
    checkpoint.write(file, nano_arrays, {"xcit_hub.dialect": "paper", strings.GLOBAL_POOL: "max"})
    for use in (
        lambda: xcit_hub.load(str(file)),
        lambda: rewrite(file, tmp_path / "y.safetensors"),
        lambda: read(file),
    ):
        with pytest.raises(WeightsError, match=r"xcit_hub\.global_pool of the file is 'max'") as caught:
            use()
        assert caught.value.where == str(file) and caught.value.fix
    assert not (tmp_path / "y.safetensors").exists()


def test_a_trainers_checkpoint_is_loaded_with_its_pooling_and_what_is_not_used_is_warned_of(save, tmp_path: Path):
    torch = pytest.importorskip("torch")
    network, file = save("avg")
    rewrite(file, tmp_path / "x.pth", to="timm")
    args = {"gp": "avg", "mean": [0.5, 0.5, 0.5]}
    torch.save({"state_dict": torch.load(tmp_path / "x.pth")["model"], "args": args}, tmp_path / "last.pth")
    with pytest.warns(UserWarning, match=r"args\.mean = \[0\.5, 0\.5, 0\.5\], which is not used"):
        loaded = xcit_hub.load(str(tmp_path / "last.pth"))
    assert loaded.config.global_pool == "avg"
    np.testing.assert_array_equal(logits(loaded), logits(network))


def test_the_proof_and_the_entry_are_of_the_pooling_that_the_file_says(save, tmp_path: Path):
    pytest.importorskip("timm")
    network, file = save("avg")
    done = xcit_hub.publish(file, "org/avg", to=tmp_path / "hub")
    published = xcit_hub.load("org/avg", hub=str(tmp_path / "hub"))
    assert published.config.global_pool == "avg"
    np.testing.assert_array_equal(logits(published), logits(network))
    # The proof's logits are those of this network: the class token's have another size.
    proven = next(check["scale"] for check in done.parity["checks"] if check["what"] == "logits")
    side = random_images(2, 3, *done.parity["image_size"])
    own = network(mindspore.Tensor(side)).asnumpy()
    assert proven == pytest.approx(np.sqrt(np.mean(np.square(own, dtype=np.float64))), rel=1e-4)
    named = verify(str(file), image_size=32)
    assert named.passed and named.logits.scale == pytest.approx(np.sqrt(np.mean(logits(network) ** 2)), rel=1e-4)


def test_a_configuration_whose_two_poolings_differ_is_refused(save, tmp_path: Path):
    _, file = save("avg")
    folder = tmp_path / "converted"
    folder.mkdir()
    rewrite(file, folder / "model.safetensors", to="timm")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"avg"', '"token"', 1))
    with pytest.raises(HubError, match="model_args does not say the global_pool"):
        xcit_hub.load(str(folder))
    (folder / "config.json").write_text(text.replace('"avg"', '"max"'))
    with pytest.raises(HubError, match="global_pool: 'max' is not one of"):
        xcit_hub.load(str(folder))
