"""A checkpoint of any family in any format → a checkpoint of any other."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xcit_hub._version import __version__
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints import dtypes as numbers
from xcit_hub.checkpoints import families as dialects
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.checkpoints.families import LAYOUTS, Dropped
from xcit_hub.checkpoints.weights import (
    ARCHITECTURE_ASSUMED,
    HEAD_UNTRAINED,
    Weights,
    checked,
    config_path,
    hold_against_config,
    load,
    weights_of,
)
from xcit_hub.errors import InputError, UnknownNameError, WeightsError, XcitHubError, closest
from xcit_hub.files import write_text
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import DIALECTS, Family

__all__ = ["Progress", "Report", "Weights", "config_path", "convert", "load"]

Progress = Callable[[int, int], None]
Prove = Callable[[Path, "Report"], "dict[str, Any] | None"]

_HEAD = ("head.weight", "head.bias")
_FRESH = "a new classifier, not trained: random numbers of seed 0 and deviation 0.02, as timm begins one, and no bias"

# The tag of the names under which `xcit_hub.timm` registers its class for the mindcv dialect.
_OUR_TAG = "ms_in1k"


@dataclass
class Report:
    """What a conversion read, did and wrote; :meth:`as_dict` is the JSON of ``--report``.

    Args:
        target: the file that was written; None if its proof failed and it was not.
        parity: the proof's figures, if there was one; in the JSON, null stands for those that are no finite number.
    """

    source: dict[str, Any]
    target: dict[str, Any] | None
    weights: Weights
    tensors: list[dict[str, Any]]
    made_up: list[dict[str, str]]
    seconds: float
    parity: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        weights = self.weights
        return {
            "source": self.source,
            "target": self.target,
            "architecture": weights.architecture.name,
            "architecture_assumed": weights.assumed,
            "kind": weights.kind,
            "num_classes": weights.num_classes,
            "head_untrained": weights.head_untrained,
            "in_chans": weights.in_chans,
            "dialect": weights.dialect,
            "evidence": weights.evidence,
            "notes": weights.notes,
            "tensors": self.tensors,
            "dropped": [{"name": entry.name, "reason": entry.reason} for entry in weights.dropped],
            "made_up": self.made_up,
            "versions": _versions(),
            "seconds": round(self.seconds, 3),
            "parity": _plain(self.parity),
        }


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    to: Family | None = None,
    model: str | None = None,
    dialect: str | None = None,
    ema: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    dtype: str | None = None,
    family: Family | None = None,
    progress: Progress | None = None,
    prove: Prove | None = None,
) -> Report:
    """Convert a checkpoint into another family's and format; ``target``'s suffix says which format.

    The numbers are the source's, bit for bit, unless ``in_chans`` or ``dtype`` asks for others. Beside the target a
    ``config.json`` is written (:func:`config_path`).

    Args:
        to: the family to write; our own where it is not said.
        model, dialect, ema, family: as for :func:`load`. ``model`` may name a checkpoint: ``ms_in1k`` is the tag of
            ``xcit_hub.timm``'s class, which makes a mindcv network writable in timm's layout.
        num_classes: fewer than there are keep the classifier's first rows; more begin another, random one, as timm
            does, which is marked as untrained; 0 drops it.
        in_chans: input channels of the first convolution, adapted as timm does.
        dtype: "float32", "float16" or "bfloat16".
        progress: called with the bytes done and the bytes in all.
        prove: called with the written file, before it takes the target's place, and the report; returns the figures
            for :attr:`Report.parity`. Where their ``passed`` is false, nothing takes the target's place.

    Raises:
        CheckpointError: the source is no whole checkpoint, or the target's format cannot hold it.
        WeightsError: see :func:`load`; or the target family has no such network.
        InputError: the options ask for what cannot be.
    """
    started = time.perf_counter()
    source, target = Path(source), Path(target)
    if source.resolve() == target.resolve():
        raise InputError("Source and target are the same file.", where=target, fix="Choose another target.")
    format_out = checkpoint.format_of(target)
    family_out: Family = to or "xcit-hub"
    if family_out not in LAYOUTS:
        raise UnknownNameError(
            f"There is no family called {to!r}.", fix=closest(str(to), LAYOUTS) or f"Use one of {', '.join(LAYOUTS)}."
        )
    if model is not None and not isinstance(model, str):
        raise InputError(f"A model is named by a string, not by {model!r}.", fix="See `xcit-hub list` for all names.")
    expected = model.removesuffix(f".{_OUR_TAG}") if model is not None else None
    opened = checkpoint.read(source)
    weights = weights_of(opened, model=expected, dialect=dialect, ema=ema, family=family)
    _check_target(weights, family_out, model)
    weights = _with_head(_with_channels(_without_pyramid(weights, family_out), in_chans), num_classes)
    stored = {
        name: numbers.cast(tensor, dtype, weights.sources[name], where=source)
        for name, tensor in checked(weights, source).items()
    }
    translated = dialects.from_ours(stored, family_out)
    made_up = _made_up(weights, family_out)
    if progress is not None:
        translated = _counted(translated, progress)
    metadata = _metadata(weights, family_out, format_out)
    translated |= {name: tensor for name, (tensor, _) in made_up.items()}
    with _beside(target) as written:
        with ThreadPoolExecutor(1) as second:
            source_digest = second.submit(lambda: opened.sha256)
            digest = checkpoint.write(written, translated, metadata)
        opened.check_unchanged()
        hold_against_config(weights, opened)
        report = Report(
            source=_file(source, source_digest.result(), weights.family, opened.format),
            target={**_file(written, digest, family_out, format_out), "path": str(target)},
            weights=weights,
            tensors=[
                {
                    "source": list(weights.sources[name]),
                    "target": list(LAYOUTS[family_out].names(name)),
                    "shape": list(tensor.shape),
                    "dtype": tensor.dtype,
                }
                for name, tensor in stored.items()
            ],
            made_up=[
                *({"name": name, "reason": _FRESH} for name in stored if not weights.sources[name]),
                *({"name": name, "reason": reason} for name, (_, reason) in made_up.items()),
            ],
            seconds=time.perf_counter() - started,
        )
        report.parity = prove(written, report) if prove is not None else None
        if report.parity is not None and not report.parity["passed"]:
            report.target = None
            return report
        _put_in_place(written, target)
    _write_config(target, weights, family_out, digest)
    return report


# ---- Reshaping -----------------------------------------------------------------------------------


def _with_head(weights: Weights, num_classes: int | None) -> Weights:
    if num_classes is None or num_classes == weights.num_classes:
        return weights
    if num_classes < 0:
        raise InputError(f"A classifier cannot have {num_classes} classes.", fix="Use 0 to drop it.")
    if weights.kind in ("dense", "features"):
        raise InputError(
            "A backbone without class attention has nothing that a classifier could stand on.",
            fix="Leave out --num-classes.",
        )
    if num_classes == 0:
        return replace(_without_head(weights), notes=[*weights.notes, "Dropped the classifier."])
    if num_classes < weights.num_classes:
        return _with_fewer_classes(weights, num_classes)
    return _with_fresh_head(weights, num_classes)


def _without_head(weights: Weights) -> Weights:
    gone = [part for name in _HEAD if name in weights.tensors for part in weights.sources[name]]
    return replace(
        weights,
        tensors={name: tensor for name, tensor in weights.tensors.items() if name not in _HEAD},
        num_classes=0,
        kind="backbone",
        dropped=[
            *weights.dropped,
            *(Dropped(part, "the classifier, which --num-classes did not want") for part in gone),
        ],
        head_untrained=False,
    )


def _with_fewer_classes(weights: Weights, num_classes: int) -> Weights:
    note = f"Kept the classifier's first {num_classes} of {weights.num_classes} rows; the other classes are gone."
    kept = {name: weights.tensors[name].rows(0, num_classes) for name in _HEAD}
    return replace(weights, tensors={**weights.tensors, **kept}, num_classes=num_classes, notes=[*weights.notes, note])


def _with_fresh_head(weights: Weights, num_classes: int) -> Weights:
    shapes = parameter_shapes(weights.architecture, num_classes=num_classes)
    try:
        values = np.random.default_rng(0).standard_normal(shapes["head.weight"], np.float32)
    except (MemoryError, ValueError) as error:
        raise InputError(f"A classifier of {num_classes} classes is too large.", fix="Ask for fewer.") from error
    arrays = {"head.weight": values * np.float32(0.02), "head.bias": np.zeros(shapes["head.bias"], np.float32)}
    dtype = weights.tensors["cls_token"].dtype
    head = {name: numbers.cast(StoredTensor.of(array), dtype, (name,)) for name, array in arrays.items()}
    replaced = f" in place of the file's, which has {weights.num_classes}" if weights.num_classes else ""
    note = f"The classifier of {num_classes} classes is NOT TRAINED: it is random{replaced}. Train it before use."
    bare = _without_head(weights)
    return replace(
        bare,
        tensors={**bare.tensors, **head},
        num_classes=num_classes,
        kind="classifier",
        notes=[*weights.notes, note],
        sources={**bare.sources, **dict.fromkeys(head, ())},
        head_untrained=True,
    )


def _with_channels(weights: Weights, in_chans: int | None) -> Weights:
    if in_chans is None or in_chans == weights.in_chans:
        return weights
    if in_chans < 1:
        raise InputError(f"An image cannot have {in_chans} channels.", fix="Use --in-chans 1 or more.")
    name = "patch_embed.proj.0.0.weight"
    adapted = numbers.adapt_input_conv(weights.tensors[name], in_chans)
    how = "summed over" if in_chans == 1 else "repeated and rescaled from"
    return replace(
        weights,
        tensors={**weights.tensors, name: adapted},
        in_chans=in_chans,
        notes=[*weights.notes, f"The first convolution was {how} {weights.in_chans} channels, as timm does."],
    )


def _without_pyramid(weights: Weights, to: Family) -> Weights:
    if weights.kind != "dense" or LAYOUTS[to].pyramid:
        return weights
    reason = f"the feature pyramid of a detector or segmenter, which {to} has no network for"
    kept = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith("fpn")}
    gone = [part for name in weights.tensors if name not in kept for part in weights.sources[name]]
    return replace(
        weights,
        tensors=kept,
        kind="features",
        dropped=[*weights.dropped, *(Dropped(name, reason) for name in gone)],
        notes=[*weights.notes, f"Dropped {len(gone)} tensors: {reason}."],
    )


# ---- Writing -------------------------------------------------------------------------------------


def _check_target(weights: Weights, to: Family, model: str | None) -> None:
    if weights.dialect in LAYOUTS[to].dialects or (to == "timm" and _names_our_class(model)):
        return
    name = weights.architecture.name
    explained = DIALECTS[weights.dialect].explanation
    if weights.dialect == "paper":
        raise WeightsError(
            f"MindCV has no network that computes what {name} was trained as ({explained}); in MindCV's own these "
            "weights give wrong answers without any error.",
            fix="Write --to xcit-hub, and run it with xcit-hub's network, which has both dialects.",
        )
    raise WeightsError(
        f"{to} has no network that computes what {name} was trained as ({explained}); in its own these weights give "
        "wrong answers without any error.",
        fix="Run them in timm through this project's class: write --to timm "
        f"--model {name}.ms_in1k, then `import xcit_hub.timm` and "
        f"timm.create_model('{name}.ms_in1k', checkpoint_path=OUT).",
    )


def _names_our_class(model: str | None) -> bool:
    return model is not None and model.partition(".")[2] == _OUR_TAG


def _made_up(weights: Weights, to: Family) -> dict[str, tuple[StoredTensor, str]]:
    """Tensors that the target's files have and ours have not."""
    made_up: dict[str, tuple[StoredTensor, str]] = {}
    if LAYOUTS[to].counters:
        for name in weights.tensors:
            if name.endswith(".moving_mean"):
                counter = f"{name.removesuffix('.moving_mean')}.num_batches_tracked"
                made_up[counter] = (StoredTensor.of(np.array(0, np.int64)), "PyTorch's batch counter, unused")
    if to == "timm" and weights.dialect == "mindcv":
        mark = StoredTensor.of(np.array(1, np.uint8))
        made_up[dialects.MINDCV_MARK] = (mark, "keeps timm's own class from loading the mindcv dialect")
    return made_up


