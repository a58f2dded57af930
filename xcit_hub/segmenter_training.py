"""A whole training of a segmenter: a recipe and a folder become a file that segments, and its figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xcit_hub.checkpoints import checkpoint
from xcit_hub.data.scenes import annotated
from xcit_hub.errors import InputError
from xcit_hub.files import check_folders, is_file, write_text
from xcit_hub.hub.dense import XCiTSegmenter, create_segmenter, load_segmenter
from xcit_hub.segmenters import HEADS, HeadKind
from xcit_hub.training import device, miou, segmentation
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe

FILE = "segmenter.safetensors"
FIGURES = "miou.json"


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Args:
        path: the segmenter's file.
        losses: mean loss of every epoch.
        figures: on the evaluation split.
        configuration: every key that means something, with the value that was used, and the head.
    """

    path: Path
    losses: tuple[float, ...]
    figures: miou.Segmentation
    configuration: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        told = {"losses": list(self.losses), "checkpoint": str(self.path), "configuration": dict(self.configuration)}
        return {**self.figures.as_dict(), **told}

    def __str__(self) -> str:
        return f"{self.figures}; written to {self.path}"


def train(
    config: Path | None,
    flags: Mapping[str, Any],
    *,
    head: str | None = None,
    classes: Sequence[str] = (),
    stage: Callable[[str], None] = lambda _: None,
    say: Callable[[tuple[str, ...]], None] = lambda _: None,
) -> Trained:
    """Train a segmenter and evaluate it.

    It begins with ``ckpt_path``: a segmenter, whose training goes on, or a classifier or backbone, whose blocks are
    taken; without one, with fresh weights.

    Args:
        config: a recipe, or None.
        flags: keys laid over it; :data:`xcit_hub.training.segmentation.KEYS` are those that mean something.
        head: ``sem_fpn`` or ``upernet``; None is that of ``ckpt_path``, or ``sem_fpn``.
        classes: the classes' names.
        stage: told how far it is.
        say: told which of the keys that were given have no effect, and how many files were left out.

    Raises:
        InputError: a key means nothing here, the data does not fit, nothing says how many classes there are, head or
            classes contradict what else says it, images are smaller than the segmenter's window, or another segmenter
            is kept in ``ckpt_save_dir``; or it is trained and written, but cannot be evaluated.
        XcitHubError: the loss, or a weight after an epoch, is not finite any more; nothing is written.
    """
    if device.started_by() is not None:
        raise InputError("A segmenter is trained in one process.", where="--task", fix="Start it without msrun.")
    given = load_recipe(config, flags).model_fields_set
    segmentation.check(given)
    recipe = load_recipe(config, flags, segmentation.DEFAULTS)
    if head is not None and head not in HEADS:
        raise InputError(f"There is no head {head!r:.40}.", where="--head", fix=f"Choose one of {', '.join(HEADS)}.")
    if classes and recipe.num_classes not in (None, len(classes)):
        raise InputError(
            f"There are {len(classes)} names of classes, and num_classes is {recipe.num_classes}.",
            where="--classes, num_classes",
            fix="Give a name for each class, or leave num_classes out.",
        )
    folder, target = Path(recipe.data_dir), Path(recipe.ckpt_save_dir)
    check_folders({"--ckpt_save_dir": target})
    if (target / FILE).exists():
        raise InputError("Another segmenter is kept here.", where=target, fix="Choose another --ckpt_save_dir.")
    pairs, held_out = (annotated(folder, split) for split in (recipe.train_split, recipe.val_split))
    miou.check_usable(held_out.unreadable, recipe.max_corrupt)
    device.prepare(recipe, distribute=False)
    network = _network(recipe, given, head, classes)
    idle = _without_effect(recipe, given)
    say(
        (
            *pairs.notes(recipe.train_split),
            *held_out.notes(recipe.val_split),
            *(f"{key} has no effect: {reason}" for key, reason in idle.items()),
        )
    )
    seen = network.config.preprocessing
    steps = len(pairs.images) // recipe.batch_size

    def tell(epoch: int, step: int, loss: float) -> None:
        stage(f"epoch {epoch + 1} of {recipe.epoch_size}, step {step + 1} of {steps}, loss {loss:.4f}")

    losses = segmentation.train(network, pairs, recipe, seen, step=tell)
    target.mkdir(parents=True, exist_ok=True)
    network.save(target / FILE)
    stage("evaluating")
    try:
        figures = miou.evaluate(network, held_out, seen, window=network.window, max_corrupt=recipe.max_corrupt)
    except InputError as error:
        raise InputError(
            f"The segmenter is trained and written, but its figures are missing: {error.what}",
            where=error.where,
            fix=f"{error.fix or 'See to the images.'} Then: xcit-hub eval {target / FILE} --task segment.",
        ) from error
    trained = Trained(target / FILE, tuple(losses), figures, _used(recipe, network, idle))
    write_text(target / FIGURES, json.dumps(trained.as_dict(), indent=2) + "\n")
    return trained


