"""Tries, by putting another file under a name between two looks at it, to have one file hashed and another one read.

Before the n-th time that a name is opened, another network's file takes its place. Whatever comes of it is one clear
error, or speaks of the bytes that were read.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from ledger import Attack, Case, expect
from victims import NAME, nano, nobodys_machine, random_nano, workshop, write_nano

import xcit_hub
from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import XcitHubError
from xcit_hub.files import sha256_of

_MOST = 8  # looks at one name

Told = tuple[str, np.ndarray]  # the digest that is said, and the numbers that were read


@cache
def other() -> Path:
    return write_nano(workshop() / "other.ckpt", random_nano(seed=4), "paper")


def _load_a_file(path: Path, _: Path) -> Told:
    network = xcit_hub.load(str(path))
    return network.config.provenance.sha256, network.head.weight.asnumpy()


def _load_from_a_hub(path: Path, _: Path) -> Told:
    network = xcit_hub.load(NAME, hub=_hub_of(path))
    return network.config.provenance.sha256, network.head.weight.asnumpy()


def _convert(path: Path, folder: Path) -> Told:
    from converters.convert import convert

    made = convert(path, folder / "out.ckpt", verify=False).as_dict()
    with checkpoint.read(folder / "out.ckpt") as held:
        return made["source"]["sha256"], np.array(held.tensors["head.weight"].numpy())


def _convert_a_folder(path: Path, folder: Path) -> Told:
    """Twice: the second run looks first whether there is anything to do."""
    from converters.convert import Options
    from converters.folders import convert_all

    target = folder / "converted" / "here.ckpt"
    for _ in range(2):
        for done in convert_all([(path, target)], Options(), verify=False):
            if done.error is not None:
                raise done.error
    report = json.loads(target.with_name("here.ckpt.report.json").read_text())
    with checkpoint.read(target) as held:
        return report["source"]["sha256"], np.array(held.tensors["head.weight"].numpy())


def _export(path: Path, folder: Path) -> Told:
    import onnx

    from xcit_hub.deploy import export

    done = export(path, folder / "out.onnx", proof=False, fuse=False)
    held = {tensor.name: tensor for tensor in onnx.load(str(done.files[0])).graph.initializer}
    expect(done.sha256 == sha256_of(done.files[0]), "another digest is told than the export has")
    return done.metadata["xcit_hub.source_sha256"], onnx.numpy_helper.to_array(held["head.weight"]).T


def _publish(path: Path, folder: Path) -> Told:
    xcit_hub.publish(path, NAME, to=folder / "to", parity=False)
    report = json.loads((folder / "to" / NAME / "conversion.json").read_text())
    with checkpoint.read(folder / "to" / NAME / "model.safetensors") as held:
        return report["source"]["sha256"], np.array(held.tensors["head.weight"].numpy())


def _describe(path: Path, _: Path) -> Told:
    from cards.gather import of_checkpoint

    digest = of_checkpoint(path).weights.sha256
    return digest, _head(Path(_file_of(digest)))


def _evaluate(path: Path, _: Path) -> Told:
    from xcit_hub.training.recipe_file import load_recipe
    from xcit_hub.training.scoring import stored_network

    recipe = load_recipe(None, {"model": "xcit_nano_12_p16_224", "dialect": "paper", "ckpt_path": str(path)})
    stored = stored_network(recipe)
    return stored.digest, stored.network.head.weight.asnumpy()


_WORKS: dict[str, Callable[[Path, Path], Told]] = {
    "load a file": _load_a_file,
    "load from a hub": _load_from_a_hub,
    "convert": _convert,
    "convert a folder": _convert_a_folder,
    "export": _export,
    "publish": _publish,
    "describe": _describe,
    "evaluate": _evaluate,
}


def cases(_: int) -> list[Case]:
    return [Case(name, partial(_attempt, name, work)) for name, work in _WORKS.items()]


ATTACK = Attack("swapped files", cases, sample=2)


def _attempt(name: str, work: Callable[[Path, Path], Told], folder: Path) -> int:
    heads = {sha256_of(path): _head(path) for path in (nano(), other())}
    tried = 0
    for look in range(1, _MOST + 1):
        here = folder / str(look)
        here.mkdir()
        with nobodys_machine(here):
            path, instead, both = _prepared(name, here, heads)
            _Swap.arm(path, instead, look)
            try:
                said, read = work(path, here)
            except XcitHubError as error:
                expect(error.fix, "no way out is told")
            else:
                expect(said in both, f"the digest that is told is nobody's: {said}")
                expect(np.array_equal(both[said], read), f"look {look}: one file is spoken of, another was read")
            finally:
                looks = _Swap.disarm()
        tried += 1
        if looks < look:
            break
    return tried


def _prepared(name: str, folder: Path, heads: dict[str, np.ndarray]) -> tuple[Path, Path, dict[str, np.ndarray]]:
    path, instead = folder / "here.ckpt", folder / "instead.ckpt"
    if name != "load from a hub":
        shutil.copy(nano(), path)
        shutil.copy(other(), instead)
        return path, instead, heads
    for source, hub in ((nano(), folder / "hub"), (other(), folder / "else")):
        xcit_hub.publish(source, NAME, to=hub, parity=False)
    path, instead = ((folder / hub / NAME / "model.safetensors").resolve() for hub in ("hub", "else"))
    return path, instead, {sha256_of(each): _head(each) for each in (path, instead)}


def _hub_of(blob: Path) -> Path:
    return blob.parents[2]


def _head(path: Path) -> np.ndarray:
    with checkpoint.read(path) as held:
        return np.array(held.tensors["head.weight"].numpy())


def _file_of(digest: str) -> str:
    return str(next(path for path in (nano(), other()) if sha256_of(path) == digest))


class _Swap:
    """The one hook of this process; hooks cannot be taken back."""

    path: str | None = None
    instead: Path
    look = 0
    seen = 0
    is_hooked = False

    @classmethod
    def arm(cls, path: Path, instead: Path, look: int) -> None:
        cls.path, cls.instead, cls.look, cls.seen = str(path), instead, look, 0
        if not cls.is_hooked:
            sys.addaudithook(cls.hook)
            cls.is_hooked = True

    @classmethod
    def disarm(cls) -> int:
        cls.path = None
        return cls.seen

    @classmethod
    def hook(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or cls.path is None or not isinstance(arguments[0], str | os.PathLike):
            return
        if os.path.realpath(arguments[0]) != cls.path:
            return
        cls.seen += 1
        if cls.seen == cls.look:
            os.replace(cls.instead, cls.path)  # noqa: PTH105  (nothing that opens files of its own)
