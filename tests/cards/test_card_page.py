"""The HTML page, looked at in a browser."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cards import index
from cards.card import Card
from cards.check import read
from cards.metadata import CardMetadata
from cards.page import bars, html

OFFICIAL = "mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012"
MINE = (0xC8, 0x10, 0x2E)
OTHERS = (0xB8, 0xC6, 0xD4)
WIDTH, HEIGHT = 1360, 4200


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    fonts = (
        subprocess.run(["fc-list", ":lang=zh"], capture_output=True, text=True).stdout
        if shutil.which("fc-list")
        else ""
    )
    lacking = [name for name, there in (("chromium", found), ("fonts-noto-cjk", fonts)) if not there]
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(f"the screenshots need: apt-get install {' '.join(lacking)}")
    if lacking:
        pytest.skip(f"no {' and no '.join(lacking)} on this machine")
    assert found is not None
    return found


def screenshot(browser: str, page: str, folder: Path) -> np.ndarray:
    (folder / "page.html").write_text(page, encoding="utf-8")
    subprocess.run(
        [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--force-device-scale-factor=1", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={folder / 'page.png'}", (folder / "page.html").as_uri(),
        ],
        check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    with Image.open(folder / "page.png") as image:
        return np.asarray(image.convert("RGB")).astype(int)


def longest_run(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return for every row of pixels the length of its longest stretch of one colour."""
    same = (np.abs(pixels - np.array(colour)).max(axis=2) <= 2).astype(int)
    length = np.zeros(same.shape[0], int)
    best = np.zeros(same.shape[0], int)
    for column in same.T:
        length = (length + 1) * column
        best = np.maximum(best, length)
    return best


def stretches(rows: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, last + 1) of every run of true rows."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], rows.astype(int), [0]])))
    return list(zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_shows_this_model_among_the_published_ones(chromium, tmp_path, lang):
    card = read(index.find(OFFICIAL, lang=lang))
    pixels = screenshot(chromium, html(card), tmp_path)
    assert pixels.shape == (HEIGHT, WIDTH, 3)

    mine = stretches(longest_run(pixels, MINE) > 100)
    others = stretches(longest_run(pixels, OTHERS) > 100)
    assert len(mine) == 1
    assert len(others) == 50

    # A bar is as long as its accuracy, from zero.
    length = longest_run(pixels, MINE).max()
    longest = longest_run(pixels, OTHERS).max()
    shown = [bar.top1 for bar in bars(card.metadata)]
    best = max(shown)
    assert length / longest == pytest.approx(77.27 / best, rel=0.01)
    # It stands between the models that are better and those that are worse.
    better = sum(top1 > 77.27 for top1 in shown)
    assert sum(first < mine[0][0] for first, _ in others) == better

    # Nothing runs over the page's right edge, and there is text all the way down.
    assert (pixels[:, -16:] == 255).all()
    ink = (pixels.max(axis=2) < 128).any(axis=1)
    assert ink[mine[0][1] :].sum() > 500


def test_chinese_is_drawn_with_chinese_glyphs(chromium, tmp_path):
    # A missing glyph is drawn as the same box for every character.
    page = html(Card("一二三十", CardMetadata(), ""), "zh")
    pixels = screenshot(chromium, re.sub(r"<section>.*</section>", "", page, flags=re.S), tmp_path)
    rows = np.flatnonzero((pixels.min(axis=2) < 128).any(axis=1))
    title = pixels[rows[0] : rows[-1] + 1].min(axis=2) < 128
    columns = stretches(title.any(axis=0))
    drawn = {title[:, first:last].sum() for first, last in columns}
    assert len(columns) == 4
    assert len(drawn) >= 3


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("name", [OFFICIAL, "timm/xcit_tiny_12_p16_224.fb_in1k"])
def test_the_page_holds_everything_itself(name, lang):
    page = html(read(index.entry(name).text(lang)))
    assert not re.search(r"<(script|img|link|iframe|object|embed|video)\b", page)
    assert not re.search(r"url\(|@import|\bsrc=", page)
    assert f'lang="{"zh-CN" if lang == "zh" else "en"}"' in page
    for column in ("acc@1", "acc@5"):
        assert f"{column}</th>" in page
    assert page.count("<table>") == page.count("</table>") >= 3


def test_one_published_model_has_one_bar():
    for name in (OFFICIAL, "timm/xcit_tiny_12_p16_224.fb_in1k"):
        found = bars(read(index.entry(name).text()).metadata)
        assert len(found) == 51
        assert sum(bar.mine for bar in found) == 1


def test_a_figure_from_another_dataset_gets_no_bar():
    metadata = CardMetadata(model_name="x", train_dataset="cifar10", evaluation="top1acc99.0")
    assert not any(bar.mine for bar in bars(metadata))
    assert "no bar of its own" in html(Card("x", metadata, ""), "en")
