"""From a recipe to its batches: which images are trained on, which are evaluated, and which class is which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xcit_hub.data.augment import SplitTransform, TrainTransform
from xcit_hub.data.batches import EvalBatches, TrainBatches, TrainView, Worker
from xcit_hub.data.erasing import RandomErasing
from xcit_hub.data.mixing import Mixing
from xcit_hub.data.policy_notation import read_policy
from xcit_hub.data.sources import ImageSource, name_classes, open_source, sample
from xcit_hub.data.transforms import EvalTransform
from xcit_hub.errors import InputError
from xcit_hub.training.recipe import Recipe


def train_data(recipe: Recipe, worker: Worker) -> tuple[ImageSource, TrainBatches]:
    """Find the training split and make its batches as the recipe says."""
    source = open_source(recipe.dataset, recipe.data_dir, recipe.train_split, train=True)
    if recipe.num_samples is not None:
        drawn = np.random.default_rng([recipe.seed, recipe.num_samples]) if recipe.shuffle else None
        source = sample(source, recipe.num_samples, drawn)
    return source, TrainBatches(
        source,
        _train_view(recipe),
        classes=recipe.num_classes or len(source.classes),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        mixing=Mixing(recipe.mixup, recipe.cutmix, recipe.cutmix_prob, recipe.switch_prob),
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
        size=recipe.image_resize,
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
    return SplitTransform(view, recipe.aug_splits) if recipe.aug_splits else view


def eval_data(recipe: Recipe, worker: Worker) -> EvalBatches:
    """Find the evaluation split; each worker sees its share of the images once."""
    source = open_source(recipe.dataset, recipe.data_dir, recipe.val_split, train=False)
    view = EvalTransform(recipe.preprocessing)
    return EvalBatches(source, view, batch_size=recipe.batch_size, threads=recipe.num_parallel_workers, worker=worker)


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
        return name_classes(source, names, whose=whose)
    if len(source.classes) != outputs:
        raise InputError(
            f"The data set has {len(source.classes)} classes, the network {outputs}, and nothing says which they are.",
            fix="Evaluate on the classes that the network was trained on.",
        )
    return []
