"""Exports beside the weights: in the same commit, on the card, shown by info, passed over by load, and proven."""

from __future__ import annotations

from pathlib import Path

import pytest

import xcit_hub
from xcit_hub.compare import compare
from xcit_hub.errors import InputError
from xcit_hub.files import sha256_of
from xcit_hub.hub.locate import info

pytest.importorskip("onnx")


def test_exports_are_published_with_the_weights_in_one_commit_and_go_with_them(tmp_path: Path, nano_ckpt: Path) -> None:
    hub = tmp_path / "hub"
    done = xcit_hub.publish(nano_ckpt, "org/nano", to=hub, parity=False, also=["mindir", "onnx"])
    listed = {file.path: file for file in done.files}
    assert {"model.onnx", "model.mindir", "model.safetensors"} <= set(listed)
    for path in ("model.onnx", "model.mindir"):
        assert sha256_of(hub / "org" / "nano" / path) == listed[path].sha256
        assert listed[path].sha256 in done.card
    assert "| `model.onnx` | any × 3 × any × any |" in done.card
    assert "| `model.mindir` | any × 3 × 224 × 224 |" in done.card
    assert "not proven" in done.card
    shown = info("org/nano", hub=hub)
    assert {"model.onnx", "model.mindir"} <= set(shown.files)
    assert shown.weights == "model.safetensors"
    assert xcit_hub.load("org/nano", hub=hub).config.provenance.revision == done.revision
    assert not xcit_hub.publish(nano_ckpt, "org/nano", to=hub, parity=False, also=["onnx", "mindir"]).changed
    without = xcit_hub.publish(nano_ckpt, "org/nano", to=hub, parity=False)
    assert without.changed
    assert not {"model.onnx", "model.mindir"} & set(info("org/nano", hub=hub).files)


@pytest.mark.slow
def test_a_published_export_was_run_and_equals_the_entry_when_it_is_fetched_again(
    tmp_path: Path, nano_ckpt: Path
) -> None:
    done = xcit_hub.publish(nano_ckpt, "org/nano", to=tmp_path / "hub", also=["onnx"])
    assert "onnxruntime, openvino |" in done.card
    entry = tmp_path / "hub" / "org" / "nano"
    found = compare(str(entry / "model.onnx"), str(entry))
    assert found.equal, found.differences
    assert len(found.outputs) == 4


@pytest.mark.parametrize(
    ("also", "to", "said"),
    [(["tflite"], "hub", "not an export"), (["onnx"], "mindspore-hub:.", "cards, not files")],
)
def test_what_cannot_be_added_is_refused(also: list[str], to: str, said: str, nano_ckpt: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        xcit_hub.publish(nano_ckpt, "org/nano", to=to if ":" in to else tmp_path / to, parity=False, also=also)
    assert not (tmp_path / "hub").exists()
