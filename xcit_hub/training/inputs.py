"""From a recipe to its batches: which images are trained on, which are evaluated, and which class is which."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xcit_hub.data.augment import SplitTransform, TrainTransform
from xcit_hub.data.batches import EvalBatches, TrainBatches, TrainView, Worker
from xcit_hub.data.erasing import RandomErasing
from xcit_hub.data.mixing import Mixing
from xcit_hub.data.oversampling import OversampledTransform
from xcit_hub.data.policy_notation import read_policy
from xcit_hub.data.sources import ImageSource, name_classes, open_source, sample
from xcit_hub.data.transforms import MODES, EvalTransform
from xcit_hub.errors import InputError, some
from xcit_hub.files import read_bounded
from xcit_hub.training.recipe import Recipe

_LARGEST_MAP = 1 << 24


def train_data(recipe: Recipe, worker: Worker) -> tuple[ImageSource, TrainBatches]:
    """Find the training split and make its batches as the recipe says.

    Raises:
        InputError: there is no such split, or more classes than outputs.
    """
    source = _opened(recipe, train=True)
    if recipe.class_map and recipe.num_classes is not None:
        check_outputs(source.classes, recipe.num_classes, whose="the class map")
    if recipe.num_samples is not None:
        drawn = np.random.default_rng([recipe.seed, recipe.num_samples]) if recipe.shuffle else None
        source = sample(source, recipe.num_samples, drawn)
    return source, TrainBatches(
        source,
        _train_view(recipe),
        classes=recipe.num_classes or len(source.classes),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        mixing=Mixing(
            recipe.mixup,
            recipe.cutmix,
            recipe.cutmix_prob,
            recipe.switch_prob,
            recipe.mixup_mode,
            recipe.cutmix_minmax,
            recipe.mixup_off_epoch,
        ),
        smoothing=recipe.smoothing,
        shuffle=recipe.shuffle,
        repeats=recipe.aug_repeats,
        drop_remainder=recipe.drop_remainder,
        threads=recipe.num_parallel_workers,
        worker=worker,
    )


def _train_view(recipe: Recipe) -> TrainView:
    seen = recipe.preprocessing
    erasing = RandomErasing(
        recipe.re_prob,
        recipe.re_scale,
        recipe.re_ratio,
        recipe.filling,
        recipe.re_max_attempts,
        recipe.re_count,
        mindspores=recipe.library == "mindcv",
    )
    view = TrainTransform(
        size=seen.size[0],
        width=seen.size[1],
        channels=recipe.in_channels,
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        vflip=recipe.vflip,
        jitter=recipe.jitter if recipe.jitters else (),
        policy=read_policy(recipe.auto_augment, recipe.library) if recipe.auto_augment else None,
        interpolation=recipe.interpolation,
        mean=seen.mean,
        std=seen.std,
        erasing=erasing if recipe.re_prob else None,
    )
    return SplitTransform(view, recipe.aug_splits, first_whole=recipe.resplit) if recipe.aug_splits else view


def eval_data(recipe: Recipe, worker: Worker) -> EvalBatches:
    """Find the evaluation split; each worker sees its share of the images once."""
    source = _opened(recipe, train=False)
    seen, channels = recipe.preprocessing, recipe.in_channels
    view = (
        OversampledTransform(seen, recipe.tta, in_chans=channels, alpha=True)
        if recipe.tta
        else EvalTransform(seen, in_chans=channels, alpha=True)
    )
    share = max(math.ceil(len(source.labels) / worker.count), 1)
    size = min(recipe.batch_size, share)  # the last batch is filled up, which the only one need not be
    return EvalBatches(source, view, batch_size=size, threads=recipe.num_parallel_workers, worker=worker)


def _opened(recipe: Recipe, *, train: bool) -> ImageSource:
    split = recipe.train_split if train else recipe.val_split
    source = open_source(recipe.dataset, recipe.data_dir, split, train=train, mode=MODES[recipe.in_channels])
    if recipe.class_map:
        name_classes(source, read_class_map(recipe.class_map), whose="the class map")
    return source


def read_class_map(path: str) -> list[str]:
    """Read timm's class map: the names of the class folders, one a line, in the order of the network's outputs.

    Raises:
        InputError: the file is not such a text, or a name is empty or stands there twice.
    """
    if path.endswith(".pkl"):
        raise InputError("A pickled class map is not read: pickles can run code.", where=path, fix="Give a text file.")
    try:
        names = [line.strip() for line in read_bounded(path, _LARGEST_MAP).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(
            f"Byte {error.start} of the class map is not UTF-8.", where=path, fix="Write it anew as text in UTF-8."
        ) from error
    if not names or not all(names) or len(set(names)) < len(names):
        raise InputError(
            "The class map is not a list of different names, one a line.",
            where=path,
            fix="Write each class folder's name on a line of its own, and no empty line.",
        )
    return names


def match_classes(
    source: ImageSource, outputs: int, names: Sequence[str] | None, *, whose: str, certain: bool = True
) -> list[str]:
    """Number the classes of ``source`` as the network's outputs are numbered.

    Args:
        outputs: how many the network has.
        names: what its first ones are called, if that is known.
        whose: what they are called after, for the message.
        certain: whether class folders go by these names; else they may, and where they do not, their number decides.

    Returns:
        Classes that ``source`` has no image of.

    Raises:
        InputError: there are classes that the network does not have, or as many as nobody can match.
    """
    if names is not None and (certain or set(source.classes) <= set(names)):
        check_outputs(names, outputs, whose=whose)
        return name_classes(source, names, whose=whose)
    if len(source.classes) != outputs:
        raise InputError(
            f"The data set has {len(source.classes)} classes, the network {outputs}, and nothing says which they are.",
            where="the evaluation split",
            fix="Evaluate on the classes that the network was trained on.",
        )
    return []


def check_outputs(names: Sequence[str], outputs: int, *, whose: str) -> None:
    """Make sure that a network has an output for every one of its classes' names.

    Args:
        whose: who names them, for the message.

    Raises:
        InputError: there are more names than outputs.
    """
    if len(names) > outputs:
        raise InputError(
            f"{len(names)} classes are named by {whose}, and the network has {outputs} outputs.",
            where="num_classes",
            fix="Take the names that are of this network, one for each output.",
        )


def matched_by_order(source: ImageSource, names: Sequence[str] | None) -> list[str]:
    """Return a sentence where only their order says which class of ``source`` is which output of the network."""
    if names is not None and source.classes == list(names):
        return []
    called = "nobody knows the names of the network's classes" if names is None else f"the network's are {some(names)}"
    return [f"which class is which output, their order decides: the data's are {some(source.classes)}, {called}"]


def left_out(source: ImageSource, split: str) -> list[str]:
    """Return a sentence on files of a split that are not images by name or place, and on images that are not there."""
    said = {
        f"{source.others} files of {split} are not images by their names or places, and were left out": source.others,
        f"{source.absent} images that the table of {split} names are not there": source.absent,
    }
    return [sentence for sentence, count in said.items() if count]
