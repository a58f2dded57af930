"""The step *write*: a checkpoint of any family in any format → a checkpoint of any other."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xcit_hub._version import __version__
from xcit_hub.checkpoints import checkpoint, sidecar, strings, trainer
from xcit_hub.checkpoints.check import Doubts, checked
from xcit_hub.checkpoints.checkpoint import Checkpoint, StoredTensor
from xcit_hub.checkpoints.dtypes import cast
from xcit_hub.checkpoints.families import FAMILIES, LAYOUTS, MARKS, TIMM_TAGS
from xcit_hub.checkpoints.identify import ARCHITECTURE_ASSUMED, HEAD_UNTRAINED
from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.checkpoints.reading import Asked
from xcit_hub.checkpoints.report import Report
from xcit_hub.checkpoints.reshape import with_channels, with_head, without_pyramid
from xcit_hub.checkpoints.sidecar import config_path
from xcit_hub.checkpoints.translate import from_ours
from xcit_hub.checkpoints.weights import Weights, hold_against_config, recommending_inspection, weights_of
from xcit_hub.errors import InputError, UnknownNameError, WeightsError, XcitHubError, closest
from xcit_hub.files import real_path, scratch_folder, write_text
from xcit_hub.variants import DIALECTS, DialectName, Family

Progress = Callable[[int, int], None]
Prove = Callable[[Path, Report], "dict[str, Any] | None"]

_FRESH = "a new classifier, not trained: random numbers of seed 0 and deviation 0.02, as timm begins one, and no bias"
_NO_VALUES = "a value beside the tensors, such as training's settings; a file of weights has none"
_NO_FILES = "another file of the zip, which nothing reads: what describes the network is read beside an unpacked one"
_OTHER_STRING = "a string that says nothing of the network, its images or its classes, or does not hold any more"
_OF_TRAINER = "what its trainer was told of the network or its images: the notes name what counts and what differs"
_MOST_NAMES, _MOST_LETTERS = 10_000, 1 << 20  # of what is left, for each reason
# Strings that the target answers anew, and does not have where the answer is no.
_ANSWERED = ("format", "xcit_hub.architecture", ARCHITECTURE_ASSUMED, HEAD_UNTRAINED)


def rewrite(
    source: str | os.PathLike[str] | MappedFile,
    target: str | os.PathLike[str],
    *,
    to: Family | None = None,
    model: str | None = None,
    dialect: DialectName | None = None,
    ema: bool = False,
    select: str | None = None,
    prefix: str | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    dtype: str | None = None,
    family: Family | None = None,
    described: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    prove: Prove | None = None,
) -> Report:
    """Write a checkpoint in another family's names and another format; ``target``'s suffix says which format.

    The numbers are the source's, bit for bit, unless ``in_chans`` or ``dtype`` asks for others. Beside the target a
    ``config.json`` is written (:func:`config_path`).

    Args:
        source: the file, or what :func:`xcit_hub.checkpoints.checkpoint.opened` made of it.
        to: the family to write; our own where it is not said.
        model, dialect, ema, select, prefix, family: as for :func:`xcit_hub.checkpoints.weights.load`. ``model`` may
            name a checkpoint: ``ms_in1k`` and ``ms_mint`` are the tags of ``xcit_hub.timm``'s classes, which make
            networks of MindCV's dialects writable in timm's layout.
        num_classes: fewer than there are keep the classifier's first rows; more begin another, random one, as timm
            does, which is marked as untrained; 0 drops it.
        in_chans: input channels of the first convolution, adapted as timm does.
        dtype: "float32", "float16" or "bfloat16".
        described: what the file is to say of its images, classifier and classes
            (:mod:`xcit_hub.checkpoints.strings`); what the source says by default.
        progress: called with the bytes done and the bytes in all.
        prove: called with the written file, before it takes the target's place, and the report; returns the figures
            for :attr:`Report.parity`. Where their ``passed`` is false, nothing takes the target's place.

    Raises:
        CheckpointError: the source is not a whole checkpoint, or the target's format cannot hold it.
        WeightsError: see :func:`~xcit_hub.checkpoints.weights.load`; or the target family has no such network.
        InputError: the options ask for what cannot be.
    """
    started = time.perf_counter()
    opened_once, target = source, Path(target)
    source = source.path if isinstance(source, MappedFile) else Path(source)
    if real_path(source) == real_path(target):
        raise InputError("Source and target are the same file.", where=target, fix="Choose another target.")
    format_out = checkpoint.format_of(target)
    family_out: Family = to or "xcit-hub"
    if family_out not in FAMILIES:
        raise UnknownNameError(
            f"There is no family called {to!r} to write.",
            where="to=… (--to)",
            fix=closest(str(to), FAMILIES) or f"Use one of {', '.join(FAMILIES)}.",
        )
    if model is not None and not isinstance(model, str):
        raise InputError(
            f"A model is named by a string, not by {model!r}.",
            where="model=… (--model)",
            fix="See `xcit-hub list` for all names.",
        )
    expected = model.partition(".")[0] or None if model is not None and _names_our_class(model) else model
    with recommending_inspection(opened_once):
        opened = checkpoint.read(opened_once, late=True)
        if any(real_path(part.path) == real_path(target) for part in opened.parts):
            raise InputError("The target is a part of the source.", where=target, fix="Choose another target.")
        if checkpoint.shard_index_of(Path(target)) is not None:
            raise InputError(
                "The target is named as one of several files of a checkpoint, and whole ones are written.",
                where=target,
                fix="Choose another name, without -00001-of-00002.",
            )
        weights = weights_of(opened, Asked(expected, dialect, ema, select, prefix, family))
    _check_target(weights, family_out, model)
    had = weights.num_classes
    weights = with_head(with_channels(without_pyramid(weights, family_out), in_chans), num_classes)
    doubts = Doubts()
    stored = {
        name: cast(tensor, dtype, weights.sources[name] or (name,), where=source, doubts=doubts)
        for name, tensor in checked(weights.tensors, weights.sources, source, doubts).items()
    }
    naming = _naming(family_out, weights.dialect)
    translated = from_ours(stored, naming)
    layout = LAYOUTS[naming]
    made_up = _made_up(weights, family_out)
    if progress is not None:
        translated = _counted(translated, progress)
    spoken = dict(described) if described is not None else strings.carried(weights, had, opened.metadata)
    metadata = _metadata(weights, family_out, format_out) | spoken
    whole = {layout.placed(name): tensor for name, tensor in translated.items()}
    whole |= {name: tensor for name, (tensor, _) in made_up.items()}
    with _beside(target) as written:
        with ThreadPoolExecutor(1) as second, recommending_inspection(opened_once):
            source_digest = second.submit(lambda: opened.sha256)
            try:
                digest = checkpoint.write(written, whole, metadata, layout.under)
            except WeightsError:
                source_digest.result()  # which says so if the numbers are wrong because the file is damaged
                raise
        opened.check_unchanged()
        hold_against_config(weights, opened)
        weights.notes += doubts.notes()
        if described is None and (said := sidecar.unread(opened)) is not None:
            weights.notes.append(said)
        report = Report(
            source=_file(source, opened.nbytes, source_digest.result(), weights.family, opened.format),
            target={**_file(written, written.stat().st_size, digest, family_out, format_out), "path": str(target)},
            weights=weights,
            tensors=[
                {
                    "source": list(weights.sources[name]),
                    "target": [layout.placed(part) for part in layout.names(name)],
                    "shape": list(tensor.shape),
                    "dtype": tensor.dtype,
                }
                for name, tensor in stored.items()
            ],
            made_up=[
                *({"name": name, "reason": _FRESH} for name in stored if not weights.sources[name]),
                *({"name": name, "reason": reason} for name, (_, reason) in made_up.items()),
            ],
            left=_left(opened, metadata),
            seconds=time.perf_counter() - started,
        )
        report.parity = prove(written, report) if prove is not None else None
        if report.parity is not None and not report.parity["passed"]:
            report.target = None
            return report
        _put_in_place(written, target)
    _write_config(target, weights, family_out, digest, spoken)
    return report


# ---- Writing -------------------------------------------------------------------------------------


def _naming(to: Family, dialect: DialectName) -> Family:
    """Whose names a family's file has: MindCV's network of mint layers has PyTorch's leaves, as facebook's has."""
    return "facebook" if to == "mindcv" and dialect == "mindcv-mint" else to


def _check_target(weights: Weights, to: Family, model: str | None) -> None:
    if model is not None and _names_our_class(model) and not _names_our_class(model, weights.dialect):
        raise WeightsError(
            f"{model} computes in another dialect than these weights were trained in ({weights.dialect}).",
            where="model=… (--model)",
            fix=f"Write --model {model.partition('.')[0]}, or leave it out.",
        )
    of_mint = to == "mindcv" and weights.dialect == "mindcv-mint"
    as_ours = to == "timm" and _names_our_class(model, weights.dialect)
    if of_mint or as_ours or weights.dialect in LAYOUTS[to].dialects:
        return
    name = weights.architecture.name
    explained = DIALECTS[weights.dialect].explanation
    if to == "mindcv":
        raise WeightsError(
            f"The network of MindCV's that has these names does not compute what {name} was trained as ({explained}); "
            "in it these weights give wrong answers without any error.",
            where="to=… (--to)",
            fix="Write --to xcit-hub, and run it with xcit-hub's network, which has every dialect.",
        )
    raise WeightsError(
        f"{to} has no network that computes what {name} was trained as ({explained}); in its own these weights give "
        "wrong answers without any error.",
        where="to=… (--to)",
        fix="Run them in timm through this project's class: write --to timm "
        f"--model {name}.{TIMM_TAGS[weights.dialect]}, then `import xcit_hub.timm` and "
        f"timm.create_model('{name}.{TIMM_TAGS[weights.dialect]}', checkpoint_path=OUT).",
    )


def _names_our_class(model: str | None, dialect: DialectName | None = None) -> bool:
    """Whether a model's tag is that of one of ``xcit_hub.timm``'s classes, or of the one for a dialect."""
    tags = TIMM_TAGS.values() if dialect is None else [TIMM_TAGS.get(dialect)]
    return model is not None and model.partition(".")[2] in tags


def _made_up(weights: Weights, to: Family) -> dict[str, tuple[StoredTensor, str]]:
    """Tensors that the target's files have and ours have not."""
    made_up: dict[str, tuple[StoredTensor, str]] = {}
    for name in weights.tensors:
        if (counter := LAYOUTS[_naming(to, weights.dialect)].counter(name)) is not None:
            made_up[counter] = (StoredTensor.of(np.array(0, np.int64)), "PyTorch's batch counter, unused")
    if to == "timm" and weights.dialect in MARKS:
        mark = StoredTensor.of(np.array(1, np.uint8))
        made_up[MARKS[weights.dialect]] = (mark, f"keeps timm's own class from loading the {weights.dialect} dialect")
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


