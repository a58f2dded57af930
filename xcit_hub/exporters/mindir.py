"""MINDIR of a plain network: MindSpore's own operations alone, nothing of this machine in the file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xcit_hub.errors import InputError

_FOREIGN = (b"Custom", b".so", os.fsencode(Path.home()), os.fsencode(Path(__file__).parents[1]))


def write(
    network: Any, target: str | os.PathLike[str], image_size: tuple[int, int], *, batch: int | None = None
) -> list[Path]:
    """Write a network in evaluation mode.

    Args:
        network: a plain :class:`xcit_hub.models.XCiT` or ``XCiTFeatures``.
        image_size: (height, width) in pixels, fixed: MindSpore decides the token grid when it compiles.
        batch: images in a batch; None leaves it to the caller.

    Raises:
        InputError: the network holds operations compiled for this machine.
    """
    import mindspore
    import numpy as np

    path = Path(target)
    shape = (network.in_chans, *image_size)
    if batch is None:
        image = mindspore.Tensor(shape=[None, *shape], dtype=mindspore.float32)
    else:
        image = mindspore.Tensor(np.zeros((batch, *shape), np.float32))
    network.set_train(False)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        mindspore.export(network, image, file_name=str(Path(scratch) / path.stem), file_format="MINDIR")
        written = sorted(Path(scratch).iterdir())
        _refuse_foreign(written)
        if [file.suffix for file in written] != [".mindir"]:
            raise InputError(
                f"MindSpore split the file into {len(written)}, as it does above 1 GiB; that is not supported.",
                where=path,
                fix="Export ONNX, or a smaller architecture.",
            )
        written[0].replace(path)
    return [path]


def _refuse_foreign(files: Sequence[Path]) -> None:
    for file in files:
        content = file.read_bytes()
        for mark in _FOREIGN:
            if mark in content:
                raise InputError(
                    f"The graph names {os.fsdecode(mark)!r}, which other machines do not have.",
                    fix="Export network.portable(), which computes by MindSpore's own operations.",
                )
