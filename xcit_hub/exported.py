"""An exported ONNX file at work: onnxruntime computes, and all else is read from what the file says of itself."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub import strict_json
from xcit_hub.checkpoints.strings import EXPORT, PREPROCESSING
from xcit_hub.data.transforms import EvalTransform, ImageLike, open_image
from xcit_hub.errors import InputError, XcitHubError, first_line
from xcit_hub.files import is_file
from xcit_hub.hub.config import ModelConfig, Provenance
from xcit_hub.hub.metadata import not_said_of_images, preprocessing_from_metadata
from xcit_hub.variants import DIALECTS

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported, as in xcit_hub.exporters

Array = NDArray[Any]

SUFFIX = ".onnx"
_REDO = "Export it again: xcit-hub export ID {name}."
# Every string that an exporter of this package ever wrote.
_KNOWN = frozenset(
    f"xcit_hub.{name}"
    for name in (
        *("format", "version", "architecture", "dialect", "preprocessing", "labels", "source", "source_sha256"),
        *("quantised", "attention"),
    )
)


class ExportedNetwork:
    """A classifier in an ONNX file of ``xcit-hub export``, for prediction alone.

    Args:
        path: the file.
        threads: with which onnxruntime computes; as many as cores by default.

    Attributes:
        config: what the file says of itself.
        num_classes: columns of its logits.

    Warns:
        UserWarning: a string of the file that begins with ``xcit_hub.`` is not known, and was not used.

    Raises:
        InputError: there is no such file, it does not classify, is of another format or quantisation than this version
            knows, does not say all of how it wants its images, or onnxruntime is not installed or cannot read it.
    """

    training = False

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        self.path = Path(path)
        if not is_file(self.path):
            raise InputError("There is no such file.", where=path, fix="Check the path.")
        if importlib.util.find_spec("onnxruntime") is None:
            raise InputError("onnxruntime is not installed.", where=path, fix="pip install 'xcit-hub[onnx]'")
        self._session = _session(self.path, threads)
        facts = self._session.get_modelmeta().custom_metadata_map
        self._check_format(facts)
        inputs, outputs = self._session.get_inputs(), {each.name: each for each in self._session.get_outputs()}
        if "logits" not in outputs or len(outputs["logits"].shape) != 2:
            raise self._unfit(f"The file does not classify images: its outputs are {', '.join(outputs)}")
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise self._unfit("The file does not take a batch of images")
        if PREPROCESSING not in facts:
            raise self._unfit(f"The file does not say how it wants its images: it has no {PREPROCESSING}")
        self.outputs = tuple(outputs)
        self._input = inputs[0].name
        self._uint8 = inputs[0].type == "tensor(uint8)"
        sides = [side if isinstance(side, int) else None for side in inputs[0].shape]
        self._batch = sides[0]
        height, width, channels = (sides[axis] for axis in ((1, 2, 3) if self._uint8 else (2, 3, 1)))
        preprocessing = preprocessing_from_metadata(facts[PREPROCESSING], path, channels)
        if lacking := not_said_of_images(facts):
            raise self._unfit(f"The file does not say all of how it wants its images: no {', '.join(lacking)}")
        own = preprocessing.size
        preprocessing = replace(preprocessing, image_size=height or own[0], image_width=width or own[1])
        labels = _labels(facts, self.path)
        columns = outputs["logits"].shape[1]
        self.num_classes = columns if isinstance(columns, int) else len(labels)
        if labels and len(labels) != self.num_classes:
            raise self._unfit(f"The file names {len(labels)} classes and has {self.num_classes}")
        dialect = facts.get("xcit_hub.dialect")
        if dialect not in DIALECTS:
            raise self._unfit(f"The file's dialect is {dialect!r}, which is not one of them")
        architecture = facts.get("xcit_hub.architecture")
        if not architecture:
            raise self._unfit("The file does not say its architecture: it has no xcit_hub.architecture")
        notes = strange_strings(facts)
        for note in notes:
            warnings.warn(f"{self.path.name}: {note}", stacklevel=2)
        self.config = ModelConfig(
            architecture=architecture,
            dialect=dialect,
            num_classes=self.num_classes,
            in_chans=channels or 3,
            preprocessing=preprocessing,
            labels=labels,
            provenance=Provenance(source=str(path), notes=notes),
        )

    def _check_format(self, facts: Mapping[str, str]) -> None:
        said = facts.get("xcit_hub.format")
        if said is None:
            raise self._unfit("The file is not of xcit-hub export: it has no xcit_hub.format")
        refuse_other_format(facts, self.path)
        quantised = facts.get("xcit_hub.quantised")
        if quantised not in (None, "int8"):
            raise self._unfit(f"The file's xcit_hub.quantised is {quantised!r:.60}, and 'int8' alone is known")

    def _unfit(self, sentence: str) -> InputError:
        return InputError(f"{sentence}.", where=self.path, fix=_REDO.format(name=self.path.name))

    def preprocess(self, *, exif: bool = False) -> Callable[[ImageLike], Array]:
        """Return what turns an image into the file's input: (C, H, W) float32, or (H, W, C) uint8."""
        transform = EvalTransform(self.config.preprocessing, in_chans=self.config.in_chans, exif=exif)
        if not self._uint8:
            return transform
        height, width = self.config.preprocessing.size

        def cut(image: ImageLike) -> Array:
            pixels = transform.cut(open_image(image, transform.mode, exif=exif))
            return np.asarray(pixels).reshape(height, width, self.config.in_chans)

        return cut

    def __call__(self, pixels: Array) -> NDArray[np.float32]:
        """Map a batch of inputs to logits (B, classes)."""
        return self.run(pixels, ("logits",))[0]

    def attention(self, pixels: Array) -> tuple[NDArray[np.float32], ...]:
        """Map a batch of inputs to what each attends to: (B, L, h, Hp, Wp), (B, L, h) and (B, D, h, d, d).

        Raises:
            InputError: the file was exported without it.
        """
        from xcit_hub.exporters.form import (
            ATTENTION,
        )  # it settles protobuf's implementation, which Ray chooses by itself

        if not set(ATTENTION) <= set(self.outputs):
            raise InputError(
                "The file was exported without its attention.",
                where=self.path,
                fix=f"Export it with it: xcit-hub export ID {self.path.name} --attention.",
            )
        return tuple(self.run(pixels, ATTENTION))

    def run(self, pixels: Array, outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """Compute some outputs of any number of images; a file of a fixed batch is filled up.

        Raises:
            InputError: onnxruntime refuses the images.
        """
        size = self._batch or len(pixels)
        found: list[list[Array]] = []
        for first in range(0, len(pixels), size):
            part = pixels[first : first + size]
            filled = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
            try:
                values = self._session.run(list(outputs), {self._input: np.ascontiguousarray(filled)})
            except Exception as error:  # onnxruntime's own classes have no common one
                raise InputError(
                    f"onnxruntime refuses the images: {first_line(error)}.",
                    where=self.path,
                    fix="Prepare them with xcit_hub.preprocess(network), which knows the file's size and dtype.",
                ) from error
            found.append([value[: len(part)] for value in values])
        return [np.concatenate(values) for values in zip(*found, strict=True)]


def refuse_other_format(facts: Mapping[str, str], path: Path) -> None:
    """Refuse a file that says of itself, in ``xcit_hub.format``, that its strings mean something else.

    Raises:
        InputError: it does.
    """
    said = facts.get("xcit_hub.format", EXPORT)
    if said != EXPORT:
        raise InputError(
            f"The file's xcit_hub.format is {said!r:.60}, and {EXPORT!r} alone is known.",
            where=path,
            fix=_REDO.format(name=path.name),
        )


def strange_strings(facts: Mapping[str, str]) -> tuple[str, ...]:
    """Say of each string of an exported file that ought to be known, and is not, that it was not used."""
    return tuple(
        f"the file's string {name} is not known, and was not used"
        for name in sorted(facts)
        if name.startswith("xcit_hub.") and name not in _KNOWN
    )


def is_exported(name: str | os.PathLike[str]) -> bool:
    """Whether a name is that of an exported file, and not of a checkpoint or an id."""
    return os.fspath(name).endswith(SUFFIX)


def _session(path: Path, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.log_severity_level = 4  # what is wrong is raised as well
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no common one
        raise XcitHubError(
            f"onnxruntime cannot read the file: {first_line(error)}.", where=path, fix=_REDO.format(name=path.name)
        ) from error


def _labels(facts: Mapping[str, str], where: Path) -> tuple[str, ...]:
    try:
        labels = strict_json.parsed(facts.get("xcit_hub.labels", "[]"))
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(
            "xcit_hub.labels of the file is not a list of names.", where=where, fix=_REDO.format(name=where.name)
        )
    return tuple(labels)
