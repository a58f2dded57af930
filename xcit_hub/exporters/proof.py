"""The proof of an exported file: run by its own runtime in a fresh process, judged like every network.

The truth is PyTorch's network in double precision on the same weights (:mod:`xcit_hub.parity.rule`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub.exporters import runtimes
from xcit_hub.exporters.form import Form
from xcit_hub.parity import random_images, torch_network
from xcit_hub.parity.rule import Check, Reference
from xcit_hub.variants import Architecture, DialectName

Array = NDArray[Any]


@dataclass(frozen=True)
class FileProof:
    """What running a file found.

    Args:
        runtime: what ran it.
        shapes: the images it was run on, (B, C, H, W).
        checks: every output at every shape, judged.
    """

    runtime: str
    shapes: tuple[tuple[int, ...], ...]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every output passed at every shape."""
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "runtime": self.runtime,
            "passed": self.passed,
            "shapes": [list(shape) for shape in self.shapes],
            "checks": [check.as_dict() for check in self.checks],
        }


def prove(
    file: str | os.PathLike[str],
    runtime: str,
    arrays: Mapping[str, Array],
    architecture: Architecture,
    dialect: DialectName,
    form: Form,
) -> FileProof:
    """Run a file on a few batches and judge each output.

    Args:
        runtime: a key of :data:`xcit_hub.exporters.runtimes.RUNTIMES`.
        arrays: the parameters that the file was made of, by MindCV's names.

    Raises:
        XcitHubError: PyTorch or the runtime is not installed, or cannot run the file.
    """
    network = torch_network(arrays, architecture, dialect, num_classes=form.num_classes, in_chans=form.in_chans)
    if form.dtype == "float16":
        network = network.half()
    checks: list[Check] = []
    shapes = tuple(_shapes(architecture, form))
    for shape in shapes:
        image, pixels = _batch(shape, form)
        reference = Reference(network, pixels, lambda net, images: _outputs(net, images, form))
        found = runtimes.run(runtime, file, image)
        if set(found) != set(reference.truth) and len(found) == len(reference.truth):
            found = dict(zip(reference.truth, found.values(), strict=True))  # MINDIR does not name its outputs
        checks += [
            Check(**{**asdict_shallow(check), "what": f"{check.what} at {'×'.join(map(str, shape))}"})
            for check in reference.check(found)
        ]
    return FileProof(runtime, shapes, tuple(checks))


def asdict_shallow(check: Check) -> dict[str, Any]:
    """Return a check's fields."""
    return {name: getattr(check, name) for name in asdict(check)}


def _shapes(architecture: Architecture, form: Form) -> Sequence[tuple[int, ...]]:
    patch = architecture.patch_size
    sides = [form.image_size] if form.image_size else [(4 * patch, 4 * patch), (3 * patch, 6 * patch)]
    batches = [form.batch] if form.batch else [1, 2]
    return [(batch, form.in_chans, *side) for batch, side in zip(batches * 2, sides * 2, strict=False)][
        : max(len(sides), len(batches))
    ]


def _batch(shape: tuple[int, ...], form: Form) -> tuple[Array, Array]:
    """Return what the file takes, and the same for PyTorch."""
    if form.mean is None or form.std is None:
        pixels = random_images(*shape)
        return pixels, pixels
    batch, channels, height, width = shape
    image = np.random.default_rng(1).integers(0, 256, (batch, height, width, channels), np.uint8)
    mean, std = np.asarray(form.mean), np.asarray(form.std)
    return image, ((image / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)


def _outputs(network: Any, images: Any, form: Form) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        if form.features:
            maps = network.forward_intermediates(images, indices=list(form.features), intermediates_only=True)
            return {f"features.{index}": found for index, found in zip(form.features, maps, strict=True)}
        tokens = network.forward_features(images)
        pooled = {"token": lambda: tokens[:, 0], "avg": lambda: tokens[:, 1:].mean(1), "": lambda: tokens}
        x = pooled[form.global_pool]()
        return {"logits": network.head(x)} if form.num_classes else {"features": x}
