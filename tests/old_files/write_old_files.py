"""Writes the archives beside it, with the xcit-hub that is imported; those kept here were written by 0.1.0:

    git worktree add ../old b57755a
    PYTHONPATH=../old:../old/tests/hub python tests/old_files/write_old_files.py tests/old_files

An archive is never written anew for a later version: a release adds its own, under its own number. Weights repeat a
short pattern, so that a whole network of 3 million parameters is a few kilobytes in an archive.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")
os.environ["HF_HUB_DISABLE_XET"] = "1"

import mindspore
import numpy as np
from PIL import Image

import xcit_hub
from xcit_hub import variants
from xcit_hub.parameters import parameter_shapes

MODEL = "xcit_nano_12_p16_224"
MODEL_ID = "old/nano"
LABELS = ("cat", "dog")
MINI = "xcit_mini_2_p16_32"
RECIPE = {
    "model": MINI,
    "dialect": "paper",
    "data_dir": "photographs",
    "ckpt_save_dir": "run",
    "batch_size": 2,
    "epoch_size": 2,
    "image_resize": 32,
    "num_parallel_workers": 1,
    "distribute": False,
    "mode": 1,
    "ema": True,
    "seed": 7,
}


def pattern(name: str, shape: tuple[int, ...], place: int) -> np.ndarray:
    """Return what a tensor of these files holds: multiples of 1/1000 from -0.125 on, variances above 0.5."""
    values = ((np.arange(int(np.prod(shape))) + place) % 251 - 125).astype(np.float32) / np.float32(1000)
    return (np.abs(values) + np.float32(0.5) if name.endswith("moving_variance") else values).reshape(shape)


def register_mini() -> None:
    """Add an architecture whose whole training state is small."""
    nano = variants.ARCHITECTURES[MODEL]
    small = {"embed_dim": 8, "depth": 2, "num_heads": 2, "image_size": 32}
    variants.ARCHITECTURES[MINI] = dataclasses.replace(nano, name=MINI, **small)


def write_photographs(folder: Path) -> None:
    """Write the data set of :data:`RECIPE`: 4 images of each class to train on, 2 to evaluate on."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for label in LABELS:
            place = folder / split / label
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).resize((32, 32)).save(
                    place / f"{number}.png"
                )


@contextmanager
def _archive(target: Path) -> Iterator[Path]:
    """A folder to write into, packed into ``target`` afterwards."""

    def nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        with tarfile.open(target, "w:xz", preset=9) as archive:
            for path in sorted(Path(folder).iterdir()):
                archive.add(path, path.name, filter=nobody)


def _network(dialect: str) -> mindspore.nn.Cell:
    network = xcit_hub.create_model(MODEL, num_classes=2, dialect=dialect)
    shapes = parameter_shapes(variants.architecture(MODEL), num_classes=2)
    for place, (name, shape) in enumerate(shapes.items()):
        network.parameters_dict()[name].set_data(mindspore.Tensor(pattern(name, shape, place)))
    return network


def write_checkpoints(target: Path) -> None:
    """Write one network in both dialects, both formats, and every family that holds its dialect."""
    with _archive(target) as folder:
        for dialect in ("paper", "mindcv"):
            bare = folder / "bare.ckpt"
            mindspore.save_checkpoint(_network(dialect), str(bare))
            for family in ("timm", "xcit-hub") if dialect == "paper" else ("mindcv", "xcit-hub"):
                for suffix in (".safetensors", ".ckpt"):
                    place = folder / f"{dialect}-{family}-{suffix[1:]}"
                    place.mkdir()
                    xcit_hub.convert(bare, place / f"model{suffix}", to=family, dialect=dialect, model=MODEL)
            bare.unlink()


def write_hubs(folder_hub: Path, cache: Path) -> None:
    """Publish to a folder hub; publish to Hugging Face's protocol and load, which fills a cache."""
    from hub_server import TOKEN, hub_server

    with tempfile.TemporaryDirectory() as scratch, _archive(folder_hub) as hub, _archive(cache) as cached:
        source, labels = Path(scratch) / "source.ckpt", Path(scratch) / "labels.txt"
        labels.write_text("\n".join(LABELS) + "\n")
        mindspore.save_checkpoint(_network("paper"), str(source))
        said = {"model": MODEL, "dialect": "paper", "labels": labels}
        xcit_hub.publish(source, MODEL_ID, to=hub, parity=True, **said)
        with hub_server() as server:
            xcit_hub.publish(source, MODEL_ID, to=server.url, token=TOKEN, parity=False, **said)
            xcit_hub.load(MODEL_ID, hub=server.url, cache_dir=cached, token=TOKEN)


def write_run(target: Path) -> None:
    """Train one epoch of two and stop: what ``--resume`` goes on from; and both, evaluated: a run.json."""
    from xcit_hub.training.engine import train
    from xcit_hub.training.recipe import Recipe

    class Stop(Exception):  # noqa: N818
        pass

    def stop(_: object) -> None:
        raise Stop

    register_mini()
    before = Path.cwd()
    with _archive(target) as folder:
        os.chdir(folder)
        write_photographs(folder / "photographs")
        with suppress(Stop):
            train(Recipe.model_validate(RECIPE), on_epoch=stop)
        train(Recipe.model_validate({**RECIPE, "ckpt_save_dir": "finished", "val_while_train": True}))
        unneeded = ("finished/*.safetensors", "finished/*.ckpt", "*/*.png", "*/tensorboard/*")
        for path in itertools.chain(*map(folder.glob, unneeded)):
            path.unlink()
        os.chdir(before)


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    named = f"{{}}-{xcit_hub.__version__}.tar.xz".format
    write_checkpoints(folder / named("checkpoints"))
    write_hubs(folder / named("folder_hub"), folder / named("cache"))
    write_run(folder / named("training"))
    os._exit(0)


if __name__ == "__main__":
    main()
