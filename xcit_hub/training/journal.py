"""What a run tells while it runs: a progress bar or JSON lines, CSV, TensorBoard, and one drawing of its curves."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from xcit_hub.errors import InputError
from xcit_hub.files import atomic_write, read_bounded, write_text
from xcit_hub.training.loggers import Loggers

_T = TypeVar("_T")

STEPS = "steps.csv"
EPOCHS = "epochs.csv"
CURVES = "curves.png"
_EPOCH_FIELDS = ("loss", "top1", "top5", "eval_loss", "average_top1", "average_top5", "average_eval_loss")
_CURVES = {
    "loss": {
        "loss": ("training", "tab:blue", "-"),
        "eval_loss": ("validation", "tab:orange", "-"),
        "average_eval_loss": ("validation, of the average", "tab:orange", "--"),
    },
    "top-1 on validation images, %": {
        "top1": ("trained weights", "tab:orange", "-"),
        "average_top1": ("their average", "tab:orange", "--"),
    },
}
"""What the drawing shows: title of a half → field of an epoch → its name, colour and line."""
_LARGEST_STEPS = 1 << 28  # bytes, some four million rows
_SECONDS_BETWEEN_DRAWINGS = 60
_STEP_FIELDS = ("step", "epoch", "loss", "lr", "norm", "images_per_second")


class Journal:
    """The records of one run in its folder. Silent, and writing nothing, on every worker but the first.

    Args:
        folder: where the files go; None writes none.
        as_json: print one JSON object a line to stdout instead of a progress bar to stderr.
        silent: neither print nor write.
        from_step: rows of ``steps.csv`` from this step on are dropped: a continued run writes them anew.

    Attributes:
        loggers: who else is told, set by who begins the run.
    """

    loggers: Loggers | None = None

    def __init__(self, folder: Path | None, *, as_json: bool = False, silent: bool = False, from_step: int = 0) -> None:
        self.folder = None if silent else folder
        self.as_json = as_json
        self.silent = silent
        self._events = None
        self._drawn = time.monotonic()  # nothing, so far
        if self.folder is not None:
            self._keep_steps_before(from_step)
            self._events = _event_writer(self.folder)

    def say(self, text: str) -> None:
        """Tell the user a sentence."""
        if self.silent:
            return
        if self.as_json:
            _print("note", {"text": text})
        else:
            tqdm.write(text, file=sys.stderr)

    def bar(self, items: Iterable[_T], total: int, title: str) -> Iterator[_T]:
        """Pass ``items`` on and show how many of ``total`` went by, with the time that is left."""
        self._bar = tqdm(
            items, total=total, desc=title, disable=self.silent or self.as_json, leave=False, dynamic_ncols=True
        )
        yield from self._bar

    def step(self, record: Mapping[str, Any], *, write: bool) -> None:
        """Show one step (:data:`_STEP_FIELDS`) on the bar, and record it if ``write``."""
        if self.silent:
            return
        self._bar.set_postfix_str(
            f"loss {record['loss']:.4f}, lr {record['lr']:.2e}, {record['images_per_second']:.1f} img/s",
            refresh=False,
        )
        if not write:
            return
        if self.as_json:
            _print("step", record)
        if self.folder is not None:
            with (self.folder / STEPS).open("a", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerow([record[name] for name in _STEP_FIELDS])
        self._log("step", record)
        self._event({f"train/{name}": record[name] for name in ("loss", "lr", "norm")}, int(record["step"]))

    def epoch(self, history: Sequence[Mapping[str, Any]], steps_done: int, *, last: bool) -> None:
        """Record the newest epoch of ``history``, and write the table and the drawing of all of them.

        Where epochs are short it is drawn once a minute, and after the ``last`` one.
        """
        if self.silent:
            return
        newest = history[-1]
        self._log("epoch", newest)
        if self.as_json:
            _print("epoch", newest)
        else:
            measured = "".join(
                f", {label} {newest[key]:.2f}%"
                for label, key in (("top-1", "top1"), ("top-5", "top5"), ("average's top-1", "average_top1"))
                if key in newest
            )
            self.say(
                f"epoch {newest['epoch']}: loss {newest['loss']:.4f}{measured}, "
                f"{newest['images_per_second']:.1f} img/s, {newest['seconds']:.1f} s"
            )
        if self.folder is None:
            return
        write_text(self.folder / EPOCHS, _table(history))
        if last or time.monotonic() - self._drawn > _SECONDS_BETWEEN_DRAWINGS:
            _draw(self.folder / CURVES, history)
            self._drawn = time.monotonic()
        self._event({f"epoch/{name}": newest[name] for name in _EPOCH_FIELDS if name in newest}, steps_done)
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self._events is not None:
            self._events.close()

    def end(self, record: Mapping[str, Any]) -> None:
        """Tell the loggers the record of the whole run."""
        self._log("end", record)

    def _log(self, event: str, record: Mapping[str, Any]) -> None:
        if self.loggers is not None:
            self.loggers.tell(event, record)

    def _keep_steps_before(self, step: int) -> None:
        assert self.folder is not None  # noqa: S101
        path = self.folder / STEPS
        kept = _rows_before(step, path) if step and path.is_file() else []
        text = io.StringIO()
        csv.writer(text).writerows([list(_STEP_FIELDS), *kept])
        write_text(path, text.getvalue())

    def _event(self, scalars: Mapping[str, float], step: int) -> None:
        if self._events is not None:
            for tag, value in scalars.items():
                self._events.add_scalar(tag, value, step)


def _print(kind: str, record: Mapping[str, Any]) -> None:
    # JSON has no NaN and no Infinity, which the norm of an overflowed update is.
    told = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
    print(json.dumps({"kind": kind, **told}, allow_nan=False), flush=True)


def _rows_before(step: int, path: Path) -> list[list[str]]:
    """Return the rows of ``steps.csv`` that are of earlier steps.

    Raises:
        InputError: it is not what a run wrote.
    """
    try:
        text = read_bounded(path, _LARGEST_STEPS).decode("utf-8")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            "The file is not the table of steps that a run writes.",
            where=path,
            fix="Move it away: the run goes on without it.",
        ) from error
    return [row for row in rows if re.fullmatch("[0-9]{1,18}", row[0]) and int(row[0]) < step]


def _table(history: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for record in history for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def _draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return  # the table holds the same numbers
    figure = Figure(figsize=(10, 3.6))
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.14, top=0.91, wspace=0.16)  # to fit it takes twice as long
    for axes, (title, lines) in zip(figure.subplots(1, 2), _CURVES.items(), strict=True):
        for key, (label, colour, style) in lines.items():
            points = [(record["epoch"], record[key]) for record in history if key in record]
            if points:
                axes.plot(
                    *zip(*points, strict=True), style, color=colour, label=label, marker="." if len(points) < 40 else ""
                )
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=120)


def _event_writer(folder: Path) -> Any:
    try:
        from tensorboard.summary import Writer
    except ImportError:
        return None  # TensorBoard is optional; CSV holds the same numbers
    return Writer(str(folder / "tensorboard"))
