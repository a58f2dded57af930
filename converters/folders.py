"""Every checkpoint of a folder, converted one after the other; a run that was interrupted goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from converters.convert import Options, convert
from converters.reports import write_report
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.checkpoint import SUFFIXES, shard_index_of
from xcit_hub.checkpoints.report import Report
from xcit_hub.checkpoints.rewrite import Progress
from xcit_hub.checkpoints.sidecar import config_path
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.files import is_folder, read_bounded, real_path, sha256_of


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
    sources = sorted(path for path, reason in _walked(folder, target) if reason is None)
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


def left_out(folder: Path, target: Path) -> dict[str, list[str]]:
    """Return what stands below a folder and is not converted: the reason → the paths, from there."""
    found: dict[str, list[str]] = {}
    for path, reason in sorted(_walked(folder, target)):
        if reason:
            found.setdefault(reason, []).append(path.relative_to(folder).as_posix())
    return found


def convert_all(
    planned: list[tuple[Path, Path]], options: Options, *, verify: bool | None = None, progress: Progress | None = None
) -> Iterator[Done]:
    """Convert many files; what fails is told and the rest is done; what a run before has done is not done again.

    Every target has its report beside it (``name.suffix.report.json``), which is how the next run knows what is done.
    Yields one :class:`Done` for each, in order.
    """
    for source, target in planned:
        if _done_before(source, target, options, verify=bool(verify)):
            yield Done(source, target)
            continue
        made = [folder for folder in (target.parent, *target.parent.parents) if not is_folder(folder)]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            report = convert(source, target, verify=verify, progress=progress, **asdict(options))
            write_report(_report_path(target), report, asdict(options))
            yield Done(source, target, report)
        except OSError as error:
            _remove_empty(made)
            yield Done(source, target, error=XcitHubError(str(error), where=target, fix="Check the folder."))
        except XcitHubError as error:
            _remove_empty(made)
            yield Done(source, target, error=error)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove those that hold nothing, the innermost of which come first."""
    for folder in folders:
        with suppress(OSError):  # it was not made after all, or something else is in it by now
            folder.rmdir()


# Suffixes that some writers use for, or put behind, those of the formats.
_OTHERS = (".th", ".pkl", ".tar")
_INDEX = ".index.json"
_LARGEST_REPORT = 64 << 20


def _walked(folder: Path, target: Path) -> Iterator[tuple[Path, str | None]]:
    """Every entry below a folder and why it is not converted, None where it is; without what is the target's."""
    unread: list[OSError] = []
    for place, folders, names in os.walk(folder, onerror=unread.append):
        inside = [name for name in folders if not _is_within(Path(place, name), target)]
        folders[:] = inside  # which os.walk follows
        yield from ((Path(place, each), _LINK) for each in inside if Path(place, each).is_symlink())
        for path in (Path(place, each) for each in names):
            if not _is_part(path) and not _is_within(path, target):
                yield path, _reason_left(path)
    for error in unread:
        yield Path(error.filename), f"a folder that cannot be read: {error.strerror}"


_LINK = "a link to a folder, which is not followed"
_NO_FILE = "neither a file nor a link to one"
_OTHER_NAME = "not a checkpoint by its name"


def _reason_left(path: Path) -> str | None:
    is_named = path.suffix.lower() in (*SUFFIXES, *_OTHERS) or path.name.lower().endswith(_INDEX)
    return _OTHER_NAME if not is_named else None if _is_file(path) else _NO_FILE


def _is_part(path: Path) -> bool:
    """Whether a file is one of several of a checkpoint, whose index is converted."""
    index = shard_index_of(path)
    return index is not None and index.exists()


def _is_within(path: Path, target: Path) -> bool:
    return Path(real_path(path)).is_relative_to(real_path(target))


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
    return target.with_name(f"{target.name}.report.json")


def _done_before(source: Path, target: Path, options: Options, *, verify: bool) -> bool:
    # In version 0.1 a report was called after the target without its suffix.
    paths = (_report_path(target), target.with_name(f"{target.stem}.report.json"))
    return any(_says_done(path, source, target, options, verify=verify) for path in paths)


def _says_done(path: Path, source: Path, target: Path, options: Options, *, verify: bool) -> bool:
    # Decides only whether there is work: a conversion hashes what it reads itself.
    try:
        report = json.loads(read_bounded(path, _LARGEST_REPORT))
        if report["options"] != asdict(options):
            return False
        with checkpoint.read(source, late=True) as stored:  # which may be an index: then of all its parts
            digest = stored.sha256
        return bool(
            report["source"]["sha256"] == digest
            and report["target"]["sha256"] == sha256_of(target)
            and config_path(target).exists()
            and (report["parity"]["passed"] if report["parity"] else not verify)
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError, XcitHubError):
        return False
