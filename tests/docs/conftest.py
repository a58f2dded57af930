"""A reader's folder: the files that the pages speak of, and a loopback hub in the place of Hugging Face."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "hub"))  # hub_server and hub_fixtures stand there

from documented import ROOT
from hub_fixtures import *  # noqa: F403

TINY = "xcit_tiny_12_p16_224"
NANO = "xcit_nano_12_p16_224"
_CLASSES = ["cup", "rocket"]


@pytest.fixture(scope="session")
def timm_tiny(tmp_path_factory) -> dict[str, bytes]:
    """What timm's repository of tiny holds, with random weights."""
    from xcit_hub.checkpoints import checkpoint
    from xcit_hub.checkpoints.rewrite import rewrite
    from xcit_hub.hub import timm_config
    from xcit_hub.hub.config import of_architecture
    from xcit_hub.parameters import parameter_shapes
    from xcit_hub.parity import random_weights
    from xcit_hub.variants import architecture

    folder = tmp_path_factory.mktemp("timm")
    marks = {"xcit_hub.architecture": TINY, "xcit_hub.dialect": "paper"}
    checkpoint.write(folder / "tiny.ckpt", random_weights(parameter_shapes(architecture(TINY)), seed=5), marks)
    rewrite(folder / "tiny.ckpt", folder / "model.safetensors", to="timm")
    config = timm_config.write(of_architecture(TINY, "paper", num_classes=1000)).encode()
    return {"config.json": config, "model.safetensors": (folder / "model.safetensors").read_bytes()}


@pytest.fixture(scope="session")
def readers_files(tmp_path_factory, timm_tiny) -> Path:
    """Photographs, a folder of classes, and checkpoints under the names that the pages use."""
    import json

    import numpy as np
    import skimage.data
    from PIL import Image

    import xcit_hub
    from xcit_hub.checkpoints import checkpoint
    from xcit_hub.checkpoints.rewrite import rewrite
    from xcit_hub.parameters import parameter_shapes
    from xcit_hub.parity import random_weights
    from xcit_hub.variants import architecture

    folder = tmp_path_factory.mktemp("reader")
    pictures = [Image.fromarray(getattr(skimage.data, name)()) for name in ("coffee", "rocket", "chelsea")]
    (folder / "photographs").mkdir()
    for number, image in enumerate(pictures):
        image.save(folder / "photographs" / f"{number}.jpg")
    for name in ("photograph.jpg", "cat.jpg"):
        pictures[0].save(folder / name)
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for image, name in zip(pictures, _CLASSES, strict=False):
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                left, top = (int(rng.integers(side - 96)) for side in image.size)
                crop = image.crop((left, top, left + 96, top + 96))
                crop.save(folder / "images" / split / name / f"{number}.png")
    (folder / "timm.safetensors").write_bytes(timm_tiny["model.safetensors"])
    tiny = folder / "tiny.ckpt"
    rewrite(folder / "timm.safetensors", tiny, model=TINY)
    (folder / "timm.safetensors").unlink()
    for name in (f"{TINY}.ckpt", "trained.ckpt", "mine.ckpt"):
        (folder / name).hardlink_to(tiny)
    rewrite(tiny, folder / "released.safetensors")
    xcit_hub.publish(tiny, "ORG/NAME", to=folder / "hub", parity=False)
    _write_segmenter(folder / "sem_fpn_xcit_tiny_12_p16.pth")
    _stored(folder)
    (folder / "downloads").mkdir()
    marks = {
        "xcit_hub.architecture": NANO, "xcit_hub.dialect": "paper", "xcit_hub.classes": json.dumps(_CLASSES),
    }  # fmt: skip
    nano = random_weights(parameter_shapes(architecture(NANO), num_classes=2), seed=6)
    for path in (folder / "best.ckpt", folder / "downloads" / "one.ckpt"):
        checkpoint.write(path, nano, marks)
    run = {"format": 2, "model": NANO, "dialect": "paper", "num_classes": 2, "dataset": "flowers", "epochs": 2,
           "top1": 75.0, "eval_samples": 4, "device": "CPU", "train_samples": 8}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "card.yaml").write_text("author: Ada Example\nlicense: apache-2.0\n")
    for name in ("examples", "configs", "train.py", "validate.py", "parity-action"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def _write_segmenter(path: Path) -> None:
    """Write random weights as facebook's segmenters are written."""
    from xcit_hub.checkpoints import checkpoint
    from xcit_hub.checkpoints.families import shapes_of
    from xcit_hub.checkpoints.tensor import StoredTensor
    from xcit_hub.checkpoints.translate import from_ours
    from xcit_hub.parity import random_weights
    from xcit_hub.segmenters import facebooks, head_shapes
    from xcit_hub.variants import architecture

    tiny = architecture(TINY)
    heads = head_shapes(tiny, facebooks("sem_fpn", tiny, 150))
    ours = random_weights({**shapes_of(tiny, "dense", 0, 3), **heads}, seed=7)
    theirs = from_ours({name: StoredTensor.of(array) for name, array in ours.items()}, "facebook")
    parts = ("neck.", "decode_head.")
    named = {name if name.startswith(parts) else f"backbone.{name}": tensor for name, tensor in theirs.items()}
    checkpoint.write(path, named, under="state_dict")


def _stored(folder: Path) -> None:
    """Put the photographs into an archive and a table as well."""
    import tarfile

    import pyarrow
    import pyarrow.parquet

    paths = sorted((folder / "photographs").iterdir())
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "0.tar", "w") as archive:
        for path in paths:
            archive.add(path, path.name)
    pyarrow.parquet.write_table(
        pyarrow.table({"image": [path.read_bytes() for path in paths]}), folder / "table.parquet"
    )
