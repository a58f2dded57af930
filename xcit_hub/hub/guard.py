"""Bounds on every exchange with a server: where it may lead, how large its answers are, how long it takes.

Requests of huggingface_hub's client that run inside :func:`guarded` pass through two hooks, and its connections ask at
every read. Whatever a server does, an exchange ends: after so many requests, seconds, or bytes (counted after
decompression), or when it is too slow. Xet, huggingface_hub's other way to move bytes, knows none of these bounds: its
headers are taken off the answers, and files come as they come without it, by HTTP.

Answers of a hub that describe something, and those that refuse, reach the client only as :mod:`xcit_hub.hub.answers`
knows them.
"""

from __future__ import annotations

import importlib
import ipaddress
import re
import socket
import threading
import time
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import get_session, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import _http

from xcit_hub.errors import HubError
from xcit_hub.files import LARGEST
from xcit_hub.hub import answers, connections

JSON_BYTES = 8 << 20
CARD_BYTES = 1 << 20
FILE_BYTES = LARGEST  # where no listing says how large a file is
SECONDS = 120.0  # of an exchange of descriptions
FILE_SECONDS = 24 * 3600.0
RATE = 1024.0  # bytes a second that a file has to come with, on average
PATIENCE = 60.0  # seconds before the rate is asked for
REQUESTS = 200

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".home.arpa")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

# huggingface_hub 1 builds on httpx, 2 on httpx2; streams have to be of its own kind.
_httpx: Any = importlib.import_module(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])


@dataclass
class Exchange:
    """One guarded exchange.

    Args:
        place: the server, as a person would name it.
        where: what is asked for.
        body: the most bytes one answer may have, decompressed.
        seconds: the most it may take as a whole.
        rate: the least bytes a second, after a while; 0 asks for none.
        commit: that every file's headers must name; digests in them must then be hexadecimal.
        trusted: ``host:port`` of servers that may be on this machine or in a private network.
        home: the hub that the user named. It may be anywhere, and may lead to its neighbours: one in a private network
            to all of that network, a public one to public servers alone, and by https if it was named so.
    """

    place: str
    where: str
    body: int = JSON_BYTES
    seconds: float = SECONDS
    rate: float = 0.0
    commit: str | None = None
    trusted: frozenset[str] = frozenset()
    home: str | None = None
    requests: int = 0
    began: float = field(default_factory=time.monotonic)

    def fault(self, what: str) -> HubError:
        """Say what the server did."""
        return HubError(f"{self.place} {what}.", where=self.where, fix="Do not use this hub; tell whoever runs it.")

    def check_time(self, received: int = 0) -> None:
        """Raise once the exchange has taken too long, or what was received came too slowly."""
        elapsed = time.monotonic() - self.began
        if elapsed >= self.seconds:
            raise self.fault(f"took longer than {self.seconds:g} seconds")
        if self.rate and elapsed > PATIENCE and received < self.rate * elapsed:
            raise self.fault(f"sends too slowly: {received} bytes in {elapsed:.0f} seconds")


_EXCHANGE: ContextVar[Exchange | None] = ContextVar("exchange", default=None)
_INSTALLING = threading.Lock()


@contextmanager
def guarded(exchange: Exchange) -> Iterator[None]:
    """Hold every request that huggingface_hub's client makes in this context to an exchange's bounds."""
    with _INSTALLING:
        _install(get_session())
    token = _EXCHANGE.set(exchange)
    try:
        yield
    finally:
        _EXCHANGE.reset(token)


def is_loopback(parts: SplitResult) -> bool:
    """Whether an address names this machine."""
    return parts.hostname in _LOOPBACK


def netloc(parts: SplitResult) -> str:
    """Return ``host:port`` of an address, without a user's name."""
    return f"{parts.hostname}:{parts.port or {'http': 80, 'https': 443}.get(parts.scheme, 0)}"


