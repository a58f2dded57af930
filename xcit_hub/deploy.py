"""From an id or a checkpoint to a file that runs where MindSpore and torch are not installed, proven before it is kept.

``locate → read → graph → file → run by its own runtime → judged → put in place``. ONNX needs neither framework to be
written; the proof runs PyTorch's network beside it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from xcit_hub._version import __version__
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.files import sha256_of
from xcit_hub.hub.config import preprocessing_to_metadata
from xcit_hub.hub.locate import locate
from xcit_hub.hub.read import read
from xcit_hub.variants import DIALECTS, DialectName

if TYPE_CHECKING:
    from xcit_hub.exporters.form import Form
    from xcit_hub.hub.config import ModelConfig

PathLike = str | os.PathLike[str]
Format = Literal["onnx", "mindir"]
Dtype = Literal["float32", "float16", "bfloat16"]
Stage = Callable[[str], None]
Array = NDArray[Any]

FORMAT = "xcit-hub-export/1"
_SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".mindir": "mindir"}
_CALIBRATION_BATCH = 16
# What each format is proven with; one that is not installed is named in the report.
_RUNTIMES: dict[Format, tuple[str, ...]] = {"onnx": ("onnxruntime", "openvino"), "mindir": ("mindspore",)}


@dataclass(frozen=True)
class Exported:
    """What :func:`export` wrote.

    Args:
        source: where the weights came from.
        files: what was written, the model first.
        sha256: of the model's file, 64 hex digits.
        format: ``onnx`` or ``mindir``.
        form: sizes, dtype, opset and the like of the graph.
        metadata: what the file says of itself.
        proofs: what each runtime found, as plain JSON values.
        not_proven: why there is no proof by a runtime, by its name.
    """

    source: str
    files: tuple[Path, ...]
    sha256: str
    format: Format
    form: dict[str, Any]
    metadata: dict[str, str]
    proofs: tuple[dict[str, Any], ...]
    not_proven: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; labels stay in the file."""
        told = {name: value for name, value in self.metadata.items() if name != "xcit_hub.labels"}
        return {**asdict(self), "format_version": FORMAT, "files": [str(file) for file in self.files], "metadata": told}


def export(
    source: PathLike,
    target: PathLike,
    *,
    revision: str | None = None,
    hub: PathLike | None = None,
    cache_dir: PathLike | None = None,
    offline: bool = False,
    dialect: DialectName | None = None,
    features: Sequence[int] = (),
    headless: bool = False,
    dtype: Dtype = "float32",
    int8: PathLike | None = None,
    with_preprocessing: bool = False,
    image_size: int | tuple[int, int] | None = None,
    batch: int | None = None,
    opset: int = 18,
    fuse: bool = True,
    proof: bool = True,
    stage: Stage = lambda _: None,
) -> Exported:
    """Write a model as ONNX or MINDIR; ``target``'s suffix says which.

    Args:
        source: any id, address, folder or file that :func:`xcit_hub.load` takes.
        revision, hub, cache_dir, offline, dialect: as for :func:`xcit_hub.load`.
        features: blocks whose maps (B, C, Hp, Wp) are wanted in place of logits; negative ones count from the end.
        headless: leave the classifier out; the output is the pooled features (B, C).
        dtype: in which the graph computes; inputs and outputs are float32.
        int8: a folder of images to calibrate int8 on; affine maps and convolutions then compute in int8.
        with_preprocessing: take uint8 (B, H, W, C) images and scale and normalise them in the graph.
        image_size, batch: fix the sizes; by default batch, height and width are dynamic (MINDIR: the batch alone).
        opset: of ONNX's operators, 17 or later.
        fuse: fold what evaluation leaves constant into the weights.
        proof: run the file in a fresh process and judge it (:mod:`xcit_hub.parity.rule`) before it takes its place.
        stage: told in a few words what is going on.

    Raises:
        InputError: an option is impossible for this model, format or installation; nothing is written.
        HubError, WeightsError, CheckpointError: see :func:`xcit_hub.load`.
        XcitHubError: the file does not compute what its source does; nothing is written.
    """
    path = Path(target)
    file_format = _format(path)
    stage("reading the source")
    located = locate(os.fspath(source), revision, hub=hub, cache_dir=cache_dir, offline=offline)
    weights, config = read(located, located.open, dialect)
    if DIALECTS[config.dialect].statistics == "batch":
        raise InputError(
            f"The {config.dialect} dialect divides by the statistics of each batch, which no exported file does.",
            where=source,
            fix="Run it with xcit-hub's own network.",
        )
    if weights.kind in ("dense", "features"):
        raise InputError(
            "This backbone has no class attention, and only whole networks are exported.",
            where=source,
            fix="Export a classifier, or a backbone with class attention.",
        )
    form = _form(config, features, headless, dtype, with_preprocessing, image_size, batch, opset, fuse)
    if file_format == "mindir":
        form = _mindir_form(form, int8)
    arrays = {name: np.asarray(array, np.float32) for name, array in weights.arrays().items()}
    metadata = _metadata(config, located.address, int8 is not None)
    with _beside(path) as written:
        stage(f"writing {path.name}")
        if file_format == "onnx":
            files = _write_onnx(written, arrays, config, form, metadata, int8)
        else:
            files = _write_mindir(written, arrays, config, form)
        proofs, not_proven = _proved(files[0], file_format, arrays, config, form, int8, proof, stage)
        for file in reversed(files):  # the model last: whoever sees it has its weights
            file.replace(path.with_name(file.name))
    return Exported(
        source=str(located.address),
        files=tuple(path.with_name(file.name) for file in files),
        sha256=sha256_of(path),
        format=file_format,
        form=asdict(form),
        metadata=metadata,
        proofs=tuple(proofs),
        not_proven=not_proven,
    )


