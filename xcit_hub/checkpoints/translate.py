"""The step *translate*: one family's tensors in the project's names and layout, strictly, and the way back."""

from __future__ import annotations

from collections.abc import Mapping

from xcit_hub.checkpoints.families import LAYOUTS, Layout
from xcit_hub.checkpoints.reading import Reading
from xcit_hub.checkpoints.tensor import DTYPES, StoredTensor
from xcit_hub.errors import WeightsError
from xcit_hub.parameters import Shape
from xcit_hub.variants import Family


def translate(reading: Reading) -> None:
    """Put the network's tensors into the project's names and layout.

    Raises:
        WeightsError: see :func:`to_ours`.
    """
    identity = reading.identity
    reading.tensors = to_ours(reading.found.tensors, identity.layout, identity.shapes)


def to_ours(
    tensors: Mapping[str, StoredTensor], family: Family | Layout, expected: Mapping[str, Shape]
) -> dict[str, StoredTensor]:
    """Translate one family's tensors into the project's names and layout. Nothing is copied but transposed matrices.

    Raises:
        WeightsError: a tensor is missing, unexpected, of another shape, or not of a float; all are named.
    """
    layout = family if isinstance(family, Layout) else LAYOUTS[family]
    theirs = {name: layout.names(name) for name in expected}
    known = {part: name for name, parts in theirs.items() for part in parts}
    faults = [f"missing: {part}" for part in known if part not in tensors]
    faults += [f"unexpected: {name!r} {list(tensors[name].shape)}" for name in tensors if name not in known]
    for name, parts in theirs.items():
        shape = _laid_out(part_shape(expected[name], len(parts)), layout)
        for part in parts:
            if part in tensors and tensors[part].shape != shape:
                faults.append(f"wrong shape: {part} {list(tensors[part].shape)}, not {list(shape)}")
            if part in tensors and not DTYPES[tensors[part].dtype].weights:
                faults.append(f"not a floating-point tensor: {part} {tensors[part].dtype}")
        if len(parts) > 1 and len({tensors[part].dtype for part in parts if part in tensors}) > 1:
            faults.append(f"different dtypes: {', '.join(parts)}")
    if faults:
        raise WeightsError(
            "\n    ".join([f"These are not the weights of one XCiT in {layout.family}'s layout:", *faults]),
            fix="Fetch the whole file again, or save the network's own state_dict, without what stands beside it.",
        )
    stacked = {name: StoredTensor.stack([tensors[part] for part in parts]) for name, parts in theirs.items()}
    return {name: _turned(tensor, layout) for name, tensor in stacked.items()}


def from_ours(tensors: Mapping[str, StoredTensor], family: Family) -> dict[str, StoredTensor]:
    """Translate the project's names and layout into another family's. Nothing is copied but transposed matrices."""
    layout = LAYOUTS[family]
    translated: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        parts = layout.names(name)
        rows = tensor.shape[0] // len(parts)
        for index, part in enumerate(parts):
            whole = len(parts) == 1
            translated[part] = _turned(tensor if whole else tensor.rows(index * rows, (index + 1) * rows), layout)
    return translated


def part_shape(shape: Shape, parts: int) -> Shape:
    """Return the shape of one of ``parts`` equal slices by rows."""
    return (shape[0] // parts, *shape[1:])


def _laid_out(shape: Shape, layout: Layout) -> Shape:
    return shape[::-1] if layout.transposed and len(shape) == 2 else shape


def _turned(tensor: StoredTensor, layout: Layout) -> StoredTensor:
    return tensor.transposed() if layout.transposed and len(tensor.shape) == 2 else tensor
