"""One published checkpoint where it really is: address, size, digest, description, network, proof, a few answers."""

from __future__ import annotations

import contextlib
import hashlib
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from xcit_hub.errors import XcitHubError
from xcit_hub.variants import PublishedCheckpoint

CHUNK = 1 << 20
_LOOPBACK = ("127.0.0.1", "localhost")
_BY_HAND = ("drive.google.com",)  # asks a person before it gives a large file


class RefusedError(Exception):
    """What was found is not what the table says, or is more than was allowed."""


@dataclass
class Bounds:
    """What all visits together may take; ``seconds`` is for one file."""

    bytes_a_file: int = 1 << 30
    bytes_in_all: int = 8 << 30
    seconds: float = 1800
    taken: int = 0

    def take(self, count: int, began: float) -> None:
        """Count bytes that arrived."""
        self.taken += count
        if self.taken > self.bytes_in_all:
            raise RefusedError(f"the visits took {self.bytes_in_all} bytes, as many as they may: raise --gigabytes")
        if time.monotonic() - began > self.seconds:
            raise RefusedError(f"the file took longer than {self.seconds:.0f} seconds")


@dataclass
class Step:
    """One thing that was looked at. ``ok`` is None where it does not apply, with the reason in ``said``."""

    name: str
    ok: bool | None
    said: str
    seconds: float


@dataclass
class Visit:
    """What was found of one checkpoint."""

    name: str
    url: str
    repository: str | None
    steps: list[Step] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether nothing was found that should not be."""
        return all(step.ok is not False for step in self.steps)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return {**asdict(self), "held": self.held}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time one step and note what came of it; the value takes what there is to say."""
        said: list[str] = []
        began = time.monotonic()
        try:
            yield said.append
            ok = True
        except _SkippedError as reason:
            ok, said = None, [str(reason)]
        except (XcitHubError, RefusedError, OSError) as error:
            ok, said = False, [*said, f"{type(error).__name__}: {getattr(error, 'what', None) or error}"]
        self.steps.append(Step(name, ok, "; ".join(said), round(time.monotonic() - began, 2)))

    def stands(self, name: str) -> bool:
        """Whether a step has passed."""
        return any(step.name == name and step.ok for step in self.steps)


class _SkippedError(Exception):
    pass


@dataclass(frozen=True)
class Photograph:
    """A labelled photograph: ``right`` are the ImageNet classes that a person would accept."""

    name: str
    image: Image.Image
    right: frozenset[int]


def photographs() -> list[Photograph]:
    """Return what scikit-image ships and ImageNet has classes for."""
    import skimage.data

    classes = {"chelsea": (281, 282, 285), "coffee": (504, 967, 968, 969), "rocket": (657, 744, 812)}
    return [
        Photograph(name, Image.fromarray(getattr(skimage.data, name)()), frozenset(right))
        for name, right in classes.items()
    ]


def visit(entry: PublishedCheckpoint, folder: Path, bounds: Bounds, shown: Sequence[Photograph]) -> Visit:
    """Go to where a checkpoint is published, and look at everything the table says of it."""
    found = Visit(entry.name, entry.url, entry.repository)
    original = folder / entry.file
    with found.step("original file") as say:
        if urlsplit(entry.url).hostname in _BY_HAND:
            raise _SkippedError("is fetched by hand in a browser")
        size, digest = fetch(entry.url, original, bounds)
        say(f"{size} bytes, sha256 {digest}")
        if entry.sha256 and not digest.startswith(entry.sha256.lower()):
            original.unlink()
            raise RefusedError(f"the table says sha256 {entry.sha256}")
    if entry.repository:
        _repository(found, entry, folder, bounds)
    weights = folder / "model.safetensors"
    # Of two files one is computed; the other is then held against it, tensor by tensor.
    path = weights if found.stands("repository") else original
    if path.is_file():
        _network(found, entry, path, shown)
    with found.step("both files hold the same") as say:
        if not (weights.is_file() and original.is_file()):
            raise _SkippedError("there are not two files")
        from xcit_hub.compare import compare

        same = compare(str(weights), str(original), image_size=64)
        say(str(same))
        if any(each.kind in ("tensor", "output") for each in same.differences):
            raise RefusedError("they differ")
    return found


