"""A checkpoint on this machine, loaded under whatever name it has; and what cannot be loaded, said in one sentence."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mindspore import ops

import xcit_hub
from xcit_hub.checkpoints import checkpoint, families, translate
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.checkpoints.weights import load as read
from xcit_hub.errors import WeightsError
from xcit_hub.hub.config import imagenet_labels
from xcit_hub.models import create_model
from xcit_hub.variants import Preprocessing, architecture

NANO = architecture("xcit_nano_12_p16_224")


@pytest.fixture(scope="module")
def tensors() -> dict[str, StoredTensor]:
    """timm's tensors of a nano network with three classes."""
    network = create_model(NANO.name, num_classes=3, seed=0)
    ours = {name: StoredTensor.of(value.asnumpy()) for name, value in network.parameters_dict().items()}
    return translate.from_ours(ours, "timm")


@pytest.fixture(scope="module")
def file(tensors: dict[str, StoredTensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "x.pth"
    checkpoint.write(path, tensors)
    return path


@pytest.mark.parametrize("name", ["model_best.pth.tar", "weights.pkl", "0a1b2c3d", "X.PTH", "x.ckpt", "x.th"])
def test_a_file_is_loaded_by_its_path_whatever_it_is_called(file: Path, tmp_path: Path, name: str):
    shutil.copy(file, tmp_path / name)
    assert xcit_hub.load(tmp_path / name).config.num_classes == 3


@pytest.mark.parametrize("name", ["model_best.pth.tar", "X.PTH", "x.th"])
def test_a_folder_that_holds_one_checkpoint_is_loaded_whatever_that_is_called(file: Path, tmp_path: Path, name: str):
    shutil.copy(file, tmp_path / name)
    assert xcit_hub.load(tmp_path).config.num_classes == 3


def test_a_file_loaded_alone_warns_of_the_configuration_beside_it(tensors: dict[str, StoredTensor], tmp_path: Path):
    checkpoint.write(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}', encoding="utf-8")
    with pytest.warns(UserWarning, match=r"config\.json stands beside model\.safetensors, which was read alone"):
        network = xcit_hub.load(str(tmp_path / "model.safetensors"))
    assert any("config.json" in note for note in network.config.provenance.notes)


@pytest.mark.parametrize(
    ("labels", "fields"),
    [
        ((), {}),
        (("ash", "birch", "cedar"), {"use_pos_embed": False}),
        (("ash", "birch", "cedar"), {"depth": 11}),
    ],
)
def test_a_file_of_a_saved_folder_says_all_that_its_configuration_does(
    tmp_path: Path, labels: tuple[str, ...], fields: dict[str, Any]
):
    network = xcit_hub.create_model(NANO.name, num_classes=3, global_pool="avg", dialect="mindcv", **fields)
    seen = Preprocessing(image_size=256, mean=(0.5, 0.5, 0.5), crop_mode="squash")
    network.config = replace(network.description(), preprocessing=seen, labels=labels)
    network.save_pretrained(tmp_path / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone, whole = (xcit_hub.load(tmp_path / "saved" / name).config for name in ("model.safetensors", ""))
    assert (alone.preprocessing, alone.labels, alone.global_pool) == (seen, labels, "avg")
    assert (whole.preprocessing, whole.labels, whole.global_pool) == (seen, labels, "avg")
    report = rewrite(tmp_path / "saved" / "model.safetensors", tmp_path / "x.ckpt")
    assert not any("config.json" in note for note in report.weights.notes)


def test_what_a_file_lacks_of_its_folders_configuration_is_named_alone(tmp_path: Path):
    network = xcit_hub.create_model(NANO.name, num_classes=1000)
    network.config = replace(network.description(), labels=imagenet_labels())
    network.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"what it says of label_names was not used\."):
        assert xcit_hub.load(tmp_path / "model.safetensors").config.labels == ()
    record = json.loads((tmp_path / "config.json").read_text())
    record["pretrained_cfg"]["crop_pct"] = 0.5
    (tmp_path / "config.json").write_text(json.dumps({**record, "architecture": "xcit_tiny_12_p16_224"}))
    (note,) = xcit_hub.info(tmp_path / "model.safetensors").notes
    assert "of architecture, crop_pct, label_names was not used" in note


def test_a_folder_of_shards_is_loaded_by_its_index(tensors: dict[str, StoredTensor], tmp_path: Path):
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    table = {name: names[index % 2] for index, name in enumerate(tensors)}
    for shard in names:
        held = {name: tensors[name] for name, holder in table.items() if holder == shard}
        checkpoint.write(tmp_path / shard, held, {"format": "pt"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    assert xcit_hub.load(tmp_path).config.num_classes == 3
    assert xcit_hub.load(tmp_path / names[1]).config.num_classes == 3


def test_several_networks_are_asked_for_by_name_and_the_size_by_the_model(
    tensors: dict[str, StoredTensor], tmp_path: Path
):
    both = {f"{part}.{name}": tensor for part in ("gen", "disc") for name, tensor in tensors.items()}
    checkpoint.write(tmp_path / "x.pth", both)
    with pytest.raises(WeightsError, match=r"model\.gen, model\.disc") as caught:
        xcit_hub.load(tmp_path / "x.pth")
    assert "--select" in caught.value.fix
    network = xcit_hub.load(tmp_path / "x.pth", select="disc", model="xcit_nano_12_p16_384")
    assert network.config.architecture == "xcit_nano_12_p16_384"
    assert network.config.preprocessing.image_size == 384


def test_what_its_trainer_calls_a_network_decides_between_those_of_the_same_tensors(
    tensors: dict[str, StoredTensor], tmp_path: Path
):
    checkpoint.write(tmp_path / "x.pth", tensors, {"arch": "xcit_nano_12_p16_384"}, under="state_dict")
    weights = read(tmp_path / "x.pth")
    assert weights.architecture.name == "xcit_nano_12_p16_384" and not weights.assumed
    assert any("Its trainer calls the network xcit_nano_12_p16_384" in note for note in weights.notes)
    assert read(tmp_path / "x.pth", model=NANO.name).architecture is NANO
    checkpoint.write(tmp_path / "y.pth", tensors, {"arch": "xcit_tiny_12_p16_384"}, under="state_dict")
    assert read(tmp_path / "y.pth").architecture is NANO and read(tmp_path / "y.pth").assumed


@pytest.mark.parametrize("mark", ["xcit_hub.head_untrained", "xcit_hub.architecture_assumed"])
@pytest.mark.parametrize("value", ["false", "", "x" * 100_000])
def test_a_mark_of_another_value_is_refused_by_name(
    tensors: dict[str, StoredTensor], tmp_path: Path, mark: str, value: str
):
    checkpoint.write(tmp_path / "x.safetensors", tensors, {mark: value})
    with pytest.raises(WeightsError, match=f"{mark} is '.*can only be 'true'") as caught:
        read(tmp_path / "x.safetensors")
    assert len(str(caught.value)) < 500
    checkpoint.write(tmp_path / "x.safetensors", tensors, {mark: "true"})
    read(tmp_path / "x.safetensors")


def test_a_network_that_its_trainer_calls_by_several_names_is_not_taken_for_the_first(
    tensors: dict[str, StoredTensor], tmp_path: Path
):
    names = {"arch": "xcit_nano_12_p16_384", "model_name": "xcit_nano_12_p16_224"}
    checkpoint.write(tmp_path / "x.pth", tensors, names, under="state_dict")
    weights = read(tmp_path / "x.pth")
    assert weights.assumed
    assert any("of which none was taken: xcit_nano_12_p16_384 (arch), xcit_nano_12" in note for note in weights.notes)
    checkpoint.write(tmp_path / "y.pth", tensors, {**names, "model_name": names["arch"]}, under="state_dict")
    assert read(tmp_path / "y.pth").architecture.name == names["arch"]
    checkpoint.write(tmp_path / "z.pth", tensors, {"arch": "xcit", "model_name": names["arch"]}, under="state_dict")
    assert read(tmp_path / "z.pth").architecture.name == names["arch"]


@pytest.mark.parametrize(
    ("called", "side", "said"),
    [
        ("xcit_nano_12_p16_384_dist", 384, "calls the network xcit_nano_12_p16_384, which decides"),
        ("xcit_nano_12_p16_384_dist.fb_dist_in1k", 384, "calls the network xcit_nano_12_p16_384, which decides"),
        ("xcit_nano_12_p16_224", 224, "calls the network xcit_nano_12_p16_224, which decides"),
        ("xcit_tiny_12_p16_384", 224, r"calls the network xcit_tiny_12_p16_384 \(arch\), whose parameters are others"),
        ("xcit_nano_12_p16", 224, r"calls the network 'xcit_nano_12_p16' \(arch\), which does not decide"),
        ("XCIT_NANO_12_P16_384", 224, r"calls the network 'XCIT_NANO_12_P16_384' \(arch\), which does not decide"),
    ],
)
def test_whatever_its_trainer_calls_a_network_is_used_or_said(
    tensors: dict[str, StoredTensor], tmp_path: Path, called: str, side: int, said: str
):
    checkpoint.write(tmp_path / "x.pth", tensors, {"arch": called}, under="state_dict")
    weights = read(tmp_path / "x.pth")
    assert weights.architecture.image_size == side
    assert any(re.search(said, note) for note in weights.notes)
    assert weights.assumed == ("decides" not in said)


@pytest.mark.parametrize("kind", ["dense", "features"])
def test_a_detectors_backbone_is_not_loaded_as_a_classifier_and_that_is_said(tmp_path: Path, kind: families.Kind):
    import numpy as np

    shapes = families.shapes_of(NANO, kind, 0, 3)
    ours = {name: StoredTensor.of(np.ones(shape, np.float32)) for name, shape in shapes.items()}
    theirs = translate.from_ours(ours, "facebook")
    checkpoint.write(tmp_path / "x.pth", {f"backbone.{name}": tensor for name, tensor in theirs.items()})
    with pytest.raises(WeightsError, match="backbone of a detector or segmenter: blocks without class attention"):
        xcit_hub.load(tmp_path / "x.pth")


def test_an_error_of_a_command_that_was_asked_for_json_is_json(run_cli, run_here, tmp_path: Path):
    (tmp_path / "x.ckpt").write_text("404: Not Found")
    for run, command in ((run_cli, "inspect"), (run_here, "load")):
        done = run(command, str(tmp_path / "x.ckpt"), "--json")
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        error = json.loads(done.stderr)["error"]
        assert error["what"] == "x.ckpt is not a checkpoint: it is a text (404: Not Found …)."
        assert error["where"] == str(tmp_path / "x.ckpt") and error["fix"]


def test_each_network_of_a_file_has_memory_of_its_own(tmp_path: Path) -> None:
    network = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=4, seed=0, depth=1, cls_attn_layers=1)
    network.save_pretrained(tmp_path / "nano")
    stored = (tmp_path / "nano" / "model.safetensors").read_bytes()
    first, second = (xcit_hub.load(str(tmp_path / "nano")) for _ in range(2))
    for parameter in first.get_parameters():
        ops.assign(parameter, parameter * 0 + 7)  # where it is
    for name, array in second.arrays().items():
        np.testing.assert_array_equal(array, network.arrays()[name], err_msg=name)
    assert (tmp_path / "nano" / "model.safetensors").read_bytes() == stored
