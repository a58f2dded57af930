"""Figures that the benchmarks keep beside their results become files of the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_RESULTS = "benchmarks/results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the figures under the path that they have in the repository."""
    root = Path(config.config_file_path).parent
    for path in sorted((root / _RESULTS).rglob("*.svg")):
        files.append(File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead from ``docs/`` to them."""
    return markdown.replace(f"](../{_RESULTS}/", f"]({_RESULTS}/")
