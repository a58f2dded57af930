"""From an id or a checkpoint to a file that runs where MindSpore and torch are not installed, proven before it is kept.

``locate → read → graph → file → run by its own runtime → judged → put in place``. ONNX needs neither framework to be
written; the proof runs PyTorch's network beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from xcit_hub.checkpoints.strings import EXPORT
from xcit_hub.data.folders import Found, find_images
from xcit_hub.errors import InputError, some
from xcit_hub.exporters.writing import check_target, write
from xcit_hub.files import check_outputs, is_file, is_folder
from xcit_hub.hub.address import LOCAL
from xcit_hub.hub.exporting import Dtype, for_mindir, form_of, metadata_of
from xcit_hub.hub.locate import locate
from xcit_hub.hub.read import read
from xcit_hub.variants import DialectName

if TYPE_CHECKING:
    from xcit_hub.exporters.form import Form
    from xcit_hub.hub.config import ModelConfig

PathLike = str | os.PathLike[str]
Format = Literal["onnx", "mindir"]
Stage = Callable[[str], None]
Array = NDArray[Any]

_CALIBRATION_BATCH = 16


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
        notes: what was not used of the source, and whatever else its reader has to know.
        calibration: of int8, how many ``images`` it was calibrated on, and how many files of the folder were
            ``left_out``, as they are not images by their names.
    """

    source: str
    files: tuple[Path, ...]
    sha256: str
    format: Format
    form: dict[str, Any]
    metadata: dict[str, str]
    proofs: tuple[dict[str, Any], ...]
    not_proven: dict[str, str]
    notes: tuple[str, ...] = ()
    calibration: dict[str, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; labels stay in the file."""
        told = {name: value for name, value in self.metadata.items() if name != "xcit_hub.labels"}
        return {**asdict(self), "format_version": EXPORT, "files": [str(file) for file in self.files], "metadata": told}


def export(
    source: PathLike,
    target: PathLike,
    *,
    revision: str | None = None,
    hub: PathLike | None = None,
    cache_dir: PathLike | None = None,
    offline: bool = False,
    dialect: DialectName | None = None,
    ignore_fields: Sequence[str] = (),
    features: Sequence[int] = (),
    headless: bool = False,
    attention: bool = False,
    dtype: Dtype = "float32",
    int8: PathLike | None = None,
    with_preprocessing: bool = False,
    image_size: int | tuple[int, int] | None = None,
    batch: int | None = None,
    opset: int = 18,
    fuse: bool | None = None,
    proof: bool = True,
    stage: Stage = lambda _: None,
) -> Exported:
    """Write a model as ONNX or MINDIR; ``target``'s suffix says which.

    Args:
        source: any id, address, folder or file that :func:`xcit_hub.load` takes.
        revision, hub, cache_dir, offline, dialect, ignore_fields: as for :func:`xcit_hub.load`.
        features: blocks whose maps (B, C, Hp, Wp) are wanted in place of logits; negative ones count from the end.
        headless: leave the classifier out; the output is the pooled features (B, C).
        attention: give what :func:`xcit_hub.attention` does as well, of every image of a batch; the outputs are
            :data:`xcit_hub.exporters.form.ATTENTION`.
        dtype: in which the graph computes; inputs and outputs are float32.
        int8: a folder of images to calibrate int8 on, those behind links, too; affine maps and convolutions behind the
            stem compute in int8.
        with_preprocessing: take uint8 (B, H, W, C) images and scale and normalise them in the graph.
        image_size, batch: fix the sizes; by default batch, height and width are dynamic (MINDIR: the batch alone).
        opset: of ONNX's operators, 17 or later.
        fuse: fold what evaluation leaves constant into the weights; ONNX alone, where it is the default.
        proof: run the file in a fresh process and judge it (:mod:`xcit_hub.parity.rule`) before it takes its place.
        stage: told in a few words what is going on.

    Raises:
        InputError: an option is impossible for this model, format or installation; nothing is written.
        HubError, WeightsError, CheckpointError: see :func:`xcit_hub.load`.
        DifferenceError: the file does not compute what its source does; nothing is written.
    """
    path = Path(target)
    check_target(path)
    check_outputs({"the target": path}, [source])
    if int8 is not None and dtype != "float32":
        raise InputError(
            f"int8 and {dtype} exclude each other.", where="int8=…, dtype=… (--int8, --dtype)", fix="Give one of them."
        )
    found = None if int8 is None else _calibration_images(Path(int8))
    stage("reading the source")
    located = locate(
        os.fspath(source), revision, hub=hub, cache_dir=cache_dir, offline=offline, ignore_fields=ignore_fields
    )
    weights, config = read(located, dialect)
    if weights.kind in ("dense", "features"):
        raise InputError(
            "This backbone has no class attention, and only whole networks are exported.",
            where=source,
            fix="Export a classifier, or a backbone with class attention.",
        )
    form = form_of(config, features, headless, dtype, with_preprocessing, image_size, batch, opset, fuse, attention)
    if path.suffix == ".mindir":
        form = for_mindir(form, int8=int8 is not None, fuse=bool(fuse))
    # Others do not have this machine's folders.
    told = located.snapshot.name if located.address.store != LOCAL else Path(located.address.name).name
    metadata = metadata_of(
        config, told, image_size=form.image_size, int8=int8 is not None, attention=attention,
        has_classes=form.has_classes,
    )  # fmt: skip
    written = write(
        path,
        {name: np.asarray(array, np.float32) for name, array in weights.arrays().items()},
        config.shape,
        config.dialect,
        form,
        metadata,
        calibration=None if found is None else _calibration(found.images, config, form),
        proof=proof,
        stage=stage,
    )
    return Exported(
        source=str(located.address),
        files=written.files,
        sha256=written.sha256,
        format="onnx" if path.suffix == ".onnx" else "mindir",
        form=asdict(form),
        metadata=metadata,
        proofs=tuple(each.as_dict() for each in written.proofs),
        not_proven=written.not_proven,
        notes=config.provenance.notes + (() if found is None else _calibrated_on(found)),
        calibration=None if found is None else {"images": len(found.images), "left_out": found.others},
    )


def _calibrated_on(found: Found) -> tuple[str, ...]:
    told = f"int8 was calibrated on {len(found.images):,} images"
    left_out = f"{found.others:,} files of the folder are not images by their names, and were left out"
    return (told, left_out) if found.others else (told,)


def _calibration_images(folder: Path) -> Found:
    if not is_folder(folder):
        what = "is a file, and a folder of images is wanted" if is_file(folder) else "is not there"
        raise InputError(f"The folder to calibrate on {what}.", where=folder, fix="Name a folder of images.")
    found = find_images(folder)
    if found.unreadable:
        raise InputError(
            f"{len(found.unreadable)} images to calibrate on cannot be read: {some(found.unreadable)}.",
            where=folder,
            fix="Repair or remove them.",
        )
    if not found.images:
        raise InputError("There is not one image to calibrate on.", where=folder, fix="Put images into it.")
    return found


def _calibration(found: list[Path], config: ModelConfig, form: Form) -> Iterator[Array]:
    """Batches of images, as the graph's input takes them; a file that is not an image is refused by name."""
    from xcit_hub.data.transforms import EvalTransform, open_image

    height, width = form.image_size or config.preprocessing.size
    preprocessing = replace(config.preprocessing, image_size=height, image_width=width)
    transform = EvalTransform(preprocessing, in_chans=config.in_chans)

    def prepared(path: Path) -> Array:
        if form.mean is None:
            return transform(path)
        return np.asarray(transform.cut(open_image(path, transform.mode))).reshape(height, width, config.in_chans)

    size = form.batch or _CALIBRATION_BATCH
    for first in range(0, len(found), size):
        chosen = found[first : first + size]
        if form.batch is not None:  # filled up with the first ones again
            chosen += [found[index % len(found)] for index in range(size - len(chosen))]
        yield np.stack([prepared(path) for path in chosen])