def _network(recipe: Recipe, given: Set[str], head: HeadKind | None, classes: Sequence[str]) -> XCiTSegmenter:
    count = len(classes) or recipe.num_classes
    if recipe.ckpt_path and _is_segmenter(recipe.ckpt_path):
        network = load_segmenter(recipe.ckpt_path, model=recipe.model, classes=classes)
        if recipe.num_classes not in (None, network.num_classes):
            raise InputError(
                f"The segmenter has {network.num_classes} classes, and the recipe says {recipe.num_classes}.",
                where=recipe.ckpt_path,
                fix="Leave num_classes out, or begin with a backbone.",
            )
        if head not in (None, network.segmenter.head):
            raise InputError(
                f"The segmenter's head is {network.segmenter.head}, and --head says {head}.",
                where=recipe.ckpt_path,
                fix="Leave --head out, or begin with a backbone.",
            )
    elif count is None:
        raise InputError(
            "Nothing says how many classes there are.",
            where="num_classes",
            fix="Give --num_classes N, or their names: --classes FILE.",
        )
    else:
        network = create_segmenter(
            recipe.model,
            head or "sem_fpn",
            num_classes=count,
            pretrained=recipe.ckpt_path or False,
            classes=classes,
            drop_path_rate=recipe.drop_path_rate or 0.0,
            seed=recipe.seed,
        )
        given = {*given, "image_resize"}
    told = {"image_size": "image_resize", "image_width": "image_resize", "mean": "mean", "std": "std"}
    asked = {field: getattr(recipe.preprocessing, field) for field, key in told.items() if key in given}
    network.config = replace(network.config, preprocessing=replace(network.config.preprocessing, **asked))
    side = network.config.preprocessing.image_size
    if network.window is not None and min(network.window.size) > side:  # it would be trained, and never evaluated
        raise InputError(
            f"The segmenter's window has {' × '.join(map(str, network.window.size))} pixels, and images are resized to "
            f"{side}.",
            where="image_resize",
            fix=f"Give {min(network.window.size)} or more, or leave image_resize out.",
        )
    return network


def _used(recipe: Recipe, network: XCiTSegmenter, idle: Container[str]) -> dict[str, Any]:
    """Return what the training was, by a recipe's keys; of images and classes what the network says of them.

    Args:
        idle: keys that changed nothing, which are left out.
    """
    said, seen = recipe.model_dump(mode="json"), network.config.preprocessing
    levels = {name: [round(255 * level, 6) for level in getattr(seen, name)] for name in ("mean", "std")}
    its_own = {"image_resize": seen.image_size, "num_classes": network.num_classes, "head": network.segmenter.head}
    return {**{key: said[key] for key in segmentation.KEYS if key not in idle}, **levels, **its_own}


def _without_effect(recipe: Recipe, given: Set[str]) -> dict[str, str]:
    """Return the keys that were given and change nothing, with the reason."""
    # Of a classifier's training val_split needs val_while_train; a segmenter is always evaluated.
    idle = {key: reason for key, reason in recipe.without_effect().items() if key in given - {"val_split"}}
    if recipe.drop_path_rate and _is_segmenter(recipe.ckpt_path):
        idle["drop_path_rate"] = "the network is the segmenter of ckpt_path, which is trained without it"
    return idle


def _is_segmenter(path: str) -> bool:
    return is_file(path) and any(name.endswith("decode_head.conv_seg.weight") for name in checkpoint.read(path).tensors)