def _metadata(weights: Weights, to: Family, file_format: str) -> dict[str, str]:
    # Hugging Face's loaders insist on a framework's name in every safetensors file.
    named = {"format": "pt"} if file_format == "safetensors" else {}
    return {
        **named,
        "xcit_hub.architecture": weights.architecture.name,
        **({ARCHITECTURE_ASSUMED: "true"} if weights.assumed else {}),
        **({HEAD_UNTRAINED: "true"} if weights.head_untrained else {}),
        "xcit_hub.dialect": weights.dialect,
        "xcit_hub.family": to,
        "xcit_hub.version": __version__,
    }


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A path of the target's own name in a folder beside it, which is gone afterwards with all that is left in it."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    with folder as name:
        yield Path(name) / target.name


def _put_in_place(written: Path, target: Path) -> None:
    config = config_path(target)
    try:
        if target.exists():
            written.chmod(target.stat().st_mode & 0o777)
        # Whatever interrupts this, no configuration is left that speaks of another file's bytes.
        if _is_our_config(config) and not target.is_dir():
            config.unlink()
        written.replace(target)
    except OSError as error:
        raise _cannot_write(target, error) from error


def _cannot_write(target: Path, error: OSError) -> XcitHubError:
    return XcitHubError(
        f"Cannot write {target.name}: {error.strerror or error}.",
        where=target,
        fix="Choose a target in a folder that exists, may be written, and has room.",
    )


