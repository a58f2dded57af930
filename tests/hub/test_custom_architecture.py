"""Widths and depths that are in no table: loaded from files and folders, saved, and refused where a name is needed."""

from __future__ import annotations

import json
from pathlib import Path

import mindspore
import numpy as np
import pytest

import xcit_hub
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.errors import HubError, WeightsError
from xcit_hub.models import create_model
from xcit_hub.parameters import parameter_shapes
from xcit_hub.parity import random_images, random_weights
from xcit_hub.variants import Architecture

# tokens_norm is what tensors cannot tell, and would be guessed True at this width.
OURS = Architecture("mine", 16, embed_dim=64, depth=2, num_heads=4, eta=1.0, tokens_norm=False, image_size=96)


@pytest.fixture(scope="module")
def arrays():
    return random_weights(parameter_shapes(OURS, num_classes=5), seed=1)


@pytest.fixture
def custom(tmp_path, arrays) -> Path:
    path = tmp_path / "custom.ckpt"
    name = "xcit_custom_64x2_h4_p16_224"
    checkpoint.write(path, arrays, {"xcit_hub.architecture": name, "xcit_hub.dialect": "paper"})
    return path


def logits(network):
    return network(mindspore.Tensor(random_images(1, 3, 64, 64))).asnumpy()


def test_a_custom_file_loads_and_says_what_it_assumed(custom, arrays):
    network = xcit_hub.load(str(custom))
    assert all(np.array_equal(value.asnumpy(), arrays[name]) for name, value in network.parameters_dict().items())
    assert network.config.shape.embed_dim == 64
    assert (network.config.num_classes, network.config.preprocessing.image_size) == (5, 224)
    assert any("Assumed for it" in note and "tokens_norm" in note for note in network.config.provenance.notes)
    assert logits(network).shape == (1, 5)
    assert xcit_hub.info(str(custom)).config is None


@pytest.mark.parametrize("family", ["timm", "facebook", "xcit-hub"])
def test_a_folder_that_the_converter_wrote_loads(custom, family, tmp_path):
    folder = tmp_path / "converted"
    folder.mkdir()
    rewrite(custom, folder / "model.safetensors", to=family)
    assert (folder / "config.json").exists()
    assert xcit_hub.info(str(folder)).config is None
    assert np.array_equal(logits(xcit_hub.load(str(folder))), logits(xcit_hub.load(str(custom))))


def test_a_converted_folder_of_either_dialect_says_its_own(nano_mindcv, tmp_path):
    (tmp_path / "converted").mkdir()
    rewrite(nano_mindcv, tmp_path / "converted" / "model.ckpt")
    network = xcit_hub.load(str(tmp_path / "converted"))
    assert (network.config.dialect, network.config.preprocessing.crop_pct) == ("mindcv", 0.875)


@pytest.mark.parametrize("converted", ["model.safetensors", "pytorch_model.pth"])
def test_a_converters_configuration_speaks_of_no_other_file_than_its_own(nano_ckpt, nano_mindcv, tmp_path, converted):
    folder = tmp_path / "converted"
    folder.mkdir()
    rewrite(nano_ckpt, folder / converted)
    with pytest.raises(HubError, match="by a conversion of another file"):
        (folder / "model.ckpt").write_bytes(nano_mindcv.read_bytes())
        (folder / "model.safetensors").unlink(missing_ok=True)
        xcit_hub.load(str(folder))


@pytest.mark.parametrize("digest", [KeyError, None, 5, "", "0" * 16, "A" * 64, "a" * 100_000])
def test_a_converters_configuration_that_does_not_say_its_file_is_refused(nano_mindcv, tmp_path, digest):
    folder = tmp_path / "converted"
    folder.mkdir()
    rewrite(nano_mindcv, folder / "model.ckpt")
    config = json.loads((folder / "config.json").read_text())
    config["xcit_hub"]["sha256"] = digest
    if digest is KeyError:
        del config["xcit_hub"]["sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(HubError, match=r"xcit_hub\.sha256 is .{1,70}, and no SHA-256"):
        xcit_hub.load(str(folder))


def test_a_saved_custom_network_comes_back_with_what_tensors_cannot_tell(arrays, tmp_path):
    from xcit_hub.hub.config import of_architecture

    network = xcit_hub.XCiT.of_config(of_architecture(OURS, "paper", num_classes=5), arrays)
    network.save_pretrained(tmp_path / "saved")
    again = xcit_hub.load(str(tmp_path / "saved"))
    assert again.config.shape == OURS
    assert again.config.provenance.notes == ()
    assert np.allclose(logits(again), logits(network), rtol=0, atol=1e-5)
    native = create_model(OURS, num_classes=5, init=False)
    native.set_train(False)
    xcit_hub.load_weights(native, str(tmp_path / "saved"))
    # The network beside it is computed by compiled code where there is some.
    assert np.allclose(logits(native), logits(network), rtol=0, atol=1e-5)
    assert xcit_hub.info(str(tmp_path / "saved")).config.shape == OURS


def test_what_was_found_in_the_file_of_a_custom_network_is_said(arrays, tmp_path):
    from safetensors.numpy import load_file, save_file

    from xcit_hub.hub.config import of_architecture

    xcit_hub.XCiT.of_config(of_architecture(OURS, "paper", num_classes=5), arrays).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({**load_file(file), "global_step": np.zeros(1, np.float32)}, file, {"format": "pt"})
    (tmp_path / "xcit_hub.json").unlink()  # it has the file's digest
    notes = xcit_hub.load(tmp_path).config.provenance.notes
    assert "Dropped 1 tensors of optimizer or training state." in notes
    assert not [note for note in notes if "No known architecture" in note]


def test_timm_opens_a_custom_network_by_its_nearest_architecture_and_the_arguments_that_differ(arrays, tmp_path):
    timm = pytest.importorskip("timm")
    from xcit_hub.hub.config import of_architecture
    from xcit_hub.parity import failed_checks

    network = xcit_hub.XCiT.of_config(of_architecture(OURS, "paper", num_classes=5), arrays)
    network.save_pretrained(tmp_path / "saved")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
    images = random_images(2, 3, 64, 64)
    assert not failed_checks(network(mindspore.Tensor(images)).asnumpy(), theirs, images)
    (tmp_path / "saved" / "xcit_hub.json").unlink()  # timm's description is enough for us, too
    again = xcit_hub.load(str(tmp_path / "saved"))
    assert not failed_checks(again(mindspore.Tensor(images)).asnumpy(), theirs, images)


@pytest.mark.parametrize(
    "change",
    [{"depth": 10**9}, {"num_heads": 3}, {"patch_size": 4}, {"embed_dim": -64}, {"tokens_norm": 1}, {"depth": "2"}],
)
def test_dimensions_that_the_weights_have_not_are_refused_before_anything_is_built(arrays, tmp_path, change):
    from xcit_hub.hub.config import of_architecture

    network = xcit_hub.XCiT.of_config(of_architecture(OURS, "paper", num_classes=5), arrays)
    network.save_pretrained(tmp_path)
    record = json.loads((tmp_path / "xcit_hub.json").read_text())
    record["custom"] |= change
    (tmp_path / "xcit_hub.json").write_text(json.dumps(record))
    with pytest.raises(HubError, match=r"cannot be used|another architecture"):
        xcit_hub.load(str(tmp_path))


def test_a_hub_entry_needs_a_name_of_the_table(custom, tmp_path):
    with pytest.raises(WeightsError, match="no architecture with a name"):
        xcit_hub.publish(custom, "org/custom", to=tmp_path / "hub", parity=False)
    assert not (tmp_path / "hub").exists()
