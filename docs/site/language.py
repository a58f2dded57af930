"""The Chinese pages say that they are Chinese, so that a browser takes Chinese forms of the characters."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.pages import Page


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Name the language of a page below ``zh/``."""
    chinese = page.file.src_uri.startswith("zh/")
    return output.replace('<html lang="en"', '<html lang="zh-CN"', 1) if chinese else output
