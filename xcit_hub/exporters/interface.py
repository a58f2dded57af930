"""What an exported file takes, gives and says of itself, read without running it; of whatever exporter."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xcit_hub.errors import InputError
from xcit_hub.exporters.form import ATTENTION, Form
from xcit_hub.files import is_file

RUNTIMES: Mapping[str, tuple[str, ...]] = {".onnx": ("onnxruntime", "openvino"), ".mindir": ("mindspore",)}
"""What runs a file, by its suffix."""

_NAMELESS = "output.{}"  # what runs a MINDIR calls its outputs so, too
_MOST_BYTES = (1 << 31) - 1
_REDO = "Export it again: xcit-hub export ID {name}."


@dataclass(frozen=True)
class Interface:
    """What a file takes and gives.

    Args:
        shape: of its input; None for a side that is left to the caller.
        uint8: whether the input is bytes, (B, H, W, C), to be scaled and normalised in the graph.
        outputs: names in their order; a MINDIR has none that mean anything.
        widths: last side of each output; None where it is left to the caller.
        sides: how many each output has; 0 where the file does not say, as a MINDIR of maps.
        half, int8: whether the graph computes in float16, or in int8 for some part.
        metadata: what it says of itself.
    """

    shape: tuple[int | None, ...]
    uint8: bool
    outputs: tuple[str, ...]
    widths: tuple[int | None, ...]
    sides: tuple[int, ...]
    half: bool = False
    int8: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width of its images; None for a side that is left to the caller."""
        height, width = self.shape[1:3] if self.uint8 else self.shape[2:4]
        return height, width

    def form(
        self,
        *,
        num_classes: int,
        in_chans: int,
        global_pool: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        image_size: int | None,
        where: object,
    ) -> Form:
        """Return which graph of such a network the file should be.

        Args:
            image_size: side of the images that are wanted; None takes the file's own, or any.

        Raises:
            InputError: it takes other images, or nothing tells what its outputs are.
        """
        (height, width), batch, channels = self.size, self.shape[0], self.shape[3 if self.uint8 else 1]
        if channels not in (None, in_chans):
            raise InputError(
                f"The file takes {channels} channels, the network {in_chans}.",
                where=where,
                fix="Hold it against the model that it was exported from.",
            )
        asked = (image_size, image_size) if image_size else None
        own = (height or (asked or (width,))[0], width or (asked or (height,))[0])
        if asked and own != asked:
            raise InputError(
                f"The file takes images of {own[0]}×{own[1]} pixels alone.", where=where, fix="Leave out --image-size."
            )
        return Form(
            num_classes=num_classes if self._has_logits(num_classes) else 0,
            in_chans=in_chans,
            global_pool=global_pool,
            features=self._features(where),
            attention=set(ATTENTION) <= set(self.outputs),
            dtype="float16" if self.half else "float32",
            batch=batch,
            image_size=None if None in own else (int(own[0] or 0), int(own[1] or 0)),
            mean=mean if self.uint8 else None,
            std=std if self.uint8 else None,
        )

    def _has_logits(self, num_classes: int) -> bool:
        return self.outputs[0] == "logits" or (self.outputs[0] != "features" and self.widths[0] in (None, num_classes))

    def _features(self, where: object) -> tuple[int, ...]:
        maps = [name for name in self.outputs if name not in ATTENTION]
        blocks = [name.removeprefix("features.") for name in maps]
        if all(name.startswith("features.") for name in maps) and all(map(str.isdecimal, blocks)):
            return tuple(sorted(map(int, blocks)))
        if len(maps) > 1 or self._gives_a_map():
            count = "one output" if len(self.outputs) == 1 else f"{len(self.outputs)} outputs"
            raise InputError(
                f"The file has {count}, and nothing says which blocks they are of.",
                where=where,
                fix="Export the maps as ONNX, which names them.",
            )
        return ()

    def _gives_a_map(self) -> bool:
        nameless = self.outputs[0] == _NAMELESS.format(0)
        return self.sides[0] == 4 or (nameless and not self.sides[0])  # (B, C, Hp, Wp)


