"""What docs/training.md shows of ``python -m benchmarks.peers``: tables and curves, from the file that is kept.

    python -m benchmarks.peers_page

Reads ``benchmarks/results/peers.json``, draws ``peers.svg`` beside it, and writes the page between its two marks.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers_result import Trained, read, table, verdicts
from xcit_hub.errors import InputError
from xcit_hub.files import atomic_write, write_text
from xcit_hub.process import run

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "training.md"
KEPT = ROOT / "benchmarks" / "results" / "peers.json"
_MARKS = ("<!-- peers -->", "<!-- /peers -->")
_COLOURS = {
    "xcit-hub": "#c8102e", "xcit-hub, MindCV's dialect": "#f0788c",
    "timm's train.py": "#3b6fb6", "MindCV's train.py": "#e08a1e",
}  # fmt: skip


def shown(content: dict[str, Any]) -> str:
    """Return the part of the page: what was measured on what, the tables, and the figure."""
    versions, commits, place = content["versions"], content["commits"], content["machine"]
    trained, image = read(content), KEPT.with_suffix(".svg").relative_to(ROOT)
    lines = [
        f"{content['model']} at {content['side']} × {content['side']} pixels, {content['epochs']} epochs; "
        f"{place['processor']}, {place['cores']} cores; MindSpore {versions['mindspore']}, torch {versions['torch']}; "
        f"timm at `{str(commits['timm'])[:9]}`, MindCV at `{str(commits['mindcv'])[:9]}`.",
        "",
        table(trained),
        "",
        *verdicts(trained),
        "The interval is Student's, of the mean of so many seeds on these images: "
        "how far other images would move a score is not in it.",
        "",
        f"![Training loss and top-1 by epoch, the mean of all seeds and their range](../{image})",
    ]
    return "\n".join(lines)


def written(text: str, content: dict[str, Any]) -> str:
    """Replace what stands between the page's marks.

    Raises:
        InputError: the page has no such marks.
    """
    begin, end = _MARKS
    if begin not in text or end not in text:
        raise InputError("The page has no place for the comparison.", where=PAGE, fix=f"Put {begin} and {end} there.")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n\n{shown(content)}\n\n{end}{rest.partition(end)[2]}"


def draw(trained: Sequence[Trained], path: Path) -> None:
    """Draw training loss and top-1 by epoch: the mean of all seeds, and their range."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    data = list(dict.fromkeys(each.data for each in trained))
    figure = Figure(figsize=(10, 3.4 * len(data)), layout="constrained")
    grid = figure.subplots(len(data), 2, squeeze=False)
    for each in trained:
        if not each.runs:
            continue
        row = grid[data.index(each.data)]
        for axes, name in zip(row, ("losses", "top1"), strict=True):
            curves = np.array([getattr(seed, name) for seed in each.runs.values()])
            epochs = np.arange(1, curves.shape[1] + 1)
            colour = _COLOURS.get(each.trainer)
            axes.plot(epochs, curves.mean(0), color=colour, label=each.trainer)
            axes.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.2, linewidth=0)
    for name, row in zip(data, grid, strict=True):
        row[0].set(title=name, xlabel="epoch", ylabel="training loss")
        row[1].set(title=name, xlabel="epoch", ylabel="top-1, %")
        for axes in row:
            axes.grid(alpha=0.3)
    grid[0][0].legend()
    content = io.BytesIO()
    # The same figures give the same bytes; text stays text.
    with rc_context({"svg.hashsalt": "peers", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    with atomic_write(path) as stream:
        stream.write(content.getvalue())


def main() -> None:
    """Draw the figure and write the page."""
    content = json.loads(KEPT.read_text("utf-8"))
    draw(read(content), KEPT.with_suffix(".svg"))
    write_text(PAGE, written(PAGE.read_text("utf-8"), content))


if __name__ == "__main__":
    run(main)