def _format(path: Path) -> Format:
    if path.suffix not in _SUFFIXES:
        raise InputError(
            f"{path.suffix or 'A name without a suffix'} is not a format to export.",
            where=path,
            fix="Give the file the suffix .onnx or .mindir.",
        )
    if not path.parent.is_dir():
        raise InputError("There is no such folder.", where=path.parent, fix="Make it, or name another.")
    needed = {".onnx": ("onnx", "xcit-hub[onnx]"), ".mindir": ("mindspore", "mindspore")}[path.suffix]
    if importlib.util.find_spec(needed[0]) is None:
        raise InputError(f"{needed[0]} is not installed.", where=path, fix=f"pip install '{needed[1]}'")
    return _SUFFIXES[path.suffix]


def _form(
    config: ModelConfig,
    features: Sequence[int],
    headless: bool,
    dtype: Dtype,
    with_preprocessing: bool,
    image_size: int | tuple[int, int] | None,
    batch: int | None,
    opset: int,
    fuse: bool,
) -> Form:
    from xcit_hub.exporters.form import OPSETS, Form

    if opset not in OPSETS:
        raise InputError(f"Opset {opset} is not one that is written.", fix=f"Use {OPSETS.start} to {OPSETS.stop - 1}.")
    if dtype not in ("float32", "float16"):
        sentence = (
            "bfloat16 is not exported: no runtime here runs it."
            if dtype == "bfloat16"
            else f"There is no dtype {dtype!r}."
        )
        raise InputError(sentence, fix="Use float32 or float16.")
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if (size and min(size) < 1) or (batch is not None and batch < 1):
        raise InputError(f"A batch of {batch} images of {size} pixels cannot be.", fix="Give 1 or more.")
    depth = config.shape.depth
    blocks = tuple(sorted({index + depth if index < 0 else index for index in features}))
    if any(not 0 <= index < depth for index in blocks):
        raise InputError(
            f"There are blocks 0 to {depth - 1}, and {', '.join(map(str, features))} were asked for.",
            fix=f"Use {-depth} to {depth - 1}.",
        )
    prepared = config.preprocessing if with_preprocessing else None
    if prepared and len(prepared.mean) not in (1, config.in_chans):
        raise InputError(
            f"The preprocessing has {len(prepared.mean)} means for {config.in_chans} channels.",
            fix="Leave out --with-preprocessing.",
        )
    return Form(
        num_classes=0 if headless else config.num_classes,
        in_chans=config.in_chans,
        global_pool=config.global_pool,
        features=blocks,
        opset=opset,
        dtype=dtype,
        fuse=fuse,
        batch=batch,
        image_size=size,
        mean=tuple(prepared.mean) if prepared else None,
        std=tuple(prepared.std) if prepared else None,
    )


def _mindir_form(form: Form, int8: PathLike | None) -> Form:
    if form.image_size is None:
        raise InputError(
            "MINDIR needs a fixed image size: MindSpore settles the grid of tokens when it compiles.",
            fix="Give --image-size, or export ONNX, which takes any size.",
        )
    impossible = {
        "--int8": int8 is not None,
        "--with-preprocessing": form.mean is not None,
        "--dtype float16": form.dtype != "float32",
    }
    for option, asked in impossible.items():
        if asked:
            raise InputError(f"{option} is written to ONNX alone.", fix="Name the target .onnx.")
    return replace(form, fuse=False)