def read(path: str | os.PathLike[str]) -> Interface:
    """Read the interface of a .onnx or .mindir file.

    Raises:
        InputError: the file is missing or damaged, or takes something else than one batch of images; or what reads it
            is not installed.
    """
    file = Path(path)
    if not is_file(file):
        raise InputError("There is no such file.", where=file, fix="Check the path.")
    found = {".onnx": _of_onnx, ".mindir": _of_mindir}[file.suffix](file)
    if len(found.shape) != 4:
        raise InputError(
            f"It takes an input of {len(found.shape)} sides, and a batch of images has 4.",
            where=file,
            fix=_REDO.format(name=file.name),
        )
    return found


def onnx_model(file: Path) -> Any:
    """Parse a .onnx file, without the weights that stand beside it.

    Raises:
        InputError: it cannot be read, or is something else; or onnx is not installed.
    """
    _need("onnx", "xcit-hub[onnx]", file)
    import onnx

    return _parsed(onnx.ModelProto(), file, "an ONNX model")


def _of_onnx(file: Path) -> Interface:
    model = onnx_model(file)
    from onnx import TensorProto

    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in known]
    _check_one(len(inputs), len(model.graph.output), file)
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    return Interface(
        shape=_sides(inputs[0]),
        uint8=inputs[0].type.tensor_type.elem_type == TensorProto.UINT8,
        outputs=tuple(value.name for value in model.graph.output),
        widths=tuple((_sides(value) or (None,))[-1] for value in model.graph.output),
        sides=tuple(len(_sides(value)) for value in model.graph.output),
        half=TensorProto.FLOAT16 in kinds,
        int8=any(node.op_type == "DequantizeLinear" for node in model.graph.node),
        metadata={entry.key: entry.value for entry in model.metadata_props},
    )


def _of_mindir(file: Path) -> Interface:
    _need("mindspore", "mindspore", file)
    from mindspore.train.mind_ir_pb2 import ModelProto

    from xcit_hub.exporters.mindir import told

    model = _parsed(ModelProto(), file, "a MINDIR")
    _check_one(len(model.graph.input), len(model.graph.output), file)
    image, *outputs = (
        tuple(None if side < 0 else int(side) for side in value.tensor[0].dims) if value.tensor else ()
        for value in (*model.graph.input, *model.graph.output)
    )
    return Interface(
        shape=image,
        uint8=False,
        outputs=tuple(_NAMELESS.format(index) for index in range(len(outputs))),
        widths=tuple((sides or (None,))[-1] for sides in outputs),
        sides=tuple(map(len, outputs)),
        metadata=told(model),
    )


def _need(module: str, package: str, file: Path) -> None:
    if importlib.util.find_spec(module) is None:
        raise InputError(f"{module} is not installed.", where=file, fix=f"pip install '{package}'")


def _parsed(model: Any, file: Path, kind: str) -> Any:
    from google.protobuf.message import DecodeError

    try:
        if (size := file.stat().st_size) > _MOST_BYTES:
            raise InputError(
                f"This is not {kind}: it has {size:,} bytes, and protobuf's messages have fewer than 2 GiB.",
                where=file,
                fix=_REDO.format(name=file.name),
            )
        model.ParseFromString(file.read_bytes())
    except (DecodeError, UnicodeDecodeError, RuntimeError, OSError) as error:  # the second of protobuf's Python code
        raise InputError(f"This is not {kind}: {error}.", where=file, fix=_REDO.format(name=file.name)) from error
    return model


def _check_one(inputs: int, outputs: int, file: Path) -> None:
    if inputs != 1 or not outputs:
        raise InputError(
            f"The graph has {inputs} inputs and {outputs} outputs, and a network has one input.",
            where=file,
            fix=_REDO.format(name=file.name),
        )


def _sides(value: Any) -> tuple[int | None, ...]:
    return tuple(side.dim_value or None for side in value.type.tensor_type.shape.dim)
