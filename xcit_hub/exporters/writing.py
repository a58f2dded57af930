"""Graph → file → run by its own runtimes → judged → put in place; a file that does not pass leaves nothing."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub.errors import DifferenceError, InputError
from xcit_hub.exporters.form import Form
from xcit_hub.exporters.interface import RUNTIMES
from xcit_hub.files import is_file, is_folder, is_there, mode_of_new_file, scratch_folder, sha256_of
from xcit_hub.variants import DIALECTS, Architecture, DialectName

if TYPE_CHECKING:
    from xcit_hub.exporters.proof import FileProof

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Stage = Callable[[str], None]

NEEDED = {".onnx": ("onnx", "xcit-hub[onnx]"), ".mindir": ("mindspore", "mindspore")}
"""What has to be installed to write a file, by its suffix, and what pip calls it."""


@dataclass(frozen=True)
class Written:
    """A file that is in its place.

    Args:
        files: what was written, the model first.
        sha256: of the model that was written and run, 64 hex digits.
        proofs: what each runtime found.
        not_proven: why there is no proof by a runtime, by its name.
    """

    files: tuple[Path, ...]
    sha256: str
    proofs: tuple[FileProof, ...]
    not_proven: dict[str, str]


def write(
    target: Path,
    arrays: Arrays,
    architecture: Architecture,
    dialect: DialectName,
    form: Form,
    metadata: Mapping[str, str],
    *,
    calibration: Iterable[Array] | None = None,
    proof: bool = True,
    stage: Stage = lambda _: None,
) -> Written:
    """Write a network as ONNX or MINDIR, as ``target``'s suffix says.

    Args:
        arrays: every parameter and buffer by MindCV's names, float32.
        metadata: what the file is to say of itself.
        calibration: batches as the graph's input takes them; the file computes in int8 then.
        proof: run the file in fresh processes and judge it before it takes its place.
        stage: told in a few words what is going on.

    Raises:
        InputError: what writes this format is not installed, or the target cannot be written.
        DifferenceError: the file does not compute what the network does; nothing is left of it.
    """
    check_target(target)
    _check_range(arrays, form)
    with _beside(target) as written:
        stage(f"writing {target.name}")
        if target.suffix == ".onnx":
            files = _write_onnx(written, arrays, architecture, dialect, form, metadata, calibration)
        else:
            files = _write_mindir(written, arrays, architecture, dialect, form, metadata)
        proofs: list[FileProof] = []
        if not proof:
            not_proven = dict.fromkeys(RUNTIMES[target.suffix], "the proof was left out (--no-proof)")
        elif calibration is not None:
            reason = "int8 rounds by intention: judge it by accuracy on labelled images"
            not_proven = dict.fromkeys(RUNTIMES[target.suffix], reason)
        else:
            proofs, not_proven = proved(files[0], arrays, architecture, dialect, form, stage)
        digest = sha256_of(files[0])  # here, where nobody puts another file under the name
        former = _weights_beside(target) if len(files) == 1 else None
        for file in reversed(files):  # the model last: whoever sees it has its weights
            place = target.with_name(file.name)
            file.chmod(mode_of_new_file(place if place.exists() else target))  # what was private stays so
            file.replace(place)
        if former is not None:
            former.unlink(missing_ok=True)
    return Written(tuple(target.with_name(file.name) for file in files), digest, tuple(proofs), not_proven)


def _weights_beside(target: Path) -> Path | None:
    """Return the weights beside a model that an earlier export wrote here; None if there are none, or not of ours."""
    if target.suffix != ".onnx":
        return None
    from xcit_hub.exporters import onnx_file

    data = onnx_file.data_of(target)
    try:
        return data if data.is_file() and onnx_file.is_ours(target) else None
    except InputError:
        return None


def check_target(path: Path) -> None:
    """Refuse a target before any work is done for it.

    Raises:
        InputError: its suffix is of no format that is written here, it is not a file, its folder is missing, or what
            writes the format is not installed.
    """
    if path.suffix not in NEEDED:
        raise InputError(
            f"{path.suffix or 'A name without a suffix'} is not a format to export.",
            where=path,
            fix="Give the file the suffix .onnx or .mindir.",
        )
    if is_there(path) and not is_file(path):
        raise InputError("This is not a file.", where=path, fix="Name a file that may be written or replaced.")
    if not is_folder(path.parent):
        raise InputError("There is no such folder.", where=path.parent, fix="Make it, or name another.")
    module, package = NEEDED[path.suffix]
    if importlib.util.find_spec(module) is None:
        raise InputError(f"{module} is not installed.", where=path, fix=f"pip install '{package}'")


def _check_range(arrays: Arrays, form: Form) -> None:
    largest = float(np.finfo(np.float16).max)
    for name, array in arrays.items() if form.dtype == "float16" else ():
        if not np.abs(array).max(initial=0.0) <= largest:
            raise InputError(
                f"{name} holds values beyond {largest:g}, which float16 does not have.",
                where="dtype=… (--dtype)",
                fix="Export it in float32.",
            )


def proved(
    file: Path,
    arrays: Arrays,
    architecture: Architecture,
    dialect: DialectName,
    form: Form,
    stage: Stage = lambda _: None,
) -> tuple[list[FileProof], dict[str, str]]:
    """Run a file by each runtime that is installed; return what they found, and why others did not run.

    Raises:
        DifferenceError: the file does not compute what the network does.
        XcitHubError: a runtime cannot run it.
    """
    runtimes = RUNTIMES[file.suffix]
    missing = [module for module in ("torch", "timm") if importlib.util.find_spec(module) is None]
    if missing:
        return [], dict.fromkeys(runtimes, f"{' and '.join(missing)} not installed (pip install 'xcit-hub[timm]')")
    from xcit_hub.exporters.proof import prove
    from xcit_hub.exporters.runtimes import installed

    chosen = [runtime for runtime in runtimes if installed(runtime)]
    proofs = []
    for found in prove(file, chosen, arrays, architecture, dialect, form, stage):
        if not found.passed:
            worst = max((check for check in found.checks if not check.passed), key=lambda check: check.of_tolerance)
            how = worst.remark or f"is {worst.of_tolerance:.1f} times its tolerance away"
            raise DifferenceError(
                f"{found.runtime} does not compute from {file.name} what the network does: {worst.what} {how}.",
                where=file.name,
                fix="Nothing was written. Report it with the command that was run.",
            )
        proofs.append(found)
    return proofs, {name: f"not installed (pip install {name})" for name in runtimes if name not in chosen}


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A path of the target's name in a folder beside it, which is gone afterwards with all that is left in it."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder(target.parent, f".{target.name}.", ".tmp"))
        except OSError as error:
            raise InputError(
                f"Cannot write {target.name}: {error.strerror}.",
                where=target,
                fix="Choose a folder that may be written.",
            ) from error
        yield folder / target.name


def _write_onnx(
    written: Path,
    arrays: Arrays,
    architecture: Architecture,
    dialect: DialectName,
    form: Form,
    metadata: Mapping[str, str],
    calibration: Iterable[Array] | None,
) -> list[Path]:
    from xcit_hub.exporters import onnx_file, onnx_graph

    model = onnx_graph.build(arrays, architecture, DIALECTS[dialect], form, metadata)
    if calibration is not None:
        from xcit_hub.exporters.int8 import quantised

        model = quantised(model, calibration)
        onnx_graph.describe(model, metadata)
    return onnx_file.write(model, written)


def _write_mindir(
    written: Path,
    arrays: Arrays,
    architecture: Architecture,
    dialect: DialectName,
    form: Form,
    metadata: Mapping[str, str],
) -> list[Path]:
    from xcit_hub.exporters import mindir
    from xcit_hub.models import XCiTFeatures, create_model, load_weights

    network: Any = create_model(
        architecture,
        dialect=dialect,
        num_classes=form.num_classes,
        in_chans=form.in_chans,
        global_pool=form.global_pool,
        init=False,
    )
    load_weights(network, {name: each for name, each in arrays.items() if form.num_classes or name[:5] != "head."})
    if form.features:
        network = XCiTFeatures(network, form.features)
    assert form.image_size is not None  # noqa: S101  (nobody asks for a MINDIR of any size)
    return mindir.write(network, written, form.image_size, batch=form.batch, metadata=metadata)
