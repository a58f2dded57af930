"""Conversion with its proof: a source that may be a published name, parity on the very file written, whole folders."""

from __future__ import annotations

import errno
import importlib.util
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xcit_hub.checkpoints.checkpoint import SUFFIXES
from xcit_hub.checkpoints.rewrite import Progress, Report, config_path, convert, load
from xcit_hub.errors import HubError, InputError, XcitHubError
from xcit_hub.files import sha256_of, write_text
from xcit_hub.variants import ARCHITECTURES, CHECKPOINTS, Family, checkpoint

# "no larger than small": beyond this width the proof takes longer than anyone waits for without having asked.
_WIDEST_BY_DEFAULT = 384


@dataclass(frozen=True)
class Options:
    """What :func:`xcit_hub.checkpoints.rewrite.convert` is to do; its arguments of the same names."""

    to: Family | None = None
    model: str | None = None
    dialect: str | None = None
    ema: bool = False
    num_classes: int | None = None
    in_chans: int | None = None
    dtype: str | None = None
    family: Family | None = None


def source_file(source: str) -> tuple[Path, str | None]:
    """Return the file that a source means, fetching it if it is a published name, and the model it must then be.

    Raises:
        HubError: it cannot be fetched, or is published in no place a program may fetch from.
    """
    path = Path(source)
    if path.exists() or (source not in CHECKPOINTS and source not in ARCHITECTURES):
        return path, None
    entry = checkpoint(source)
    if entry.repository is None:
        raise HubError(
            f"{entry.name} is published as a plain file, not in a repository.",
            where=entry.url,
            fix="Download it, and give the file as the source.",
        )
    from huggingface_hub import hf_hub_download

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are not the user's business
    try:
        return Path(hf_hub_download(entry.repository, "model.safetensors")), entry.name
    except OSError as error:
        raise HubError(
            f"{entry.name} could not be fetched: {str(error).splitlines()[0]}",
            where=f"https://huggingface.co/{entry.repository}",
            fix="Check the network and HF_ENDPOINT, or download model.safetensors and give it as the source.",
        ) from error


def convert_one(
    source: str,
    target: str | os.PathLike[str],
    options: Options,
    *,
    verify: bool | None = None,
    progress: Progress | None = None,
    stage: Callable[[str], None] = lambda _: None,
) -> Report:
    """Convert one checkpoint, and prove what was written by running it (see :func:`proof`).

    What fails its proof does not become the target: what stood there before stays.

    Args:
        source: a file, or a name of ``xcit_hub.variants.CHECKPOINTS``.
        verify: whether to; None where it costs little (:func:`provable`).
        stage: told in a few words what is going on.

    Raises:
        XcitHubError: see :func:`xcit_hub.checkpoints.rewrite.convert` and :func:`source_file`.
    """
    path, model = source_file(source)
    stage(f"converting {path.name}")

    def prove(written: Path, report: Report) -> dict[str, Any] | None:
        hindrance = provable(report)
        if verify and hindrance:
            raise InputError(f"The result cannot be verified: {hindrance}.", where=target, fix="Leave out --verify.")
        wide = report.weights.architecture.embed_dim > _WIDEST_BY_DEFAULT
        if not verify and (verify is False or hindrance or wide):
            return None
        stage(f"verifying {Path(target).name}")
        return proof(written, report, stage)

    asked = asdict(replace(options, model=options.model or model))
    return convert(path, target, progress=progress, prove=prove, **asked)


def provable(report: Report) -> str | None:
    """Return why a conversion's result cannot be run beside PyTorch's network, or None if it can."""
    if report.weights.kind in ("dense", "features"):
        return "a backbone without class attention has no logits to compare"
    missing = [module for module in ("torch", "timm") if importlib.util.find_spec(module) is None]
    return f"{' and '.join(missing)} not installed (pip install 'xcit-hub[timm]')" if missing else None