def check_destination(url: str, exchange: Exchange) -> None:
    """Refuse an address that a remote answer or card must not send us to.

    Raises:
        HubError: another scheme, or a loopback, private or link-local address that nobody named.
    """
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError:
        raise exchange.fault("leads to what is not an address") from None
    if parts.username is not None or parts.password is not None:
        raise exchange.fault("leads to an address with a password in it")
    home = None if exchange.home is None else urlsplit(exchange.home)
    if home is not None and parts.scheme in ("http", "https"):
        if (parts.scheme, netloc(parts)) == (home.scheme, netloc(home)):
            return
        if parts.scheme in ("https", home.scheme) and not _is_public_host(home):
            return
    is_trusted = netloc(parts) in exchange.trusted
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts) and is_trusted):
        raise exchange.fault(f"leads to {parts.scheme:.20}://{parts.hostname}, which is not an https address")
    if not is_trusted and not _is_public_host(parts):
        raise exchange.fault(f"leads to {parts.hostname}, which is not a public address")


def _on_request(request: Any) -> None:
    exchange = _EXCHANGE.get()
    if exchange is None:
        return
    exchange.requests += 1
    if exchange.requests > REQUESTS:
        raise exchange.fault(f"needs more than {REQUESTS} requests")
    exchange.check_time()
    check_destination(str(request.url), exchange)
    request.headers["Accept-Encoding"] = "identity"


def _on_response(response: Any) -> None:
    exchange = _EXCHANGE.get()
    if exchange is None:
        return
    _take_xet_off(response)
    if exchange.commit is not None:
        _check_names(response, exchange, exchange.commit)
    if response.request.method == "HEAD":
        return
    # Whatever is not a file is kept in memory by the client.
    limit = exchange.body if response.is_success else min(exchange.body, JSON_BYTES)
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > limit and not response.is_redirect:
        raise exchange.fault(f"announces {length[:20]} bytes where {limit} are the most")
    encoding = response.headers.pop("Content-Encoding", "identity").strip().lower()
    if encoding not in _DECODERS:
        raise exchange.fault(f"sends an encoding that was not asked for: {encoding!r:.40}")
    response.stream = _Body(response.stream, _DECODERS[encoding], exchange, limit)
    if not response.is_redirect:
        _check_content(response, exchange)


def _check_content(response: Any, exchange: Exchange) -> None:
    """Put what was understood of an answer in the place of what came, see :mod:`xcit_hub.hub.answers`."""
    asked = response.request
    kind = None if exchange.home is None else answers.kind_of(asked.method, asked.url.path)
    if response.is_success and kind is None:
        return
    try:
        content = b"".join(response.stream)
    finally:
        response.stream.close()
    if response.is_success and kind is not None:
        content = answers.checked(kind, content, place=exchange.place, where=exchange.where)
    else:
        content = answers.refusal(content)
    response.stream = _httpx.ByteStream(content)


def _on_connection(host: str, port: int, address: str) -> None:
    """Look at the address that was really connected to: a name may resolve to another one a moment later."""
    exchange = _EXCHANGE.get()
    if exchange is None or _is_public(address):
        return
    named = {*exchange.trusted, netloc(urlsplit(exchange.home))} if exchange.home else exchange.trusted
    if f"{host}:{port}" in named or (exchange.home and not _is_public_host(urlsplit(exchange.home))):
        return
    raise exchange.fault(f"leads to {host}, which is not a public address")


def _seconds_left() -> float | None:
    exchange = _EXCHANGE.get()
    if exchange is None:
        return None
    exchange.check_time()
    return max(0.01, exchange.seconds - (time.monotonic() - exchange.began))


def _take_xet_off(response: Any) -> None:
    for name in [name for name in response.headers if name.lower().startswith("x-xet-")]:
        del response.headers[name]


