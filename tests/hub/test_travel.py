"""How images were prepared and what classes are called goes with the weights, from a checkpoint's strings to `load`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import xcit_hub
from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import HubError
from xcit_hub.predict import predict

NANO = "xcit_nano_12_p16_224"
NAMES = [f"digit {index}" for index in range(10)]
SEEN = {
    "input_size": [3, 32, 48],
    "mean": [0.1, 0.2, 0.3],
    "std": [0.3, 0.2, 0.1],
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "squash",
}


@pytest.fixture
def trained(tmp_path, nano_arrays):
    """Write a checkpoint as training does."""

    def write(**strings: str) -> Path:
        path = tmp_path / "trained.ckpt"
        marks = {"xcit_hub.architecture": NANO, "xcit_hub.dialect": "paper", **strings}
        checkpoint.write(path, nano_arrays, marks)
        return path

    return write


@pytest.fixture
def described(trained) -> Path:
    return trained(**{"xcit_hub.preprocessing": json.dumps(SEEN), "xcit_hub.classes": json.dumps(NAMES)})


IMAGE = Image.effect_noise((90, 70), 80).convert("RGB")


def is_as_trained(config) -> bool:
    from timm.data import create_transform

    shape = config.preprocessing
    wanted = create_transform(
        (3, 32, 48), mean=SEEN["mean"], std=SEEN["std"], interpolation="bilinear", crop_pct=1.0, crop_mode="squash"
    )(IMAGE)
    pixels = xcit_hub.preprocess(config)(IMAGE)
    return (
        list(config.labels) == NAMES
        and (shape.size, shape.crop_mode) == ((32, 48), "squash")
        and pixels.shape == (3, 32, 48)
        and float(np.abs(pixels - wanted.numpy()).max()) <= 1e-3
    )


def test_a_bare_file_says_how_it_was_trained(described):
    assert is_as_trained(xcit_hub.load(str(described)).config)


def test_it_survives_publishing_and_timm_reads_it_too(described, tmp_path):
    from timm.data import create_transform, resolve_data_config
    from timm.models._builder import resolve_pretrained_cfg
    from timm.models._hub import load_model_config_from_path

    from xcit_hub.files import sha256_of

    done = xcit_hub.publish(described, "me/nano", to=tmp_path / "hub", parity=False)
    network = xcit_hub.load("me/nano", hub=tmp_path / "hub")
    assert is_as_trained(network.config)
    assert done.config.provenance.sha256 == sha256_of(described)
    assert json.loads((tmp_path / "hub/me/nano/xcit_hub.json").read_text())["provenance"]["sha256"] == sha256_of(
        described
    )
    cfg, name, _ = load_model_config_from_path(tmp_path / "hub" / "me" / "nano")
    assert cfg["label_names"] == NAMES
    data = resolve_data_config({}, pretrained_cfg=resolve_pretrained_cfg(name, cfg).to_dict())
    pixels = xcit_hub.preprocess(network)(IMAGE)
    assert np.abs(pixels - create_transform(**data)(IMAGE).numpy()).max() <= 1e-3
    assert predict(network, IMAGE, top=1)[0].label in NAMES


def test_it_survives_saving(described, tmp_path):
    xcit_hub.load(str(described)).save_pretrained(tmp_path / "saved")
    assert is_as_trained(xcit_hub.load(str(tmp_path / "saved")).config)
    (tmp_path / "saved" / "xcit_hub.json").unlink()  # what timm's own file says is the same
    assert is_as_trained(xcit_hub.load(str(tmp_path / "saved")).config)


def test_given_labels_come_before_the_files_own(described, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(f"other {index}" for index in range(10)))
    done = xcit_hub.publish(
        described, "me/nano", to=tmp_path / "hub", parity=False, labels=tmp_path / "labels.txt", dry_run=True
    )
    assert done.config.labels[3] == "other 3"


@pytest.mark.parametrize(
    "strings",
    [
        {"xcit_hub.classes": json.dumps(NAMES[:9])},
        {"xcit_hub.classes": "digits"},
        {"xcit_hub.classes": json.dumps({"0": "zero"})},
        {"xcit_hub.preprocessing": "{"},
        {"xcit_hub.preprocessing": json.dumps({"mean": [0.5]})},
        {"xcit_hub.preprocessing": json.dumps(SEEN | {"crop_mode": "cubist"})},
        {"xcit_hub.preprocessing": json.dumps(SEEN | {"gamma": 2.2})},
        {"xcit_hub.preprocessing": json.dumps(SEEN | {"input_size": [3, 0, 4]})},
    ],
)
def test_strings_that_say_nothing_sound_are_refused(trained, strings):
    with pytest.raises(HubError, match="cannot be used"):
        xcit_hub.load(str(trained(**strings)))


def test_what_a_run_evaluated_is_what_is_published(trained, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"preprocessing": SEEN, "classes": NAMES, "top1": 50.0}))
    xcit_hub.publish(trained(), "me/nano", to=tmp_path / "hub", parity=False, run=tmp_path / "run.json")
    assert is_as_trained(xcit_hub.load("me/nano", hub=tmp_path / "hub").config)
