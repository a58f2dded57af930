"""The proof of an exported file: run by its own runtime in a fresh process, judged like every network.

The truth is PyTorch's network in double precision on the same weights (:mod:`xcit_hub.parity.rule`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub.exporters import runtimes
from xcit_hub.exporters.form import ATTENTION, Form
from xcit_hub.parity import proof_size, random_images, torch_network
from xcit_hub.parity.rule import FLOOR, Check, Reference
from xcit_hub.variants import Architecture, DialectName

Array = NDArray[Any]

OPENVINO_FLOOR = 128.0
"""The floor of what OpenVINO computes in float32 (:data:`xcit_hub.parity.rule.FLOOR` is everybody else's).

On a Xeon with AVX-512 it rounds 2.4 times as coarsely as PyTorch in the mean, and one logit of 2,000 is 90 unit
roundoffs away (xcit_large_24_p16, mindcv, not folded), where onnxruntime keeps to 27 on the same file.
"""


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
    chosen: Sequence[str],
    arrays: Mapping[str, Array],
    architecture: Architecture,
    dialect: DialectName,
    form: Form,
    stage: Callable[[str], None] = lambda _: None,
) -> Iterator[FileProof]:
    """Run a file on a few batches by each runtime, one after the other, and judge each output.

    Args:
        chosen: keys of :data:`xcit_hub.exporters.runtimes.RUNTIMES`.
        arrays: the parameters that the file was made of, by MindCV's names.
        stage: told in a few words what is going on.

    Raises:
        XcitHubError: PyTorch or a runtime is not installed, or cannot run the file.
    """
    whole = {name: each for name, each in arrays.items() if form.num_classes or not name.startswith("head.")}
    network = torch_network(whole, architecture, dialect, num_classes=form.num_classes, in_chans=form.in_chans)
    if form.attention:
        for block in network.cls_attn_blocks:
            block.attn.fused_attn = False  # PyTorch's own operation shows no attention
    if form.dtype == "float16":
        network = network.half()
    shapes = tuple(_shapes(architecture, form))
    images, pixels = zip(*(_batch(shape, form) for shape in shapes), strict=True)
    stage("PyTorch's network in double precision")
    references = [Reference(network, each, lambda net, batch: _outputs(net, batch, form)) for each in pixels]
    for runtime in chosen:
        stage(f"running the file with {runtime}")
        checks: list[Check] = []
        for shape, reference, found in zip(shapes, references, runtimes.run(runtime, file, images), strict=True):
            if set(found) != set(reference.truth) and len(found) == len(reference.truth):
                # MINDIR does not name its outputs, and others name theirs otherwise.
                found = dict(zip(reference.truth, found.values(), strict=True))
            sides = "×".join(map(str, shape))
            floor = OPENVINO_FLOOR if runtime == "openvino" and form.dtype == "float32" else FLOOR
            checks += [replace(check, what=f"{check.what} at {sides}", floor=floor) for check in reference.check(found)]
        yield FileProof(runtime, shapes, tuple(checks))


def _shapes(architecture: Architecture, form: Form) -> Sequence[tuple[int, ...]]:
    patch = architecture.patch_size
    sides = [form.image_size] if form.image_size else [(4 * patch, 4 * patch), (3 * patch, 6 * patch)]
    large = form.image_size is not None and max(form.image_size) > proof_size(architecture)
    batches = [form.batch] if form.batch else [1] if large else [1, 2]
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
        with ExitStack() as hooks:
            shares = [_watched(blocks, hooks) for blocks in (network.cls_attn_blocks, network.blocks)]
            grids: list[tuple[int, int]] = []
            handle = network.patch_embed.register_forward_hook(lambda _, __, output: grids.append(output[1]))
            hooks.callback(handle.remove)
            tokens = network.forward_features(images)
        pooled = {"token": lambda: tokens[:, 0], "avg": lambda: tokens[:, 1:].mean(1), "": lambda: tokens}
        x = pooled[form.global_pool]()
        outputs = {"logits": network.head(x)} if form.num_classes else {"features": x}
        if not form.attention:
            return outputs
        classes, channels = (torch.stack(each, 1) for each in shares)  # (B, L, h, 1, 1 + N), (B, D, h, d, d)
        maps = classes[:, :, :, 0, 1:].reshape(*classes.shape[:3], *grids[0])
        return outputs | dict(zip(ATTENTION, (maps, classes[:, :, :, 0, 0], channels), strict=True))


def _watched(blocks: Any, hooks: ExitStack) -> list[Any]:
    """Keep what every block's attention dropout is given, as long as the hooks stand."""
    kept: list[Any] = []
    for block in blocks:
        handle = block.attn.attn_drop.register_forward_hook(lambda _, __, output: kept.append(output))
        hooks.callback(handle.remove)
    return kept
