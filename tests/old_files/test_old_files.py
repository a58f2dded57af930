"""Every file that 0.1.0 wrote is read as it was meant: the same network, bit for bit, the same figures, the same run.

The archives were written by :mod:`write_old_files` with the release that they are named after.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from write_old_files import LABELS, MINI, MODEL, MODEL_ID, RECIPE, pattern, register_mini

import xcit_hub
from xcit_hub import variants
from xcit_hub.errors import CheckpointError
from xcit_hub.parameters import parameter_shapes
from xcit_hub.run_record import RunRecord

_FOLDER = Path(__file__).parent
_VERSION = "0.1.0"

_CHECKPOINTS = [
    f"{dialect}-{family}-{suffix}"
    for dialect, families in {"paper": ("timm", "xcit-hub"), "mindcv": ("mindcv", "xcit-hub")}.items()
    for family in families
    for suffix in ("safetensors", "ckpt")
]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory) -> Callable[[str], Path]:
    """Unpack an archive, once."""
    done: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name)
            with tarfile.open(_FOLDER / f"{name}-{_VERSION}.tar.xz") as archive:
                archive.extractall(done[name], filter="data")
        return done[name]

    return unpack


def _assert_holds_the_pattern(network) -> None:
    found = {name: value.asnumpy() for name, value in network.parameters_dict().items()}
    shapes = parameter_shapes(variants.architecture(MODEL), num_classes=2)
    assert found.keys() == shapes.keys()
    for place, (name, shape) in enumerate(shapes.items()):
        assert np.array_equal(found[name], pattern(name, shape, place)), name


@pytest.mark.parametrize("name", _CHECKPOINTS)
def test_a_checkpoint_loads_bit_for_bit_in_the_dialect_it_was_written_in(unpacked, name: str) -> None:
    (file,) = (unpacked("checkpoints") / name).glob("model.*")
    network = xcit_hub.load(str(file))
    _assert_holds_the_pattern(network)
    config = network.config
    assert (config.architecture, config.dialect, config.num_classes) == (MODEL, name.split("-")[0], 2)


@pytest.mark.parametrize("name", ["paper-timm-safetensors", "mindcv-xcit-hub-ckpt"])
def test_a_converted_folder_loads_with_its_config(unpacked, name: str) -> None:
    network = xcit_hub.load(str(unpacked("checkpoints") / name))
    _assert_holds_the_pattern(network)
    assert network.config.dialect == name.split("-")[0]


def test_a_folder_hub_loads_verified_and_says_what_was_published(unpacked) -> None:
    hub = unpacked("folder_hub")
    network = xcit_hub.load(MODEL_ID, hub=hub)
    _assert_holds_the_pattern(network)
    config = network.config
    assert (config.architecture, config.dialect, config.labels) == (MODEL, "paper", LABELS)
    assert config.provenance.verified == "full"


def test_publishing_into_an_old_folder_hub_keeps_what_was_there(unpacked, tmp_path) -> None:
    with tarfile.open(_FOLDER / f"folder_hub-{_VERSION}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    repository = tmp_path / f"models--{MODEL_ID.replace('/', '--')}"
    commit = (repository / "refs" / "main").read_text()
    file = unpacked("checkpoints") / "mindcv-mindcv-ckpt" / "model.ckpt"
    xcit_hub.publish(file, MODEL_ID, to=tmp_path, revision="other", parity=False)
    _assert_holds_the_pattern(xcit_hub.load(MODEL_ID, hub=tmp_path))
    assert (repository / "refs" / "main").read_text() == commit
    assert xcit_hub.load(MODEL_ID, "other", hub=tmp_path).config.dialect == "mindcv"


def test_a_cached_download_loads_offline(unpacked) -> None:
    network = xcit_hub.load(f"hf://{MODEL_ID}", cache_dir=unpacked("cache"), offline=True)
    _assert_holds_the_pattern(network)
    assert network.config.labels == LABELS


def test_a_run_record_says_what_was_measured(unpacked) -> None:
    file = unpacked("training") / "finished" / "run.json"
    record, written = RunRecord.read(file), json.loads(file.read_text(encoding="utf-8"))
    assert record.versions.xcit_hub == _VERSION
    assert written["top1"] == 50.0
    said = json.loads(record.model_dump_json())
    assert {name: said[name] for name in written} == written


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A run that was stopped after one epoch of two, in its folder, and the data set beside it."""
    monkeypatch.setitem(variants.ARCHITECTURES, MINI, variants.ARCHITECTURES[MODEL])  # is taken out again afterwards
    register_mini()
    with tarfile.open(_FOLDER / f"training-{_VERSION}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_the_state_of_a_run_is_refused_naming_the_version_and_left_as_it_is(run) -> None:
    from xcit_hub.training.engine import train
    from xcit_hub.training.recipe import Recipe

    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(CheckpointError, match=r"written by xcit-hub 0\.1\.0"):
        train(Recipe.model_validate(RECIPE), resume=True)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_the_checkpoint_of_a_stopped_run_is_what_a_new_one_begins_from(run) -> None:
    from xcit_hub.training.engine import train
    from xcit_hub.training.recipe import Recipe

    checkpoint = run / f"{MINI}-1_4.ckpt"
    network = xcit_hub.load(str(checkpoint))
    assert (network.config.architecture, network.config.dialect, network.config.num_classes) == (MINI, "paper", 2)
    anew = {**RECIPE, "ckpt_path": str(checkpoint), "ckpt_save_dir": "anew", "epoch_size": 1}
    assert train(Recipe.model_validate(anew)).epochs == 1
