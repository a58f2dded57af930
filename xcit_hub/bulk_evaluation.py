"""Many networks evaluated on one data set, a row each in one CSV: what timm's ``validate.py --model all`` does.

The table is written anew, whole, after every network; who is killed loses the network that was under way. A table that
is there is gone on with: networks that have a result are not evaluated again, those that failed are, and those whose
files on this disk are others by now.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xcit_hub import variants
from xcit_hub.errors import InputError, XcitHubError, first_line
from xcit_hub.files import check_outputs, is_file, read_bounded, sha256_of, write_text
from xcit_hub.hub.address import FOLDER, LOCAL, parse
from xcit_hub.hub.locate import locate
from xcit_hub.recipe_runs import evaluate, refuse_of_the_id
from xcit_hub.training.recipe_file import said_by
from xcit_hub.training.scoring import Report

COLUMNS = (
    "model", "top1", "top1_low", "top1_high", "top5", "loss", "samples", "unreadable", "real_top1", "real_top5",
    "parameters", "dialect", "image_size", "crop_pct", "interpolation", "sha256", "settings", "error",
)  # fmt: skip
"""A row's: figures in per cent with the 95% interval of top-1, what the network is and how it saw its images; which
flags it was evaluated with; and, where it could not be evaluated, why."""

_LARGEST = 1 << 24

# Keys of a recipe that name a file whose contents decide the figures.
_FILES = ("class_map", "real_labels")

Row = dict[str, str]


def named(what: str) -> list[str]:
    """Return the ids that are meant: ``all`` published classifiers, those of a shell pattern, or a text file's lines.

    Raises:
        InputError: there are none, or the file is not such a list.
    """
    path = Path(what)
    if is_file(path):
        try:
            lines = read_bounded(path, _LARGEST).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"Byte {error.start} of the list is not UTF-8.", where=path, fix="Give a text.") from error
        names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    else:
        listed = variants.list_models("*" if what == "all" else what, pretrained=True)
        names = [name for name in listed if variants.CHECKPOINTS[name].num_classes]
    if not names:
        raise InputError(
            f"No model is meant by {what!r}.",
            where="--models",
            fix="Say all, a shell pattern of published names ('xcit_tiny*'), or a text file with an id a line.",
        )
    return list(dict.fromkeys(names))


def evaluate_all(
    names: Sequence[str],
    table: Path,
    *,
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Evaluate networks one after another, each as its own description says; return their rows.

    Args:
        names: what :func:`xcit_hub.load` takes.
        table: the CSV; its other rows stay.
        config, flags: the recipe, and its keys that are changed, for all of them.
        say: told a line for each network.

    Raises:
        InputError: the table is another's, or was begun with other settings or files, or a flag says which network is
            meant.
    """
    given = dict(flags or {})
    refuse_of_the_id(given, fix="Leave it out; or evaluate one checkpoint, without --models: --ckpt_path FILE.")
    check_outputs({"the table": table})
    recipe = [] if config is None else [_content(config, given.get("library"))]
    said = " ".join([*recipe, *(f"--{key} {value}" for key, value in sorted(given.items()))])
    files = _files(said_by(config, given))
    settings = said + "".join(f" {each}" for each in files.values())
    rows = _read(table)
    for row in rows.values():
        _check_settings(row["settings"], said, files, table)
    for name in names:
        known = rows.get(name)
        if known is not None and not known["error"]:
            if _is_still(name, known["sha256"]):
                say(f"{name}: {_told(known)}, as the table says")
                continue
            say(f"{name}: the file is another one than the table tells of")
        rows[name] = _row(name, config, given, settings, say)
        say(f"{name}: {_told(rows[name])}")
        _write(table, rows.values())
    return [rows[name] for name in names]


def _content(config: Path, library: str | None) -> str:
    """Return a recipe's path and a digest of what it says: the same path may say something else by now."""
    said = json.dumps(said_by(config, {"library": library} if library else None), sort_keys=True, default=str)
    return f"{config} (keys {hashlib.sha256(said.encode()).hexdigest()[:16]})"


