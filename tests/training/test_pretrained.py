"""Weights to begin with by what `xcit_hub.load` takes, through the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from image_folder import write_images
from torch_twin import arrays_of

from xcit_hub.checkpoints import checkpoint
from xcit_hub.cli.train import SETTINGS, train
from xcit_hub.process import _exit_code


@pytest.mark.slow
@pytest.mark.usefixtures("pynative")
def test_a_run_begins_with_an_address_says_what_is_new_and_is_continued_without_it(
    least_architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import xcit_hub

    data, published = write_images(tmp_path / "data"), tmp_path / "published"
    before = xcit_hub.create_model(least_architecture, num_classes=5, dialect="mindcv", seed=4)
    before.save_pretrained(published)
    words = [
        *("--model", least_architecture, "--mode", "1", "--dataset", "imagefolder", "--data_dir", str(data)),
        *("--image_resize", "32"),
        *("--batch_size", "2", "--num_samples", "2", "--warmup_epochs", "0", "--weight_decay", "0", "--lr", "1e-12"),
        *("--freeze_bn", "--freeze", "blocks.*.attn,patch_embed", "--num_parallel_workers", "1", "--epoch_size", "1"),
        *("--recovery_interval", "1", "--min_lr", "0", "--ckpt_save_dir", str(tmp_path / "run")),
    ]

    def typed(*more: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["train.py", *words, *more])
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(context_settings=SETTINGS)(train)
        found = _exit_code(app)
        said = capfd.readouterr().err
        assert found == code, said
        return said

    said = typed("--pretrained", str(published))
    assert f"the classifier is new: {published} was trained on other classes" in said
    assert "frozen by 'blocks.*.attn'" in said and "parameters are trained" in said
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["started_from"], record["dialect"]) == (str(published), "mindcv")
    assert record["configuration"]["pretrained"] == str(published)
    with checkpoint.read(next((tmp_path / "run").glob("*.ckpt"))) as stored:
        after = {name: np.array(tensor.numpy()) for name, tensor in stored.tensors.items()}
    for name, array in arrays_of(before).items():
        if name.startswith("head."):
            assert after[name].shape[0] == 3
        else:
            np.testing.assert_allclose(after[name], array, atol=1e-6, err_msg=name)
    # What the state holds needs no weights to begin with, nor the address where they were.
    (published / "model.safetensors").unlink()
    (tmp_path / "run" / "run.json").unlink()
    typed("--pretrained", str(published), "--resume")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["started_from"] == str(published)
    # A teacher by its address: of other classes than the student's first, then of another image size, then taken.
    teacher = ("--teacher", str(tmp_path / "teacher"), "--distillation_type", "hard")
    teacher += ("--ckpt_save_dir", str(tmp_path / "other"), "--dialect", "paper")
    before.save_pretrained(tmp_path / "teacher")
    del words[-2:]
    for more, says in (
        ((), "The teacher knows 5 classes, the student 3"),
        (("--num_classes", "5"), "The teacher wants images of 64×64, the student sees 32×32"),
    ):
        assert says in typed(*teacher, *more, code=2)
    said = typed(*teacher, "--num_classes", "5", "--teacher_image_size", "student")
    assert "the teacher, of 64×64, is shown images of 32×32" in said
    record = json.loads((tmp_path / "other" / "run.json").read_text())
    assert record["configuration"]["teacher"] == str(tmp_path / "teacher")