def _left(opened: Checkpoint, metadata: Mapping[str, str]) -> list[dict[str, Any]]:
    """What a file has beside its tensors and a conversion does not write: training's settings, an author's words."""
    strings_left = [name for name in opened.metadata if name not in metadata and name not in _ANSWERED]
    groups = (
        ("value", _NO_VALUES, opened.values),
        ("string", _OTHER_STRING, strings_left),
        ("file", _NO_FILES, opened.packed_with),
    )
    left: dict[tuple[str, str], list[str]] = {}
    for kind, other, names in groups:
        for name in names:
            reason = _OF_TRAINER if kind != "file" and trainer.is_of_network(name) else other
            left.setdefault((kind, reason), []).append(name)
    return [
        {"kind": kind, "reason": reason, "count": len(names), "names": _first(names)}
        for (kind, reason), names in left.items()
    ]


def _first(names: Sequence[str]) -> list[str]:
    """Return as many names as a report has room for: a file's may be hundreds of thousands, and are counted beside."""
    lengths = itertools.accumulate(len(name) for name in names)
    return [name for name, letters in zip(names[:_MOST_NAMES], lengths, strict=False) if letters <= _MOST_LETTERS]


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A path of the target's own name in a folder beside it, which is gone afterwards with all that is left in it."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder(target.parent, f".{target.name}.", ".tmp"))
        except OSError as error:
            raise _cannot_write(target, error) from error
        yield folder / target.name


