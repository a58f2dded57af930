"""The HTML page, looked at in a browser."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cards import drawings, index
from cards.card import Card
from cards.check import read
from cards.metadata import CardMetadata
from cards.page import Dot, Scale, dots, html
from xcit_hub.errors import InputError
from xcit_hub.run_record import RunRecord

OFFICIAL = "mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012"
MINE = (0xC8, 0x10, 0x2E)
OTHERS = (0x6F, 0x82, 0x96)
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
        return np.asarray(image.convert("RGB")).astype(np.int16)


def longest_run(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return for every row of pixels the length of its longest stretch of one colour."""
    same = (np.abs(pixels - np.array(colour, np.int16)).max(axis=2) <= 2).astype(np.int16)
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


def middle(pixels: np.ndarray, colour: tuple[int, int, int], rows: tuple[int, int]) -> float:
    """Return the column in the middle of the longest stretch of one colour in the row in the middle."""
    row = pixels[sum(rows) // 2]
    longest = max(stretches(np.abs(row - np.array(colour)).max(axis=1) <= 2), key=lambda found: found[1] - found[0])
    return sum(longest) / 2


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_shows_this_model_among_the_published_ones(chromium, tmp_path, lang):
    card = read(index.find(OFFICIAL, lang=lang))
    pixels = screenshot(chromium, html(card), tmp_path)
    assert pixels.shape == (HEIGHT, WIDTH, 3)

    mine = stretches(longest_run(pixels, MINE) > 11)
    others = stretches(longest_run(pixels, OTHERS) > 6)
    assert len(mine) == 1
    assert len(others) == 50

    # A dot stands where its accuracy is on the scale, best first.
    shown = [dot.top1 for dot in dots(card.metadata)]
    places = {77.27: middle(pixels, MINE, mine[0])}
    for top1, rows in zip([top1 for top1 in shown if top1 != 77.27], others, strict=True):
        places[top1] = middle(pixels, OTHERS, rows)
    low, high = places[min(shown)], places[max(shown)]
    for top1, place in places.items():
        share = (top1 - min(shown)) / (max(shown) - min(shown))
        assert place - low == pytest.approx(share * (high - low), abs=1.5)
    # The scale is zoomed: all models together take most of the chart.
    assert high - low > WIDTH / 3

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


def test_one_published_model_has_one_dot():
    for name in (OFFICIAL, "timm/xcit_tiny_12_p16_224.fb_in1k"):
        found = dots(read(index.entry(name).text()).metadata)
        assert len(found) == 51
        assert sum(dot.mine for dot in found) == 1


def test_the_headline_names_the_data_set_of_its_own_figure():
    text = (
        "---\nlicense: mit\nmodel-index:\n- name: m\n  results:\n"
        "  - task: {type: image-classification}\n    dataset: {type: cifar10, name: CIFAR-10}\n"
        "    metrics:\n    - {type: f1, name: macro f1, value: 99.0}\n"
        "  - task: {type: image-classification}\n    dataset: {type: flowers, name: Flowers-102}\n"
        "    metrics:\n    - {type: accuracy, name: top-1 accuracy, value: 81.5}\n---\n\n# m\n\nprose\n"
    )
    assert "<b>81.5 %</b> top-1 accuracy, on Flowers-102</p>" in html(read(text))


def test_a_figure_from_another_dataset_gets_no_dot():
    metadata = CardMetadata(model_name="x", train_dataset="cifar10", evaluation="top1acc99.0")
    assert not any(dot.mine for dot in dots(metadata))
    assert "no dot of its own" in html(Card("x", metadata, ""), "en")


def jpeg(colour: str) -> str:
    drawn = io.BytesIO()
    Image.new("RGB", (96, 64), colour).save(drawn, "JPEG")
    return base64.b64encode(drawn.getvalue()).decode()


def measured(size: int = 3, **fields) -> RunRecord:
    curve = [{"epoch": n, "loss": 2 / n, "eval_loss": 2.2 / n, "top1": 90 - 60 / n} for n in range(1, 13)]
    confusion = [[9 if row == column else (row + 2 * column) % 3 for column in range(size)] for row in range(size)]
    samples = [{"label": "<ape>", "answer": answer, "thumbnail": jpeg("teal")} for answer in ("<ape>", "bee", "bee")]
    values = {
        "curve": curve, "confusion": confusion, "samples": samples, "top1": 81.5, "dataset": "zoo",
        "classes": [f"<class {n}>" for n in range(size)],
    }  # fmt: skip
    return RunRecord.model_validate(values | fields)


def test_the_page_shows_first_what_was_measured() -> None:
    metadata = CardMetadata(model_name="x", train_dataset="zoo", evaluation="top1acc81.5")
    page = html(Card("x", metadata, "prose"), "en", [measured(), RunRecord()])
    order = ["<h2>What was measured", "81.5 %", "<h3>Loss", "<h3>Top-1", "Three of the evaluated", "<h3>Confusion",
             "<h2>Among the published", "<h2>Facts", "<article>"]  # fmt: skip
    places = [page.index(each) for each in order]
    assert places == sorted(places)
    assert page.count("<polyline") == 3
    assert page.count("<img") == 3 and "&lt;ape&gt;" in page and "<ape>" not in page
    assert page.count('class="wrong"') == 2
    assert page.count("&lt;class 0&gt;</th>") == 2
    assert not re.search(r"<script|https?://(?!arxiv)[^<]*\.(?:js|css|woff)", page)


def test_without_a_record_nothing_is_drawn_of_it() -> None:
    page = html(Card("x", CardMetadata(model_name="x"), "prose"), "en", [RunRecord()])
    assert not re.search(r"<svg|<img|<h3>Confusion|What was measured", page)


def test_of_many_classes_the_pairs_are_shown_that_were_confused_most() -> None:
    found = drawings.confusion(measured(40))
    assert found.rows == ()
    assert len(found.pairs) == 10
    assert all(count == 2 and truth != answer for truth, answer, count in found.pairs)


@pytest.mark.parametrize(("low", "high"), [(1, 2), (1, 300), (0.01, 0.013), (62, 87), (5, 5 + 1e-9), (-1, 1)])
def test_an_axis_has_a_few_round_numbers(low: float, high: float) -> None:
    found = drawings.ticks(low, high)
    assert len(found) <= 8
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)
    if high - low > 1e-6:
        assert len(found) >= 2


