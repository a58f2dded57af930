"""An ONNX model on disk: one file, or a file and its weights beside it where protobuf's 2 GiB do not hold them."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from xcit_hub.errors import InputError, first_line
from xcit_hub.exporters import interface
from xcit_hub.files import atomic_write, scratch_folder

# protobuf refuses messages of 2 GiB; what surrounds the weights has to fit as well.
LARGEST_SINGLE_FILE = (1 << 31) - (1 << 24)


def write(model: onnx.ModelProto, target: str | os.PathLike[str], *, largest: int = LARGEST_SINGLE_FILE) -> list[Path]:
    """Check a model in full and write it; weights above ``largest`` bytes go into ``<target>.data``.

    Returns:
        What was written: the model, and the weights beside it if there are any.

    Raises:
        InputError: the model does not pass ONNX's own full check.
        XcitHubError: the target cannot be written; nothing is left then.
    """
    path = Path(target)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= largest:
        _check(model)
        with atomic_write(path) as stream:
            stream.write(model.SerializeToString())
        return [path]
    data = data_of(path)
    with scratch_folder(path.parent, f".{path.name}.", ".tmp") as scratch:
        written = scratch / path.name
        moved = onnx.ModelProto()  # saving moves the weights out of the very model
        moved.CopyFrom(model)
        onnx.save_model(
            moved, str(written), save_as_external_data=True, location=data.name, size_threshold=1024
        )  # shapes stay inside, where the checker reads them
        _check(str(written))
        # The model last: whoever sees it has its weights.
        for source, final in ((written.with_name(data.name), data), (written, path)):
            source.replace(final)
    return [path, data]


def data_of(path: Path) -> Path:
    """Return where a model's weights stand if they stand beside it."""
    return path.with_name(f"{path.name}.data")


def is_ours(path: Path) -> bool:
    """Whether a model was exported here, and has its weights in :func:`data_of`.

    Raises:
        InputError: it is not an ONNX model.
    """
    model = interface.onnx_model(path)
    beside = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    return data_of(path).name in beside and any(each.key.startswith("xcit_hub.") for each in model.metadata_props)


def _check(model: onnx.ModelProto | str) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(
            f"ONNX's checker refuses the graph: {first_line(error)}.",
            where="the graph",
            fix="This is a fault of xcit-hub: report it with the command that was run.",
        ) from error
