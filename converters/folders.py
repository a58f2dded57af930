"""Every checkpoint of a folder, converted one after the other; a run that was interrupted goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from converters.convert import Options, convert
from converters.reports import write_report
from xcit_hub.checkpoints.checkpoint import SUFFIXES, shard_index_of
from xcit_hub.checkpoints.report import Report
from xcit_hub.checkpoints.rewrite import Progress
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.files import is_folder, read_bounded, sha256_of


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
    if not is_folder(folder):
        raise InputError(
            f"{folder} is not a folder.", where="the source", fix="Give the folder that holds the checkpoints."
        )
    walked = (Path(place, each) for place, _, names in os.walk(folder) for each in names)
    sources = sorted(path for path in walked if _is_checkpoint(path) and _is_file(path))
    sources = [path for path in sources if not path.resolve().is_relative_to(target.resolve())]
    if not sources:
        raise InputError("There is no checkpoint to convert.", where=folder, fix=f"Suffixes: {', '.join(SUFFIXES)}.")
    planned = [(path, target / path.relative_to(folder).with_name(f"{_stem(path)}{suffix}")) for path in sources]
    taken: dict[Path, Path] = {}
    for path, result in planned:
        if result in taken:
            raise InputError(
                f"{path} and {taken[result]} would both become {result}.", where="the target", fix="Rename one of them."
            )
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
        is_new = not is_folder(target.parent)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            report = convert(source, target, verify=verify, progress=progress, **asdict(options))
            write_report(_report_path(target), report, asdict(options))
            yield Done(source, target, report)
        except OSError as error:
            yield Done(source, target, error=XcitHubError(str(error), where=target, fix="Check the folder."))
        except XcitHubError as error:
            if is_new:
                with suppress(OSError):  # something else is in it by now
                    target.parent.rmdir()
            yield Done(source, target, error=error)


# Suffixes that some writers use for, or put behind, those of the formats.
_OTHERS = (".th", ".pkl", ".tar")
_INDEX = ".index.json"
_LARGEST_REPORT = 64 << 20


def _is_checkpoint(path: Path) -> bool:
    """Whether a file's name is a checkpoint's: of several files of one, their index alone."""
    name = path.name.lower()
    is_named = path.suffix.lower() in (*SUFFIXES, *_OTHERS) or name.endswith(_INDEX)
    index = shard_index_of(path)
    return is_named and (index is None or not index.exists())


def _stem(path: Path) -> str:
    name = path.name.removesuffix(_INDEX)
    while Path(name).suffix.lower() in (*SUFFIXES, *_OTHERS):
        name = Path(name).stem
    return name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a loop of links: opening it will say so
        return True


def _report_path(target: Path) -> Path:
    return target.with_name(f"{target.stem}.report.json")


def _done_before(source: Path, target: Path, options: Options) -> bool:
    # Decides only whether there is work: a conversion hashes what it reads itself.
    try:
        report = json.loads(read_bounded(_report_path(target), _LARGEST_REPORT))
        return bool(
            report["options"] == asdict(options)
            and report["source"]["sha256"] == sha256_of(source)
            and report["target"]["sha256"] == sha256_of(target)
            and (report["parity"] is None or report["parity"]["passed"])
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError, XcitHubError):
        return False
