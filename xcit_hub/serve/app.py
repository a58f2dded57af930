"""The server's requests: ``POST /classify``, ``GET /health``, ``GET /metrics``, and a page to drop an image on."""

from __future__ import annotations

import asyncio
import contextlib
import html
import io
import time
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from xcit_hub.data.transforms import decode_rgb
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.prediction import classify, count_of_classes, preprocess
from xcit_hub.serve.batching import Batcher, BusyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xcit_hub.hub.network import XCiT
    from xcit_hub.prediction import Prediction

    Waiting = Batcher[NDArray[np.float32], Sequence[Prediction]]

LARGEST_BODY = 20 << 20
"""Bytes of an image that are accepted."""

LARGEST_BODIES = 256 << 20
"""Bytes of all images together that may be held before they are decoded; one more is answered with 503."""

MOST_PIXELS = 64_000_000
"""Pixels of an image that is decoded: 192 MB as RGB."""

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded; Pillow would start another program for some others."""

LONGEST_BODY = 30.0
"""Seconds in which a body has to arrive."""

_SHOWN = 60  # letters of a request's own words in an answer


@dataclass(frozen=True)
class Served:
    """What is served.

    Args:
        name: the model's id.
        facts: what ``GET /health`` says of it.
        prepare: bytes of an image file → the network's input (C, H, W); raises InputError for what is not an image.
        classify: a batch of inputs (B, C, H, W) → the most probable classes of each.
    """

    name: str
    facts: dict[str, Any]
    prepare: Callable[[bytes], NDArray[np.float32]]
    classify: Callable[[NDArray[np.float32]], Sequence[Sequence[Prediction]]]


def served(name: str, network: XCiT, *, top: int | None = None) -> Served:
    """Describe a loaded network to :func:`application`; it is fused, and computes nothing else afterwards."""
    count = count_of_classes(network, top)
    prepare, fused = preprocess(network), network.fuse()
    config = network.config
    facts = {"architecture": config.architecture, "dialect": config.dialect, "classes": config.num_classes}
    return Served(
        name,
        facts,
        lambda body: prepare(decode_rgb(_bounded(body), "the image")),
        lambda pixels: classify(fused, pixels, top=count),
    )


def _bounded(body: bytes) -> bytes:
    """Return an image's bytes unless they would decode to too much; what is not an image is left to the decoder."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # bounded here
            with Image.open(io.BytesIO(body)) as image:
                pixels, kind = image.width * image.height, image.format
    except Exception:  # of any class: each of Pillow's readers has its own
        return body
    if kind not in FORMATS:
        raise InputError(
            f"Cannot read the image: {kind} is not accepted.",
            where="the body of the request",
            fix=f"Send one of {', '.join(FORMATS)}.",
        )
    if pixels > MOST_PIXELS:
        raise InputError(
            f"The image has {pixels:,} pixels, and {MOST_PIXELS:,} are accepted.",
            where="the body of the request",
            fix="Send a smaller one.",
        )
    return body


@dataclass
class _Counters:
    held: int = 0  # bytes of bodies that are not decoded yet
    answers: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, status: int, seconds: float) -> None:
        self.answers[status] = self.answers.get(status, 0) + 1
        self.seconds += seconds


def application(model: Served, *, largest_batch: int = 16) -> Starlette:
    """Return the ASGI application; it computes on one thread, in batches of up to ``largest_batch`` images."""
    batcher: Waiting = Batcher(lambda waiting: model.classify(np.stack(waiting)), largest=largest_batch)
    counters = _Counters()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with batcher:
            yield

    async def classify(request: Request) -> Response:
        started = time.perf_counter()
        try:
            response = _unasked(request) or await _answer(request, model, batcher, counters)
        except Exception:
            counters.count(500, time.perf_counter() - started)
            raise  # the server logs it, and answers with 500
        counters.count(response.status_code, time.perf_counter() - started)
        return response

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "model": model.name, **model.facts})

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(_metrics(counters, batcher), media_type="text/plain; version=0.0.4")

    async def page(_: Request) -> Response:
        text = Path(__file__).with_name("page.html").read_text("utf-8")
        subtitle = " · ".join(str(value) for value in model.facts.values())
        text = text.replace("{{title}}", html.escape(model.name)).replace("{{subtitle}}", html.escape(subtitle))
        return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})

    routes = [
        Route("/", page),
        Route("/classify", classify, methods=["POST"]),
        Route("/health", health),
        Route("/metrics", metrics),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


# The page loads nothing from elsewhere.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob:; connect-src 'self'"


def _unasked(request: Request) -> Response | None:
    """Refuse the parameters of an address, of which there are none."""
    if not request.query_params:
        return None
    names = ", ".join(request.query_params)[:_SHOWN]
    return _error(400, f"/classify takes no parameters, and was given {names}; xcit-hub serve takes --top.")


async def _answer(request: Request, model: Served, batcher: Waiting, counters: _Counters) -> Response:
    body = bytearray()
    try:
        try:
            fits = await asyncio.wait_for(_arrive(request, body, counters), LONGEST_BODY)
        except (TimeoutError, asyncio.TimeoutError):
            return _error(408, f"The image did not arrive within {LONGEST_BODY:.0f} seconds.")
        except ClientDisconnect:
            return _error(400, "The connection was closed before the whole image had arrived.")
        if not fits:
            return _error(413, f"The image is larger than {LARGEST_BODY >> 20} MiB.")
        if not body:
            return _error(400, "The request has no body: send the bytes of an image file.")
        pixels = await asyncio.to_thread(model.prepare, bytes(body))
    except InputError as error:
        return _error(400, error.what)
    except BusyError:
        return _error(503, "Too many images are arriving; try again in a moment.", {"Retry-After": "1"})
    finally:
        counters.held -= len(body)
    try:
        found = await batcher.submit(pixels)
    except BusyError:
        return _error(503, "Too many images are waiting; try again in a moment.", {"Retry-After": "1"})
    except XcitHubError as error:
        return _error(500, error.what)
    classes = [{"class": entry.label, "probability": entry.probability} for entry in found]
    return JSONResponse({"model": model.name, "classes": classes})


async def _arrive(request: Request, body: bytearray, counters: _Counters) -> bool:
    """Read a body; False if it is too large, which is known before it has all arrived.

    Raises:
        BusyError: all bodies together are too many.
    """
    if int(request.headers.get("content-length") or 0) > LARGEST_BODY:
        return False
    async for chunk in request.stream():
        if len(body) + len(chunk) > LARGEST_BODY:
            return False
        if counters.held + len(chunk) > LARGEST_BODIES:
            raise BusyError
        body += chunk
        counters.held += len(chunk)
    return True


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)


def _metrics(counters: _Counters, batcher: Batcher[Any, Any]) -> str:
    lines = ["# HELP xcit_hub_requests_total Answers to /classify by status.", "# TYPE xcit_hub_requests_total counter"]
    lines += [
        f'xcit_hub_requests_total{{status="{status}"}} {count}' for status, count in sorted(counters.answers.items())
    ]
    for name, kind, value, meaning in (
        ("request_seconds_total", "counter", counters.seconds, "Seconds spent on /classify."),
        ("images_total", "counter", batcher.items, "Images classified."),
        ("batches_total", "counter", batcher.batches, "Batches computed."),
    ):
        lines += [f"# HELP xcit_hub_{name} {meaning}", f"# TYPE xcit_hub_{name} {kind}", f"xcit_hub_{name} {value}"]
    return "\n".join(lines) + "\n"
