"""A segmenter learns: shapes drawn in any colour, from ADE20K's folders, by the command that people type."""

from __future__ import annotations

import json
from pathlib import Path

import drawn_scenes
import mindspore
import numpy as np
import pytest
import torch
from dense_twin import SMALL, Files, Twins
from mindspore import Tensor
from PIL import Image
from torch.nn import functional
from typer.testing import CliRunner

import xcit_hub
from xcit_hub import parity
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.families import LAYOUTS
from xcit_hub.cli.app import app
from xcit_hub.data.scene_views import Views, batches
from xcit_hub.data.scenes import annotated
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.recipe_runs import evaluate_segmenter
from xcit_hub.segmenter_training import _network, train
from xcit_hub.segmenters import NO_CLASS, Window
from xcit_hub.training import miou, segmentation
from xcit_hub.training.losses import PixelLoss
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.variants import Preprocessing

_SMALL_NETWORK = {"depth": 6, "embed_dim": 64, "num_heads": 4, "eta": 1.0}


def _learned(folder: Path, *, training: int, epochs: int, rate: float, **shape: int) -> tuple[list[float], float]:
    """Train a small Semantic FPN in graph mode; return the losses of the epochs and mIoU on what it has not seen."""
    drawn_scenes.draw(folder, training, training // 5)
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    network = xcit_hub.create_segmenter(
        "xcit_nano_12_p8_224",
        num_classes=4,
        classes=drawn_scenes.NAMES,
        image_size=64,
        seed=0,
        **{**_SMALL_NETWORK, **shape},
    )
    settings = {"model": "xcit_nano_12_p8_224", "epoch_size": epochs, "lr": rate, "scale": [0.9, 1.1]}
    recipe = load_recipe(None, settings, segmentation.DEFAULTS)
    seen = network.config.preprocessing
    losses = segmentation.train(network, annotated(folder, "training"), recipe, seen)
    return losses, miou.evaluate(network, annotated(folder, "validation"), seen).miou


@pytest.mark.campaign
def test_a_semantic_fpn_learns_drawn_shapes(tmp_path: Path) -> None:
    losses, score = _learned(tmp_path, training=320, epochs=20, rate=1.5e-3)
    assert losses[-1] < 0.2 * losses[0]
    assert score > 80


def test_a_semantic_fpn_begins_to_learn_drawn_shapes(tmp_path: Path) -> None:
    losses, _ = _learned(tmp_path, training=32, epochs=8, rate=3e-3, depth=4, embed_dim=32)
    assert losses[-1] < 0.6 * losses[0]


def test_the_loss_is_pytorchs_over_all_pixels_and_those_of_no_class_add_nothing() -> None:
    logits = torch.randn(2, 5, 7, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.randint(-1, 5, (2, 7, 9), generator=torch.Generator().manual_seed(1))
    theirs = functional.cross_entropy(logits, targets, ignore_index=-1, reduction="none").mean()
    theirs.backward()
    loss = PixelLoss()
    given = Tensor(logits.detach().numpy()), Tensor(targets.numpy().astype(np.int32))
    ours, gradient = mindspore.value_and_grad(lambda *both: loss(*both))(*given)
    assert float(ours) == pytest.approx(theirs.item(), rel=1e-6)
    np.testing.assert_allclose(gradient.asnumpy(), logits.grad.numpy(), atol=1e-8, rtol=1e-5)


def test_a_segmenters_gradients_are_pytorchs(twin: Twins, file: Files) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    images = parity.random_images(2, 3, 64, 48)
    targets = np.random.default_rng(1).integers(-1, 7, (2, 64, 48)).astype(np.int32)
    names = LAYOUTS["facebook"].names

    def theirs(reference: torch.nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        losses = functional.cross_entropy(
            reference(batch), torch.from_numpy(targets).long(), ignore_index=-1, reduction="none"
        )
        parameters = dict(reference.named_parameters())
        return dict(zip(parameters, torch.autograd.grad(losses.mean(), list(parameters.values())), strict=True))

    loss = PixelLoss()
    weights = mindspore.ParameterTuple(network.trainable_params())
    given = Tensor(images), Tensor(targets)
    _, found = mindspore.value_and_grad(lambda one, other: loss(network(one), other), None, weights)(*given)
    heads = ("neck.", "decode_head.")
    ours = {
        f"{'' if each.name.startswith(heads) else 'backbone.'}{names(each.name)[0]}": gradient.asnumpy()
        for each, gradient in zip(weights, found, strict=True)
    }
    reference = parity.Reference(twin(16, "sem_fpn"), images, theirs, floor=parity.GRADIENT_FLOOR)
    checks = reference.check(ours, varying=False)
    assert len(checks) > 100 and not [check for check in checks if not check.passed]


def test_views_keep_pixels_and_classes_together_and_pad_with_no_class() -> None:
    image, marks = drawn_scenes.scene(np.random.default_rng(5), 64)
    classes = np.asarray(marks).astype(np.int32) - 1
    # The red channel says the class: whatever chance does, it must say so still.
    painted = Image.fromarray(np.repeat((classes * 60).astype(np.uint8)[:, :, None], 3, 2))
    plain = Preprocessing(image_size=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    views = Views(plain, side=64, scale=(1.0, 1.0))
    for seed in range(6):
        pixels, seen = views.view(painted, classes, np.random.default_rng(seed))
        assert (np.rint(pixels[0] * 255 / 60) == seen).all()
    small = Views(plain, side=64, scale=(0.5, 0.5), flip=0.0)
    pixels, seen = small.view(painted, classes, np.random.default_rng(0))
    assert (seen[32:] == NO_CLASS).all() and (seen[:, 32:] == NO_CLASS).all() and not pixels[:, 32:].any()
    assert (seen[:32, :32] == classes[::2, ::2]).all()
    large = Views(plain, side=64, scale=(2.0, 2.0))
    mirrored = {views.view(image, classes, np.random.default_rng(seed))[1].tobytes() for seed in range(8)}
    cut = {large.view(image, classes, np.random.default_rng(seed))[1].tobytes() for seed in range(8)}
    assert len(mirrored) == 2 and len(cut) > 4


def test_an_epochs_batches_are_the_same_again_and_other_than_the_next_ones(tmp_path: Path) -> None:
    pairs = annotated(drawn_scenes.draw(tmp_path, 7, 1), "training")
    views = Views(Preprocessing(image_size=64), side=48)

    def epoch(number: int) -> list[bytes]:
        return [images.tobytes() for images, _ in batches(pairs, views, 4, batch_size=3, epoch=number)]

    assert len(epoch(0)) == 2 and epoch(0) == epoch(0) != epoch(1)
    pairs.images[3].write_bytes(b"no image")
    with pytest.raises(InputError, match="Cannot read the image"):
        epoch(0), epoch(1)


def test_the_command_trains_evaluates_and_writes_what_segments(run_cli, tmp_path: Path) -> None:
    drawn_scenes.draw(tmp_path / "data", 4, 2)
    (tmp_path / "names.txt").write_text("\n".join(drawn_scenes.NAMES) + "\n")
    words = ("train", "--task", "segment", "--classes", "names.txt", "--model", "xcit_nano_12_p8_224", "--mode", "1")
    flags = ("--data_dir", "data", "--epoch_size", "1", "--batch_size", "2", "--image_resize", "48", "--lr", "1e-3")
    done = run_cli(*words, *flags, "--ckpt_save_dir", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == json.loads((tmp_path / "out" / "miou.json").read_text())
    network = xcit_hub.load_segmenter(str(tmp_path / "out" / "segmenter.safetensors"))
    assert network.config.labels == drawn_scenes.NAMES and network.config.preprocessing.image_size == 48
    again = miou.evaluate(network, annotated(tmp_path / "data", "validation"), network.config.preprocessing)
    assert again.miou == pytest.approx(told["miou"], abs=1e-3) and len(told["losses"]) == 1
    used = {
        "image_resize": 48,
        "num_classes": 4,
        "head": "sem_fpn",
        "lr": 1e-3,
        "seed": 42,
        "scheduler": "polynomial_decay",
    }
    assert used.items() <= told["configuration"].items() and set(told["configuration"]) == {*segmentation.KEYS, "head"}
    assert told["configuration"]["mean"] == pytest.approx([255 * level for level in network.config.preprocessing.mean])
    # Its training goes on, at its own size.
    going_on = {"model": "xcit_nano_12_p8_224", "data_dir": str(tmp_path / "data"), "mode": 1, "epoch_size": 1}
    going_on |= {"batch_size": 4, "ckpt_path": str(tmp_path / "out" / "segmenter.safetensors")}
    (tmp_path / "data" / "images" / "validation").rename(tmp_path / "data" / "images" / "testing")
    (tmp_path / "data" / "annotations" / "validation").rename(tmp_path / "data" / "annotations" / "testing")
    idle = {"drop_path_rate": 0.1, "scheduler": "constant", "min_lr": 1e-5, "val_split": "testing"}
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="Another segmenter is kept here"):
        train(None, {**going_on, "ckpt_save_dir": str(tmp_path / "out")})
    with pytest.raises(InputError, match=r"A training is kept here, whose miou\.json"):
        pairs = annotated(tmp_path / "data", "testing")
        evaluate_segmenter(network, pairs, output=tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before, "nothing was replaced"
    (tmp_path / "data" / "images" / "training" / "notes.txt").write_text("not an image")
    said: list[str] = []
    trained = train(None, {**going_on, **idle, "ckpt_save_dir": str(tmp_path / "more")}, say=said.extend)
    assert [line.split(":")[0] for line in said] == [
        "1 files of training are not images by their names, and were left out",
        "min_lr has no effect",
        "drop_path_rate has no effect",
    ]
    assert set(trained.configuration) == {*segmentation.KEYS, "head"} - {"min_lr", "drop_path_rate"}
    assert xcit_hub.load_segmenter(str(trained.path)).config.preprocessing.image_size == 48


@pytest.mark.parametrize(
    ("flags", "options", "says"),
    [
        ({"mixup": 0.2}, {}, "mixup means nothing in a segmenter's training"),
        ({"num_classes": 4}, {"head": "psp"}, "There is no head 'psp'"),
        ({}, {}, "Nothing says how many classes there are"),
        ({"num_classes": 4}, {"classes": ("a", "b")}, "There are 2 names of classes, and num_classes is 4"),
        ({}, {"classes": ("a", "b")}, "The annotation holds class"),
        ({"num_classes": 3}, {}, "The annotation holds class 4, and the network has 3"),
        ({"num_classes": 4, "batch_size": 9}, {}, "There are 2 images, and a batch has 9"),
        ({"num_classes": 4, "train_split": "train"}, {}, "There is no images/train here"),
        ({"num_classes": 4, "image_resize": (32, 48)}, {}, "A segmenter is trained on square views"),
    ],
)
def test_a_training_that_cannot_be_is_refused_and_writes_nothing(flags, options, says, tmp_path: Path) -> None:
    drawn_scenes.draw(tmp_path / "data", 2, 1)
    base = {"model": "xcit_nano_12_p8_224", "data_dir": str(tmp_path / "data"), "mode": 1, "batch_size": 2}
    base |= {"image_resize": 32, "ckpt_save_dir": str(tmp_path / "out"), "epoch_size": 1}
    with pytest.raises(InputError, match=says):
        train(None, {**base, **flags}, **options)
    assert not (tmp_path / "out").exists()


def _begun(folder: Path) -> dict[str, object]:
    """What trains one step on drawn scenes into ``folder``/out."""
    drawn_scenes.draw(folder / "data", 2, 2)
    base = {"model": "xcit_nano_12_p8_224", "data_dir": str(folder / "data"), "mode": 1, "batch_size": 2}
    return {**base, "image_resize": 32, "ckpt_save_dir": str(folder / "out"), "epoch_size": 1, "num_classes": 4}


def test_held_out_names_that_are_no_files_are_refused_before_the_training(tmp_path: Path) -> None:
    flags = _begun(tmp_path)
    for part, suffix in (("images", "jpg"), ("annotations", "png")):
        (tmp_path / "data" / part / "validation" / f"gone.{suffix}").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"^2 images or annotations cannot be used"):
        train(None, flags)
    assert not (tmp_path / "out").exists()


def test_a_trained_segmenter_is_kept_where_it_cannot_be_evaluated(tmp_path: Path) -> None:
    flags = _begun(tmp_path)
    next((tmp_path / "data" / "images" / "validation").iterdir()).write_bytes(b"no image")
    with pytest.raises(InputError, match="written, but its figures are missing: 1 images or annotations") as caught:
        train(None, flags)
    assert "xcit-hub eval" in str(caught.value.fix)
    assert xcit_hub.load_segmenter(str(tmp_path / "out" / "segmenter.safetensors")).num_classes == 4
    assert not (tmp_path / "out" / "miou.json").exists()


def test_a_segmenter_that_is_trained_on_is_measured_by_its_own_window_as_eval_does(tmp_path: Path) -> None:
    flags = _begun(tmp_path)
    network = xcit_hub.create_segmenter("xcit_nano_12_p8_224", num_classes=4, image_size=64, seed=0)
    network.window = Window((40, 40), (24, 24))
    network.save(tmp_path / "slides.safetensors")
    flags |= {"ckpt_path": str(tmp_path / "slides.safetensors"), "lr": 1e-3, "image_resize": 64}
    with pytest.raises(InputError, match="window has 40 × 40 pixels, and images are resized to 16"):
        train(None, {**flags, "image_resize": 16})
    assert not (tmp_path / "out").exists()
    told = train(None, flags).figures
    network = xcit_hub.load_segmenter(str(tmp_path / "out" / "segmenter.safetensors"))
    pairs = annotated(tmp_path / "data", "validation")
    again, whole = (evaluate_segmenter(network, pairs, window=window) for window in (None, "whole"))
    assert (told.window, told.image_size) == (network.window, 64) == (Window((40, 40), (24, 24)), 64)
    np.testing.assert_allclose(told.iou, again.iou, atol=1e-3)
    assert not np.allclose(told.iou, whole.iou, atol=1e-3), "this network answers both alike, and tells nothing"


def test_a_training_begins_with_a_backbone_that_has_its_pyramid(tmp_path: Path) -> None:
    flags = _begun(tmp_path)
    made = xcit_hub.create_segmenter("xcit_nano_12_p8_224", num_classes=4, image_size=32, seed=0)
    made.save(tmp_path / "whole.safetensors")
    with checkpoint.read(tmp_path / "whole.safetensors") as stored:
        own = {name: np.array(each.numpy()) for name, each in stored.tensors.items() if "decode_head" not in name}
        told = {key: stored.metadata[f"xcit_hub.{key}"] for key in ("architecture", "dialect", "family")}
    checkpoint.write(tmp_path / "backbone.safetensors", own, {f"xcit_hub.{key}": value for key, value in told.items()})
    network = _network(
        load_recipe(None, {**flags, "ckpt_path": str(tmp_path / "backbone.safetensors")}), set(), None, ()
    )
    for name in ("fpn1.0.weight", "blocks.3.attn.qkv.weight"):
        assert (network.parameters_dict()[name].asnumpy() == made.parameters_dict()[name].asnumpy()).all()


def test_a_segmenter_of_another_head_is_not_gone_on_with(tmp_path: Path) -> None:
    drawn_scenes.draw(tmp_path / "data", 2, 1)
    path = tmp_path / "sem_fpn.safetensors"
    xcit_hub.create_segmenter("xcit_nano_12_p8_224", num_classes=4, image_size=32, seed=0).save(path)
    flags = {"model": "xcit_nano_12_p8_224", "data_dir": str(tmp_path / "data"), "mode": 1, "batch_size": 2}
    flags |= {"ckpt_path": str(path), "ckpt_save_dir": str(tmp_path / "out"), "epoch_size": 1}
    with pytest.raises(InputError, match="The segmenter's head is sem_fpn, and --head says upernet"):
        train(None, flags, head="upernet")
    assert not (tmp_path / "out").exists()


def test_a_table_of_many_networks_is_not_of_segmenters(tmp_path: Path) -> None:
    words = ["eval", "--task", "segment", "--data_dir", "data", "--results-file", str(tmp_path / "r.csv")]
    refused = CliRunner().invoke(app, [*words, "--models", "all"]).exception
    assert isinstance(refused, InputError) and "--models and --results-file are of classifiers" in refused.what
    refused = CliRunner().invoke(app, [*words, "segmenter.pth"]).exception
    assert isinstance(refused, InputError) and "--results-file is of classifiers" in refused.what


def test_several_workers_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("MS_WORKER_NUM", "2")
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    with pytest.raises(InputError, match="in one process"):
        train(None, {"model": "xcit_nano_12_p8_224"})


def test_weights_that_are_not_finite_after_the_last_update_are_not_written(tmp_path: Path) -> None:
    flags = {**_begun(tmp_path), "warmup_epochs": 0, "lr": 1e3, "weight_decay": 3e38}
    with pytest.raises(XcitHubError, match=r"^After epoch 1 weights are not finite: "):
        train(None, flags)
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    pairs = annotated(drawn_scenes.draw(tmp_path, 2, 1), "training")
    network = xcit_hub.create_segmenter("xcit_nano_12_p8_224", num_classes=4, image_size=32, seed=0, **_SMALL_NETWORK)
    network.parameters_dict()["decode_head.conv_seg.bias"].set_data(Tensor(np.full(4, np.nan, np.float32)))
    recipe = load_recipe(None, {"model": "xcit_nano_12_p8_224", "batch_size": 2}, segmentation.DEFAULTS)
    with pytest.raises(XcitHubError, match="The loss of step 1 of epoch 1 is nan"):
        segmentation.train(network, pairs, recipe, network.config.preprocessing)
