"""Exports beside the weights of a hub entry, each run by its own runtimes and judged before it is published."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.exporters import interface, writing
from xcit_hub.exporters.form import DEFAULT_OPSET
from xcit_hub.hub.exporting import for_mindir, form_of, metadata_of

if TYPE_CHECKING:
    from xcit_hub.exporters.proof import FileProof
    from xcit_hub.hub.config import ModelConfig

FILES = {"onnx": "model.onnx", "mindir": "model.mindir"}
"""Where in an entry each kind of export stands."""


@dataclass(frozen=True)
class Export:
    """One export of an entry.

    Args:
        path: in the entry.
        file: where it was written.
        takes: the sides of its input; None for one that is left to the caller.
        proven: the runtimes that ran it and passed.
    """

    path: str
    file: Path
    takes: tuple[int | None, ...]
    proven: tuple[str, ...]


def checked(also: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds that are wanted, each once, in the table's order.

    Raises:
        InputError: one of them is not known, or what writes it is not installed.
    """
    unknown = [kind for kind in also if kind not in FILES]
    if unknown:
        raise InputError(
            f"{unknown[0]!r} is not an export that a hub entry has.",
            where="also=… (--also)",
            fix=f"Choose of {', '.join(FILES)}.",
        )
    kinds = tuple(kind for kind in FILES if kind in also)
    for kind in kinds:
        module, package = writing.NEEDED[f".{kind}"]
        if importlib.util.find_spec(module) is None:
            raise InputError(f"{module} is not installed.", where=FILES[kind], fix=f"pip install '{package}'")
    return kinds


def write(
    kind: str,
    folder: Path,
    arrays: Mapping[str, Any],
    description: ModelConfig,
    name: str,
    *,
    held: Path | None,
    proof: bool,
    stage: Callable[[str], None],
) -> Export:
    """Write one export of a model into ``folder``.

    Args:
        arrays: every parameter and buffer by MindCV's names.
        name: of the model in its hub; the file says it.
        held: what the hub holds of it for these very weights; kept where it is what would be written and passes,
            because MindSpore names the nodes of the same network otherwise each time.
        proof: run the file and judge it.

    Raises:
        XcitHubError: the file does not compute what the network does.
    """
    target = folder / FILES[kind]
    size = description.preprocessing.size if kind == "mindir" else None
    form = form_of(description, (), False, "float32", False, size, None, DEFAULT_OPSET, True)
    form = for_mindir(form) if kind == "mindir" else form
    metadata = metadata_of(description, name, image_size=form.image_size)
    whole = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    prove = partial(writing.proved, target, whole, description.shape, description.dialect, form, stage)
    kept = None if held is None else _kept(held, target, metadata, prove if proof else lambda: ([], {}))
    if kept is None:
        written = writing.write(
            target, whole, description.shape, description.dialect, form, metadata, proof=proof, stage=stage
        )
        kept = tuple(found.runtime for found in written.proofs)
    return Export(target.name, target, interface.read(target).shape, kept)


def _kept(
    held: Path, target: Path, metadata: Mapping[str, str], prove: Callable[[], tuple[list[FileProof], object]]
) -> tuple[str, ...] | None:
    """Copy what the hub holds and prove it; None where it is not what would be written."""
    try:
        target.write_bytes(held.read_bytes())
        if interface.read(target).metadata != metadata:
            return None
        return tuple(found.runtime for found in prove()[0])
    except (XcitHubError, OSError):
        return None