def test_epochs_are_whole() -> None:
    for count in (2, 3, 7, 300):
        run = RunRecord(curve=[{"epoch": n, "loss": 1 / n} for n in range(1, count + 1)])
        (graph,) = drawings.curves(run)
        assert all(tick.text.isdigit() for tick in graph.epochs) and len(graph.epochs) >= 2
    assert drawings.curves(RunRecord(curve=[{"epoch": 1, "loss": 1.0}])) == ()


@pytest.mark.parametrize("top1", [[81.0], [0.0, 100.0], [99.99], [50, 51]])
def test_every_dot_is_on_the_scale(top1: list[float]) -> None:
    scale = Scale.of([Dot("x", value, mine=False) for value in top1])
    assert all(0 <= scale.place(value) <= 100 for value in top1)


@pytest.mark.parametrize(
    "fields",
    [
        {"confusion": [[1, 2], [3]]},
        {"confusion": [[-1]]},
        {"curve": [{"epoch": 0}]},
        {"curve": [{"epoch": 1, "loss": float("nan")}]},
        {"samples": [{"label": "a", "answer": "b", "thumbnail": '"><script>'}]},
        {"samples": [{"label": "a", "answer": "b", "thumbnail": "/9j/" + "A" * 40_000}]},
        {"samples": [{"label": "a", "answer": "b", "thumbnail": "/9j/AAAA"}] * 9},
    ],
)
def test_a_record_that_cannot_be_is_refused(fields, tmp_path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"format": 2, **fields}))
    with pytest.raises(InputError, match=r"does not hold|not JSON"):
        RunRecord.read(path)


def test_sample_images_stay_out_of_cards(tmp_path) -> None:
    from cards.gather import of_checkpoint
    from xcit_hub.checkpoints import checkpoint
    from xcit_hub.parameters import parameter_shapes
    from xcit_hub.parity import random_weights
    from xcit_hub.variants import architecture

    name = "xcit_nano_12_p16_224"
    path = tmp_path / "x.ckpt"
    arrays = random_weights(parameter_shapes(architecture(name), num_classes=2))
    checkpoint.write(path, arrays, {"xcit_hub.architecture": name, "xcit_hub.dialect": "paper"})
    facts = of_checkpoint(path, run=measured(2, classes=["a", "b"], num_classes=2))
    assert facts.run.samples == [] and facts.run.curve
