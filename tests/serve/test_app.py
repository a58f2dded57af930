from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request

import xcit_hub
from xcit_hub.prediction import predict
from xcit_hub.serve import app
from xcit_hub.serve.app import LARGEST_BODY

pytest.importorskip("uvicorn")
NAME = "xcit_nano_12_p16_224"


def photo(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (260, 300, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def damaged_avif() -> bytes:
    stream = io.BytesIO()
    with contextlib.suppress(KeyError, OSError):  # where this Pillow writes none, nothing is no image, either
        Image.open(io.BytesIO(photo())).save(stream, "AVIF")
    head, mark, pixels = stream.getvalue().partition(b"mdat")
    return head + mark + bytes(max(len(pixels), 1))


def ask(url: str, body: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=600) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_server_that_does_not_start_is_named_and_so_is_a_variable_without_effect(source: Path) -> None:
    # A process of its own, as uvicorn keeps the streams it found; there the port is as if taken after it was looked at.
    unchecked = "from xcit_hub.serve import listening; listening.check = lambda host, port: None; "
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-c", f"{unchecked}from xcit_hub.cli import main; main()", "serve", str(source)]
        environment = {**os.environ, "WEB_CONCURRENCY": "2"}
        done = subprocess.run([*command, "--port", port], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 2
    assert "note: WEB_CONCURRENCY has no effect" in done.stderr
    assert "address already in use" in done.stderr and "error: The server did not start." in done.stderr


def test_an_image_is_answered_as_predict_does(address: str, source: Path) -> None:
    status, text = ask(f"{address}/classify", photo())
    expected = predict(xcit_hub.load(str(source)), Image.open(io.BytesIO(photo())), top=4)
    found = json.loads(text)["classes"]
    assert status == 200
    assert [entry["class"] for entry in found] == [entry.label for entry in expected]
    assert [entry["probability"] for entry in found] == pytest.approx([e.probability for e in expected], abs=1e-4)


def test_many_at_once_are_computed_in_batches_each_with_its_own_answer(address: str) -> None:
    alone = [json.loads(ask(f"{address}/classify", photo(seed))[1])["classes"] for seed in range(6)]
    together: list[list] = [[] for _ in range(6)]

    def one(seed: int) -> None:
        together[seed] = json.loads(ask(f"{address}/classify", photo(seed))[1])["classes"]

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first, second in zip(alone, together, strict=True):
        assert [e["class"] for e in first] == [e["class"] for e in second]
        assert [e["probability"] for e in first] == pytest.approx([e["probability"] for e in second], abs=1e-4)
    metrics = dict(line.rsplit(" ", 1) for line in ask(f"{address}/metrics")[1].splitlines() if line[0] != "#")
    assert int(metrics["xcit_hub_images_total"]) >= 12


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"not an image", 400, "Cannot read the image"),
        (b"", 400, "no body"),
        (photo()[:500], 400, "Cannot read the image"),
        (b"BLP2\x01\0\0\0\x09\0\0\0\x40\0\0\0\x40\0\0\0" + bytes(1200), 400, "BLP is not accepted"),
        (damaged_avif(), 400, "Cannot read the image"),
    ],
    ids=["text", "empty", "cut short", "damaged BLP", "damaged AVIF"],
)
def test_what_is_not_an_image_is_one_sentence(address: str, body: bytes, status: int, said: str) -> None:
    found, text = ask(f"{address}/classify", body)
    assert found == status
    assert said in json.loads(text)["error"]


@pytest.mark.parametrize("query", ["top=3", "exif=1&top=2", "=", "%0a%3cscript%3e=1", f"{'a' * 900}=1"])
def test_a_parameter_of_a_request_is_refused_by_name(address: str, query: str) -> None:
    """``?top=3`` was answered with five classes."""
    status, text = ask(f"{address}/classify?{query}", photo())
    said = json.loads(text).get("error", "")
    assert status == 400
    assert "takes no parameters, and was given" in said and len(said) < 160