def _write_config(target: Path, weights: Weights, to: Family, digest: str) -> None:
    path = config_path(target)
    config = {
        "architecture": weights.architecture.name,
        "num_classes": weights.num_classes,
        "in_chans": weights.in_chans,
        "xcit_hub": {
            **({ARCHITECTURE_ASSUMED.removeprefix("xcit_hub."): "true"} if weights.assumed else {}),
            **({HEAD_UNTRAINED.removeprefix("xcit_hub."): "true"} if weights.head_untrained else {}),
            "dialect": weights.dialect,
            "family": to,
            "version": __version__,
            "file": target.name,
            "sha256": digest,
        },
    }
    if path.exists() and not _is_our_config(path):
        weights.notes.append(f"{path.name} was there before and is not xcit-hub's; left it as it was.")
        return
    write_text(path, json.dumps(config, indent=2) + "\n")


def _is_our_config(path: Path) -> bool:
    try:
        return "sha256" in json.loads(path.read_text("utf-8"))["xcit_hub"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def _counted(tensors: dict[str, StoredTensor], progress: Progress) -> dict[str, StoredTensor]:
    total = sum(tensor.nbytes for tensor in tensors.values())
    done = 0

    def count(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        nonlocal done
        done += array.nbytes
        progress(done, total)
        return array

    return {name: tensor.through(count) for name, tensor in tensors.items()}


def _file(path: Path, digest: str, family: Family, file_format: str) -> dict[str, Any]:
    return {
        "path": str(path),
        "sha256": digest,
        "bytes": path.stat().st_size,
        "format": file_format,
        "family": family,
    }


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str]:
    loaded = ("mindspore", "torch", "timm", "numpy")
    versions = {"xcit-hub": __version__, "python": platform.python_version()}
    return versions | {name: sys.modules[name].__version__ for name in loaded if name in sys.modules}