def _check_names(response: Any, exchange: Exchange, commit: str) -> None:
    """What a hub calls a file and its revision becomes a path in the cache: it has to be hexadecimal, and as asked."""
    headers = response.headers
    told = [headers[name] for name in ("X-Linked-Etag", "ETag") if name in headers]
    # The client takes a redirect to another server for an answer, and goes on itself where it leads on this one.
    leads_on = response.is_redirect and urlsplit(headers.get("Location", "")).netloc != ""
    is_named = response.is_success or (leads_on and told)
    if response.request.method == "HEAD" and is_named:
        digest = (next(filter(None, told), "")).strip().removeprefix("W/").strip('"')
        if not _DIGEST.fullmatch(digest):
            raise exchange.fault(f"calls a file by {digest!r:.60}, which is not a digest")
    named = headers.get("X-Repo-Commit")
    if named is not None and named != commit:
        raise exchange.fault(f"answers for revision {named!r:.60} where {commit} was asked for")


class _Body(_httpx.SyncByteStream):
    """An answer's body, decompressed and counted as it comes."""

    def __init__(self, stream: Any, decoder: Callable[[], _Decoder], exchange: Exchange, limit: int) -> None:
        self._stream = stream
        self._decoder = decoder()
        self._exchange = exchange
        self._limit = limit

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._decompressed()
        except zlib.error:
            fix = "Try again; if it stays so, tell whoever runs this hub."
            raise HubError("What arrived is not compressed as it says.", where=self._exchange.where, fix=fix) from None

    def _decompressed(self) -> Iterator[bytes]:
        received = decoded = 0
        for piece in self._stream:
            received += len(piece)
            self._exchange.check_time(received)
            for part in self._decoder(piece):
                decoded += len(part)
                if decoded > self._limit:
                    raise self._exchange.fault(f"sends more than {self._limit} bytes")
                yield part

    def close(self) -> None:
        self._stream.close()


_Decoder = Callable[[bytes], Iterator[bytes]]
_STEP = 1 << 16


def _as_it_is() -> _Decoder:
    return lambda piece: iter((piece,))


def _inflated() -> _Decoder:
    machine = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    def decode(piece: bytes) -> Iterator[bytes]:
        rest, full = piece, True
        while (rest or full) and not machine.eof:
            part = machine.decompress(rest, _STEP)
            rest, full = machine.unconsumed_tail, len(part) == _STEP
            if part:
                yield part

    return decode


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "identity": _as_it_is,
    "": _as_it_is,
    "gzip": _inflated,
    "deflate": _inflated,
}


def _is_proxied(scheme: str, host: str) -> bool:
    proxies = getproxies()
    return bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(host)


def _is_public_host(parts: SplitResult) -> bool:
    """Whether an address leads into the public network, as far as can be told before connecting."""
    host = unicodedata.normalize("NFKC", parts.hostname or "").rstrip(".").lower()
    if not host or host in _LOOPBACK or host.endswith(_LOCAL_NAMES):
        return False
    if _is_proxied(parts.scheme, host) and not _is_literal(host):
        return True  # the proxy looks the name up
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return not _is_literal(host)  # the connection will say that there is no such server
    return all(_is_public(str(each)) for each in found)


def _is_literal(host: str) -> bool:
    """Whether a host is written as an address: also as one decimal, octal or hexadecimal number, which libc takes."""
    for read in (ipaddress.ip_address, socket.inet_aton):
        with suppress(ValueError, OSError):
            read(host)
            return True
    return False


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.is_site_local:
            return False
        if found in _NAT64:
            return _is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        inside = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if inside:
            return _is_public(str(inside))
    return found.is_global and not found.is_multicast and not found.is_reserved


def _install(client: Any) -> Any:
    connections.watch(client, _seconds_left, _on_connection)
    hooks = client.event_hooks
    if _on_request not in hooks.get("request", ()):
        client.event_hooks = {
            "request": [*hooks.get("request", ()), _on_request],
            "response": [*hooks.get("response", ()), _on_response],
        }
    return client


# The client throws its session away after some errors; the next one needs the hooks as well.
_make = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)
set_client_factory(lambda: _install(_make()))