def header_of_png(width: int, height: int) -> bytes:
    """The beginning of a PNG, which says how many pixels would follow."""
    parts = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""))
    chunks = (struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (header_of_png(9000, 9000), "81,000,000 pixels"),
        (header_of_png(100_000, 100_000), "Cannot read the image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "EPS is not accepted"),
    ],
    ids=["many pixels", "a bomb", "a program"],
)
def test_what_would_grow_or_run_when_it_is_decoded_is_refused(address: str, body: bytes, said: str) -> None:
    status, text = ask(f"{address}/classify", body)
    assert status == 400
    assert said in json.loads(text)["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("HEAD", "/", 200), ("OPTIONS", "/classify", 405), ("GET", "/classify", 405), ("GET", "/nowhere", 404)],
)
def test_other_methods_and_paths_are_answered_as_http_has_it(address: str, method: str, path: str, status: int) -> None:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=600)
    connection.request(method, path)
    assert connection.getresponse().status == status


@pytest.mark.parametrize(("length", "status"), [(str(LARGEST_BODY + 1), b" 413 "), ("many", b" 400 ")])
def test_a_body_is_refused_by_its_announced_length_before_it_is_read(address: str, length: str, status: bytes) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=600) as connection:
        connection.sendall(f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
        assert status in connection.recv(100)
    assert ask(f"{address}/health")[0] == 200


def test_a_body_of_no_announced_length_is_cut_off_at_the_bound(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    with socket.create_connection((host, int(port)), timeout=600) as connection:
        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):  # the server may close before all is sent
            for _ in range(25):
                connection.sendall(chunk)
        with contextlib.suppress(ConnectionResetError):
            assert b" 413 " in connection.recv(100)
    assert ask(f"{address}/health")[0] == 200


def test_health_and_the_page_say_what_is_served(address: str, source: Path) -> None:
    health = json.loads(ask(f"{address}/health")[1])
    assert health == {
        "status": "ok", "model": str(source), "architecture": NAME, "dialect": "paper", "classes": 4,
    }  # fmt: skip
    page = ask(f"{address}/")[1]
    assert "Drop an image here" in page
    assert NAME in page


def test_a_server_that_is_told_to_stop_ends(source: Path) -> None:
    command = [sys.executable, "-c", "from xcit_hub.cli import main; main()", "serve", str(source), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert any("running on" in line for line in process.stderr)
        process.terminate()
        process.communicate(timeout=600)
    assert process.returncode in (0, -signal.SIGTERM)


def test_an_answer_that_fails_for_an_unknown_reason_is_counted_among_the_500s() -> None:
    def fails(_: bytes) -> np.ndarray:
        raise RuntimeError("for whatever reason")

    async def asked(served: app.Starlette, method: str, path: str) -> tuple[int, bytes]:
        messages: list[dict] = []

        async def receive() -> dict:
            return {"type": "http.request", "body": b"an image", "more_body": False}

        async def send(message: dict) -> None:
            messages.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
        with contextlib.suppress(RuntimeError):  # which the server logs
            await served(scope, receive, send)
        return messages[0]["status"], messages[-1]["body"]

    async def both() -> tuple[int, bytes]:
        served = app.application(app.Served("any", {}, fails, lambda _: ()))
        status, _ = await asked(served, "POST", "/classify")
        return status, (await asked(served, "GET", "/metrics"))[1]

    status, metrics = asyncio.run(both())
    assert status == 500 and b'requests_total{status="500"} 1' in metrics


def test_more_than_may_arrive_at_once_is_told_to_come_again() -> None:
    async def receive() -> dict:
        return {"type": "http.request", "body": b"the first bytes", "more_body": False}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    counters = app._Counters(held=app.LARGEST_BODIES)
    answer = asyncio.run(app._answer(request, None, None, counters))  # type: ignore[arg-type]  # it gets no further
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "1"
    assert counters.held == app.LARGEST_BODIES