def _metadata(config: ModelConfig, address: object, int8: bool) -> dict[str, str]:
    return {
        "xcit_hub.format": FORMAT,
        "xcit_hub.version": __version__,
        "xcit_hub.architecture": config.architecture,
        "xcit_hub.dialect": config.dialect,
        "xcit_hub.preprocessing": preprocessing_to_metadata(config.preprocessing, config.in_chans),
        "xcit_hub.labels": json.dumps(list(config.labels), ensure_ascii=False),
        "xcit_hub.source": str(address),
        "xcit_hub.source_sha256": config.provenance.sha256 or "",
        **({"xcit_hub.quantised": "int8"} if int8 else {}),
    }


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A path of the target's name in a folder beside it, which is gone afterwards with all that is left in it."""
    try:
        scratch = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise InputError(
            f"Cannot write {target.name}: {error.strerror}.", where=target, fix="Choose a folder that may be written."
        ) from error
    with scratch as folder:
        yield Path(folder) / target.name


def _write_onnx(
    written: Path,
    arrays: dict[str, Array],
    config: ModelConfig,
    form: Form,
    metadata: dict[str, str],
    calibration: PathLike | None,
) -> list[Path]:
    from xcit_hub.exporters import onnx_file, onnx_graph

    model = onnx_graph.build(arrays, config.shape, DIALECTS[config.dialect], form, metadata)
    if calibration is not None:
        from xcit_hub.exporters.int8 import quantised

        model = quantised(model, list(_calibration(Path(calibration), config)))
        onnx_graph.describe(model, metadata)
    return onnx_file.write(model, written)


def _write_mindir(written: Path, arrays: dict[str, Array], config: ModelConfig, form: Form) -> list[Path]:
    from xcit_hub.exporters import mindir
    from xcit_hub.models import XCiTFeatures, create_model, load_weights

    network: Any = create_model(
        config.shape,
        dialect=config.dialect,
        num_classes=form.num_classes,
        in_chans=form.in_chans,
        global_pool=config.global_pool,
        init=False,
    )
    kept = {name: array for name, array in arrays.items() if form.num_classes or not name.startswith("head.")}
    load_weights(network, kept)
    if form.features:
        network = XCiTFeatures(network, form.features)
    assert form.image_size is not None  # noqa: S101  (checked by _mindir_form)
    return mindir.write(network, written, form.image_size, batch=form.batch)


def _calibration(folder: Path, config: ModelConfig) -> Iterator[Array]:
    """Batches of a folder's images, as the graph's input takes them; a file that is not an image is refused by name."""
    from xcit_hub.data.transforms import EvalTransform

    transform = EvalTransform(config.preprocessing)
    found = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not found:
        raise InputError("There is not one image to calibrate on.", where=folder, fix="Name a folder of images.")
    for first in range(0, len(found), _CALIBRATION_BATCH):
        yield np.stack([transform(path) for path in found[first : first + _CALIBRATION_BATCH]])


def _proved(
    file: Path,
    file_format: Format,
    arrays: dict[str, Array],
    config: ModelConfig,
    form: Form,
    int8: PathLike | None,
    proof: bool,
    stage: Stage,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    runtimes = _RUNTIMES[file_format]
    if not proof:
        return [], dict.fromkeys(runtimes, "the proof was left out (--no-proof)")
    if int8 is not None:
        return [], dict.fromkeys(runtimes, "int8 rounds by intention: judge it by accuracy on labelled images")
    missing = [module for module in ("torch", "timm") if importlib.util.find_spec(module) is None]
    if missing:
        return [], dict.fromkeys(runtimes, f"{' and '.join(missing)} not installed (pip install 'xcit-hub[timm]')")
    from xcit_hub.exporters import runtimes as installed
    from xcit_hub.exporters.proof import prove

    proofs, not_proven = [], {}
    for runtime in runtimes:
        if not installed.installed(runtime):
            not_proven[runtime] = f"not installed (pip install {runtime})"
            continue
        stage(f"proving {file.name} with {runtime}")
        found = prove(file, runtime, arrays, config.shape, config.dialect, form)
        if not found.passed:
            worst = max((check for check in found.checks if not check.passed), key=lambda check: check.of_tolerance)
            raise XcitHubError(
                f"{runtime} does not compute from {file.name} what the network does: {worst.what} is "
                f"{worst.of_tolerance:.1f} times its tolerance away.",
                fix="Nothing was written. Report it with the command that was run.",
            )
        proofs.append(found.as_dict())
    return proofs, not_proven