def proof(
    target: str | os.PathLike[str], report: Report, stage: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Read the written file back, put it into MindSpore's network and PyTorch's, and judge what they compute.

    Args:
        stage: told in a few words what is going on.
    """
    from xcit_hub.parity import verify_weights

    weights = load(target, model=report.weights.architecture.name)
    return verify_weights(
        weights.arrays(),
        weights.architecture,
        weights.dialect,
        num_classes=weights.num_classes,
        in_chans=weights.in_chans,
        stage=lambda words: stage(f"verifying: {words}"),
    ).as_dict()


@dataclass(frozen=True)
class Done:
    """What became of one file of a folder.

    Args:
        report: None where it was done before, or failed.
        error: why it failed.
    """

    source: Path
    target: Path
    report: Report | None = None
    error: XcitHubError | None = None


def pairs(folder: Path, target: Path, suffix: str) -> list[tuple[Path, Path]]:
    """Return every checkpoint below a folder and where its conversion goes: the same place below ``target``.

    Raises:
        InputError: there is none, the folders are the same, or two would become the same file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder.", fix="Give the folder that holds the checkpoints.")
    sources = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    sources = [path for path in sources if not path.resolve().is_relative_to(target.resolve())]
    if not sources:
        raise InputError("There is no checkpoint to convert.", where=folder, fix=f"Suffixes: {', '.join(SUFFIXES)}.")
    planned = [(path, target / path.relative_to(folder).with_suffix(suffix)) for path in sources]
    taken: dict[Path, Path] = {}
    for path, result in planned:
        if result in taken:
            raise InputError(f"{path} and {taken[result]} would both become {result}.", fix="Rename one of them.")
        taken[result] = path
    return planned


def convert_all(
    planned: list[tuple[Path, Path]], options: Options, *, verify: bool | None = None, progress: Progress | None = None
) -> Iterator[Done]:
    """Convert many files; what fails is told and the rest is done; what a run before has done is not done again.

    Every target has its report beside it (``name.report.json``), which is how the next run knows what is done.
    Yields one :class:`Done` for each, in order.
    """
    for source, target in planned:
        if _done_before(source, target, options):
            yield Done(source, target)
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            report = convert_one(str(source), target, options, verify=verify, progress=progress)
            write_report(_report_path(target), report, options)
            yield Done(source, target, report)
        except OSError as error:
            yield Done(source, target, error=XcitHubError(str(error), where=target, fix="Check the folder."))
        except XcitHubError as error:
            yield Done(source, target, error=error)


def failed_proof(report: Report) -> bool:
    """Whether a conversion was run beside PyTorch's network and computed something else."""
    return report.parity is not None and not report.parity["passed"]


def check_report(path: str | os.PathLike[str], source: str, target: str | os.PathLike[str]) -> None:
    """Make sure, before any work, that a report can be written where it is wanted and overwrites nothing else.

    Raises:
        InputError: it is the source, the target or the configuration beside one of them, or cannot be written.
    """
    wanted = Path(path)
    others = {"source": Path(source), "target": Path(target)}
    others |= {f"{name}'s configuration": config_path(other) for name, other in others.items()}
    for name, other in others.items():
        if wanted.resolve() == other.resolve() or (wanted.exists() and other.exists() and wanted.samefile(other)):
            raise InputError(f"The report would overwrite the {name}.", where=wanted, fix="Give it another name.")
    try:
        if wanted.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=wanted.parent):
            pass
    except OSError as error:
        raise InputError(
            f"The report cannot be written: {error.strerror or error}.",
            where=wanted,
            fix="Name a file in a folder that exists and may be written.",
        ) from error


def write_report(path: str | os.PathLike[str], report: Report, options: Options) -> None:
    """Write what a conversion read, was asked for, did and wrote, as JSON."""
    write_text(path, json.dumps({**report.as_dict(), "options": asdict(options)}, indent=2) + "\n")


def _report_path(target: Path) -> Path:
    return target.with_name(f"{target.stem}.report.json")


def _done_before(source: Path, target: Path, options: Options) -> bool:
    try:
        report = json.loads(_report_path(target).read_text("utf-8"))
        return bool(
            report["options"] == asdict(options)
            and report["source"]["sha256"] == sha256_of(source)
            and report["target"]["sha256"] == sha256_of(target)
            and (report["parity"] is None or report["parity"]["passed"])
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False
