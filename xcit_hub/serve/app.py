"""The server's requests: ``POST /classify``, ``GET /health``, ``GET /metrics``, and a page to drop an image on."""

from __future__ import annotations

import asyncio
import contextlib
import html
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from xcit_hub.errors import InputError
from xcit_hub.serve.batching import Batcher, BusyError

if TYPE_CHECKING:
    from PIL.Image import Image

Classes = Sequence[tuple[str, float]]

LARGEST_BODY = 20 << 20
"""Bytes of an image that are accepted."""

LONGEST_BODY = 30.0
"""Seconds in which a body has to arrive."""


@dataclass(frozen=True)
class Served:
    """What is served.

    Args:
        name: the model's id.
        facts: what ``GET /health`` says of it.
        open_image: bytes of a file → image; raises InputError for what is not one.
        classify: a batch of images → the likeliest classes of each, with their shares.
        top: classes in an answer, at most.
    """

    name: str
    facts: dict[str, Any]
    open_image: Callable[[bytes], Image]
    classify: Callable[[list[Image]], Sequence[Classes]]


@dataclass
class _Counters:
    answers: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, status: int, seconds: float) -> None:
        self.answers[status] = self.answers.get(status, 0) + 1
        self.seconds += seconds


def application(served: Served, *, largest_batch: int = 16) -> Starlette:
    """Return the ASGI application; it computes on one thread, in batches of up to ``largest_batch`` images."""
    batcher: Batcher[Image, Classes] = Batcher(served.classify, largest=largest_batch)
    counters = _Counters()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with batcher:
            yield

    async def classify(request: Request) -> Response:
        started = time.perf_counter()
        response = await _classify(request, served, batcher)
        counters.count(response.status_code, time.perf_counter() - started)
        return response

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "model": served.name, **served.facts})

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(_metrics(counters, batcher), media_type="text/plain; version=0.0.4")

    async def page(_: Request) -> Response:
        text = Path(__file__).with_name("page.html").read_text("utf-8")
        subtitle = " · ".join(str(value) for value in served.facts.values())
        text = text.replace("{{title}}", html.escape(served.name)).replace("{{subtitle}}", html.escape(subtitle))
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


async def _classify(request: Request, served: Served, batcher: Batcher[Image, Classes]) -> Response:
    try:
        body = await asyncio.wait_for(_body(request), LONGEST_BODY)
    except (TimeoutError, asyncio.TimeoutError):
        return _error(408, f"The image did not arrive within {LONGEST_BODY:.0f} seconds.")
    except ClientDisconnect:
        return _error(400, "The connection was closed before the whole image had arrived.")
    if body is None:
        return _error(413, f"The image is larger than {LARGEST_BODY >> 20} MiB.")
    if not body:
        return _error(400, "The request has no body: send the bytes of an image file.")
    try:
        image = await asyncio.to_thread(served.open_image, body)
    except InputError as error:
        return _error(400, error.what)
    try:
        found = await batcher.submit(image)
    except BusyError:
        return _error(503, "Too many images are waiting; try again in a moment.", {"Retry-After": "1"})
    return JSONResponse({"model": served.name, "classes": [{"class": name, "share": share} for name, share in found]})


async def _body(request: Request) -> bytes | None:
    """Read a body; None if it is too large, which is known before it has all arrived."""
    if int(request.headers.get("content-length") or 0) > LARGEST_BODY:
        return None
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > LARGEST_BODY:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


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
