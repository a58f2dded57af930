"""The site builds strictly, fetches nothing from elsewhere, leads only to what is there, and tells all public names."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from documented import PAGES, ROOT, name_of

import xcit_hub

pytest.importorskip("mkdocs")


class _Page(HTMLParser):
    """Collects what a page fetches, what it links to, and the places that links can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        self.fetched += [given[name] for name in ("src", "srcset", "poster", "data") if name in given]
        if "href" in given:
            (self.links if tag == "a" else self.fetched).append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def built(site) -> dict[Path, _Page]:
    return {path: _Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def test_nothing_is_fetched_from_elsewhere(site, built) -> None:
    fetched = {address for page in built.values() for address in page.fetched}
    assert not [address for address in fetched if urlsplit(address).scheme not in ("", "data")]
    assert not [address for address in fetched if address.startswith("//")]
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"url\(\s*['\"]?(?:https?:)?//[^)]*\)|@import", styles)


def test_every_link_inside_leads_to_a_place_that_is_there(site, built) -> None:
    broken = []
    for path, page in built.items():
        if path.name == "404.html":
            continue  # is served under any address, so its links begin with a slash
        for link in (*page.links, *page.fetched):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            there = target.is_relative_to(site.resolve()) and target.is_file()
            place = unquote(parts.fragment)
            if not there or (place and target in built and place not in built[target].places | {"__skip"}):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_relative_links_of_the_repositorys_pages_lead_to_files() -> None:
    pages = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "RELEASE.md", "CHANGELOG.md"))]
    broken = []
    for page in pages:
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)\s#]+)", page.read_text("utf-8")):
            if link != "cli.md" and not link.endswith("/cli.md") and not (page.parent / link).exists():
                broken.append(f"{name_of(page)}: {link}")
    assert broken == []


def test_every_source_file_that_a_page_names_is_there() -> None:
    folders = ("benchmarks", "cards", "configs", "converters", "examples", "parity-action", "tests", "xcit_hub")
    here = ["/" + path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*")]
    pages = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "RELEASE.md"))]
    named = {
        (name_of(page), path)
        for page in pages
        for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|h|cpp|yaml|toml))`", page.read_text("utf-8"))
    }
    assert len(named) > 30
    assert [(page, path) for page, path in named if not any(each.endswith(f"/{path}") for each in here)] == []


def test_every_public_name_is_in_the_reference_with_its_docstring(site, built) -> None:
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    told = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    rooms = {name: getattr(xcit_hub, name).__module__ for name in xcit_hub.__all__ if name != "__version__"}
    assert {f"{room}.{name}" for name, room in rooms.items()} <= set(told)
    assert set(told) <= built[site / "api.html"].places
    html = (site / "api.html").read_text("utf-8")
    assert not re.search(r":(?:func|class|mod|data|meth|attr|exc):", html)


def test_every_command_and_option_is_in_the_reference(site) -> None:
    import typer

    from xcit_hub.cli.app import app

    html = (site / "cli.html").read_text("utf-8")
    waiting = [("", typer.main.get_command(app))]
    while waiting:
        prefix, command = waiting.pop()
        below = getattr(command, "commands", {})
        waiting += [(f"{prefix} {name}".strip(), each) for name, each in below.items()]
        if not below:
            assert f">{prefix}<" in html or f'id="{prefix.replace(" ", "-")}"' in html
            for option in command.params:
                assert option.name == "help" or option.param_type_name == "argument" or option.opts[-1] in html


def test_every_message_of_the_troubleshooting_page_is_one_that_is_said() -> None:
    headings = re.findall(r"^### (.+)$", (ROOT / "docs" / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    assert len(headings) > 15
    said = []
    for path in [*(ROOT / "xcit_hub").rglob("*.py"), *(ROOT / "converters").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                said.append("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
    for heading in headings:
        pattern = re.compile(".*".join(map(re.escape, heading.split("…"))).strip())
        assert any(pattern.search(text) for text in said), heading


def test_the_exit_codes_are_the_programs() -> None:
    from xcit_hub.process import run

    page = (ROOT / "docs" / "exit-codes.md").read_text("utf-8")
    codes = set(re.findall(r"^\| (\d+) \|", page, re.MULTILINE))
    assert codes == set(re.findall(r"(?<!\d)(\d+) (?:done|a check|the user|a fault)", run.__doc__ or ""))


def test_chinese_pages_say_that_they_are_chinese(built) -> None:
    chinese = [path for path in built if "zh" in path.parts]
    assert len(chinese) == 4
    assert all('<html lang="zh-CN"' in path.read_text("utf-8") for path in chinese)