def _put_in_place(written: Path, target: Path) -> None:
    config = config_path(target)
    try:
        if target.exists():
            written.chmod(target.stat().st_mode & 0o777)
        # Whatever interrupts this, no configuration is left that speaks of another file's bytes.
        if sidecar.is_ours(config) and not target.is_dir():
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


def _write_config(target: Path, weights: Weights, to: Family, digest: str, spoken: Mapping[str, str]) -> None:
    path = config_path(target)
    config = {
        "architecture": weights.architecture.name,
        "num_classes": weights.num_classes,
        "in_chans": weights.in_chans,
        **strings.described(spoken),
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
    if path.exists() and not sidecar.is_ours(path):
        weights.notes.append(f"{path.name} was there before and is not xcit-hub's; left it as it was.")
        return
    write_text(path, json.dumps(config, indent=2) + "\n")


def _counted(tensors: dict[str, StoredTensor], progress: Progress) -> dict[str, StoredTensor]:
    total = sum(tensor.nbytes for tensor in tensors.values())
    done = 0

    def count(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        nonlocal done
        done += array.nbytes
        progress(done, total)
        return array

    return {name: tensor.through(count) for name, tensor in tensors.items()}


def _file(path: Path, size: int, digest: str, family: Family, file_format: str) -> dict[str, Any]:
    return {
        "path": str(path),
        "sha256": digest,
        "bytes": size,
        "format": file_format,
        "family": family,
    }
