"""The whole road: train, evaluate, write the card, publish to a folder hub, load from there."""

from __future__ import annotations

from pathlib import Path

import mindspore
import numpy as np
import pytest
from image_folder import write_images
from PIL import Image

pytestmark = pytest.mark.usefixtures("pynative")


@pytest.mark.slow
def test_what_was_trained_is_what_is_loaded_and_its_card_tells_what_was_measured(tmp_path: Path) -> None:
    from cards.check import check
    from cards.facts import Facts
    from cards.gather import of_checkpoint
    from cards.write import write
    from xcit_hub.data.transforms import EvalTransform
    from xcit_hub.hub.load import load
    from xcit_hub.hub.publish import publish
    from xcit_hub.run_record import RunRecord
    from xcit_hub.training.engine import RUN, train
    from xcit_hub.training.recipe_file import load_recipe
    from xcit_hub.training.scoring import score, settings_of

    name = "xcit_nano_12_p16_224"
    data = write_images(tmp_path / "data", train=6, val=3)
    recipe = load_recipe(
        None,
        {
            "model": name,
            "dialect": "paper",
            "mode": 1,
            "data_dir": str(data),
            "ckpt_save_dir": str(tmp_path / "run"),
            "image_resize": 32,
            "batch_size": 6,
            "epoch_size": 1,
            "warmup_epochs": 0,
            "val_while_train": True,
            "num_parallel_workers": 1,
        },
    )
    record = train(recipe, recipe_name="a test's recipe")
    best = tmp_path / "run" / f"{name}_best.ckpt"
    run_file = tmp_path / "run" / RUN

    facts: Facts = of_checkpoint(best, architecture=name, run=RunRecord.read(run_file))
    written = write(facts, tmp_path / "cards", forms=["hugging-face", "mindspore-hub"], langs=["en", "zh"])
    text = "".join(path.read_text(encoding="utf-8") for path in written)
    assert str(record.ms_per_step) in text or f"{record.ms_per_step:.2f}" in text
    for path in written:
        assert not [fault for fault in check(path) if fault.severity == "error" and fault.field == "evaluation"]

    meta = tmp_path / "card.yaml"
    meta.write_text("author: A Tester\nrepo_link: https://example.org/repo\n")
    publish(best, "lab/nano", to=tmp_path / "hub", run=run_file, model=name, meta=meta, parity=False)
    loaded = load("lab/nano", hub=tmp_path / "hub")

    evaluated = load_recipe(
        None, {**recipe.model_dump(), **settings_of(loaded, loaded.config.preprocessing), "ckpt_path": str(best)}
    )
    report = score(evaluated, loaded)
    assert report is not None
    assert report.ours.top1 == record.top1
    image = Image.open(data / "val" / "class1" / "0.png")
    images = EvalTransform(recipe.preprocessing)(image)[None]
    assert np.isfinite(loaded(mindspore.Tensor(images)).asnumpy()).all()
