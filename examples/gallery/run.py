"""Run this folder's notebooks, in place: ``python examples/gallery/run.py [NAME…]``. Exits 1 where a cell fails."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
LARGEST = 300_000  # bytes a notebook, figures included


def execute(path: Path) -> Any:
    """Run a notebook from its first cell in a new kernel and return it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    os.environ.setdefault("GLOG_v", "3")  # MindSpore: errors only
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code":  # warnings name folders of this machine
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def main() -> int:
    """Run the named notebooks, or all."""
    failed = 0
    for path in sorted(HERE.glob("*.ipynb")):
        if len(sys.argv) > 1 and path.stem not in sys.argv[1:]:
            continue
        began = time.perf_counter()
        try:
            text = nbformat.writes(execute(path))
        except CellExecutionError as error:
            sys.stderr.write(f"{path.name}: {error}\n")
            failed += 1
            continue
        if len(text) > LARGEST:
            sys.stderr.write(f"{path.name} has {len(text):,} bytes, and may have {LARGEST:,}\n")
            failed += 1
            continue
        path.write_text(text + "\n", "utf-8")
        sys.stdout.write(f"{path.name}: {time.perf_counter() - began:.0f} s, {len(text):,} bytes\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
