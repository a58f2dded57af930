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


CLASSES = ["10", "2", "Ärmel", "a b", "zebra"]  # by name, not by number


def write_patterns(root: Path, train: int, val: int) -> Path:
    """Images of several sizes and proportions whose stripes and colours tell their class; one class lacks in val."""
    rng = np.random.default_rng(5)
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(CLASSES):
            for number in range(count if split == "train" or label != 1 else 0):
                height, width = int(rng.integers(30, 70)), int(rng.integers(30, 70))
                rows, columns = np.mgrid[:height, :width] / 32
                wave = np.sin((3 + 3 * label) * (rows * np.cos(label) + columns * np.sin(label)) + rng.uniform(0, 6))
                colour = np.roll([90.0, 20.0, 50.0], label)
                pixels = 128 + wave[:, :, None] * colour + rng.normal(0, 25, (height, width, 3))
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return root


def check_same_answers(tmp_path: Path, name: str, dialect: str, *, train_images: int, epochs: int) -> float:
    """Train, publish, open by timm and by us: every one of 200 images is answered as training's evaluation did."""
    import timm
    import torch
    from timm.data import create_transform, resolve_data_config

    import xcit_hub
    import xcit_hub.timm  # MindCV's dialects are not timm's own
    from xcit_hub.prediction import classify, predict
    from xcit_hub.training.engine import RUN, train
    from xcit_hub.training.recipe_file import load_recipe
    from xcit_hub.training.scoring import score, stored_network

    data = write_patterns(tmp_path / "data", train=train_images, val=50)
    recipe = load_recipe(
        None,
        {
            "model": name,
            "dialect": dialect,
            "mode": 1,
            "data_dir": str(data),
            "ckpt_save_dir": str(tmp_path / "run"),
            "image_resize": 48,
            "crop_pct": 0.9,
            "interpolation": "bilinear",
            "mean": [120.0, 110.0, 100.0],
            "std": [70.0, 60.0, 50.0],
            "batch_size": 10,
            "epoch_size": epochs,
            "decay_epochs": epochs,
            "warmup_epochs": 0,
            "lr": 0.001,
            "scale": [0.6, 1.0],
            "hflip": 0.0,
            "color_jitter": 0.0,
            "val_while_train": True,
            "val_interval": epochs,
            "ema": True,
            "ema_warmup": 20,
            "num_parallel_workers": 1,
        },
    )
    record = train(recipe)
    assert record.eval_samples == 200
    best = tmp_path / "run" / f"{name}_best.ckpt"
    stored = stored_network(recipe.model_copy(update={"ckpt_path": str(best)}))
    scored = score(recipe, stored.network, classes=stored.classes)
    assert scored is not None
    assert scored.ours.top1 == record.top1
    evaluated = list(scored.ours.predictions.values())  # by the order of the files

    (tmp_path / "card.yaml").write_text("author: A Tester\nrepo_link: https://example.org/repo\n")
    done = xcit_hub.publish(
        best, "lab/patterns", to=tmp_path / "hub", run=tmp_path / "run" / RUN, meta=tmp_path / "card.yaml", parity=False
    )
    assert f"{record.top1:.2f}".rstrip("0").rstrip(".") in done.card
    entry = tmp_path / "hub" / "lab" / "patterns"
    images = [path for label in sorted(CLASSES) for path in sorted((data / "val" / label).glob("*"))]
    assert len(images) == len(evaluated) == 200

    network = xcit_hub.load("lab/patterns", hub=tmp_path / "hub")
    prepare = xcit_hub.preprocess(network)
    ours = [answer for (answer,) in classify(network, np.stack([prepare(path) for path in images]), top=1)]
    assert [answer.index for answer in ours] == evaluated
    assert [answer.label for answer in ours] == [sorted(CLASSES)[index] for index in evaluated]
    assert [predict(network, path, top=1)[0].index for path in images[::40]] == evaluated[::40]

    model = timm.create_model(f"local-dir:{entry}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=model))
    pixels = torch.stack([transform(Image.open(path)) for path in images])
    with torch.no_grad():
        theirs = model(pixels).argmax(1).tolist()
    assert theirs == evaluated
    assert model.pretrained_cfg["label_names"] == sorted(CLASSES)
    return float(record.top1 or 0)


@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_timm_and_load_answer_every_image_as_the_trainings_own_evaluation(
    dialect: str, tmp_path: Path, least_architecture: str
) -> None:
    check_same_answers(tmp_path, least_architecture, dialect, train_images=10, epochs=1)


@pytest.mark.campaign
@pytest.mark.parametrize("dialect", ["paper", "mindcv", "mindcv-mint"])
def test_a_trained_nano_answers_every_image_in_timm_as_in_its_own_evaluation(dialect: str, tmp_path: Path) -> None:
    top1 = check_same_answers(tmp_path, "xcit_nano_12_p16_224", dialect, train_images=60, epochs=3)
    assert top1 >= 70.0, "five classes, chance is 20"