def _repository(found: Visit, entry: PublishedCheckpoint, folder: Path, bounds: Bounds) -> None:
    from xcit_hub.hub.locate import info, locate

    address = f"hf://{entry.repository}"
    with found.step("description") as say:
        told = info(address)
        say(f"revision {told.revision}")
        if told.config is None:
            raise RefusedError("there is no description")
        for what, one, other in (
            ("architecture", told.config.architecture, entry.architecture),
            ("dialect", told.config.dialect, entry.dialect),
            ("classes", told.config.num_classes, entry.num_classes),
            ("preprocessing", told.config.preprocessing, entry.preprocessing),
        ):
            if one != other:
                raise RefusedError(f"{what}: {one} there, {other} in the table")
        size, _ = told.files[told.weights]
        if size is not None and size > bounds.bytes_a_file:
            raise RefusedError(f"the weights have {size} bytes")
    with found.step("repository") as say:
        if not found.stands("description"):
            raise _SkippedError("its description did not hold")
        began = time.monotonic()
        path, digest = locate(address, cache_dir=folder / "cache").fetch()
        bounds.take(path.stat().st_size, began)
        (folder / "model.safetensors").symlink_to(path)
        say(f"{path.stat().st_size} bytes, sha256 {digest}")


def _network(found: Visit, entry: PublishedCheckpoint, path: Path, shown: Sequence[Photograph]) -> None:
    from xcit_hub import parity
    from xcit_hub.checkpoints.weights import load

    weights = None
    with found.step("load") as say:
        weights = load(path, model=entry.architecture, dialect=entry.dialect)
        say(f"{weights.architecture}, {weights.dialect}, {weights.num_classes} classes")
    if weights is None:
        return
    with found.step("proof") as say:
        arrays = weights.arrays()
        result = parity.verify_weights(
            arrays, weights.architecture, weights.dialect, num_classes=weights.num_classes, in_chans=weights.in_chans
        )
        say(str(result))
        if not result.passed:
            raise RefusedError("MindSpore and PyTorch compute something else")
    with found.step("top-1") as say:
        if entry.num_classes != 1000:
            raise _SkippedError(f"the network has {entry.num_classes} classes, not ImageNet's")
        right = _answers(entry, weights, shown, say)
        say(f"{right} of {len(shown)} answers are right")


def _answers(entry: PublishedCheckpoint, weights: Any, shown: Sequence[Photograph], say: Callable[[str], None]) -> int:
    """Compare both frameworks' first answers on each photograph; return how many are what a person would say."""
    import mindspore
    import torch

    from xcit_hub import parity
    from xcit_hub.data.transforms import EvalTransform
    from xcit_hub.hub.config import of_architecture
    from xcit_hub.hub.network import XCiT

    arrays = weights.arrays()
    config = of_architecture(entry.architecture, entry.dialect, num_classes=entry.num_classes)
    ours = XCiT.of_config(config, arrays)
    theirs = parity.torch_network(arrays, weights.architecture, weights.dialect, num_classes=weights.num_classes)
    prepare = EvalTransform(entry.preprocessing, in_chans=3)
    right = 0
    for photograph in shown:
        pixels = np.asarray(prepare(photograph.image))[None]
        one = int(ours(mindspore.Tensor(pixels)).asnumpy().argmax())
        with torch.no_grad():
            other = int(theirs(torch.from_numpy(pixels)).numpy().argmax())
        say(f"{photograph.name}: {one}")
        if one != other:
            raise RefusedError(f"PyTorch answers {other} to {photograph.name}")
        right += one in photograph.right
    return right


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise RefusedError(f"the address is not https: {url:.200}")


def fetch(url: str, target: Path, bounds: Bounds) -> tuple[int, str]:
    """Fetch a plain file within the bounds; return its bytes and SHA-256. What is not whole does not stay."""
    _check_address(url)
    began, size, digest = time.monotonic(), 0, hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as stream:
            _check_address(answer.geturl())  # where it was led to
            promised = answer.headers.get("Content-Length")
            while chunk := answer.read(CHUNK):
                size += len(chunk)
                if size > bounds.bytes_a_file:
                    raise RefusedError(f"the file has more than {bounds.bytes_a_file} bytes")
                bounds.take(len(chunk), began)
                digest.update(chunk)
                stream.write(chunk)
        if promised is not None and size != int(promised):
            raise RefusedError(f"{size} bytes came, and {promised} were promised")
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return size, digest.hexdigest()
