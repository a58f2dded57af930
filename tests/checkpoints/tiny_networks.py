"""Small whole checkpoints of every family, made from one random buffer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from xcit_hub.checkpoints import checkpoint, families
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.checkpoints.families import Kind
from xcit_hub.variants import ARCHITECTURES, Architecture

# The smallest network that has every kind of parameter.
TINY = Architecture(
    name="xcit_custom_16x2_h2_p8_224",
    patch_size=8,
    embed_dim=16,
    depth=2,
    num_heads=2,
    eta=1.0,
    tokens_norm=True,
    image_size=224,
)
TINY_P16 = Architecture(**{**vars(TINY), "patch_size": 16, "name": "xcit_custom_16x2_h2_p16_224"})

_BUFFER = np.random.default_rng(0).standard_normal(1 << 22, dtype=np.float32)


Make = Callable[..., dict[str, StoredTensor]]


SUFFIXES = (".safetensors", ".ckpt", ".pth")


def network(
    architecture: Architecture = TINY, kind: Kind = "classifier", num_classes: int = 7, in_chans: int = 3
) -> dict[str, StoredTensor]:
    """Every tensor of a network, ours, each a different stretch of the buffer, so that none passes for another."""
    shapes = families.shapes_of(architecture, kind, num_classes if kind == "classifier" else 0, in_chans)
    made = {}
    for index, (name, shape) in enumerate(shapes.items()):
        size = int(np.prod(shape))
        start = index * 17 % (len(_BUFFER) - size)
        values = _BUFFER[start : start + size].reshape(shape)
        made[name] = StoredTensor.of(np.abs(values) if name.endswith(".moving_variance") else values)
    return made


def same(left: Mapping[str, StoredTensor], right: Mapping[str, StoredTensor]) -> bool:
    """Whether two sets of tensors have the same names, shapes, dtypes and bits."""
    return left.keys() == right.keys() and all(
        (tensor.dtype, tensor.shape) == (right[name].dtype, right[name].shape)
        and _same_bits(np.frombuffer(tensor.raw(), np.uint8), np.frombuffer(right[name].raw(), np.uint8))
        for name, tensor in left.items()
    )


def _same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    # Most tensors are the very same memory, which need not be read to be equal.
    return (left.ctypes.data, left.size) == (right.ctypes.data, right.size) or np.array_equal(left, right)


ARCHITECTURE_NAMES = tuple(ARCHITECTURES)


def written(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file without PyTorch's counters and wrapper."""
    tensors = checkpoint.read(path).tensors
    return {name.removeprefix("model."): entry for name, entry in tensors.items() if "num_batches" not in name}
