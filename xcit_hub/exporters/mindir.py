"""MINDIR of a plain network: MindSpore's own operations alone, nothing of this machine in the file."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from xcit_hub.errors import InputError
from xcit_hub.files import mode_of_new_file, scratch_folder

# A compiled operation, its library, and the folders of this machine; "/" is the home of some containers.
_FOREIGN = (b"Custom", b".so", *(os.fsencode(path) for path in (Path.home(), Path(__file__).parents[1]) if path.name))


def write(
    network: Any,
    target: str | os.PathLike[str],
    image_size: tuple[int, int],
    *,
    batch: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write a network in evaluation mode.

    Args:
        network: a plain :class:`xcit_hub.models.XCiT` or ``XCiTFeatures``.
        image_size: (height, width) in pixels, fixed: MindSpore decides the token grid when it compiles.
        batch: images in a batch; None leaves it to the caller.
        metadata: what the file is to say of itself, in MINDIR's ``user_info``.

    Raises:
        InputError: the network holds operations compiled for this machine, or the file would be several.
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

    def complete(model: Any) -> None:  # called with the graph, before the parameters' values come in
        _refuse_foreign(model)
        tell(model, metadata or {})

    with scratch_folder(path.parent, f".{path.name}.", ".tmp") as scratch:
        stem = str(scratch / path.stem)
        mindspore.export(network, image, file_name=stem, file_format="MINDIR", custom_func=complete)
        written = sorted(scratch.iterdir())
        if [file.suffix for file in written] != [".mindir"]:
            raise InputError(
                f"MindSpore splits the file into {len(written)}, as it does above 1 GiB; that is not supported.",
                where=path,
                fix="Export ONNX, or a smaller architecture.",
            )
        written[0].chmod(mode_of_new_file(path))  # MindSpore's is for this user's eyes only
        written[0].replace(path)
    return [path]


def tell(model: Any, metadata: Mapping[str, str]) -> None:
    """Write what a MINDIR is to say of itself; its generated code makes a list of MindSpore 2.7's and 2.8's map."""
    for key, value in metadata.items():
        if isinstance(model.user_info, MutableMapping):
            model.user_info[key] = value
        else:
            model.user_info.add(key=key, value=value)


def told(model: Any) -> dict[str, str]:
    """Return what a MINDIR says of itself."""
    if isinstance(model.user_info, MutableMapping):
        return dict(model.user_info)
    return {entry.key: entry.value for entry in model.user_info}


def _refuse_foreign(model: Any) -> None:
    graph = type(model)()
    graph.CopyFrom(model)
    _forget_values(graph)  # among so many bytes any three stand somewhere
    content = graph.SerializeToString()
    for mark in _FOREIGN:
        if mark in content:
            raise InputError(
                f"The graph names {os.fsdecode(mark)!r}, which other machines do not have.",
                where="the network",
                fix="Export network.portable(), which computes by MindSpore's own operations.",
            )


def _forget_values(message: Any) -> None:
    message_type = 11  # google.protobuf's TYPE_MESSAGE
    for kind, value in message.ListFields():
        if kind.name == "raw_data":
            message.ClearField("raw_data")
        elif kind.type == message_type:
            for part in [value] if hasattr(value, "ListFields") else value:
                _forget_values(part)
