"""The page in a real browser, driven over Chromium's own pipe: an image is chosen, another dropped, a text refused."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn")

_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
)
_PATIENCE = 600  # seconds


class Browser:
    """Chromium and one page of it; commands and answers are JSON with a zero byte after each."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, self.to_browser = os.pipe()
        self.from_browser, answers = os.pipe()

        def as_chromium_wants_them() -> None:  # it reads commands from 3 and writes answers to 4
            os.dup2(commands, 60)
            os.dup2(answers, 61)
            os.dup2(60, 3)
            os.dup2(61, 4)

        self.process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=as_chromium_wants_them, close_fds=False,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self.waiting, self.number, self.session = b"", 0, None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.waiting:
                arrived = os.read(self.from_browser, 1 << 16)
                assert arrived, "the browser has ended"
                self.waiting += arrived
            text, _, self.waiting = self.waiting.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, expression: str) -> Any:
        """Return what an expression gives in the page."""
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true in the page, and return it."""
        end = time.monotonic() + _PATIENCE
        while not (found := self.value(expression)):
            assert time.monotonic() < end, (expression, self.value("document.body.innerText"))
            time.sleep(0.1)
        return found

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(600)
        os.close(self.to_browser)
        os.close(self.from_browser)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None and os.environ.get("CI") == "true":
        pytest.fail("the page needs: apt-get install chromium")
    if program is None:
        pytest.skip("no chromium on this machine")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def photo(path: Path, seed: int) -> Path:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8)).save(stream, "PNG")
    path.write_bytes(stream.getvalue())
    return path


def drop(browser: Browser, path: Path) -> None:
    """Drop a file on the middle of the field, as a hand does."""
    x, y = browser.value("(r => [r.x + r.width / 2, r.y + r.height / 2])(drop.getBoundingClientRect())")
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)


def test_an_image_that_is_chosen_or_dropped_shows_its_classes_and_a_text_its_fault(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    browser.send("Page.navigate", url=address)
    browser.wait("document.readyState == 'complete' && document.getElementById('drop') !== null")
    assert "xcit_nano_12_p16_224" in browser.value("document.body.innerText")

    root = browser.send("DOM.getDocument")["root"]["nodeId"]
    field = browser.send("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.send("DOM.setFileInputFiles", nodeId=field, files=[str(photo(tmp_path / "chosen.png", 0))])
    chosen = browser.wait("answer.rows.length == 4 && answer.innerText")
    assert sum(float(line.split()[-2]) for line in chosen.splitlines() if "%" in line) == pytest.approx(100, abs=0.3)
    assert browser.wait("shown.naturalWidth == 120")

    drop(browser, photo(tmp_path / "dropped.png", 1))
    dropped = browser.wait(f"answer.rows.length == 4 && answer.innerText != {json.dumps(chosen)} && answer.innerText")
    assert dropped != chosen
    assert not browser.value("drop.classList.contains('over')")
    picture = base64.b64decode(browser.send("Page.captureScreenshot")["data"])
    assert Image.open(io.BytesIO(picture)).size[0] > 300

    text = tmp_path / "letter.png"
    text.write_text("not an image")
    drop(browser, text)
    assert "Cannot read the image" in browser.wait(
        "message.classList, message.textContent.includes('read') && message.textContent"
    )
    assert browser.value("answer.rows.length") == 0
