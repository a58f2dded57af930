"""The input pipeline: photographs in a folder become batches, ours beside timm's loader with as many workers.

A step is one epoch. Both decode the same JPEG files with Pillow; for training both draw a random crop, a flip,
RandAugment and random erasing, and neither mixes. The severity of RandAugment does not vary (no mstd): where it reaches
10, Pillow 13 refuses what timm's posterize asks for, and its workers end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import Case, Contender, NotHereError, Step
from xcit_hub.errors import InputError

TIMM_LOADER = "timm, create_loader"

_PHOTOGRAPHS = 640
_SIZE = (500, 375)  # ImageNet's most frequent
_QUALITY = 92
_POLICY = "rand-m9-inc1"
_ERASING = 0.25
_SOURCES = ("astronaut", "chelsea", "coffee", "rocket")  # scikit-image's colour photographs


def prepare(case: Case, count: int = _PHOTOGRAPHS) -> None:
    """Crop photographs of real size from scikit-image's, two classes of JPEG files."""
    try:
        from skimage import data
    except ImportError as error:
        raise InputError(
            "scikit-image, whose photographs the input pipeline is measured on, is not installed.",
            fix="Install it, or give a folder with one folder of photographs for each class: --photographs DIR.",
        ) from error
    from PIL import Image

    generator = np.random.default_rng(0)
    originals = [Image.fromarray(getattr(data, name)()) for name in _SOURCES]
    for number in range(count):
        original = originals[number % len(originals)]
        share = generator.uniform(0.6, 1.0)
        width = int(share * min(original.width, original.height * _SIZE[0] / _SIZE[1]))
        height = width * _SIZE[1] // _SIZE[0]
        left = int(generator.integers(0, original.width - width + 1))
        upper = int(generator.integers(0, original.height - height + 1))
        folder = Path(case.folder) / f"class_{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        crop = original.crop((left, upper, left + width, upper + height)).resize(_SIZE, Image.Resampling.LANCZOS)
        crop.save(folder / f"{number:04}.jpg", quality=_QUALITY)


def timm_loader(case: Case, *, prefetcher: bool = True) -> Step:
    """Feed with timm; its prefetcher moves bytes between processes and normalises in this one."""
    try:
        import torch
        from timm.data import ImageDataset, create_loader
    except ImportError as error:
        raise NotHereError("not installed (pip install 'xcit-hub[timm]')") from error
    training = case.work == "training"
    augmentation: dict[str, Any] = {"auto_augment": _POLICY, "re_prob": _ERASING, "re_mode": "pixel"}
    loader = create_loader(
        ImageDataset(case.folder),
        (3, case.height, case.width),
        case.batch,
        is_training=training,
        interpolation="bicubic",
        crop_pct=None if training else 1.0,
        num_workers=case.workers,
        use_prefetcher=prefetcher,
        device=torch.device("cpu"),
        **(augmentation if training else {}),
    )
    return lambda: sum(len(images) for images, _ in loader)


def our_loader(case: Case) -> Step:
    """Feed as ``xcit-hub train`` and ``xcit-hub eval`` do."""
    from xcit_hub.data.batches import Worker
    from xcit_hub.training.inputs import eval_data, train_data
    from xcit_hub.training.recipe import Recipe

    folder = Path(case.folder)
    recipe = Recipe.model_validate(
        {
            "model": case.model,
            "dialect": "paper",
            "data_dir": str(folder.parent),
            "train_split": folder.name,
            "val_split": folder.name,
            "image_resize": case.height,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "batch_size": case.batch,
            "num_parallel_workers": case.workers,
            "library": "timm",
            "auto_augment": _POLICY,
            "re_prob": _ERASING,
            "re_value": "random",
        }
    )
    if case.work == "training":
        _, batches = train_data(recipe, Worker())
        epochs = iter(range(1 << 20))
        return lambda: sum(len(batch.images) for batch in batches.epoch(next(epochs)))
    images = eval_data(recipe, Worker())
    return lambda: sum(int(counts.sum()) for _, _, counts in images)


FEEDERS: dict[str, Contender] = {
    TIMM_LOADER: Contender(timm_loader),
    "timm, create_loader, no prefetcher": Contender(
        # The workers normalise, as ours do.
        lambda case: timm_loader(case, prefetcher=False)
    ),
    "xcit-hub": Contender(our_loader),
}