def _files(said: Mapping[str, Any]) -> dict[str, str]:
    """Return a word of what each file holds that a recipe and flags name: the same path may hold something else."""
    words = {}
    for key in _FILES:
        if path := said.get(key):
            if not is_file(str(path)):
                raise InputError(f"{key}: there is no such file.", where=path, fix="Check the path.")
            words[key] = f"({key} {sha256_of(str(path))[:16]})"
    return words


def _check_settings(told: str, said: str, files: Mapping[str, str], table: Path) -> None:
    """Refuse what a table was not begun with.

    Args:
        told: what a row of it says.
        said, files: what is said now.
    """
    if told == said + "".join(f" {word}" for word in files.values()):
        return
    others = [key for key, word in files.items() if f" ({key} " in told and f" {word}" not in told]
    if others and told.startswith(said):
        raise InputError(
            f"What {' and '.join(others)} names is another file than the table was begun with.",
            where=table,
            fix="Give the same file, or name another --results-file.",
        )
    now = " ".join([said, *files.values()]).strip()
    raise InputError(
        f"The table was begun with other settings: {told or 'none'}, now {now or 'none'}.",
        where=table,
        fix="Give the same, or name another --results-file.",
    )


def _is_still(name: str, digest: str) -> bool:
    """Whether what is on this disk under a name has the digest that it was evaluated with; elsewhere nobody looks."""
    try:
        if parse(name).store not in (LOCAL, FOLDER):
            return True
        return locate(name).fetch()[1] == digest
    except XcitHubError:  # gone, or damaged: the row is of what was there
        return True


def _row(name: str, config: Path | None, flags: Mapping[str, Any], settings: str, say: Callable[[str], None]) -> Row:
    row = dict.fromkeys(COLUMNS, "") | {"model": name, "settings": settings}

    def tell(notes: tuple[str, ...]) -> None:
        for note in notes:
            say(f"{name}: {note}")

    try:
        report = evaluate(name, config, flags, say=tell)
    except XcitHubError as error:
        return row | {"error": " ".join(error.what.split())}
    except RuntimeError as error:  # MindSpore's own
        return row | {"error": " ".join(first_line(error).split())}
    if report is None:
        raise InputError("Many networks are evaluated in one process.", where="--models", fix="Start it without msrun.")
    return row | _figures(report)


def _figures(report: Report) -> Row:
    found, record = report.ours, report.record
    low, high = found.interval1
    figures: dict[str, Any] = {
        "top1": f"{found.top1:.4f}",
        "top1_low": f"{low:.4f}",
        "top1_high": f"{high:.4f}",
        "top5": None if found.top5 is None else f"{found.top5:.4f}",
        "loss": f"{found.loss:.6f}",
        "samples": found.samples,
        "unreadable": len(found.unreadable),
        "parameters": record.params,
        "dialect": record.dialect,
        "image_size": "×".join(map(str, record.image_size or ())),
        "sha256": record.checkpoint_sha256,
    }
    if found.real_figures is not None:
        real = {name: found.real_figures[name] for name in ("top1", "top5")}
        figures |= {f"real_{name}": None if value is None else f"{value:.4f}" for name, value in real.items()}
    if record.preprocessing is not None:
        figures |= {"crop_pct": record.preprocessing.crop_pct, "interpolation": record.preprocessing.interpolation}
    return {name: "" if value is None else str(value) for name, value in figures.items()}


def _told(row: Row) -> str:
    return f"failed: {row['error']}" if row["error"] else f"top-1 {row['top1']}% of {row['samples']} images"


def _read(table: Path) -> dict[str, Row]:
    if not table.exists():
        return {}
    try:
        lines = list(csv.reader(io.StringIO(read_bounded(table, _LARGEST).decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"The table cannot be read: {error}.", where=table, fix="Name another --results-file."
        ) from error
    if not lines or tuple(lines[0]) != COLUMNS or any(len(line) != len(COLUMNS) for line in lines[1:]):
        raise InputError("This is not a table of evaluated networks.", where=table, fix="Name another --results-file.")
    return {line[0]: dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]}


def _write(table: Path, rows: Any) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_text(table, text.getvalue())
